package cedar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// The findings that Load does not know, because they are about the author's
// work and not about the bundle.
const (
	CodeSource   Code = "source_malformed"
	CodeCase     Code = "case_malformed"
	CodeFailed   Code = "case_failed"
	CodeUntested Code = "policy_untested"
	CodeOpaque   Code = "argument_opaque"
	CodeSQL      Code = "sql_unread"
)

// Finding is one thing that is wrong with a policy set, or worth saying.
type Finding struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // 0 if it is not known
	Code    Code   `json:"code"`
	Policy  string `json:"policy,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Warning bool   `json:"warning,omitempty"`
}

// String is "file:line: code: message".
func (f Finding) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	fmt.Fprintf(&b, "%s: ", f.Code)
	if f.Policy != "" {
		fmt.Fprintf(&b, "policy %s: ", f.Policy)
	}
	b.WriteString(f.Message)
	return b.String()
}

// Check is what was found out about a policy set.
type Check struct {
	// Findings are sorted by file and line, errors before warnings of one line.
	Findings []Finding
	// Engine decides by the set; nil if it would not load.
	Engine *Engine
	// Outcomes are those of the set's own cases, in the order of the files.
	Outcomes []Outcome
}

// OK reports whether nothing is wrong; warnings do not count.
func (c Check) OK() bool {
	return !slices.ContainsFunc(c.Findings, func(f Finding) bool { return !f.Warning })
}

// Failed are the outcomes of cases that do not hold.
func (c Check) Failed() []Outcome {
	return slices.DeleteFunc(slices.Clone(c.Outcomes), Outcome.OK)
}

// Check looks at everything that Load would, and goes on after the first
// mistake; then it runs the cases, and asks that each policy determine the
// outcome of one: the type checker accepts conditions that no call ever meets
// (threat A2, behaviour B1).
func (s *Source) Check(ctx context.Context) Check {
	c := Check{Findings: slices.Clone(s.findings)}
	rules := s.lint(&c)
	if c.OK() {
		engine, err := compile(s.files, s.Zone)
		if err != nil {
			c.add(s.finding(err, rules))
		} else {
			c.Engine = engine
			for _, w := range engine.warnings {
				c.add(Finding{Code: CodeCrowded, Message: w, Hint: "name a resource in their scope", Warning: true})
			}
		}
	}
	s.runCases(ctx, &c, rules)
	slices.SortStableFunc(c.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), compareBool(a.Warning, b.Warning))
	})
	return c
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (c *Check) add(f ...Finding) { c.Findings = append(c.Findings, f...) }

// lint checks schema, entities and each policy by itself, and returns the
// policies that could be read.
func (s *Source) lint(c *Check) (rules []*rule) {
	rules = s.lintRules(c)
	if s.files[pathSchema] == nil || s.files[pathEntities] == nil {
		return rules // the source says so
	}
	schema, err := compileSchema(s.files[pathSchema])
	if err != nil {
		c.add(Finding{File: s.schemaFile(), Code: CodeSchema, Message: err.Error(), Hint: "lineal policy new writes the schema from the tools"})
		return rules
	}
	entities, err := parseEntities(s.files[pathEntities], validate.New(schema))
	if err != nil {
		c.add(s.entityFinding(err))
		return rules
	}
	check := newChecker(schema, entities)
	for _, r := range rules {
		if err := checkOne(check, r); err != nil {
			f := s.finding(err, rules)
			f.Hint = cmp.Or(hintFor(f, check), f.Hint)
			c.add(f)
		} else {
			c.add(s.lintSQL(check, r)...)
		}
	}
	c.add(s.opaque()...)
	return rules
}

// checkOne is checker.check, which must not end the program whatever the
// validator does.
func checkOne(c *checker, r *rule) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = refuse(CodeMalformed, r.id, fmt.Errorf("checking failed: %v", p))
		}
	}()
	return c.check(r)
}

// lintRules parses each policy file by itself.
func (s *Source) lintRules(c *Check) (rules []*rule) {
	seen := map[types.PolicyID]*rule{}
	files := 0
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		if !strings.HasPrefix(path, dirPolicies) {
			continue
		}
		files++
		list, err := cedar.NewPolicyListFromBytes(path, s.files[path])
		if err != nil {
			c.add(Finding{File: path, Line: parseLine(err), Code: CodeParse, Message: parseMessage(err)})
			continue
		}
		inFile, err := parseFile(path, s.files[path])
		if err != nil {
			c.add(lintIDs(path, list)...)
			continue
		}
		for _, r := range inFile {
			if other, dup := seen[r.id]; dup {
				c.add(Finding{
					File: path, Line: r.line(), Code: CodeID, Policy: string(r.id), Hint: "give each policy an @id of its own",
					Message: fmt.Sprintf("the id is taken by %s:%d", other.file, other.line()),
				})
				continue
			}
			seen[r.id] = r
			rules = append(rules, r)
		}
	}
	if files == 0 || (len(rules) == 0 && c.OK()) { // threat A1
		c.add(Finding{File: strings.TrimSuffix(dirPolicies, "/"), Code: CodeEmpty, Message: "no policy: nothing would ever be permitted", Hint: "lineal policy new writes a first set"})
	}
	return rules
}

func lintIDs(path string, list cedar.PolicyList) (out []Finding) {
	for _, p := range list {
		if id := string(p.Annotations()["id"]); !validID.MatchString(id) {
			message, hint := "the policy has no @id", `write @id("what-it-is-for") before it`
			if id != "" {
				message, hint = fmt.Sprintf("the id %.40q is not of letters, digits and ._/-", id), "records and metrics hold the id"
			}
			out = append(out, Finding{File: path, Line: p.Position().Line, Code: CodeID, Message: message, Hint: hint})
		}
	}
	return out
}

// line is where the policy begins in its file.
func (r *rule) line() int { return r.policy.Position().Line }

// parseLine reads the line out of "…parse error at <input>:4:22 …".
func parseLine(err error) int {
	_, rest, ok := strings.Cut(err.Error(), "<input>:")
	line := 0
	if ok {
		if _, scanErr := fmt.Sscanf(rest, "%d:", &line); scanErr != nil {
			return 0
		}
	}
	return line
}

func parseMessage(err error) string {
	_, rest, ok := strings.Cut(err.Error(), "<input>:")
	if !ok {
		return err.Error()
	}
	if _, column, ok := strings.Cut(rest, ":"); ok {
		return "column " + column
	}
	return rest
}

// finding is a refusal of Load with its place.
func (s *Source) finding(err error, rules []*rule) Finding {
	f := Finding{Code: CodeMalformed, Message: err.Error()}
	var refused *LoadError
	if errors.As(err, &refused) {
		f.Code, f.Policy, f.Message = refused.Code, refused.Policy, firstOf(refused.Err)
	}
	for _, r := range rules {
		if f.Policy != "" && string(r.id) == f.Policy {
			f.File, f.Line = r.file, r.line()
		}
	}
	switch f.Code {
	case CodeNever:
		f.Hint = "a condition contradicts the scope or another condition; such a forbid never forbids"
	case CodeUnconstrained:
		f.Hint = "name an action, a principal, a resource or a condition"
	case CodeUnverified:
		f.Hint = "what is not verified may forbid, never permit: write a forbid"
	case CodeCrowded:
		f.Hint = "name a resource in the scope of policies for single tools"
	default:
	}
	return f
}

// firstOf is one line of an error that may have one for each action.
func firstOf(err error) string {
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	lines = slices.Compact(lines)
	consequence := func(line string) bool { // of a wide scope, or of another mistake
		return strings.Contains(line, " not found") || strings.HasPrefix(line, "unable to find")
	}
	slices.SortStableFunc(lines, func(a, b string) int { return compareBool(consequence(a), consequence(b)) })
	if len(lines) > 1 {
		return fmt.Sprintf("%s (and %d more)", lines[0], len(lines)-1)
	}
	return lines[0]
}

func (s *Source) entityFinding(err error) Finding {
	text := string(s.files[pathEntities])
	f := Finding{File: pathEntities, Code: CodeEntities, Message: err.Error(), Line: errorLine(text, err)}
	// Cedar's own errors begin with the entity's name.
	if _, id, ok := strings.Cut(f.Message, `::"`); ok && f.Line == 0 {
		if id, _, ok = strings.Cut(id, `"`); ok {
			if at := strings.Index(text, `"`+id+`"`); at >= 0 {
				f.Line = strings.Count(text[:at], "\n") + 1
			}
		}
	}
	return f
}

// hintFor suggests the known name that is nearest to one that is not.
func hintFor(f Finding, c *checker) string {
	_, rest, ok := strings.Cut(f.Message, "`")
	name, after, closed := strings.Cut(rest, "`")
	switch {
	case f.Code == CodeType && ok && closed && strings.HasPrefix(name, `Action::"`):
		var ids []string
		for uid := range c.schema.Actions {
			ids = append(ids, string(uid.ID))
		}
		wrong := strings.TrimSuffix(strings.TrimPrefix(name, `Action::"`), `"`)
		return didYouMean(wrong, ids, "the schema has no such action; a tool has one once it is in tools.json")
	case f.Code == CodeType && ok && closed && strings.Contains(after, "not found"):
		return didYouMean(name, attributeNames(c), "narrow the scope to actions whose calls have it")
	case f.Code == CodeUnknownEntity:
		var ids []string
		for uid := range c.entities {
			ids = append(ids, uid.String())
		}
		for uid := range c.groups {
			ids = append(ids, uid.String())
		}
		wrong, _, _ := strings.Cut(f.Message, " is not declared")
		return didYouMean(wrong, ids, "declare it in entities.json")
	}
	return ""
}

// attributeNames are all names that conditions can read.
func attributeNames(c *checker) []string {
	names := map[string]bool{}
	var walk func(t resolved.IsType)
	walk = func(t resolved.IsType) {
		if rec, ok := t.(resolved.RecordType); ok {
			for name, a := range rec {
				names[string(name)] = true
				walk(a.Type)
			}
		}
	}
	for _, a := range c.schema.Actions {
		if a.AppliesTo != nil {
			walk(a.AppliesTo.Context)
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func didYouMean(wrong string, known []string, otherwise string) string {
	slices.Sort(known)
	best, nearest := "", max(2, len(wrong)/4)+1
	for _, k := range slices.Compact(known) {
		if d := editDistance(wrong, k); d < nearest {
			best, nearest = k, d
		}
	}
	if best == "" {
		return otherwise
	}
	return "did you mean " + best + "?"
}

// editDistance is Levenshtein's, by bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// runCases runs the set's cases, and names the policies that determine none.
func (s *Source) runCases(ctx context.Context, c *Check, rules []*rule) {
	var cases []Case
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		if strings.HasPrefix(path, dirTests) {
			inFile, findings := ParseCases(path, s.files[path])
			cases, c.Findings = append(cases, inFile...), append(c.Findings, findings...)
		}
	}
	if c.Engine == nil {
		return
	}
	determined := map[string]bool{}
	for _, one := range cases {
		o := c.Engine.Run(ctx, one)
		c.Outcomes = append(c.Outcomes, o)
		for _, f := range o.Failures {
			c.add(Finding{
				File: one.File, Line: one.Line, Code: CodeFailed,
				Message: fmt.Sprintf("%s: want %s, got %s", one.Name, f.Want, f.Got), Hint: "lineal policy explain --dir DIR " + one.Name,
			})
		}
		for _, id := range o.Decision.Rules {
			determined[id] = determined[id] || o.OK()
		}
	}
	for _, r := range rules {
		if !determined[string(r.id)] {
			word := wantDeny
			if r.ast().Effect == xast.EffectPermit {
				word = wantAllow
			}
			c.add(Finding{
				File: r.file, Line: r.line(), Code: CodeUntested, Policy: string(r.id),
				Message: "no test case is decided by it: nothing shows that it can ever apply",
				Hint:    fmt.Sprintf("add a case to tests/ whose .want says: %s %s", word, r.id),
			})
		}
	}
}

// lintSQL warns of permits for a tool with SQL that do not look at it.
func (s *Source) lintSQL(c *checker, r *rule) []Finding {
	p := r.ast()
	if p.Effect != xast.EffectPermit || reads(p, isSQL) {
		return nil
	}
	var of []string
	for _, uid := range actionsOf(p.Action, c.schema) {
		if _, ok := c.schema.Actions[uid].AppliesTo.Context["sql"]; ok {
			of = append(of, string(uid.ID))
		}
	}
	if len(of) == 0 {
		return nil
	}
	return []Finding{{
		File: r.file, Line: r.line(), Code: CodeSQL, Policy: string(r.id), Warning: true,
		Message: "it permits " + strings.Join(of, ", ") + " whatever the SQL says; only the delegated scope constrains it",
		Hint:    `add: context has sql && context.sql.kind == "select"`,
	}}
}

func isSQL(path []types.String) bool { return len(path) == 0 || path[0] == "sql" }
