package main

// same is an edit of subset.go, where ⊑ is decided.
func same(old, replacement string) []edit { return []edit{{"subset.go", old, replacement}} }

const (
	prefixRule = "return len(c.value) >= len(p.value) && c.value[:len(p.value)] == p.value"
	boundRule  = "return k > 0 || (k == 0 && (c.exclusive || !p.exclusive))"
	eachRule   = "return c.items <= p.items && (c.items == 0 || c.of.within(p.of))"
)

// mutants are the thirteen that the design lists, and more of the same kind.
var mutants = []mutant{
	{name: "optional widens", listed: true, edits: same("if c.optional && !p.optional && p.op != opAbsent {", "if false {")},
	{name: "missing min accepted", listed: true, edits: same("if !c.set {\n\t\treturn false", "if !c.set {\n\t\treturn sign > 0")},
	{name: "exclusive min ignored", listed: true, edits: same(boundRule, "return k > 0 || (k == 0 && (c.exclusive || !p.exclusive || sign > 0))")},
	{name: "exclusive max ignored", listed: true, edits: same(boundRule, "return k > 0 || (k == 0 && (c.exclusive || !p.exclusive || sign < 0))")},
	{name: "path as string prefix", listed: true, edits: same("return under(p.value, c.value)", prefixRule)},
	{name: "prefix reversed", listed: true, edits: same(prefixRule, "return len(p.value) >= len(c.value) && p.value[:len(c.value)] == c.value")},
	{name: "each without max_items", listed: true, edits: same(eachRule, "return c.items == 0 || c.of.within(p.of)")},
	{name: "each without of", listed: true, edits: same(eachRule, "return c.items <= p.items")},
	{name: "fields reversed", listed: true, edits: same("c.keys.subsetOf(p.keys)", "p.keys.subsetOf(c.keys)")},
	{name: "cidr any for all", listed: true, edits: same(
		"if !inside(n, p.nets) {\n\t\t\t\treturn false\n\t\t\t}\n\t\t}\n\t\treturn true",
		"if inside(n, p.nets) {\n\t\t\t\treturn true\n\t\t\t}\n\t\t}\n\t\treturn false",
	)},
	{name: "absent below all", listed: true, edits: same("return p.op == opAbsent || p.optional", "return true")},
	{
		name: "path below prefix", listed: true,
		edits: same("case p.op != c.op:", "case c.op == opPath && p.op == opPrefix:\n\t\t"+prefixRule+"\n\tcase p.op != c.op:"),
		sound: "a prefix never begins with /, so the one that holds a path is \"\", which holds every string",
	},
	{name: "equality by float64", listed: true, edits: []edit{
		{"constraint.go", "\t\"strings\"\n", "\t\"strconv\"\n\t\"strings\"\n"},
		{
			"constraint.go", "return ok && slices.Contains(c.nums, n)",
			"return ok && slices.ContainsFunc(c.nums, func(m strictjson.Decimal) bool {\n" +
				"\t\t\tf, _ := strconv.ParseFloat(m.String(), 64)\n\t\t\tg, _ := strconv.ParseFloat(n.String(), 64)\n\t\t\treturn f == g\n\t\t})",
		},
	}},

	{name: "missing max accepted", edits: same("if !c.set {\n\t\treturn false", "if !c.set {\n\t\treturn sign < 0")},
	{name: "one_of any for all", edits: same(
		"if !p.match(v) {\n\t\t\treturn false\n\t\t}\n\t}\n\treturn true",
		"if p.match(v) {\n\t\t\treturn true\n\t\t}\n\t}\n\treturn false",
	)},
	{name: "a host above its sub-domains", edits: same("return !c.wild && c.value == p.value", "return c.value == p.value || subdomain(p.value, c.value)")},
	{name: "a wildcard above its apex", edits: same("(c.wild && c.value == p.value)", "c.value == p.value")},
	{name: "any below all", edits: same("case p.op == opAny:", "case p.op == opAny || c.op == opAny:")},
	{name: "a constraint dropped", edits: same(
		`return &WidenedError{Path: pb.pointer, Reason: "the parent's constraint is missing"}`, "continue",
	)},
	{name: "only the last path compared", edits: same("if cb := &c.where[i]; !cb.c.within(pb.c) {", "if cb := &c.where[i]; j == len(p.where)-1 && !cb.c.within(pb.c) {")},
	{name: "names not compared", edits: same(`{"names", c.names, p.names},`, "")},
	{name: "locations not compared", edits: same(`{"locations", c.locations, p.locations},`, "")},
	{name: "actions not compared", edits: same(`{"actions", c.actions, p.actions},`, "")},
	{name: "only the first detail compared", edits: same("for i := range child.details {", "for i := range child.details[:1] {")},
	{name: "cidr by overlap", edits: []edit{{"constraint.go", "if n.Bits() <= p.Bits() && n.Contains(p.Addr()) {", "if n.Overlaps(p) {"}}},
	{name: "segments by string prefix", edits: []edit{{"constraint.go", "return strings.HasPrefix(s, base) && (len(s) == len(base) || s[len(base)] == '/')", "return strings.HasPrefix(s, base)"}}},
	{name: "a path as it comes", edits: []edit{{"constraint.go", "return normalPath(s) && under(c.value, s)", "return under(c.value, s)"}}},
}
