package scope

import (
	"fmt"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// TestDocumentBroken: each misuse of Set leaves a document that nobody permits.
func TestDocumentBroken(t *testing.T) {
	one := strictjson.Int(1)
	g := mustParse(t, toolDetail(``), true)
	tests := []struct {
		name  string
		bad   []string
		value strictjson.Value
		good  []string
	}{
		{"empty pointer", []string{""}, one, []string{"/args"}},
		{"no slash", []string{"args"}, one, []string{"/args"}},
		{"unknown root", []string{"/arguments"}, one, []string{"/args"}},
		{"bad escape", []string{"/args/~"}, one, []string{"/args/~0"}},
		{"root twice", []string{"/args", "/args"}, one, []string{"/args"}},
		{"fact twice", []string{"/args/a", "/args/a"}, one, []string{"/args/a", "/args/b"}},
		{"root over facts", []string{"/args/a", "/args"}, one, []string{"/args/a"}},
		{"fact over facts", []string{"/args/a/b", "/args/a"}, one, []string{"/args/a/b"}},
		{"below a number", []string{"/args", "/args/a"}, one, []string{"/args"}},
		{"below a nested number", []string{"/args/a", "/args/a/b"}, one, []string{"/args/a"}},
		{"no value", []string{"/args"}, strictjson.Value{}, nil},
		{"text that is no text", []string{"/args/a"}, strictjson.String("\xff"), nil},
		{"NUL", []string{"/args/a"}, strictjson.Strings("a", "\x00"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Call{Location: "https://t.example", Action: MCPToolsCall, Name: "t"}
			for _, p := range tt.bad {
				c.Doc.Set(p, tt.value)
			}
			v := g.Permits(c)
			if c.Doc.Err() == nil || v.Permitted() || len(v.Failures) != 1 || v.Failures[0].Op != "document" {
				t.Errorf("error %v, verdict %+v", c.Doc.Err(), v)
			}
			if _, p := c.Doc.Lookup("/args"); p != Unreachable {
				t.Errorf("a broken document answers: %v", p)
			}
			c.Doc = NewDocument()
			for _, p := range tt.good {
				c.Doc.Set(p, one)
			}
			if v := g.Permits(c); c.Doc.Err() != nil || !v.Permitted() {
				t.Errorf("twin: error %v, verdict %+v", c.Doc.Err(), v)
			}
		})
	}
}

func TestDocumentLookup(t *testing.T) {
	var d Document
	d.Set("/args", strictjson.Object(strictjson.Member{Name: "a", Value: strictjson.Int(1)}))
	d.Set("/args/b", strictjson.Strings("x"))
	d.Set("/mcp/version", strictjson.String("2025-06-18"))
	for range 3 { // many members: an index takes over
		for i := range 50 {
			p := fmt.Sprintf("/http/query/k%d", i)
			if _, got := d.Lookup(p); got == Absent {
				d.Set(p, strictjson.Int(int64(i)))
			}
		}
	}
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	for pointer, want := range map[string]string{
		"/args": `{"a":1,"b":["x"]}`, "/args/a": `1`, "/args/b": `["x"]`, "/mcp": `{"version":"2025-06-18"}`, "/http/query/k49": `49`,
		"/args/c": "absent", "/llm": "absent", "/llm/tools": "absent", "/http/query/k50": "absent",
		"/args/a/x": "unreachable", "/args/b/0": "unreachable", "/mcp/version/x": "unreachable", "mcp": "unreachable", "": "unreachable",
	} {
		v, p := d.Lookup(pointer)
		got := p.String()
		if p == Present {
			got = string(v.AppendJSON(nil))
		}
		if got != want {
			t.Errorf("Lookup(%q) = %s, want %s", pointer, got, want)
		}
	}
	whole := d.Value()
	if a, ok := whole.Get("args"); !ok || a.Len() != 2 || whole.Len() != 3 {
		t.Errorf("whole document %s", whole.AppendJSON(nil))
	}
}

// TestDocumentObjects: an object that Set built is the object it would be.
func TestDocumentObjects(t *testing.T) {
	for c, want := range map[string]bool{
		`{"op":"fields","keys":["page","size"]}`:                          true,
		`{"op":"fields","keys":["page"]}`:                                 false,
		`{"op":"any"}`:                                                    true,
		`{"op":"absent"}`:                                                 false,
		`{"op":"one_of","values":[null]}`:                                 false,
		`{"op":"each","max_items":9,"of":{"op":"any"}}`:                   false,
		`{"op":"range","min":0}`:                                          false,
		`{"op":"prefix","value":"","optional":true}`:                      false,
		`{"op":"cidr","prefixes":["0.0.0.0/0"],"optional":true}`:          false,
		`{"op":"fields","keys":["page","size","other"],"optional":false}`: true,
	} {
		built, whole := NewDocument(), NewDocument()
		built.Set("/args/q/page", strictjson.Int(1))
		built.Set("/args/q/size", strictjson.Int(2))
		v, _ := built.Lookup("/args")
		whole.Set("/args", v)
		g := mustParse(t, toolDetail(`"/args/q":`+c), true)
		for name, doc := range map[string]Document{"built": built, "whole": whole} {
			if got := g.Permits(Call{Location: "https://t.example", Action: MCPToolsCall, Name: "t", Doc: doc}).Permitted(); got != want {
				t.Errorf("%s, %s document: permitted %v, want %v", c, name, got, want)
			}
		}
	}
}
