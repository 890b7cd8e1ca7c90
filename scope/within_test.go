package scope_test

import (
	"errors"
	"testing"

	"github.com/lineal-auth/lineal/scope"
)

func TestWithin(t *testing.T) {
	const (
		find  = `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"open"}`
		sum   = `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["sum"],"args":"open"}`
		both  = `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find","sum"],"args":"open"}`
		drop  = `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["drop"],"args":"open"}`
		other = `{"type":"urn:lineal:call:v1","locations":["https://other.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"open"}`
		only7 = `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"closed","where":{"/args":{"op":"fields","keys":["id"]},"/args/id":{"op":"one_of","values":[7]}}}`
	)
	parse := func(details string) scope.Grant {
		g, err := scope.Parse([]byte(details), true)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	for name, tt := range map[string]struct {
		limit, child string
		detail       int // of the error; -2: none
	}{
		"the same":                       {"[" + find + "]", "[" + find + "]", -2},
		"second detail of the limit":     {"[" + sum + "," + find + "]", "[" + find + "]", -2},
		"each within another":            {"[" + sum + "," + find + "]", "[" + find + "," + sum + "]", -2},
		"two within one":                 {"[" + both + "]", "[" + find + "," + sum + "]", -2},
		"narrower":                       {"[" + both + "]", "[" + only7 + "]", -2},
		"only two together":              {"[" + find + "," + sum + "]", "[" + both + "]", 0},
		"second detail outside":          {"[" + both + "]", "[" + find + "," + drop + "]", 1},
		"other location":                 {"[" + both + "]", "[" + other + "]", 0},
		"the limit has a constraint":     {"[" + only7 + "]", "[" + find + "]", 0},
		"first passes, then unfit again": {"[" + find + "]", "[" + find + "," + other + "]", 1},
	} {
		t.Run(name, func(t *testing.T) {
			err := scope.Within(parse(tt.limit), parse(tt.child))
			var widened *scope.WidenedError
			switch {
			case tt.detail == -2 && err != nil:
				t.Fatal(err)
			case tt.detail != -2 && (!errors.As(err, &widened) || widened.Detail != tt.detail):
				t.Fatalf("error %v, want one of detail %d", err, tt.detail)
			}
		})
	}
	if scope.Within(scope.Grant{}, parse("["+find+"]")) == nil || scope.Within(parse("["+find+"]"), scope.Grant{}) == nil {
		t.Error("the zero value is within nothing and holds nothing")
	}
}

// `from` names a detail of the parent, not of the limit.
func TestWithinIgnoresFrom(t *testing.T) {
	limit, err := scope.Parse([]byte(`[{"type":"urn:lineal:call:v1","locations":["https://a.test"],"actions":["a2a:send"],"names":["a"]}]`), true)
	if err != nil {
		t.Fatal(err)
	}
	child, err := scope.Parse([]byte(`[{"type":"urn:lineal:call:v1","locations":["https://a.test"],"actions":["a2a:send"],"names":["a"],"from":5}]`), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := scope.Within(limit, child); err != nil {
		t.Error(err)
	}
}
