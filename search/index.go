package search

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/lineal-auth/lineal/record"
)

// Config configures an [Index]. Its zero value is usable.
type Config struct {
	// Name gives the name of a person by reference, where the person map is at
	// hand and the reader may see it; "" for one that it does not know. If nil,
	// the reference itself is shown. It must be safe for concurrent use.
	Name func(ref string) string
}

// AsOf is the checkpoint up to which answers hold.
type AsOf struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"` // base64, as the checkpoint has it
}

// Entry is a record at its index of the log.
type Entry struct {
	Index  int64         `json:"index"`
	Hash   string        `json:"record_hash"`
	Record record.Record `json:"-"`
}

// Index finds records. It is safe for concurrent use.
type Index struct {
	name func(string) string

	mu      sync.RWMutex // guards what follows
	entries []*Entry     // by index
	keys    map[string][]*Entry
	asOf    AsOf
	next    int64 // the first index that is missing
}

// New makes an empty index.
func New(cfg Config) *Index {
	x := &Index{name: cfg.Name, keys: map[string][]*Entry{}}
	if x.name == nil {
		x.name = func(string) string { return "" }
	}
	return x
}

// ErrNotFound says that no record answers the question.
var ErrNotFound = errors.New("no such record")

// Add takes in the payload of the entry at index. Entries may come in any
// order and more than once; the same index with another payload is an error,
// for the ledger contradicts itself.
func (x *Index) Add(index int64, payload []byte) error {
	if index < 0 {
		return fmt.Errorf("indexing entry %d: no such index", index)
	}
	r, err := record.Parse(payload)
	if err != nil {
		return fmt.Errorf("indexing entry %d: %w", index, err)
	}
	e := &Entry{Index: index, Hash: record.Hash(payload), Record: r}
	x.mu.Lock()
	defer x.mu.Unlock()
	at, found := slices.BinarySearchFunc(x.entries, index, byIndex)
	if found {
		if x.entries[at].Hash != e.Hash {
			return fmt.Errorf("indexing entry %d: another record stands there", index)
		}
		return nil
	}
	for _, same := range x.keys[r.ID] {
		if same.Record.ID == r.ID {
			return fmt.Errorf("indexing entry %d: entry %d has the same record id", index, same.Index)
		}
	}
	x.entries = slices.Insert(x.entries, at, e)
	for _, k := range keysOf(r) {
		x.file(k, e)
	}
	for x.next < int64(len(x.entries)) && x.entries[x.next].Index == x.next {
		x.next++
	}
	return nil
}

func byIndex(e *Entry, index int64) int { return cmp.Compare(e.Index, index) }

// file puts e under a key, in index order.
func (x *Index) file(key string, e *Entry) {
	list := x.keys[key]
	if slices.Contains(list, e) {
		return
	}
	at, _ := slices.BinarySearchFunc(list, e.Index, byIndex)
	x.keys[key] = slices.Insert(list, at, e)
}

// keysOf are the names by which a record is found.
func keysOf(r record.Record) []string {
	keys := []string{r.ID}
	add := func(ks ...string) {
		for _, k := range ks {
			if k != "" {
				keys = append(keys, k)
			}
		}
	}
	switch {
	case r.Decision != nil:
		add(r.Decision.CallID, r.Decision.Txn)
	case r.Outcome != nil:
		add(r.Outcome.CallID, r.Outcome.Of)
	case r.Issuance != nil:
		add(r.Issuance.Txn, r.Issuance.JTI, r.Issuance.ReceiptHash, r.Issuance.TokenHash)
	}
	return keys
}

// SetAsOf says up to which checkpoint the index has been fed. Answers carry it.
func (x *Index) SetAsOf(a AsOf) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asOf = a
}

// AsOf is the checkpoint of SetAsOf; complete says that every entry before it
// is in the index.
func (x *Index) AsOf() (a AsOf, complete bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.asOf, x.complete()
}

func (x *Index) complete() bool { return x.asOf.Size > 0 && x.next >= x.asOf.Size }

// Len is the number of entries.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.entries)
}

// Find gives the entries that a record id, call id, transaction, token id,
// receipt hash or token hash names, in index order: for a decision's id also
// its outcomes. ErrNotFound if there is none.
func (x *Index) Find(id string) ([]Entry, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	found := x.keys[id]
	if len(found) == 0 {
		return nil, fmt.Errorf("finding %.80q: %w", id, ErrNotFound)
	}
	out := make([]Entry, len(found))
	for i, e := range found {
		out[i] = *e
	}
	return out, nil
}

// Filter says which records are wanted; a zero member asks nothing.
type Filter struct {
	Kind record.Kind
	// Person is the reference of the person at the root.
	Person string
	// Agent is an actor of any hop, the caller as claimed or proven, or the agent
	// that an operator's change or revocation concerns or is by.
	Agent string
	// Callee is the resource identifier called, or the tool.
	Callee string
	// Resource is the resource identifier called or, of a token, its audience.
	// Tool and Model are the name of the tool or model called.
	Resource, Tool, Model string
	Effect                record.Effect
	Reason                string
	Txn                   string
	// Receipt is the hash of a receipt or token that the record names.
	Receipt string
	// Policy is the digest of the rules, or the id of a rule that determined.
	Policy string
	// Writer is a gw.id.
	Writer string
	// Since and Until bound the asserted time, [Since, Until).
	Since, Until record.Timestamp
	// From is the first index looked at, where a page begins; Before, if it is not
	// 0, the first that is not. Limit bounds the answer; 0 is no bound.
	From, Before int64
	Limit        int
	// Newest asks for the highest index first. The next page then ends at its
	// Before.
	Newest bool
}

// pass moves f behind an index.
func (f *Filter) pass(index int64) {
	if f.Newest {
		f.Before = index
	} else {
		f.From = index + 1
	}
}

// next is where the page after f begins, -1 if there is none.
func (f *Filter) next() int64 {
	switch {
	case f.From >= f.Before:
		return -1
	case f.Newest:
		return f.Before
	default:
		return f.From
	}
}

// Records gives the entries that match, in index order
// or the newest first.
func (x *Index) Records(f Filter) []Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []Entry
	take := func(e *Entry) bool {
		if e.Index >= f.From && (f.Before <= 0 || e.Index < f.Before) && f.match(e.Record) {
			out = append(out, *e)
		}
		return f.Limit <= 0 || len(out) < f.Limit
	}
	entries := slices.All(x.entries)
	if f.Newest {
		entries = slices.Backward(x.entries)
	}
	for _, e := range entries {
		if !take(e) {
			break
		}
	}
	return out
}

func (f Filter) match(r record.Record) bool {
	switch {
	case f.Kind != "" && r.Kind != f.Kind,
		f.Writer != "" && r.Writer.ID != f.Writer,
		f.Since != "" && r.Time < f.Since,
		f.Until != "" && r.Time >= f.Until:
		return false
	}
	if f.aboutAny() {
		return true
	}
	switch {
	case r.Decision != nil:
		return f.matchDecision(r.Decision)
	case r.Issuance != nil:
		return f.matchIssuance(r.Issuance)
	case r.Registry != nil:
		return f.matchNames(r.Registry.Reason, r.Registry.Target, r.Registry.By)
	case r.Revocation != nil:
		return f.matchNames("", r.Revocation.Value, r.Revocation.By)
	default:
		return false
	}
}

// aboutAny says that nothing is asked about what is in the body of a record.
func (f Filter) aboutAny() bool {
	return f.Person == "" && f.Agent == "" && f.Callee == "" && f.Resource == "" && f.Tool == "" && f.Model == "" &&
		f.Effect == "" && f.Reason == "" && f.Txn == "" && f.Receipt == "" && f.Policy == ""
}

// matchNames matches a record of an operator, which has no call: by the agent
// that it concerns or who wrote it, and by its reason.
func (f Filter) matchNames(reason string, names ...string) bool {
	rest := f
	rest.Agent, rest.Reason = "", ""
	return rest.aboutAny() && (f.Agent == "" || slices.Contains(names, f.Agent)) && (f.Reason == "" || f.Reason == reason)
}

func (f Filter) matchDecision(d *record.Decision) bool {
	is := func(want string, of ...string) bool { return want == "" || slices.Contains(of, want) }
	actors, hashes := []string{d.Caller.Claimed, d.Caller.Proven}, []string{}
	for _, h := range d.Chain {
		actors, hashes = append(actors, h.Actor), append(hashes, h.ReceiptHash, h.TokenHash)
		for _, p := range h.Via {
			actors = append(actors, p.Subject)
		}
	}
	callee := record.Callee{}
	if d.Callee != nil {
		callee = *d.Callee
	}
	tool, isModel := nameCalled(d)
	model := ""
	if isModel {
		tool, model = "", tool
	}
	return is(f.Person, d.Person.Ref) && is(f.Agent, actors...) && is(f.Callee, callee.ID, callee.Tool) &&
		is(f.Resource, callee.ID) && is(f.Tool, tool) && is(f.Model, model) &&
		is(string(f.Effect), string(d.Verdict.Effect)) && is(f.Reason, d.Verdict.Reason) && is(f.Txn, d.Txn) &&
		is(f.Receipt, hashes...) && is(f.Policy, append([]string{d.Policy.BundleDigest}, d.Policy.Rules...)...)
}

func (f Filter) matchIssuance(i *record.Issuance) bool {
	is := func(want string, of ...string) bool { return want == "" || slices.Contains(of, want) }
	actors := []string{i.Actor}
	if i.Partner != nil {
		for _, p := range i.Partner.Actors {
			actors = append(actors, p.Subject)
		}
	}
	return f.Effect == "" && f.Tool == "" && f.Model == "" && is(f.Person, i.Person.Ref) && is(f.Agent, actors...) &&
		is(f.Callee, i.Audience) && is(f.Resource, i.Audience) &&
		is(f.Reason, i.Reason) && is(f.Txn, i.Txn) && is(f.Receipt, i.ReceiptHash, i.TokenHash) && is(f.Policy, i.BundleDigest)
}

// nameCalled is the tool that a decision is for, or the model, which stands in
// what the call needs; model says which of them.
func nameCalled(d *record.Decision) (name string, model bool) {
	switch {
	case d.Callee == nil:
		return "", false
	case d.Callee.Kind != record.CalleeModel:
		return d.Callee.Tool, false
	case d.Callee.Tool != "":
		return d.Callee.Tool, true
	}
	for _, atom := range d.Request.Needed {
		if name, ok := strings.CutPrefix(atom, d.Callee.Op+" "); ok {
			return name, true
		}
	}
	return "", true
}
