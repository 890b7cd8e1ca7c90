package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// The values of source.
const (
	sourceConfiguration = "configuration"
	sourceAPI           = "api"
)

// shown is an entry as it is told.
type shown struct {
	Source string `json:"source"`
	// Revision is the number of the change that made it so, 0 for one of the
	// configuration; If-Match names it.
	Revision int64 `json:"revision"`
	// Excluded is why the entry counts for nothing.
	Excluded string          `json:"excluded,omitempty"`
	Entry    json.RawMessage `json:"entry"`
}

func show(e registry.Listed) shown {
	out := shown{Source: sourceAPI, Revision: e.Revision, Entry: e.Document}
	if e.Configured {
		out.Source = sourceConfiguration
	}
	if e.Excluded != nil {
		out.Excluded = e.Excluded.Error()
	}
	return out
}

// list is GET of all entries of a kind, by id, page by page.
func (x *request) list(ctx context.Context) (answer, error) {
	q, err := x.parameters("limit", "after")
	if err != nil {
		return answer{}, err
	}
	most, err := limit(q)
	if err != nil {
		return answer{}, err
	}
	all, revision, err := x.s.cfg.Directory.Entries(ctx, x.kind)
	if err != nil {
		return answer{}, refuse(CodeRegistryUnavailable, "%w", err)
	}
	page := struct {
		Items    []shown `json:"items"`
		Next     string  `json:"next,omitempty"`
		Revision int64   `json:"revision"`
	}{Items: []shown{}, Revision: revision}
	last := ""
	for _, e := range all {
		if e.ID <= q.Get("after") {
			continue
		}
		if len(page.Items) == most {
			page.Next = last
			break
		}
		page.Items, last = append(page.Items, show(e)), e.ID
	}
	if err := x.tell(ctx, len(page.Items)); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: page}, nil
}

// get is GET of one entry.
func (x *request) get(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	e, _, err := x.find(ctx)
	if err != nil {
		return answer{}, err
	}
	if err := x.tell(ctx, 1); err != nil {
		return answer{}, err
	}
	return found(http.StatusOK, e), nil
}

func found(status int, e registry.Listed) answer {
	a := answer{status: status, body: show(e)}
	if !e.Configured {
		a.etag = tag(e.Revision)
	}
	return a
}

// find returns the entry of the path, and the revision of the registry.
func (x *request) find(ctx context.Context) (registry.Listed, int64, error) {
	e, revision, err := x.s.cfg.Directory.Entry(ctx, x.kind, x.id)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return registry.Listed{}, revision, refuse(CodeNotFound, "%w", err)
	case err != nil:
		return registry.Listed{}, 0, refuse(CodeRegistryUnavailable, "%w", err)
	}
	return e, revision, nil
}

// put is PUT of one entry: it makes it, or makes it another.
func (x *request) put(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	seen, err := x.precondition()
	if err != nil {
		return answer{}, err
	}
	if seen == 0 {
		x.account.Op = record.RegistryAdd
	}
	document, err := x.body()
	if err != nil {
		return answer{}, err
	}
	e, err := registry.ParseEntry(x.kind, document)
	switch {
	case err != nil:
		return answer{}, refuse(CodeBodyInvalid, "%w", err)
	case e.ID != x.id:
		return answer{}, refuse(CodeBodyInvalid, "the document is of %.200q", e.ID)
	case e.Kind == registry.EntryResource && x.s.reserved(e.ID):
		return answer{}, refuse(CodeResourceReserved, "%s", e.ID)
	case e.Kind == registry.EntryAgent && x.s.isOperator(e.ID):
		return answer{}, refuse(CodeEntryInvalid, "%s is an operator, who could widen its own authority", e.ID)
	}
	revision, err := x.change(ctx, seen, e)
	if err != nil {
		return answer{}, err
	}
	e.Revision = revision
	status := http.StatusOK
	if seen == 0 {
		status = http.StatusCreated
	}
	return found(status, registry.Listed{Entry: e}), nil
}

// remove is DELETE of one entry.
func (x *request) remove(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	seen, err := x.precondition()
	if err != nil {
		return answer{}, err
	}
	if seen == 0 {
		return answer{}, refuse(CodePreconditionMissing, "If-None-Match")
	}
	if _, err := x.change(ctx, seen, registry.Entry{Kind: x.kind, ID: x.id}); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, nil
}

// change records the change and makes it, from the state that the caller saw.
func (x *request) change(ctx context.Context, seen int64, e registry.Entry) (revision int64, err error) {
	x.s.changing.Lock()
	defer x.s.changing.Unlock()
	old, at, err := x.find(ctx)
	var r *refused
	switch {
	case errors.As(err, &r) && r.Code == CodeNotFound:
		if seen != 0 {
			return 0, err
		}
	case err != nil:
		return 0, err
	case old.Configured:
		return 0, refuse(CodeEntryConfigured, "%s", old.ID)
	case old.Revision != seen:
		return 0, refuse(CodePreconditionFailed, "it is of revision %d, not %d", old.Revision, seen)
	}
	if x.account.Authority, err = compare(old.Entry, e); err != nil {
		return 0, refuse(CodeRegistryUnavailable, "%w", err)
	}
	x.account.Revision = at + 1
	var documents [][]byte
	for to, d := range map[*string][]byte{&x.account.Before: old.Document, &x.account.After: e.Document} {
		if d != nil {
			*to, documents = record.Hash(d), append(documents, d)
		}
	}
	err = x.s.cfg.Directory.Change(context.WithoutCancel(ctx), at, e, func() error {
		x.account.Result, x.account.Reason = record.RegistryApplied, record.ReasonAllowed
		return x.record(ctx, record.KindRegistry, documents...)
	})
	return at + 1, judge(err)
}

// judge gives the code to what the registry said of a change.
func judge(err error) error {
	var r *refused
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return r
	case errors.Is(err, registry.ErrChanged):
		return refuse(CodeChanged, "%w", err)
	case errors.Is(err, registry.ErrInUse):
		return refuse(CodeEntryInUse, "%w", err)
	case errors.Is(err, registry.ErrConfigured):
		return refuse(CodeEntryConfigured, "%w", err)
	case errors.Is(err, registry.ErrUnfit):
		return refuse(CodeEntryInvalid, "%w", err)
	default:
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
}

// compare says how what the entry may hold differs; "" for entries that hold
// nothing.
func compare(before, after registry.Entry) (record.AuthorityChange, error) {
	if after.Kind != registry.EntryAgent {
		return "", nil
	}
	was, err := before.Authority()
	if err != nil {
		return "", err
	}
	is, err := after.Authority()
	switch {
	case err != nil:
		return "", err
	case is.IsZero() && was.IsZero():
		return record.AuthoritySame, nil
	case is.IsZero():
		return record.AuthorityNarrowed, nil
	case was.IsZero() || scope.Within(was, is) != nil:
		return record.AuthorityWidened, nil
	case scope.Within(is, was) != nil:
		return record.AuthorityNarrowed, nil
	}
	return record.AuthoritySame, nil
}

func (s *Service) isOperator(uri string) bool {
	for o := range s.cfg.Operators {
		if o.String() == uri {
			return true
		}
	}
	return false
}

// reserved reports whether a resource is below one of the URLs served here.
func (s *Service) reserved(uri string) bool {
	for _, base := range s.cfg.Reserved {
		if rest, below := strings.CutPrefix(uri, base); below && (rest == "" || strings.ContainsAny(rest[:1], "/?")) {
			return true
		}
	}
	return false
}
