package sqlscope

import (
	"maps"
	"regexp"
	"slices"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// facts judges q and returns the object that stands at /sql. The error is an
// *Error.
func (q *query) facts() (strictjson.Value, error) {
	var none strictjson.Value
	if err := checkFilter(q.where, false); err != nil {
		return none, err
	}
	if err := checkFilter(q.having, true); err != nil {
		return none, err
	}
	if err := q.checkOrder(); err != nil {
		return none, err
	}
	preds, err := q.predicates()
	if err != nil {
		return none, err
	}
	columns, used := q.names()
	table := q.schema + "." + q.table
	ms := []strictjson.Member{
		{Name: "dialect", Value: strictjson.String(Dialect)},
		{Name: "kind", Value: strictjson.String("select")},
		{Name: "tables", Value: strictjson.Strings(table)},
		{Name: "columns", Value: under(table, strictjson.Strings(columns...))},
	}
	if len(preds) > 0 {
		ms = append(ms, strictjson.Member{Name: "pred", Value: under(table, strictjson.Object(preds...))})
	}
	ms = append(ms, strictjson.Member{Name: "functions", Value: strictjson.Strings(used...)})
	if q.limit != nil {
		ms = append(ms, strictjson.Member{Name: "limit", Value: strictjson.Int(int64(*q.limit))})
	}
	v := strictjson.Object(ms...)
	if v.IsZero() {
		return none, refuse(CodeLiteral, "a constant")
	}
	return v, nil
}

func under(name string, v strictjson.Value) strictjson.Value {
	return strictjson.Object(strictjson.Member{Name: name, Value: v})
}

// names returns the columns and functions that stand anywhere in q, sorted. A
// name in ORDER BY or GROUP BY that is only an output name counts as a column:
// what it is depends on the catalog.
func (q *query) names() (columns, used []string) {
	c, f := make(map[string]bool), make(map[string]bool)
	q.each(func(e expr) {
		switch e := e.(type) {
		case column:
			c[e.name] = true
		case call:
			f[e.name] = true
		}
	})
	return slices.Sorted(maps.Keys(c)), slices.Sorted(maps.Keys(f))
}

// predicates returns what every row of the result has: the columns that equal a
// constant in WHERE, at the top level of AND.
func (q *query) predicates() ([]strictjson.Member, error) {
	parts := []expr{q.where}
	if l, ok := q.where.(logic); ok && !l.or {
		parts = l.args
	}
	found := make(map[string]strictjson.Value)
	for _, e := range parts {
		name, v, ok := equality(e)
		if !ok {
			continue
		}
		if _, twice := found[name]; twice {
			return nil, refuse(CodePredicate, "column %s", name)
		}
		found[name] = v
	}
	var ms []strictjson.Member
	for _, name := range slices.Sorted(maps.Keys(found)) {
		ms = append(ms, strictjson.Member{Name: name, Value: found[name]})
	}
	return ms, nil
}

// equality reads column = constant, either way round. A cast can change a
// constant and NULL equals nothing: neither is one.
func equality(e expr) (name string, v strictjson.Value, ok bool) {
	b, is := e.(operation)
	if !is || b.op != "=" {
		return "", v, false
	}
	c, isColumn := b.l.(column)
	l, isLiteral := b.r.(literal)
	if !isColumn {
		c, isColumn = b.r.(column)
		l, isLiteral = b.l.(literal)
	}
	if !isColumn || !isLiteral {
		return "", v, false
	}
	switch l.kind {
	case literalString:
		v = strictjson.String(l.text)
	case literalNumber:
		n, err := strictjson.Parse([]byte(l.text), strictjson.Limits{})
		if err != nil {
			return "", v, false
		}
		v = n
	case literalTrue, literalFalse:
		v = strictjson.Bool(l.kind == literalTrue)
	case literalNull:
		return "", v, false
	}
	return c.name, v, true
}

// checkFilter holds WHERE to conditions that cannot fail while they run. The
// server evaluates them in an order of its own, also on rows that the predicate
// excludes: a condition that fails on some of them tells what is in them. So a
// column, or in HAVING an aggregate, stands bare on one side, and on the other a
// constant, whose value is fixed before the first row is read, or a time near
// now. HAVING is held to it because the server moves conditions from there to
// WHERE.
func checkFilter(e expr, having bool) error {
	switch e := e.(type) {
	case nil:
		return nil
	case logic:
		for _, a := range e.args {
			if err := checkFilter(a, having); err != nil {
				return err
			}
		}
		return nil
	case negation:
		return checkFilter(e.arg, having)
	case nullTest:
		if bare(e.arg, having) {
			return nil
		}
	case operation:
		if comparison(e, having) {
			return nil
		}
	case column:
		return nil
	case literal:
		if e.kind != literalString && e.kind != literalNumber {
			return nil
		}
	}
	return refuse(CodeExpression, "a condition")
}

func comparison(b operation, having bool) bool {
	if b.op == "~~" { // a pattern without backslash cannot fail, see constant
		l, ok := b.r.(literal)
		return ok && l.kind == literalString && bare(b.l, having)
	}
	if !operators[b.op] {
		return false
	}
	return (bare(b.l, having) || fixed(b.l)) && fixed(b.r) || fixed(b.l) && bare(b.r, having)
}

// bare reports whether e is a column or, in HAVING, an aggregate: that one is
// computed from rows that have passed WHERE.
func bare(e expr, having bool) bool {
	switch e := e.(type) {
	case column:
		return true
	case call:
		return having && functions[e.name]
	}
	return false
}

// fixed reports whether e is a constant, also as a type, or a time near now.
func fixed(e expr) bool {
	switch e := e.(type) {
	case literal:
		return true
	case cast:
		_, ok := e.arg.(literal)
		return ok
	}
	return near(e, 2)
}

var (
	truncUnits = map[string]bool{
		"microseconds": true, "milliseconds": true, "second": true, "minute": true, "hour": true, "day": true, "week": true,
		"month": true, "quarter": true, "year": true, "decade": true, "century": true, "millennium": true,
	}
	shortInterval = regexp.MustCompile(`^[0-9]{1,5} (second|minute|hour|day|week)s?$|^[0-9]{1,4} months?$|^[0-9]{1,3} years?$`)
)

// near reports whether e is now(), truncated or shifted by a short interval,
// steps times at most. Such an expression is computed while the statement runs,
// so it must not fail: not by a unit that does not exist, not by leaving the
// range of the type.
func near(e expr, steps int) bool {
	switch e := e.(type) {
	case call:
		if e.name == "now" {
			return len(e.args) == 0
		}
		if e.name != "date_trunc" || len(e.args) != 2 {
			return false
		}
		unit, ok := e.args[0].(literal)
		return ok && unit.kind == literalString && truncUnits[unit.text] && near(e.args[1], steps)
	case operation:
		if steps == 0 || e.op != "+" && e.op != "-" {
			return false
		}
		c, ok := e.r.(cast)
		if !ok || c.to != "interval" {
			return false
		}
		l, ok := c.arg.(literal)
		return ok && l.kind == literalString && shortInterval.MatchString(l.text) && near(e.l, steps-1)
	}
	return false
}

// checkOrder refuses a qualified column in ORDER BY that, printed without its
// qualifier, would name another output column instead.
func (q *query) checkOrder() error {
	for _, k := range q.order {
		c, ok := k.by.(column)
		if !ok || !c.qualified {
			continue
		}
		for _, t := range q.targets {
			name := t.as
			if name == "" {
				name, _ = outputName(t.value)
			}
			if self, ok := t.value.(column); name == c.name && !(ok && self.name == c.name) {
				return refuse(CodeName, "column %s in ORDER BY and an output column of that name", c.name)
			}
		}
	}
	return nil
}

// outputName is the name that PostgreSQL gives an output column without AS; strong
// is its own measure of how good a name that is.
func outputName(e expr) (name string, strong bool) {
	switch e := e.(type) {
	case column:
		return e.name, true
	case call:
		return e.name, true
	case cast:
		if name, strong = outputName(e.arg); strong {
			return name, true
		}
		return e.to, false
	}
	return "?column?", false
}
