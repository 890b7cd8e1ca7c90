package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/internal/query"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// questions is the whole API.
var questions = map[string]question{
	"/v1/records":            records,
	"/v1/records/{id}":       named,
	"/v1/records/{id}/trace": trace,
	"/v1/reports/{name}":     report,
}

// page is an answer of records.
type page struct {
	AsOf     search.AsOf `json:"as_of"`
	Complete bool        `json:"complete"`
	Records  []shown     `json:"records"`
	// Next is where the next page begins, absent after the last.
	Next *int64 `json:"next,omitempty"`
}

// shown is a record at its index.
type shown struct {
	Index  int64           `json:"index"`
	Hash   string          `json:"record_hash"`
	Record json.RawMessage `json:"record"`
}

const (
	maxPage     = 1000
	defaultPage = 100
	maxStories  = 50
)

// parameters takes each of names at most once, and nothing else.
func (x *request) parameters(names ...string) (url.Values, error) {
	q, err := query.Parse(x.URL.RawQuery, names...)
	if err != nil {
		return nil, refuse(CodeParameterInvalid, "%w", err)
	}
	return q, nil
}

// number reads a number of [low, high], or what is otherwise.
func number(q url.Values, name string, low, high, otherwise int64) (int64, error) {
	n, err := query.Number(q, name, low, high, otherwise)
	if err != nil {
		return 0, refuse(CodeParameterInvalid, "%w", err)
	}
	return n, nil
}

// times reads since and until.
func times(q url.Values) (since, until record.Timestamp, err error) {
	for name, to := range map[string]*record.Timestamp{"since": &since, "until": &until} {
		if !q.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339, q.Get(name))
		if err != nil {
			return "", "", refuse(CodeParameterInvalid, "%s is no time of RFC 3339", name)
		}
		*to = record.At(t)
	}
	return since, until, nil
}

// filterNames are the parameters of what is asked about records.
var filterNames = []string{
	"kind", "person", "agent", "callee", "resource", "tool", "model", "decision", "reason", "txn", "receipt", "policy", "writer",
	"since", "until", "from", "before", "limit", "order",
}

func (x *request) filter() (search.Filter, error) {
	q, err := x.parameters(filterNames...)
	if err != nil {
		return search.Filter{}, err
	}
	return ParseFilter(q)
}

// ParseFilter reads what is asked about records from the parameters of
// /v1/records. Whoever calls it has looked at their names, and that each is there
// once. The text of an error is for who sent them.
func ParseFilter(q url.Values) (f search.Filter, err error) {
	f = search.Filter{
		Kind: record.Kind(q.Get("kind")), Person: q.Get("person"), Agent: q.Get("agent"), Callee: q.Get("callee"), Resource: q.Get("resource"),
		Tool: q.Get("tool"), Model: q.Get("model"), Effect: record.Effect(q.Get("decision")), Reason: q.Get("reason"), Txn: q.Get("txn"),
		Receipt: q.Get("receipt"), Policy: q.Get("policy"), Writer: q.Get("writer"), Newest: q.Get("order") == "newest",
	}
	if f.Effect != "" && f.Effect != record.Permit && f.Effect != record.Deny {
		return f, refuse(CodeParameterInvalid, "decision is neither permit nor deny")
	}
	if q.Has("order") && !f.Newest && q.Get("order") != "oldest" {
		return f, refuse(CodeParameterInvalid, "order is neither newest nor oldest")
	}
	if f.Since, f.Until, err = times(q); err != nil {
		return f, err
	}
	if f.From, err = number(q, "from", 0, 1<<53, 0); err != nil {
		return f, err
	}
	if f.Before, err = number(q, "before", 1, 1<<53, 0); err != nil {
		return f, err
	}
	limit, err := number(q, "limit", 1, maxPage, defaultPage)
	f.Limit = int(limit)
	return f, err
}

func records(ctx context.Context, x *request) (any, int, error) {
	f, err := x.filter()
	if err != nil {
		return nil, 0, err
	}
	p, err := x.desk.Records(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	out, err := show(p.AsOf, p.Complete, p.Entries)
	if p.Next >= 0 {
		out.Next = &p.Next
	}
	return out, len(out.Records), err
}

func named(ctx context.Context, x *request) (any, int, error) {
	if _, err := x.parameters(); err != nil {
		return nil, 0, err
	}
	es, err := x.desk.Find(ctx, x.PathValue("id"))
	if err != nil {
		return nil, 0, asked(err)
	}
	asOf, complete := x.desk.AsOf()
	out, err := show(asOf, complete, es)
	return out, len(out.Records), err
}

func show(asOf search.AsOf, complete bool, es []search.Entry) (page, error) {
	p := page{AsOf: asOf, Complete: complete, Records: make([]shown, len(es))}
	for i, e := range es {
		payload, err := e.Record.Canonical()
		if err != nil {
			return page{}, err
		}
		p.Records[i] = shown{e.Index, e.Hash, payload}
	}
	return p, nil
}

// asked gives what searching found out its code.
func asked(err error) error {
	switch {
	case errors.Is(err, search.ErrNotFound), errors.Is(err, search.ErrNoReport):
		return refuse(CodeNotFound, "%w", err)
	case errors.Is(err, search.ErrTooMany):
		return refuse(CodeAnswerTooLarge, "%w", err)
	default:
		return err
	}
}

// trace answers with the lineage of one call, or with the stories of an id that
// names several: a transaction, or a person by reference.
func trace(ctx context.Context, x *request) (any, int, error) {
	q, err := x.parameters("limit", "before")
	if err != nil {
		return nil, 0, err
	}
	limit, err := number(q, "limit", 1, maxStories, 10)
	if err != nil {
		return nil, 0, err
	}
	before, err := number(q, "before", 1, 1<<53, 0)
	if err != nil {
		return nil, 0, err
	}
	id := x.PathValue("id")
	l, err := x.desk.Trace(ctx, id)
	if err == nil {
		return l, 1 + len(l.Outcomes), nil
	}
	f := search.Filter{Person: id, Before: before}
	if _, several := search.IsAmbiguous(err); several {
		f = search.Filter{Txn: id}
	} else if !errors.Is(err, search.ErrNotFound) {
		return nil, 0, asked(err)
	}
	stories, terr := x.desk.Tell(ctx, f, int(limit))
	if terr != nil {
		return nil, 0, asked(terr)
	}
	if len(stories.Stories) == 0 {
		return nil, 0, asked(err)
	}
	cites := 0
	for _, s := range stories.Stories {
		for _, l := range s.Lineages {
			cites += 1 + len(l.Outcomes)
		}
	}
	return stories, cites, nil
}

func report(ctx context.Context, x *request) (any, int, error) {
	q, err := x.parameters("since", "until", "max_depth", "max_staleness", "issuer")
	if err != nil {
		return nil, 0, err
	}
	var cfg search.ReportConfig
	if cfg.Since, cfg.Until, err = times(q); err != nil {
		return nil, 0, err
	}
	depth, err := number(q, "max_depth", 1, 64, 0)
	if err != nil {
		return nil, 0, err
	}
	staleness, err := number(q, "max_staleness", 1, 86400, 0)
	if err != nil {
		return nil, 0, err
	}
	cfg.MaxDepth, cfg.MaxStaleness = int(depth), time.Duration(staleness)*time.Second
	if q.Has("issuer") {
		cfg.Issuers = []string{q.Get("issuer")}
	}
	if !slices.Contains(search.Reports(), x.PathValue("name")) {
		return nil, 0, refuse(CodeNotFound, "no such report")
	}
	select {
	case x.s.reporting <- struct{}{}:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	defer func() { <-x.s.reporting }()
	r, err := x.desk.Report(ctx, x.PathValue("name"), cfg)
	if err != nil {
		return nil, 0, asked(err)
	}
	cites := 0
	for _, f := range r.Findings {
		cites += len(f.Records)
	}
	return r, cites, nil
}
