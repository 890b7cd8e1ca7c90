package sqlscope

import (
	"encoding/binary"
	"os"
	"testing"
)

// sample uses every node and field that passes. Its names and constants are no
// protobuf messages.
const sample = `SELECT DISTINCT z.id, count(DISTINCT id) AS n, coalesce(status, 'no'), CAST(amount AS int8) FROM sales.customers AS z
 WHERE region = 'EU' AND (id IN (1, 2.5) OR id NOT BETWEEN 3 AND 4) AND name LIKE 'ada%' AND NOT (status IS NULL) AND active = true
 GROUP BY id HAVING count(id) > 1 ORDER BY id DESC NULLS LAST LIMIT 5 OFFSET 6`

func sampleTree(t testing.TB) []byte {
	t.Helper()
	r := reader(t)
	b, err := r.engine.read(t.Context(), r.now, r.log, sample)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mutants calls f with b changed once at every message of every depth: with an
// unknown field added, with the first field doubled.
func mutants(b []byte, f func(name string, b []byte)) {
	if len(b) == 0 {
		return
	}
	f("unknown number", append(binary.AppendUvarint(append([]byte{}, b...), 499<<3|wireVarint), 1))
	f("unknown message", append(binary.AppendUvarint(append([]byte{}, b...), 499<<3|wireBytes), 0))
	f("other wire type", append(binary.AppendUvarint(append([]byte{}, b...), 1<<3|5), 0, 0, 0, 0))
	for rest := b; len(rest) > 0; {
		start := len(b) - len(rest)
		m := open("", rest)
		if !m.next() {
			return // a string
		}
		rest = m.rest
		if m.wire != wireBytes {
			continue
		}
		num, body := m.num, m.bytes
		mutants(body, func(name string, inner []byte) {
			out := append([]byte{}, b[:start]...)
			out = binary.AppendUvarint(out, num<<3|wireBytes)
			out = binary.AppendUvarint(out, uint64(len(inner)))
			out = append(out, inner...)
			f(name, append(out, rest...))
		})
	}
}

// TestP11UnknownField: a field that is not listed refuses, at any depth.
func TestP11UnknownField(t *testing.T) {
	tree := sampleTree(t)
	if _, err := decode(tree); err != nil {
		t.Fatal(err)
	}
	seen, refused := 0, 0
	mutants(tree, func(name string, b []byte) {
		seen++
		if _, err := decode(b); codeOf(err) == "" {
			// A string that is a message by chance takes the field as letters.
			q, _ := decode(b)
			t.Errorf("%s: read %+v", name, q)
			return
		}
		refused++
	})
	t.Logf("%d trees, %d refused", seen, refused)
	if seen < 300 {
		t.Errorf("only %d trees", seen)
	}
}

// TestP11UnknownNode: a node of any other kind refuses, wherever one may stand.
func TestP11UnknownNode(t *testing.T) {
	tree := sampleTree(t)
	kinds := map[uint64]bool{
		nodeRangeVar: true, nodeBoolExpr: true, nodeCoalesce: true, nodeNullTest: true, nodeColumnRef: true, nodeAExpr: true, nodeTypeCast: true,
		nodeFuncCall: true, nodeResTarget: true, nodeSortBy: true, nodeSelectStmt: true, nodeString: true, nodeList: true, nodeAConst: true,
	}
	tried := 0
	for kind := range uint64(300) {
		if kind == 0 || kinds[kind] {
			continue
		}
		node := binary.AppendUvarint(nil, kind<<3|wireBytes)
		node = append(node, 0)
		for name, read := range map[string]func(*decoder){
			"statement":  func(d *decoder) { d.rawStmt(append([]byte{1<<3 | wireBytes, byte(len(node))}, node...)) },
			"target":     func(d *decoder) { d.resTarget(node) },
			"table":      func(d *decoder) { d.rangeVar(node, new(query)) },
			"expression": func(d *decoder) { d.expr(node) },
			"limit":      func(d *decoder) { d.rowCount(node) },
			"order":      func(d *decoder) { d.sortBy(node) },
			"name":       func(d *decoder) { d.strings([][]byte{node}) },
			"list":       func(d *decoder) { d.listItems(node) },
		} {
			var d decoder
			read(&d)
			if codeOf(d.err) == "" {
				t.Errorf("node %d as %s: %v", kind, name, d.err)
			}
			tried++
		}
	}
	if _, err := decode(tree); err != nil || tried < 2000 {
		t.Errorf("twin: %v; %d tried", err, tried)
	}
}

// FuzzP11Tree: no tree makes the decoder panic, and what it reads prints to a
// text with facts, or is refused with a code.
func FuzzP11Tree(f *testing.F) {
	b, err := os.ReadFile("testdata/sample.pb")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	n := 0
	mutants(b, func(_ string, m []byte) {
		if n++; n%50 == 0 {
			f.Add(m)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decode(b)
		if err != nil {
			if codeOf(err) == "" {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		facts, err := q.facts()
		if err != nil && codeOf(err) == "" {
			t.Fatalf("no code: %v", err)
		}
		if text := q.print(); text == "" || err == nil && facts.IsZero() {
			t.Fatalf("read %+v as %q with facts %v", q, text, facts)
		}
	})
}

// TestSampleIsCurrent: the fuzzer's seed is what the parser gives.
func TestSampleIsCurrent(t *testing.T) {
	want := sampleTree(t)
	if os.Getenv("LINEAL_UPDATE") != "" {
		if err := os.WriteFile("testdata/sample.pb", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile("testdata/sample.pb"); err != nil || string(b) != string(want) {
		t.Errorf("testdata/sample.pb: %v; run with LINEAL_UPDATE=1", err)
	}
}
