package sqlscope

// query is a statement that may pass. It can hold nothing else: what the parser
// knows beyond it is refused on decoding.
type query struct {
	distinct bool
	targets  []target
	schema   string
	table    string
	alias    string // of the table; not printed
	where    expr   // nil if there is none, like having
	group    []expr
	having   expr
	order    []sortKey
	limit    *int32
	offset   *int32
}

type target struct {
	value expr
	as    string // "" if there is none
}

type sortKey struct {
	by    expr
	desc  bool
	nulls nullsOrder
}

type nullsOrder uint8

const (
	nullsDefault nullsOrder = iota
	nullsFirst
	nullsLast
)

// expr is one of the types below.
type expr interface{ isExpr() }

type (
	// column is a column of the table. Its qualifier was checked and is not kept.
	column struct {
		name      string
		qualified bool
	}
	literal struct {
		kind literalKind
		text string // decoded; of a number, as it is printed
	}
	// call is a function, or COALESCE.
	call struct {
		name     string
		distinct bool
		args     []expr
	}
	cast struct {
		arg expr
		to  string
	}
	operation struct {
		op   string
		l, r expr
	}
	// logic is AND or OR of two or more, none of which is the same again.
	logic struct {
		or   bool
		args []expr
	}
	negation struct{ arg expr }
	nullTest struct {
		arg expr
		not bool
	}
)

func (column) isExpr()    {}
func (literal) isExpr()   {}
func (call) isExpr()      {}
func (cast) isExpr()      {}
func (operation) isExpr() {}
func (logic) isExpr()     {}
func (negation) isExpr()  {}
func (nullTest) isExpr()  {}

type literalKind uint8

const (
	literalNull literalKind = iota
	literalString
	literalNumber
	literalTrue
	literalFalse
)

// The fixed lists. Each name is that of pg_catalog.
var (
	// functions maps to whether one is an aggregate.
	functions = map[string]bool{
		"count": true, "sum": true, "min": true, "max": true, "avg": true,
		"lower": false, "upper": false, "coalesce": false, "now": false, "date_trunc": false,
	}
	// operators maps to whether one compares.
	operators = map[string]bool{
		"=": true, "<>": true, "<": true, "<=": true, ">": true, ">=": true,
		"~~": false, "+": false, "-": false, "*": false, "/": false,
	}
	typeNames = map[string]bool{
		"text": true, "varchar": true, "int4": true, "int8": true, "numeric": true,
		"date": true, "timestamptz": true, "interval": true, "bool": true,
	}
	systemColumns = map[string]bool{
		"ctid": true, "tableoid": true, "oid": true, "xmin": true, "xmax": true, "cmin": true, "cmax": true,
	}
)

// join is AND or OR of args, flat.
func join(or bool, args ...expr) expr {
	var flat []expr
	for _, a := range args {
		if l, ok := a.(logic); ok && l.or == or {
			flat = append(flat, l.args...)
		} else {
			flat = append(flat, a)
		}
	}
	if len(flat) == 1 {
		return flat[0]
	}
	return logic{or: or, args: flat}
}

// each calls f on e and everything below it.
func each(e expr, f func(expr)) {
	if e == nil {
		return
	}
	f(e)
	switch e := e.(type) {
	case call:
		eachOf(e.args, f)
	case cast:
		each(e.arg, f)
	case operation:
		each(e.l, f)
		each(e.r, f)
	case logic:
		eachOf(e.args, f)
	case negation:
		each(e.arg, f)
	case nullTest:
		each(e.arg, f)
	}
}

func eachOf(es []expr, f func(expr)) {
	for _, e := range es {
		each(e, f)
	}
}

// each calls f on every expression of q.
func (q *query) each(f func(expr)) {
	for _, t := range q.targets {
		each(t.value, f)
	}
	each(q.where, f)
	eachOf(q.group, f)
	each(q.having, f)
	for _, k := range q.order {
		each(k.by, f)
	}
}
