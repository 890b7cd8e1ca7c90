package sqlscope

import "encoding/binary"

// message reads one protobuf message of the parser's tree, field by field.
//
//	m := open("Alias", b)
//	for m.next() {
//		switch m.num {
//		case 1: name = m.text()
//		default: m.unlisted()
//		}
//	}
//	return name, m.err
//
// The first error ends the loop. A field that its reader does not list, a field
// of another wire type and a second value of a singular field all refuse.
type message struct {
	name string
	rest []byte
	err  error

	num    uint64 // of the current field
	wire   uint64
	varint uint64
	bytes  []byte
	seen   []uint64
}

// The wire types that the tree uses.
const (
	wireVarint = 0
	wireBytes  = 2
)

func open(name string, b []byte) *message { return &message{name: name, rest: b} }

// next reads the next field; false at the end or after an error.
func (m *message) next() bool {
	if m.err != nil || len(m.rest) == 0 {
		return false
	}
	tag, ok := m.uvarint()
	if !ok {
		return m.broken()
	}
	m.num, m.wire = tag>>3, tag&7
	switch m.wire {
	case wireVarint:
		if m.varint, ok = m.uvarint(); !ok {
			return m.broken()
		}
	case wireBytes:
		n, ok := m.uvarint()
		if !ok || n > uint64(len(m.rest)) {
			return m.broken()
		}
		m.bytes, m.rest = m.rest[:n], m.rest[n:]
	default:
		return m.broken()
	}
	return true
}

func (m *message) uvarint() (uint64, bool) {
	v, n := binary.Uvarint(m.rest)
	if n <= 0 {
		return 0, false
	}
	m.rest = m.rest[n:]
	return v, true
}

func (m *message) broken() bool {
	m.err = refuse(CodeNode, "a broken %s", m.name)
	return false
}

// fail keeps the first error.
func (m *message) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// unlisted refuses the current field.
func (m *message) unlisted() {
	m.fail(refuse(CodeNode, "field %d of %s", m.num, m.name))
}

// once refuses a second value of the current field.
func (m *message) once() bool {
	for _, n := range m.seen {
		if n == m.num {
			m.fail(refuse(CodeNode, "a second field %d of %s", m.num, m.name))
			return false
		}
	}
	m.seen = append(m.seen, m.num)
	return m.err == nil
}

// uint reads a number, enum or bool.
func (m *message) uint() uint64 {
	if m.wire != wireVarint {
		m.unlisted()
		return 0
	}
	if !m.once() {
		return 0
	}
	return m.varint
}

// int32 reads a signed number.
func (m *message) int32() int32 {
	v := int64(m.uint()) //nolint:gosec // two's complement, as protobuf has it
	if v != int64(int32(v)) {
		m.unlisted()
	}
	return int32(v)
}

// skipInt passes over a number without meaning, such as a location.
func (m *message) skipInt() { _ = m.uint() }

// text reads a string.
func (m *message) text() string { return string(m.body()) }

// body reads a singular message.
func (m *message) body() []byte {
	if b := m.item(); m.once() {
		return b
	}
	return nil
}

// item reads one value of a repeated message.
func (m *message) item() []byte {
	if m.wire != wireBytes {
		m.unlisted()
		return nil
	}
	return m.bytes
}
