package sqlscope

import (
	"strconv"
	"strings"
)

// printer writes the canonical text of a query. Names are always quoted, because
// keywords differ between versions, and what is looked up by name is looked up
// in pg_catalog, because a session can put another schema first.
type printer struct{ strings.Builder }

func (q *query) print() string {
	var p printer
	p.WriteString("SELECT ")
	if q.distinct {
		p.WriteString("DISTINCT ")
	}
	for i, t := range q.targets {
		p.comma(i)
		p.expr(t.value)
		if t.as != "" {
			p.WriteString(" AS ")
			p.name(t.as)
		}
	}
	p.WriteString(" FROM ")
	p.name(q.schema)
	p.WriteByte('.')
	p.name(q.table)
	p.clause(" WHERE ", q.where)
	if len(q.group) > 0 {
		p.WriteString(" GROUP BY ")
		p.list(q.group)
	}
	p.clause(" HAVING ", q.having)
	for i, k := range q.order {
		if i == 0 {
			p.WriteString(" ORDER BY ")
		}
		p.comma(i)
		p.sortKey(k)
	}
	p.count(" LIMIT ", q.limit)
	p.count(" OFFSET ", q.offset)
	return p.String()
}

func (p *printer) comma(i int) {
	if i > 0 {
		p.WriteString(", ")
	}
}

// name writes an identifier, which holds no quote (see decodeName).
func (p *printer) name(s string) {
	p.WriteByte('"')
	p.WriteString(s)
	p.WriteByte('"')
}

func (p *printer) clause(word string, e expr) {
	if e != nil {
		p.WriteString(word)
		p.expr(e)
	}
}

func (p *printer) count(word string, n *int32) {
	if n != nil {
		p.WriteString(word)
		p.WriteString(strconv.Itoa(int(*n)))
	}
}

func (p *printer) list(es []expr) {
	for i, e := range es {
		p.comma(i)
		p.expr(e)
	}
}

func (p *printer) sortKey(k sortKey) {
	p.expr(k.by)
	if k.desc {
		p.WriteString(" DESC")
	}
	switch k.nulls {
	case nullsFirst:
		p.WriteString(" NULLS FIRST")
	case nullsLast:
		p.WriteString(" NULLS LAST")
	case nullsDefault:
	}
}

func (p *printer) expr(e expr) {
	switch e := e.(type) {
	case column:
		p.name(e.name)
	case literal:
		p.literal(e)
	case call:
		p.call(e)
	case cast:
		p.WriteString("CAST(")
		p.expr(e.arg)
		p.WriteString(" AS pg_catalog." + e.to + ")")
	case operation:
		p.operand(e.l)
		p.WriteString(" OPERATOR(pg_catalog." + e.op + ") ")
		p.operand(e.r)
	case logic:
		for i, a := range e.args {
			if i > 0 && e.or {
				p.WriteString(" OR ")
			} else if i > 0 {
				p.WriteString(" AND ")
			}
			if _, nested := a.(logic); nested {
				p.parens(a)
			} else {
				p.expr(a)
			}
		}
	case negation:
		p.WriteString("NOT ")
		p.operand(e.arg)
	case nullTest:
		p.operand(e.arg)
		if e.not {
			p.WriteString(" IS NOT NULL")
		} else {
			p.WriteString(" IS NULL")
		}
	}
}

// operand writes e so that no precedence matters.
func (p *printer) operand(e expr) {
	switch e := e.(type) {
	case operation, logic, negation, nullTest:
		p.parens(e)
	default:
		p.expr(e)
	}
}

func (p *printer) parens(e expr) {
	p.WriteByte('(')
	p.expr(e)
	p.WriteByte(')')
}

func (p *printer) call(c call) {
	if c.name == "coalesce" {
		p.WriteString("COALESCE(") // grammar, not a function of pg_catalog
	} else {
		p.WriteString("pg_catalog." + c.name + "(")
	}
	if c.distinct {
		p.WriteString("DISTINCT ")
	}
	p.list(c.args)
	p.WriteByte(')')
}

func (p *printer) literal(l literal) {
	switch l.kind {
	case literalNull:
		p.WriteString("NULL")
	case literalTrue:
		p.WriteString("TRUE")
	case literalFalse:
		p.WriteString("FALSE")
	case literalNumber:
		if l.text[0] == '-' { // -- would be a comment
			p.WriteString("(" + l.text + ")")
		} else {
			p.WriteString(l.text)
		}
	case literalString: // holds no backslash: the same with any standard_conforming_strings
		p.WriteByte('\'')
		p.WriteString(strings.ReplaceAll(l.text, "'", "''"))
		p.WriteByte('\'')
	}
}
