package page

import (
	"net/url"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/internal/query"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// filterNames are the fields of the form, and so the parameters of a permalink.
var filterNames = []string{
	"kind", "decision", "person", "agent", "callee", "resource", "tool", "model", "reason", "txn", "receipt", "policy", "writer", "since", "until",
	"before", "limit", "live",
}

// asked is what a list asks for, in the words of its permalink.
type asked struct {
	url.Values

	path string
}

// kinds are the values of the field kind; "all" is every kind.
var kinds = []string{
	string(record.KindDecision), string(record.KindOutcome), string(record.KindIssuance), string(record.KindRevocation), string(record.KindRegistry),
	string(record.KindPolicy), string(record.KindKey), string(record.KindHeartbeat), string(record.KindGap), string(record.KindErasure),
	string(record.KindQuery), string(record.KindPeriod), "all",
}

// filter reads the form: an empty field asks nothing, a kind that is not said is
// a decision, and a time without a zone is UTC. The newest come first.
func (x *request) filter(only ...string) (search.Filter, asked, error) {
	if only == nil {
		only = filterNames
	}
	q, err := query.ParseForm(x.URL.RawQuery, only...)
	if err != nil {
		return search.Filter{}, asked{}, refuse(console.CodeParameterInvalid, "%w", err)
	}
	a := asked{q, x.URL.Path}
	if l := q.Get("live"); l != "" && l != "1" {
		return search.Filter{}, asked{}, refuse(console.CodeParameterInvalid, "live is 1 or nothing")
	}
	if k := q.Get("kind"); k != "" && !slices.Contains(kinds, k) {
		return search.Filter{}, asked{}, refuse(console.CodeParameterInvalid, "there is no kind %.40q", k)
	}
	put := url.Values{"order": {"newest"}}
	for name := range q {
		put.Set(name, q.Get(name))
	}
	put.Del("live")
	for _, name := range []string{"since", "until"} {
		if t, err := time.Parse("2006-01-02T15:04:05", complete(q.Get(name))); err == nil {
			put.Set(name, t.Format(time.RFC3339Nano))
		}
	}
	switch q.Get("kind") {
	case "":
		put.Set("kind", string(record.KindDecision))
	case "all":
		put.Del("kind")
	}
	if !put.Has("limit") {
		put.Set("limit", "50")
	}
	f, err := console.ParseFilter(put)
	return f, a, err
}

// complete adds the seconds that a browser leaves out of a time.
func complete(t string) string {
	if len(t) == len("2006-01-02T15:04") {
		t += ":00"
	}
	return t
}

// With is the permalink with one field set to another value, from its first
// page; "" removes the field.
func (a asked) With(name, value string) string {
	q := url.Values{}
	for k := range a.Values {
		q.Set(k, a.Get(k))
	}
	q.Del("before")
	if q.Del(name); value != "" {
		q.Set(name, value)
	}
	if len(q) == 0 {
		return a.path
	}
	return a.path + "?" + q.Encode()
}

// Chip is a filter that is in force, and the link without it.
type Chip struct{ Name, Value, Without string }

// Chips are the filters in force, in the order of the form.
func (a asked) Chips() (out []Chip) {
	for _, name := range filterNames {
		if v := a.Get(name); v != "" && !slices.Contains([]string{"before", "limit", "live", "id"}, name) {
			out = append(out, Chip{name, v, a.With(name, "")})
		}
	}
	return out
}

// Kinds are the values of the field kind.
func (asked) Kinds() []string { return kinds }
