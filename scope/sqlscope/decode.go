package sqlscope

import "slices"

// The field numbers and enum values of libpg_query's pg_query.proto, version 17
// of the grammar, as far as they pass. A number that is not here is refused.
const (
	nodeRangeVar   = 2
	nodeBoolExpr   = 19
	nodeCoalesce   = 36
	nodeNullTest   = 50
	nodeColumnRef  = 66
	nodeAExpr      = 68
	nodeTypeCast   = 69
	nodeFuncCall   = 72
	nodeAStar      = 73
	nodeResTarget  = 77
	nodeSortBy     = 79
	nodeSelectStmt = 136
	nodeString     = 263
	nodeList       = 265
	nodeAConst     = 268
)

// refusedNodes names what people try, for the error's text alone.
var refusedNodes = map[uint64]string{
	20: "a sub-select", 30: "CASE", 34: "a row", 37: "GREATEST or LEAST", 39: "an XML function", 51: "IS TRUE or IS FALSE",
	61: "a join", 67: "a bind parameter", 70: "COLLATE", 75: "a subscript or field", 76: "an array",
	81: "a sub-select in FROM", 82: "a function in FROM", 83: "XMLTABLE", 85: "TABLESAMPLE", 91: "XMLSERIALIZE",
	104: "grouping sets", 117: "a JSON function", 119: "JSON_TABLE",
}

// maxDepth bounds the recursion over a tree. 500 tokens cannot nest deeper.
const maxDepth = 512

// decode reads the parser's tree: a ParseResult in protobuf. The error is an
// *Error.
func decode(tree []byte) (*query, error) {
	var stmts [][]byte
	m := open("ParseResult", tree)
	for m.next() {
		switch m.num {
		case 1: // version
			m.skipInt()
		case 2:
			stmts = append(stmts, m.item())
		default:
			m.unlisted()
		}
	}
	if m.err != nil {
		return nil, m.err
	}
	if len(stmts) != 1 {
		return nil, refuse(CodeStatements, "a text of %d statements", len(stmts))
	}
	var d decoder
	q := d.rawStmt(stmts[0])
	if d.err != nil {
		return nil, d.err
	}
	return q, nil
}

// decoder reads the nodes of one statement. After the first error its results
// mean nothing.
type decoder struct {
	table, alias string // of the one table, for column references
	depth        int
	err          error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) refuse(c Code, format string, args ...any) {
	d.fail(refuse(c, format, args...))
}

// done keeps the error of a message that was read.
func (d *decoder) done(m *message) {
	if m.err != nil {
		d.fail(m.err)
	}
}

// node reads the oneof that stands wherever a node may: its kind and body.
func (d *decoder) node(b []byte) (kind uint64, body []byte) {
	m := open("Node", b)
	n := 0
	for m.next() {
		kind, body = m.num, m.item()
		n++
	}
	d.done(m)
	if n != 1 {
		d.refuse(CodeNode, "a node of %d kinds", n)
	}
	return kind, body
}

func (d *decoder) nodeOf(want uint64, c Code, b []byte) []byte {
	kind, body := d.node(b)
	if kind != want {
		d.refuse(c, "%s", kindName(kind))
	}
	return body
}

func kindName(kind uint64) string {
	if name, ok := refusedNodes[kind]; ok {
		return name
	}
	return "another kind of expression"
}

func (d *decoder) rawStmt(b []byte) *query {
	var stmt []byte
	m := open("RawStmt", b)
	for m.next() {
		switch m.num {
		case 1:
			stmt = m.body()
		case 2, 3: // location, length
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	kind, body := d.node(stmt)
	if kind != nodeSelectStmt {
		d.refuse(CodeKind, "the statement")
	}
	if d.err != nil {
		return nil
	}
	return d.selectStmt(body)
}

// selectParts are the fields of a SelectStmt, as they come. They are read in two
// steps because column references need the table.
type selectParts struct {
	distinct, targets, from, group, order [][]byte
	where, having, offset, count          []byte
	limitOption, setOp                    uint64
}

func (d *decoder) selectStmt(b []byte) *query {
	var p selectParts
	m := open("SelectStmt", b)
	for m.next() {
		switch m.num {
		case 1:
			p.distinct = append(p.distinct, m.item())
		case 3:
			p.targets = append(p.targets, m.item())
		case 4:
			p.from = append(p.from, m.item())
		case 5:
			p.where = m.body()
		case 6:
			p.group = append(p.group, m.item())
		case 8:
			p.having = m.body()
		case 11:
			p.order = append(p.order, m.item())
		case 12:
			p.offset = m.body()
		case 13:
			p.count = m.body()
		case 14:
			p.limitOption = m.uint()
		case 17:
			p.setOp = m.uint()
		default:
			m.fail(refuse(CodeClause, "%s", refusedClause(m.num)))
		}
	}
	d.done(m)
	const setOpNone, limitDefault, limitCount = 1, 1, 2
	switch {
	case p.setOp != setOpNone:
		d.refuse(CodeClause, "UNION, INTERSECT or EXCEPT")
	case p.limitOption != limitDefault && p.limitOption != limitCount:
		d.refuse(CodeClause, "FETCH FIRST … WITH TIES")
	case len(p.from) != 1:
		d.refuse(CodeTable, "FROM of %d items", len(p.from))
	case len(p.targets) == 0:
		d.refuse(CodeClause, "an empty SELECT list")
	}
	if d.err != nil {
		return nil
	}
	return d.query(p)
}

func refusedClause(field uint64) string {
	switch field {
	case 2:
		return "INTO"
	case 7:
		return "GROUP BY DISTINCT"
	case 9:
		return "WINDOW"
	case 10:
		return "VALUES"
	case 15:
		return "FOR UPDATE or SHARE"
	case 16:
		return "WITH"
	case 18, 19, 20:
		return "UNION, INTERSECT or EXCEPT"
	}
	return "a clause of SELECT"
}

func (d *decoder) query(p selectParts) *query {
	q := new(query)
	d.rangeVar(p.from[0], q)
	if d.err != nil {
		return nil
	}
	for _, b := range p.distinct { // DISTINCT is a list of one node that is nothing
		q.distinct = true
		if len(b) > 0 || len(p.distinct) > 1 {
			d.refuse(CodeClause, "DISTINCT ON")
		}
	}
	for _, b := range p.targets {
		q.targets = append(q.targets, d.resTarget(b))
	}
	if p.where != nil {
		q.where = d.expr(p.where)
	}
	q.group = d.exprs(p.group)
	if p.having != nil {
		q.having = d.expr(p.having)
	}
	for _, b := range p.order {
		q.order = append(q.order, d.sortBy(b))
	}
	q.limit, q.offset = d.rowCount(p.count), d.rowCount(p.offset)
	return q
}

// rowCount reads LIMIT or OFFSET: a constant, nil for none, NULL and ALL.
func (d *decoder) rowCount(b []byte) *int32 {
	if b == nil {
		return nil
	}
	kind, body := d.node(b)
	if kind != nodeAConst {
		d.refuse(CodeClause, "LIMIT or OFFSET of %s", kindName(kind))
		return nil
	}
	n, l := d.constant(body)
	switch {
	case l.kind == literalNull:
		return nil
	case n == nil || *n < 0:
		d.refuse(CodeLiteral, "LIMIT or OFFSET")
	}
	return n
}

// rangeVar reads the one table of FROM.
func (d *decoder) rangeVar(b []byte, q *query) {
	var children bool // as always but after ONLY
	var alias []byte
	m := open("RangeVar", d.nodeOf(nodeRangeVar, CodeTable, b))
	for m.next() {
		switch m.num {
		case 1:
			m.fail(refuse(CodeTable, "a name of three parts"))
		case 2:
			q.schema = m.text()
		case 3:
			q.table = m.text()
		case 4:
			children = m.uint() == 1
		case 5:
			if m.text() != "p" {
				m.fail(refuse(CodeTable, "a temporary or unlogged table"))
			}
		case 6:
			alias = m.body()
		case 7:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	switch {
	case d.err != nil:
		return
	case q.schema == "":
		d.refuse(CodeTable, "a table without schema")
	case !children:
		d.refuse(CodeTable, "ONLY")
	case q.schema == "information_schema" || len(q.schema) >= 3 && q.schema[:3] == "pg_":
		d.refuse(CodeTable, "a system schema")
	}
	d.identifier(q.schema)
	d.identifier(q.table)
	if alias != nil {
		q.alias = d.aliasName(alias)
	}
	d.table, d.alias = q.table, q.alias
}

func (d *decoder) aliasName(b []byte) string {
	var name string
	m := open("Alias", b)
	for m.next() {
		switch m.num {
		case 1:
			name = m.text()
		case 2:
			m.fail(refuse(CodeTable, "an alias with a column list"))
		default:
			m.unlisted()
		}
	}
	d.done(m)
	d.identifier(name)
	return name
}

// identifier holds every name to [a-z_][a-z0-9_]*. The parser cuts a name to 63
// bytes and the tree does not tell: one of that length is refused.
func (d *decoder) identifier(s string) {
	ok := s != "" && len(s) < 63
	for i := range len(s) {
		c := s[i]
		ok = ok && (c == '_' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9')
	}
	if !ok {
		d.refuse(CodeName, "a name")
	}
}

func (d *decoder) resTarget(b []byte) target {
	var t target
	var val []byte
	m := open("ResTarget", d.nodeOf(nodeResTarget, CodeNode, b))
	for m.next() {
		switch m.num {
		case 1:
			t.as = m.text()
		case 3:
			val = m.body()
		case 4:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	if t.as != "" {
		d.identifier(t.as)
	}
	t.value = d.expr(val)
	return t
}

func (d *decoder) sortBy(b []byte) sortKey {
	const desc, last = 3, 3
	var by []byte
	var direction, nulls uint64
	m := open("SortBy", d.nodeOf(nodeSortBy, CodeNode, b))
	for m.next() {
		switch m.num {
		case 1:
			by = m.body()
		case 2:
			direction = m.uint()
		case 3:
			nulls = m.uint()
		case 5:
			m.skipInt()
		default:
			m.fail(refuse(CodeClause, "ORDER BY … USING"))
		}
	}
	d.done(m)
	if direction < 1 || direction > desc || nulls < 1 || nulls > last {
		d.refuse(CodeClause, "ORDER BY … USING")
		return sortKey{}
	}
	return sortKey{by: d.expr(by), desc: direction == desc, nulls: nullsOrder(nulls - 1)}
}

// strings reads a list of String nodes.
func (d *decoder) strings(items [][]byte) []string {
	var ss []string
	for _, b := range items {
		kind, body := d.node(b)
		if kind == nodeAStar {
			d.refuse(CodeColumn, "*")
			continue
		}
		if kind != nodeString {
			d.refuse(CodeNode, "%s in a name", kindName(kind))
			continue
		}
		ss = append(ss, d.stringValue(body))
	}
	return ss
}

func (d *decoder) stringValue(b []byte) string {
	var s string
	m := open("String", b)
	for m.next() {
		if m.num == 1 {
			s = m.text()
		} else {
			m.unlisted()
		}
	}
	d.done(m)
	return s
}

// catalogName reads a name of a fixed list: alone, or in pg_catalog.
func catalogName(parts []string) string {
	if len(parts) == 2 && parts[0] == "pg_catalog" {
		parts = parts[1:]
	}
	if len(parts) != 1 {
		return ""
	}
	return parts[0]
}

// columnRef reads a column, whose qualifier must be the table.
func (d *decoder) columnRef(b []byte) column {
	var parts [][]byte
	m := open("ColumnRef", b)
	for m.next() {
		switch m.num {
		case 1:
			parts = append(parts, m.item())
		case 2:
			m.skipInt()
		default:
			m.unlisted()
		}
	}
	d.done(m)
	names := d.strings(parts)
	if d.err != nil {
		return column{}
	}
	return d.columnOf(names)
}

func (d *decoder) columnOf(names []string) column {
	if len(names) == 0 {
		d.refuse(CodeColumn, "a reference without name")
		return column{}
	}
	name, qualifier := names[len(names)-1], names[:len(names)-1]
	visible := d.table
	if d.alias != "" {
		visible = d.alias
	}
	d.identifier(name)
	switch {
	case len(qualifier) > 0 && !slices.Equal(qualifier, []string{visible}):
		d.refuse(CodeColumn, "a reference by another qualifier than the table's")
	case name == d.table || name == d.alias:
		d.refuse(CodeColumn, "a reference to the whole row")
	case systemColumns[name]:
		d.refuse(CodeColumn, "a system column")
	}
	return column{name: name, qualified: len(qualifier) > 0}
}
