package page

import (
	"context"
	"net/url"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// told is a transaction as a page tells it.
type told struct {
	Txn, Time string
	// Lead is the first call, which the person's application made.
	Lead  search.Lineage
	Calls []step
	// Refused is how many of the calls were.
	Refused int
}

// step is a call at its depth in the tree.
type step struct {
	search.Call

	Depth int
}

func tellAll(ss []search.Story) []told {
	out := make([]told, 0, len(ss))
	for _, s := range ss {
		if len(s.Lineages) == 0 {
			continue
		}
		t := told{Txn: s.Txn, Lead: s.Lineages[0], Time: s.Lineages[0].Time, Calls: steps(s.Calls, 0)}
		for _, c := range t.Calls {
			if c.Effect != string(record.Permit) {
				t.Refused++
			}
		}
		out = append(out, t)
	}
	return out
}

// steps is a tree of calls, each before those that served it.
func steps(cs []search.Call, depth int) []step {
	var out []step
	for _, c := range cs {
		below := c.Children
		c.Children = nil
		out = append(append(out, step{c, depth}), steps(below, depth+1)...)
	}
	return out
}

// personPage is everything done in a person's name.
type personPage struct {
	Person  search.Person
	Mine    bool
	Bars    bars
	Stories []told
	Older   string
	List    string // the same as a list of actions
}

// storiesAtOnce is how many transactions a page tells.
const storiesAtOnce = 8

// me is the page of the viewer.
func (s *Service) me(ctx context.Context, x *request) (answer, error) {
	if x.viewer.ref == "" {
		return answer{}, refuse(console.CodeNotFound, "the viewer is no person")
	}
	return x.person(ctx, x.viewer.ref)
}

func (s *Service) personOf(ctx context.Context, x *request) (answer, error) {
	return x.person(ctx, x.PathValue("ref"))
}

func (x *request) person(ctx context.Context, ref string) (answer, error) {
	f, a, err := x.filter("before")
	if err != nil {
		return answer{}, err
	}
	f = search.Filter{Person: ref, Before: f.Before}
	stories, err := x.desk.Tell(ctx, f, storiesAtOnce)
	if err != nil {
		return answer{}, asCode(err)
	}
	mine := x.viewer.ref == ref
	if len(stories.Stories) == 0 && !mine && f.Before == 0 {
		return answer{}, refuse(console.CodeNotFound, "no call is of that person, or the person is another")
	}
	h, err := x.desk.Histogram(ctx, search.Filter{Person: ref, Kind: record.KindDecision}, bins)
	if err != nil {
		return answer{}, err
	}
	all := asked{url.Values{"person": {ref}}, Prefix}
	p := personPage{Person: search.Person{Ref: ref}, Mine: mine, Bars: barsOf(h, all), Stories: tellAll(stories.Stories), List: all.With("", "")}
	if stories.Next >= 0 {
		p.Older = a.With("before", itoa(stories.Next))
	}
	cites := 0
	for _, s := range stories.Stories {
		for _, l := range s.Lineages {
			p.Person = l.Person
			cites += 1 + len(l.Outcomes)
		}
	}
	out := answer{template: "person", title: who(p.Person), data: p, cites: cites}
	if mine {
		out.title, out.tab = "In my name", "me"
	}
	return out, nil
}

// agentPage is what an agent did, and what it was given.
type agentPage struct {
	ID                       string
	Bars                     bars
	Calls, Tokens, Changes   table
	CallsLink, TokensLink    string
	MoreCalls, MoreTokens    bool
	ChangesLink, Revocations string
}

// agent shows an agent by its URI.
func (s *Service) agent(ctx context.Context, x *request) (answer, error) {
	_, a, err := x.filter("id")
	if err != nil {
		return answer{}, err
	}
	id := a.Get("id")
	if id == "" {
		return answer{}, refuse(console.CodeParameterInvalid, "id is empty")
	}
	of := func(kind record.Kind, limit int) (search.Page, error) {
		return x.desk.Records(ctx, search.Filter{Agent: id, Kind: kind, Newest: true, Limit: limit})
	}
	link := func(kind record.Kind) string {
		return asked{url.Values{"agent": {id}}, Prefix}.With("kind", string(kind))
	}
	p := agentPage{ID: id, CallsLink: asked{url.Values{"agent": {id}}, Prefix}.With("", ""), TokensLink: link(record.KindIssuance), ChangesLink: link(record.KindRegistry), Revocations: link(record.KindRevocation)}
	calls, err := of(record.KindDecision, 25)
	if err != nil {
		return answer{}, err
	}
	tokens, err := of(record.KindIssuance, 8)
	if err != nil {
		return answer{}, err
	}
	p.Calls.Rows, p.MoreCalls = rowsOf(calls.Entries), calls.Next >= 0
	p.Tokens.Rows, p.MoreTokens = rowsOf(tokens.Entries), tokens.Next >= 0
	for _, kind := range []record.Kind{record.KindRegistry, record.KindRevocation} {
		changes, err := of(kind, 8)
		if err != nil {
			return answer{}, err
		}
		p.Changes.Rows = append(p.Changes.Rows, rowsOf(changes.Entries)...)
	}
	cites := len(p.Calls.Rows) + len(p.Tokens.Rows) + len(p.Changes.Rows)
	if cites == 0 {
		return answer{}, refuse(console.CodeNotFound, "no record names the agent")
	}
	h, err := x.desk.Histogram(ctx, search.Filter{Agent: id, Kind: record.KindDecision}, bins)
	if err != nil {
		return answer{}, err
	}
	p.Calls.NoPerson, p.Tokens.NoPerson, p.Changes.NoPerson = x.viewer.Person(), x.viewer.Person(), true
	p.Bars = barsOf(h, asked{url.Values{"agent": {id}}, Prefix})
	return answer{template: "agent", title: short(id), data: p, cites: cites}, nil
}
