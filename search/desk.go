package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/lineal-auth/lineal/internal/parallel"
	"github.com/lineal-auth/lineal/record"
)

// Payload is an entry of the ledger, without its envelope.
type Payload struct {
	Index int64
	Bytes []byte
}

// DeskConfig configures a [Desk]. Store and Read are required.
type DeskConfig struct {
	Store Store
	// Read gives the payloads of the entries [from, to) of the log, in order. It
	// must be safe for concurrent use.
	Read func(ctx context.Context, from, to int64) iter.Seq2[Payload, error]
	// Name gives the name of a person by reference, as [Config.Name] does.
	Name func(ref string) string
}

// Desk answers questions over the records of a log of any length. The index in
// its [Store] says which records may answer; the records themselves are read
// from the ledger and looked at again, so that an answer never rests on the
// index alone. A Desk is safe for concurrent use.
type Desk struct {
	cfg DeskConfig

	following sync.Mutex // held by Follow

	mu       sync.RWMutex // guards what follows
	asOf     AsOf
	complete bool
}

// NewDesk makes a desk, which has no checkpoint before Follow.
func NewDesk(cfg DeskConfig) (*Desk, error) {
	if cfg.Store == nil || cfg.Read == nil {
		return nil, errors.New("making desk: a store and the ledger are required")
	}
	if cfg.Name == nil {
		cfg.Name = func(string) string { return "" }
	}
	return &Desk{cfg: cfg}, nil
}

const (
	// chunk is how many entries are put in at once.
	chunk = 2048
	// bulk is how many missing entries are put in without order first.
	bulk = 100_000
	// maxNamed bounds the records that one id of a trace may name.
	maxNamed = 10_000
	// defaultPage is how many records an answer holds if it is not said.
	defaultPage = 100
)

// ErrTooMany says that an id names more records than an answer holds.
var ErrTooMany = fmt.Errorf("more than %d records: ask for fewer", maxNamed)

// AsOf is the checkpoint up to which answers hold; complete says that every
// entry before it is in the index.
func (d *Desk) AsOf() (a AsOf, complete bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.asOf, d.complete
}

// Follow reads the ledger on from where the index stands, up to the checkpoint.
// An index of another log, of one that reached further than the ledger does, or
// whose last entry is another than the ledger's, is made again from the start.
func (d *Desk) Follow(ctx context.Context, to AsOf) error {
	d.following.Lock()
	defer d.following.Unlock()
	at, err := d.resume(ctx, to)
	if err != nil {
		return fmt.Errorf("following the ledger: %w", err)
	}
	if to.Size-at.Next > bulk {
		if err := d.cfg.Store.Bulk(ctx); err != nil {
			return fmt.Errorf("following the ledger: %w", err)
		}
	}
	for at.Next < to.Size {
		if at, err = d.take(ctx, at, to.Size); errors.Is(err, ErrMoved) {
			at, err = d.cfg.Store.Cursor(ctx)
		}
		if err != nil {
			return fmt.Errorf("following the ledger: %w", err)
		}
	}
	if err := d.cfg.Store.Ready(ctx); err != nil {
		return fmt.Errorf("following the ledger: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if to.Origin != d.asOf.Origin || to.Size > d.asOf.Size { // another question may have come further
		d.asOf, d.complete = to, true
	}
	return nil
}

// Rebuild drops the index and follows the ledger from its start.
func (d *Desk) Rebuild(ctx context.Context, to AsOf) error {
	if err := d.cfg.Store.Drop(ctx, to.Origin); err != nil {
		return fmt.Errorf("rebuilding the index: %w", err)
	}
	return d.Follow(ctx, to)
}

// resume is where the index stands, after it was dropped if it is not of this
// log.
func (d *Desk) resume(ctx context.Context, to AsOf) (Cursor, error) {
	at, err := d.cfg.Store.Cursor(ctx)
	if err != nil {
		return at, err
	}
	same := at.Origin == to.Origin
	if same && at.Next > 0 {
		same = false // so it stays if the ledger does not reach as far
		for p, err := range d.cfg.Read(ctx, at.Next-1, at.Next) {
			if err != nil {
				return at, err
			}
			same = record.Hash(p.Bytes) == at.Tail
		}
	}
	if same {
		return at, nil
	}
	if err := d.cfg.Store.Drop(ctx, to.Origin); err != nil {
		return at, err
	}
	return d.cfg.Store.Cursor(ctx)
}

// batch is what one reading of the ledger gave.
type batch struct {
	rows []Row
	tail string
	err  error
}

// take puts in the entries from at to end. Reading goes on beside the store's
// writing, and ends before take does.
func (d *Desk) take(ctx context.Context, at Cursor, end int64) (Cursor, error) {
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan batch, 2)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	reader.Go(func() {
		defer close(batches)
		for b := range d.batches(ctx, at.Next, end) {
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	})
	for b := range batches {
		if b.err != nil {
			return at, b.err
		}
		next, err := d.cfg.Store.Add(ctx, at, b.rows, b.tail)
		if err != nil {
			return at, err
		}
		at = next
	}
	if err := ctx.Err(); err != nil {
		return at, err
	}
	if at.Next < end {
		return at, fmt.Errorf("entry %d is missing", at.Next)
	}
	return at, nil
}

// batches reads [from, to) in chunks; an error is the last batch.
func (d *Desk) batches(ctx context.Context, from, to int64) iter.Seq[batch] {
	return func(yield func(batch) bool) {
		var held []Payload
		give := func() bool {
			b := rowsOf(held)
			held = nil
			return yield(b) && b.err == nil
		}
		for p, err := range d.cfg.Read(ctx, from, to) {
			if err == nil && p.Index != from {
				err = fmt.Errorf("entry %d is missing", from)
			}
			if err != nil {
				yield(batch{err: err})
				return
			}
			from++
			if held = append(held, p); len(held) == chunk && !give() {
				return
			}
		}
		if len(held) > 0 {
			give()
		}
	}
}

// rowsOf reads records on every processor.
func rowsOf(ps []Payload) batch {
	b := batch{rows: make([]Row, len(ps)), tail: record.Hash(ps[len(ps)-1].Bytes)}
	errs := make([]error, len(ps))
	parallel.Each(len(ps), func(i int) { b.rows[i], errs[i] = readRow(ps[i].Index, ps[i].Bytes) })
	b.err = cmp.Or(errs...) // the first
	return b
}

// entry reads the record at index.
func (d *Desk) entry(ctx context.Context, index int64) (*Entry, error) {
	for p, err := range d.cfg.Read(ctx, index, index+1) {
		if err != nil {
			return nil, err
		}
		r, err := record.Parse(p.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading entry %d: %w", index, err)
		}
		return &Entry{Index: index, Hash: record.Hash(p.Bytes), Record: r}, nil
	}
	return nil, fmt.Errorf("reading entry %d: it is not in the ledger", index)
}

// find gives the entries that an id names, as [Index.Find] does.
func (d *Desk) find(ctx context.Context, id string, read reader) ([]*Entry, error) {
	may, err := d.cfg.Store.Find(ctx, id, maxNamed+1)
	if err != nil {
		return nil, err
	}
	if len(may) > maxNamed {
		return nil, ErrTooMany
	}
	var out []*Entry
	to, _ := d.AsOf()
	for _, i := range may {
		if i >= to.Size { // another process put it in since
			continue
		}
		e, err := read(i)
		if err != nil {
			return nil, err
		}
		if slices.Contains(keysOf(e.Record), id) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *Entry) int { return cmp.Compare(a.Index, b.Index) })
	return out, nil
}

// Find gives the entries that an id names, as [Index.Find] does.
func (d *Desk) Find(ctx context.Context, id string) ([]Entry, error) {
	found, err := d.find(ctx, id, func(i int64) (*Entry, error) { return d.entry(ctx, i) })
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("finding %.80q: %w", id, err)
	}
	out := make([]Entry, len(found))
	for i, e := range found {
		out[i] = *e
	}
	return out, nil
}

// Trace tells the way of one call, as [Index.Trace] does.
func (d *Desk) Trace(ctx context.Context, id string) (Lineage, error) { return d.view(ctx).trace(id) }

// view finds in the store, each id and each record once.
func (d *Desk) view(ctx context.Context) *view {
	return d.viewBy(ctx, d.once(ctx))
}

// reader reads the record at an index.
type reader func(index int64) (*Entry, error)

// once reads each record once.
func (d *Desk) once(ctx context.Context) reader {
	entries := map[int64]*Entry{}
	return func(i int64) (e *Entry, err error) {
		if entries[i] == nil {
			if e, err = d.entry(ctx, i); err == nil {
				entries[i] = e
			}
			return e, err
		}
		return entries[i], nil
	}
}

func (d *Desk) viewBy(ctx context.Context, read reader) *view {
	v := &view{name: d.cfg.Name}
	v.asOf, v.complete = d.AsOf()
	named := map[string][]*Entry{}
	v.find = func(id string) []*Entry {
		es, known := named[id]
		if known || v.err != nil {
			return es
		}
		es, v.err = d.find(ctx, id, read)
		named[id] = es
		return es
	}
	return v
}

// Page is a part of an answer.
type Page struct {
	AsOf     AsOf    `json:"as_of"`
	Complete bool    `json:"complete"`
	Entries  []Entry `json:"entries"`
	// Next is where the next page begins: the From of a filter, or its Before if
	// it asks for the newest first; -1 after the last page. It stays good, because
	// a log only grows.
	Next int64 `json:"next"`
}

// Records gives a page of the entries that match, in the order that f asks for;
// a Limit of 0 is 100.
func (d *Desk) Records(ctx context.Context, f Filter) (Page, error) {
	return d.records(ctx, f, func(i int64) (*Entry, error) { return d.entry(ctx, i) })
}

func (d *Desk) records(ctx context.Context, f Filter, read reader) (Page, error) {
	if f.Limit <= 0 {
		f.Limit = defaultPage
	}
	p := Page{Entries: []Entry{}, Next: -1}
	p.AsOf, p.Complete = d.AsOf()
	if f.Before <= 0 || f.Before > p.AsOf.Size {
		f.Before = p.AsOf.Size // what other processes put in since is not of this answer
	}
	for f.From < f.Before {
		may, err := d.cfg.Store.Select(ctx, f)
		if err != nil {
			return Page{}, fmt.Errorf("listing records: %w", err)
		}
		for _, i := range may {
			e, err := read(i)
			if err != nil {
				return Page{}, fmt.Errorf("listing records: %w", err)
			}
			f.pass(i)
			if !f.match(e.Record) {
				continue
			}
			if p.Entries = append(p.Entries, *e); len(p.Entries) == f.Limit {
				p.Next = f.next()
				return p, nil
			}
		}
		if len(may) < f.Limit {
			break
		}
	}
	return p, nil
}
