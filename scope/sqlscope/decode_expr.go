package sqlscope

import (
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

func (d *decoder) exprs(items [][]byte) []expr {
	var es []expr
	for _, b := range items {
		es = append(es, d.expr(b))
	}
	return es
}

// expr reads any expression that passes.
func (d *decoder) expr(b []byte) expr {
	if d.err != nil {
		return nil
	}
	if d.depth++; d.depth > maxDepth {
		d.refuse(CodeTooLong, "nesting")
		return nil
	}
	defer func() { d.depth-- }()
	kind, body := d.node(b)
	if d.err != nil {
		return nil
	}
	switch kind {
	case nodeColumnRef:
		return d.columnRef(body)
	case nodeAConst:
		_, l := d.constant(body)
		return l
	case nodeAExpr:
		return d.aExpr(body)
	case nodeBoolExpr:
		return d.boolExpr(body)
	case nodeNullTest:
		return d.nullTest(body)
	case nodeFuncCall:
		return d.funcCall(body)
	case nodeCoalesce:
		return d.coalesce(body)
	case nodeTypeCast:
		return d.typeCast(body)
	}
	d.refuse(CodeNode, "%s", kindName(kind))
	return nil
}

// constant reads an A_Const. The number is set if it is an int4.
func (d *decoder) constant(b []byte) (*int32, literal) {
	var n *int32
	var l literal
	values := 0
	m := open("A_Const", b)
	for m.next() {
		switch m.num {
		case 1:
			v := d.intValue(m.body())
			n, l = &v, literal{literalNumber, strconv.Itoa(int(v))}
			values++
		case 2:
			l = d.floatValue(m.body())
			values++
		case 3:
			l = d.boolValue(m.body())
			values++
		case 4:
			l = literal{literalString, d.stringValue(m.body())}
			values++
		case 10:
			if m.uint() == 1 {
				l = literal{kind: literalNull}
				values++
			}
		case 11:
			m.skipInt()
		case 5:
			m.fail(refuse(CodeLiteral, "a bit string"))
		default:
			m.unlisted()
		}
	}
	d.done(m)
	if values != 1 {
		d.refuse(CodeNode, "a constant of %d values", values)
	}
	if l.kind == literalString && (strings.ContainsRune(l.text, '\\') || !plainText(l.text)) {
		d.refuse(CodeLiteral, "a string with a backslash or control character")
	}
	return n, l
}

func (d *decoder) intValue(b []byte) int32 {
	var v int32
	m := open("Integer", b)
	for m.next() {
		if m.num == 1 {
			v = m.int32()
		} else {
			m.unlisted()
		}
	}
	d.done(m)
	return v
}

func (d *decoder) boolValue(b []byte) literal {
	l := literal{kind: literalFalse}
	m := open("Boolean", b)
	for m.next() {
		switch {
		case m.num != 1:
			m.unlisted()
		case m.uint() == 1:
			l.kind = literalTrue
		}
	}
	d.done(m)
	return l
}

// floatValue reads a number beyond int4 or with a fraction or exponent, in the
// grammar of JSON, so that /sql/pred holds what is printed. Hexadecimal and
// grouped digits are not: servers before 16 read them differently.
func (d *decoder) floatValue(b []byte) literal {
	var s string
	m := open("Float", b)
	for m.next() {
		if m.num == 1 {
			s = m.text()
		} else {
			m.unlisted()
		}
	}
	d.done(m)
	digits, sign := strings.CutPrefix(s, "-")
	digits = strings.TrimLeft(digits, "0")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		digits = "0" + digits
	}
	if sign {
		digits = "-" + digits
	}
	if _, err := strictjson.ParseDecimal(digits); err != nil {
		d.refuse(CodeLiteral, "a number")
	}
	return literal{literalNumber, digits}
}

func (d *decoder) boolExpr(b []byte) expr {
	const and, or, not = 1, 2, 3
	var op uint64
	var args [][]byte
	m := open("BoolExpr", b)
	for m.next() {
		switch m.num {
		case 2:
			op = m.uint()
		case 3:
			args = append(args, m.item())
		case 4:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	es := d.exprs(args)
	switch {
	case d.err != nil:
	case (op == and || op == or) && len(es) > 1:
		return join(op == or, es...)
	case op == not && len(es) == 1:
		return negation{es[0]}
	default:
		d.refuse(CodeNode, "a broken BoolExpr")
	}
	return nil
}

func (d *decoder) nullTest(b []byte) expr {
	const isNull, isNotNull = 1, 2
	var test uint64
	var arg []byte
	m := open("NullTest", b)
	for m.next() {
		switch m.num {
		case 2:
			arg = m.body()
		case 3:
			test = m.uint()
		case 5:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	if test != isNull && test != isNotNull {
		d.refuse(CodeNode, "a broken NullTest")
	}
	return nullTest{d.expr(arg), test == isNotNull}
}

func (d *decoder) funcCall(b []byte) expr {
	const explicitCall = 1
	var name, args [][]byte
	var format uint64
	var c call
	m := open("FuncCall", b)
	for m.next() {
		switch m.num {
		case 1:
			name = append(name, m.item())
		case 2:
			args = append(args, m.item())
		case 7:
			m.fail(refuse(CodeColumn, "* as an argument")) // count(1) counts rows too
		case 8:
			c.distinct = m.uint() == 1
		case 10:
			format = m.uint()
		case 11:
			m.skipInt()
		default:
			m.fail(refuse(CodeClause, "OVER, FILTER, WITHIN GROUP, VARIADIC or ORDER BY in a call"))
		}
	}
	d.done(m)
	c.name = catalogName(d.strings(name))
	aggregate, known := functions[c.name]
	switch {
	case d.err != nil:
		return nil
	case !known || c.name == "coalesce": // "coalesce"(x) is a function of someone's
		d.refuse(CodeFunction, "a function")
		return nil
	case format != explicitCall, c.distinct && !aggregate:
		d.refuse(CodeFunction, "a call in this form")
		return nil
	}
	c.args = d.exprs(args)
	return c
}

func (d *decoder) coalesce(b []byte) expr {
	c := call{name: "coalesce"}
	var args [][]byte
	m := open("CoalesceExpr", b)
	for m.next() {
		switch m.num {
		case 4:
			args = append(args, m.item())
		case 5:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	if len(args) == 0 {
		d.refuse(CodeNode, "a broken CoalesceExpr")
	}
	c.args = d.exprs(args)
	return c
}

func (d *decoder) typeCast(b []byte) expr {
	var arg, to []byte
	m := open("TypeCast", b)
	for m.next() {
		switch m.num {
		case 1:
			arg = m.body()
		case 2:
			to = m.body()
		case 3:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	c := cast{to: d.typeName(to)}
	c.arg = d.expr(arg)
	return c
}

func (d *decoder) typeName(b []byte) string {
	var names [][]byte
	m := open("TypeName", b)
	for m.next() {
		switch m.num {
		case 1:
			names = append(names, m.item())
		case 6:
			if m.int32() != -1 {
				m.unlisted()
			}
		case 8:
			m.skipInt()
		default: // also a modifier, an array, SETOF, %TYPE
			m.fail(refuse(CodeType, "a type with a modifier"))
		}
	}
	d.done(m)
	name := catalogName(d.strings(names))
	if !typeNames[name] {
		d.refuse(CodeType, "a type")
	}
	return name
}

// aExpr reads an operator, IN or BETWEEN.
func (d *decoder) aExpr(b []byte) expr {
	const op, in, like, between, notBetween = 1, 7, 8, 11, 12
	var kind uint64
	var name [][]byte
	var l, r []byte
	m := open("A_Expr", b)
	for m.next() {
		switch m.num {
		case 1:
			kind = m.uint()
		case 2:
			name = append(name, m.item())
		case 3:
			l = m.body()
		case 4:
			r = m.body()
		case 5:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	operator := catalogName(d.strings(name))
	switch {
	case d.err != nil:
		return nil
	case l == nil || r == nil:
		d.refuse(CodeOperator, "a prefix operator")
		return nil
	}
	switch kind {
	case op, like:
		if _, ok := operators[operator]; !ok || kind == like && operator != "~~" {
			d.refuse(CodeOperator, "an operator")
			return nil
		}
		return operation{operator, d.expr(l), d.expr(r)}
	case in:
		return d.in(operator, l, r)
	case between:
		if operator == "BETWEEN" {
			return d.between(l, r, false)
		}
	case notBetween:
		if operator == "NOT BETWEEN" {
			return d.between(l, r, true)
		}
	}
	d.refuse(CodeOperator, "ANY, ALL, IS DISTINCT FROM, NULLIF, ILIKE, SIMILAR TO or BETWEEN SYMMETRIC")
	return nil
}

// in reads IN and NOT IN as the comparisons they stand for, because the server
// looks for their operator in search_path. The left side is a column: anything
// else would be multiplied by the list, and lists within lists without bound.
func (d *decoder) in(operator string, l, r []byte) expr {
	if operator != "=" && operator != "<>" {
		d.refuse(CodeOperator, "IN")
	}
	col, items := d.leftColumn(l), d.listItems(r)
	if d.err != nil {
		return nil
	}
	var parts []expr
	for _, e := range items {
		parts = append(parts, operation{operator, col, e})
	}
	return join(operator == "=", parts...)
}

// between reads [NOT] BETWEEN as the two comparisons it stands for.
func (d *decoder) between(l, r []byte, not bool) expr {
	col, bounds := d.leftColumn(l), d.listItems(r)
	if len(bounds) != 2 {
		d.refuse(CodeNode, "a broken BETWEEN")
	}
	switch {
	case d.err != nil:
		return nil
	case not:
		return join(true, operation{"<", col, bounds[0]}, operation{">", col, bounds[1]})
	}
	return join(false, operation{">=", col, bounds[0]}, operation{"<=", col, bounds[1]})
}

func (d *decoder) leftColumn(b []byte) expr {
	e := d.expr(b)
	if _, ok := e.(column); !ok {
		d.refuse(CodeExpression, "the left side of IN or BETWEEN")
	}
	return e
}

// listItems reads the right side of IN or BETWEEN.
func (d *decoder) listItems(b []byte) []expr {
	var items [][]byte
	m := open("List", d.nodeOf(nodeList, CodeNode, b))
	for m.next() {
		if m.num == 1 {
			items = append(items, m.item())
		} else {
			m.unlisted()
		}
	}
	d.done(m)
	if len(items) == 0 {
		d.refuse(CodeNode, "an empty list")
	}
	return d.exprs(items)
}
