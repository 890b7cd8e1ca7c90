package query_test

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/query"
)

// TestParse: what is unknown, twice or empty is refused; a form leaves out what
// nobody filled in.
func TestParse(t *testing.T) {
	for raw, want := range map[string]struct{ api, form url.Values }{
		"":              {url.Values{}, url.Values{}},
		"a=1":           {url.Values{"a": {"1"}}, url.Values{"a": {"1"}}},
		"b=x+y&a=%201":  {url.Values{"a": {" 1"}, "b": {"x y"}}, url.Values{"a": {"1"}, "b": {"x y"}}},
		"a=1&b=":        {nil, url.Values{"a": {"1"}}},
		"a=1&b=+":       {url.Values{"a": {"1"}, "b": {" "}}, url.Values{"a": {"1"}}},
		"a=1&a=1":       {},
		"a=1&a=":        {},
		"c=1":           {},
		"c=":            {},
		"A=1":           {},
		"a=%zz":         {},
		"a=1;b=2":       {},
		"a=1&c=2&c=%00": {},
	} {
		api, aerr := query.Parse(raw, "a", "b")
		form, ferr := query.ParseForm(raw, "a", "b")
		if !cmp.Equal(api, want.api) || !cmp.Equal(form, want.form) || (aerr == nil) != (want.api != nil) || (ferr == nil) != (want.form != nil) {
			t.Errorf("%q: %v (%v), as a form %v (%v)", raw, api, aerr, form, ferr)
		}
	}
}

// TestNumber: the bounds belong to it, and nothing is a number that is not
// written as one.
func TestNumber(t *testing.T) {
	for raw, want := range map[string]int64{"1": 1, "9": 9, "07": 7, "+2": 2, "0": -1, "10": -1, "-1": -1, "1.0": -1, "0x1": -1, " 1": -1, "99999999999999999999": -1} {
		got, err := query.Number(url.Values{"n": {raw}}, "n", 1, 9, 5)
		if want < 0 && (err == nil || err.Error() != "n is not 1 to 9") || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q is %d (%v)", raw, got, err)
		}
	}
	if got, err := query.Number(url.Values{}, "n", 1, 9, 5); got != 5 || err != nil {
		t.Errorf("nothing is %d (%v)", got, err)
	}
}
