package llm

import (
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// body is a request as it is read: the document, and the facts found in it.
type body struct {
	a    api
	v    strictjson.Value
	size int

	api      string
	model    string
	others   []another // models besides
	facts    []strictjson.Member
	bound    strictjson.Value // on the tokens of the answer; zero if there is none
	offered  []string         // tools that the caller runs
	hosted   []string         // tools that the provider runs
	fetches  []string         // hosts that the provider would fetch from
	media    []string         // kinds of content beside text
	previous string
	handles  []gateway.Handle // what the request goes on from
}

// another is a model that may answer in place of the one asked for, or beside it.
type another struct {
	model string
	bound strictjson.Value // its own bound on tokens; zero: that of the request
}

func (a api) parse(data []byte) (*body, error) {
	v, err := strictjson.Parse(data, strictjson.Limits{MaxBytes: maxBody})
	if err != nil {
		return nil, unreadable(err)
	}
	if v.Kind() != strictjson.KindObject {
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "not an object")
	}
	return &body{a: a, v: v, size: len(data)}, nil
}

// known refuses members by name that are neither of names nor allowed.
func (b *body) known(api string, names []string) error {
	b.api = api
	if err := strictjson.Known(b.v, append(slices.Clone(names), b.a.cfg.AllowMembers...)...); err != nil {
		return unreadable(err)
	}
	m, _ := b.v.Get("model")
	if b.model, _ = m.Text(); b.model == "" {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "no model")
	}
	b.toolChoice()
	return nil
}

func (b *body) allowed(name string) bool { return slices.Contains(b.a.cfg.AllowMembers, name) }

// flags are members that are true or false, and facts.
func (b *body) flags(names ...string) error {
	for _, name := range names {
		m, ok := b.v.Get(name)
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindBool {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "%s is neither true nor false", name)
		}
		b.facts = append(b.facts, strictjson.Member{Name: name, Value: m})
	}
	return nil
}

// maxTokens: two names for one bound must not disagree.
func (b *body) maxTokens(names ...string) error {
	for _, name := range names {
		m, ok := b.v.Get(name)
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindNumber || (!b.bound.IsZero() && !b.bound.Equal(m)) {
			return gateway.Refuse(gateway.CodeRequestUnreadable, "%s is no number, or another than its twin", name)
		}
		b.bound = m
	}
	return nil
}

// toolChoice is what the request says of the choice: a word, the name of the one
// tool that is to be called, or the kind of the choice.
func (b *body) toolChoice() {
	choice, ok := b.v.Get("tool_choice")
	if !ok || choice.IsNull() {
		return
	}
	said, _ := choice.Text()
	function, _ := choice.Get("function")
	for _, found := range []string{text(function, "name"), text(choice, "name"), text(choice, "type")} {
		if said == "" {
			said = found
		}
	}
	if said != "" {
		b.facts = append(b.facts, strictjson.Member{Name: "tool_choice", Value: strictjson.String(said)})
	}
}

// count is how many messages or items there are.
func (b *body) count(n int) {
	b.facts = append(b.facts, strictjson.Member{Name: "messages", Value: strictjson.Int(int64(n))})
}

// document puts the facts where constraints can point.
func (b *body) document(bound strictjson.Value) scope.Document {
	doc := scope.NewDocument()
	doc.Set("/llm/api", strictjson.String(b.api))
	doc.Set("/llm/input_bytes", strictjson.Int(int64(b.size)))
	for _, m := range b.facts {
		doc.Set("/llm/"+m.Name, m.Value)
	}
	if !bound.IsZero() {
		doc.Set("/llm/max_tokens", bound)
	}
	for name, list := range map[string][]string{"tools": b.offered, "hosted_tools": b.hosted, "fetch_hosts": b.fetches, "media": b.media} {
		if len(list) > 0 {
			list = slices.Clone(list)
			slices.Sort(list)
			doc.Set("/llm/"+name, strictjson.Strings(slices.Compact(list)...))
		}
	}
	if b.previous != "" {
		doc.Set("/llm/previous_response_id", strictjson.String(b.previous))
	}
	return doc
}

// request is what is asked for. Each other model is a part of it that scope and
// policy must permit too.
func (b *body) request(name string, op operation) gateway.Request {
	out := gateway.Request{
		Operation: name, Action: op.action, Name: b.model, Doc: b.document(b.bound),
		Resource: policy.Resource{Kind: policy.KindModel, Name: b.model}, Needed: []string{op.action + " " + b.model},
		Method: op.method, Suffix: op.path, Body: b.v.AppendJSON(nil),
	}
	for _, o := range b.others {
		bound := o.bound
		if bound.IsZero() {
			bound = b.bound
		}
		out.Parts = append(out.Parts, gateway.Part{
			Action: op.action, Name: o.model, Doc: b.document(bound), Resource: policy.Resource{Kind: policy.KindModel, Name: o.model},
		})
		if atom := op.action + " " + o.model; !slices.Contains(out.Needed, atom) {
			out.Needed = append(out.Needed, atom)
		}
	}
	return out
}

// list are the items of an array member; none if it is absent or null.
func list(v strictjson.Value, name string) ([]strictjson.Value, error) {
	m, ok := v.Get(name)
	if !ok || m.IsNull() {
		return nil, nil
	}
	if m.Kind() != strictjson.KindArray {
		return nil, gateway.Refuse(gateway.CodeRequestUnreadable, "%s is not an array", name)
	}
	return m.Items(), nil
}

// has reports whether a member is there and not null.
func has(v strictjson.Value, name string) bool {
	m, ok := v.Get(name)
	return ok && !m.IsNull()
}

func text(v strictjson.Value, name string) string {
	m, _ := v.Get(name)
	if m.IsZero() {
		return ""
	}
	s, _ := m.Text()
	return s
}

func unreadable(err error) error {
	return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: err}
}
