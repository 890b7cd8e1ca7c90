package mcp

import "testing"

// TestF6ResourceSets: a template holds what its expressions can give and
// nothing that another reader could take for a place elsewhere.
func TestF6ResourceSets(t *testing.T) {
	for _, c := range []struct {
		template, uri string
		has           bool
	}{
		{"file:///logs/{day}", "file:///logs/monday", true},
		{"file:///logs/{day}", "file:///logs/2026-11-23.txt", true},
		{"file:///logs/{day}", "file:///logs/", false},
		{"file:///logs/{day}", "file:///logs/..", false},
		{"file:///logs/{day}", "file:///logs/.", false},
		{"file:///logs/{day}", "file:///logs/a/b", false},
		{"file:///logs/{day}", "file:///logs/a%2fb", false},
		{"file:///logs/{day}", "file:///logs/a?b", false},
		{"file:///logs/{day}", "file:///logs/a#b", false},
		{"file:///logs/{day}", "file:///logs/a\\b", false},
		{"file:///logs/{day}", "file:///logs/é", false},
		{"file:///logs/{day}", "FILE:///logs/a", false},
		{"file:///logs/{day}", "xfile:///logs/a", false},
		{"test://t/{id}/data", "test://t/1/data", true},
		{"test://t/{id}/data", "test://t/1/data/more", false},
		{"test://t/{id}/data", "test://t//data", false},
		{"test://t/{id}/data", "test://t/../data", false},
		{"test://t/{id}/data", "test://t/1/2/data", false},
		{"db://{table}/{row}.json", "db://a/1.json", true},
		{"db://{table}/{row}.json", "db://a/.json", false},
		{"db://{table}/{row}.json", "db://a/../1.json", false},
		{"db://{table}/{row}.json", "db://../1.json", false},
		{"db://{table}/{row}.json", "db://a/b/1.json", false},
		{"db://{table}/{row}.json", "db://a.json", false},
	} {
		s, err := newSet(ResourceSet{Name: "set", Template: c.template})
		if err != nil {
			t.Fatalf("%s: %v", c.template, err)
		}
		if got := s.has(c.uri); got != c.has {
			t.Errorf("%s has %s: %v", c.template, c.uri, got)
		}
	}
	for _, s := range []ResourceSet{
		{"", "file:///{a}"},
		{"a/b", "file:///{a}"},
		{"file:x", "file:///{a}"},
		{"set", "file:///a"},
		{"set", "{a}"},
		{"set", "file:///{a}{b}"},
		{"set", "file:///{+path}"},
		{"set", "file:///{a,b}"},
		{"set", "file:///{}"},
		{"set", "file:///{a"},
		{"set", "file:///a}"},
		{"set", "/{a}"},
		{"set", ""},
	} {
		if _, err := newSet(s); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
}
