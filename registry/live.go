package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lineal-auth/lineal/identity"
)

// Live is a Directory of what the configuration registers and of what operators
// add to it in a catalog. The configuration wins: an entry of the catalog under
// one of its ids counts for nothing.
//
//	configuration ─┐
//	               ├─▶ Static of revision n ──▶ answers, as of the call
//	catalog ───────┘        ▲
//	   └── revision? ── asked at each call ──┘
//
// Each call asks the catalog for its revision, so that a change counts at the
// next request on every replica, and an answer never comes from a catalog that
// cannot be read, or that is older than what this process has seen. An entry
// that does not fit the others, because the configuration changed under it, is
// left out: whoever it names is then not registered. [Live.Entries] lists it
// with the reason.
//
// Live is safe for concurrent use.
type Live struct {
	configured Entries
	catalog    Catalog

	mu      sync.Mutex // held while a view is built, so that one is
	current atomic.Pointer[view]
}

var (
	_ Directory = (*Live)(nil)
	_ Clients   = (*Live)(nil)
)

// Listed is an entry as it stands in the directory.
type Listed struct {
	Entry
	// Configured says that it comes from the configuration.
	Configured bool
	// Excluded is why the entry counts for nothing, nil if it does count.
	Excluded error
}

var (
	// ErrConfigured says that the configuration has the entry, and nothing else may
	// change it.
	ErrConfigured = errors.New("is an entry of the configuration")
	// ErrUnfit says that an entry is unsound, or does not fit the others.
	ErrUnfit = errors.New("does not fit")
	// ErrInUse says that other entries refer to this one.
	ErrInUse = errors.New("other entries need it")
)

// view is the directory at one revision.
type view struct {
	revision int64
	static   *Static
	listed   []Listed // by kind and id
	excluded int
}

// NewLive checks the configured entries as [NewStatic] does, and reads the
// catalog.
func NewLive(ctx context.Context, configured Entries, c Catalog) (*Live, error) {
	if _, err := NewStatic(configured); err != nil {
		return nil, err
	}
	l := &Live{configured: configured, catalog: c}
	if _, err := l.view(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Agent implements Directory.
func (l *Live) Agent(ctx context.Context, uri identity.Agent) (Agent, error) {
	v, err := l.view(ctx)
	if err != nil {
		return Agent{}, err
	}
	return v.static.Agent(ctx, uri)
}

// Audience implements Directory.
func (l *Live) Audience(ctx context.Context, uri string) (Audience, error) {
	v, err := l.view(ctx)
	if err != nil {
		return Audience{}, err
	}
	return v.static.Audience(ctx, uri)
}

// PersonIssuer implements Directory.
func (l *Live) PersonIssuer(ctx context.Context, issuer string) (PersonIssuer, error) {
	v, err := l.view(ctx)
	if err != nil {
		return PersonIssuer{}, err
	}
	return v.static.PersonIssuer(ctx, issuer)
}

// Receives implements Directory.
func (l *Live) Receives(ctx context.Context, w identity.Agent) (bool, error) {
	v, err := l.view(ctx)
	if err != nil {
		return false, err
	}
	return v.static.Receives(ctx, w)
}

// Client implements Clients.
func (l *Live) Client(ctx context.Context, id identity.Agent) (Client, error) {
	v, err := l.view(ctx)
	if err != nil {
		return Client{}, err
	}
	return v.static.Client(ctx, id)
}

// LoginClients are the enabled providers, each with its OIDC clients and the
// application that each belongs to, as of revision.
func (l *Live) LoginClients(ctx context.Context) (byIssuer map[string]map[string]identity.Agent, revision int64, err error) {
	v, err := l.view(ctx)
	if err != nil {
		return nil, 0, err
	}
	byIssuer = make(map[string]map[string]identity.Agent)
	for client, app := range v.static.owners {
		if !v.static.issuers[client.Issuer].Enabled {
			continue
		}
		if byIssuer[client.Issuer] == nil {
			byIssuer[client.Issuer] = make(map[string]identity.Agent)
		}
		byIssuer[client.Issuer][client.ClientID] = app
	}
	return byIssuer, v.revision, nil
}

// Entries lists the entries of a kind, by id, with the revision of the catalog.
func (l *Live) Entries(ctx context.Context, kind EntryKind) (entries []Listed, revision int64, err error) {
	v, err := l.view(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range v.listed {
		if e.Kind == kind {
			entries = append(entries, e)
		}
	}
	return entries, v.revision, nil
}

// Entry returns one entry, or ErrNotFound.
func (l *Live) Entry(ctx context.Context, kind EntryKind, id string) (e Listed, revision int64, err error) {
	v, err := l.view(ctx)
	if err != nil {
		return Listed{}, 0, err
	}
	e, err = v.find(kind, id)
	return e, v.revision, err
}

// Excluded counts the entries that count for nothing.
func (l *Live) Excluded(ctx context.Context) (int, error) {
	v, err := l.view(ctx)
	if err != nil {
		return 0, err
	}
	return v.excluded, nil
}

// Change makes a change to the catalog as it was at revision at, if the whole is
// sound with it: [ErrConfigured], [ErrInUse], [ErrUnfit] or, for the removal of
// what is not there, ErrNotFound otherwise; [ErrChanged] if the catalog is another
// by now. before is called when nothing but the catalog itself can refuse any more, and stops the change by an
// error.
func (l *Live) Change(ctx context.Context, at int64, e Entry, before func() error) error {
	v, err := l.view(ctx)
	if err != nil {
		return err
	}
	if v.revision != at {
		return ErrChanged
	}
	if err := v.admits(l.configured, e); err != nil {
		return err
	}
	if err := before(); err != nil {
		return err
	}
	return l.catalog.ChangeCatalog(ctx, at, e)
}

// AsOf returns a context in which the directory answers as of the first question
// that is asked in it: for one request, which then asks the catalog once and
// sees one state. Not for what goes on, like a stream.
func (l *Live) AsOf(ctx context.Context) context.Context {
	return context.WithValue(ctx, asOfKey{}, &asOf{live: l})
}

type asOfKey struct{}

// asOf is the state that a request sees.
type asOf struct {
	live *Live

	mu   sync.Mutex // guards seen
	seen *view      // nil: nothing was asked yet
}

// view is the directory as of now, or as of the request.
func (l *Live) view(ctx context.Context) (*view, error) {
	at, ok := ctx.Value(asOfKey{}).(*asOf)
	if !ok || at.live != l {
		return l.now(ctx)
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	if at.seen != nil {
		return at.seen, nil
	}
	v, err := l.now(ctx)
	if err == nil {
		at.seen = v
	}
	return v, err
}

func (l *Live) now(ctx context.Context) (*view, error) {
	revision, err := l.catalog.CatalogRevision(ctx)
	if err != nil {
		return nil, err
	}
	if v := l.current.Load(); v != nil && v.revision == revision {
		return v, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.current.Load()
	switch {
	case v != nil && v.revision == revision:
		return v, nil
	case v == nil || v.revision < revision:
		return l.rebuild(ctx)
	}
	// Another caller may have seen a later change; who asked before it gets the
	// later answer too. Only a catalog that really went back is refused.
	if revision, err = l.catalog.CatalogRevision(ctx); err != nil {
		return nil, err
	}
	if revision < v.revision {
		return nil, fmt.Errorf("the catalog is at change %d, it was at %d", revision, v.revision)
	}
	if revision == v.revision {
		return v, nil
	}
	return l.rebuild(ctx)
}

func (l *Live) rebuild(ctx context.Context) (*view, error) {
	entries, revision, err := l.catalog.CatalogEntries(ctx)
	if err != nil {
		return nil, err
	}
	if old := l.current.Load(); old != nil && revision < old.revision {
		return nil, fmt.Errorf("the catalog is at change %d, it was at %d", revision, old.revision)
	}
	v, err := build(l.configured, entries)
	if err != nil {
		return nil, err
	}
	v.revision = revision
	l.current.Store(v)
	return v, nil
}

// build puts the configuration first, then what of the catalog fits.
func build(configured Entries, entries []Entry) (*view, error) {
	v := &view{static: emptyStatic()}
	byKind := make(map[EntryKind][]Entry)
	for _, e := range entries {
		byKind[e.Kind] = append(byKind[e.Kind], e)
	}
	for _, kind := range EntryKinds() {
		theirs := make(map[string]bool)
		for _, p := range configured.parts(kind) {
			e, err := p.entry(kind)
			if err == nil {
				err = v.static.add(kind, p)
			}
			if err != nil {
				return nil, fmt.Errorf("configured %s %s: %w", kind, e.ID, err)
			}
			theirs[e.ID] = true
			v.listed = append(v.listed, Listed{Entry: e, Configured: true})
		}
		for _, e := range byKind[kind] {
			if theirs[e.ID] {
				continue
			}
			x := Listed{Entry: e}
			var p parts
			if x.Excluded = p.parse(kind, e.Document); x.Excluded == nil {
				x.Excluded = v.static.add(kind, p)
			}
			if x.Excluded != nil {
				v.excluded++
			}
			v.listed = append(v.listed, x)
		}
	}
	slices.SortFunc(v.listed, byID)
	return v, nil
}

func byID(a, b Listed) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) }

func (v *view) find(kind EntryKind, id string) (Listed, error) {
	if i, found := slices.BinarySearchFunc(v.listed, Listed{Entry: Entry{Kind: kind, ID: id}}, byID); found {
		return v.listed[i], nil
	}
	return Listed{}, fmt.Errorf("%s %s: %w", kind, id, ErrNotFound)
}

// admits judges a change by the directory that it would make.
func (v *view) admits(configured Entries, e Entry) error {
	if err := e.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	old, err := v.find(e.Kind, e.ID)
	switch {
	case err == nil && old.Configured:
		return fmt.Errorf("%s %s %w", e.Kind, e.ID, ErrConfigured)
	case err != nil && e.Document == nil:
		return err
	}
	var entries []Entry
	for _, x := range v.listed {
		if !x.Configured && (x.Kind != e.Kind || x.ID != e.ID) {
			entries = append(entries, x.Entry)
		}
	}
	if e.Document != nil {
		entries = append(entries, e)
	}
	next, err := build(configured, entries)
	if err != nil {
		return err
	}
	for _, x := range next.listed {
		if x.Excluded == nil {
			continue
		}
		if x.Kind == e.Kind && x.ID == e.ID {
			return fmt.Errorf("%w: %w", ErrUnfit, x.Excluded)
		}
		if was, err := v.find(x.Kind, x.ID); err != nil || was.Excluded == nil {
			return fmt.Errorf("%w: %w", ErrInUse, x.Excluded)
		}
	}
	return nil
}

// parts are the configured entries of a kind as values.
func (e Entries) parts(kind EntryKind) (all []parts) {
	switch kind {
	case EntryIssuer:
		for _, x := range e.Issuers {
			all = append(all, parts{issuer: x})
		}
	case EntryAgent:
		for _, x := range e.Agents {
			all = append(all, parts{agent: x})
		}
	case EntryResource:
		for _, x := range e.Audiences {
			all = append(all, parts{resource: x})
		}
	case EntryClient:
		for _, x := range e.Clients {
			all = append(all, parts{client: x})
		}
	}
	return all
}
