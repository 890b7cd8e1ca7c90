package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/storage/disk"
)

// Selection says what an evidence bundle holds. The zero value asks for the
// whole log.
//
// IDs, Txn or Person make a selection: the records that they name, what those
// rest on, and an inclusion proof for each. Else it is a range, of which every
// record is there.
type Selection struct {
	// IDs are of records, calls, transactions, tokens or receipts.
	IDs []string
	// Txn is a transaction, Person the reference of the person at the root.
	Txn, Person string
	// From and To bound a range by index, [From, To). It ends at the first
	// published checkpoint of at least To entries, because only a checkpoint proves
	// an end; 0 is the newest one.
	From, To int64
	// Disclose names decisions, as [search.Index.Trace] finds them: the values that
	// policy read are added in clear where they have not been erased. Of all other
	// decisions none are.
	Disclose []string
}

func (s Selection) selected() bool { return len(s.IDs) > 0 || s.Txn != "" || s.Person != "" }

func (s Selection) validate() error {
	switch {
	case s.selected() && (s.From != 0 || s.To != 0):
		return errors.New("records by name and a range are two bundles")
	case s.From < 0 || s.To < 0 || s.To > 0 && s.From >= s.To:
		return fmt.Errorf("[%d, %d) is no range", s.From, s.To)
	}
	return nil
}

// query is the question in the words of the manifest.
func (s Selection) query() string {
	var asked []string
	if len(s.IDs) > 0 {
		asked = append(asked, "records of "+strings.Join(s.IDs, ", "))
	}
	if s.Txn != "" {
		asked = append(asked, "transaction "+s.Txn)
	}
	if s.Person != "" {
		asked = append(asked, "person "+s.Person)
	}
	switch {
	case len(asked) > 0:
		return strings.Join(asked, "; ") + "; with what they rest on"
	case s.From > 0 || s.To > 0:
		return "every record of the range"
	default:
		return "every record of the log"
	}
}

// Export writes the evidence bundle of a selection, up to the newest published
// checkpoint, signed with the deployment's manifest key: where a process has
// the roles tokens and ledger.
//
// Memory is bounded, whatever the log's length: until its end is known the bundle
// lies in files without a name, in the system's directory for such.
func (a *Archive) Export(ctx context.Context, w io.Writer, sel Selection, now time.Time) error {
	return a.exportIn(ctx, w, sel, os.TempDir(), now)
}

// ExportFile is Export to a file that must not be there. It is there when all of it
// is, and on disk: whatever happens before leaves nothing under its name. While it
// works it needs twice the bundle's size in the file's directory.
func (a *Archive) ExportFile(ctx context.Context, path string, sel Selection, now time.Time) (err error) {
	f, err := durable.Create(path, 0o600)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := a.exportIn(ctx, f, sel, filepath.Dir(path), now); err != nil {
		return err
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	return nil
}

func (a *Archive) exportIn(ctx context.Context, w io.Writer, sel Selection, dir string, now time.Time) error {
	if err := sel.validate(); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	keys, err := loadKeys(a.dataDir)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if keys.manifest == nil || keys.log == nil {
		return fmt.Errorf("exporting: %w", errNotHere("manifest or log"))
	}
	return a.export(ctx, w, exporter{a: a, sel: sel, dir: dir}, keys, now)
}

// exportAt is Export of a selection with the records found at a desk, for logs
// of any length. Without rules the bundle lacks those that decided.
func (a *Archive) exportAt(ctx context.Context, w io.Writer, desk *search.Desk, sel Selection, rules bool, now time.Time) error {
	keys, err := loadKeys(a.dataDir)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if keys.manifest == nil || keys.log == nil {
		return fmt.Errorf("exporting: %w", errNotHere("manifest or log"))
	}
	if !sel.selected() {
		return errors.New("exporting: nothing is selected")
	}
	return a.export(ctx, w, exporter{a: a, sel: sel, at: &finder{ctx, desk}, noRules: !rules}, keys, now)
}

func (a *Archive) export(ctx context.Context, w io.Writer, e exporter, keys keyRing, now time.Time) (err error) {
	defer func() {
		if e.bundle != nil {
			err = errors.Join(err, e.bundle.Close())
		}
	}()
	if err := e.open(ctx, keys, now); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if err := e.fill(ctx); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if err := a.disclose(ctx, &e, e.sel.Disclose); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	return e.bundle.Seal(w)
}

// exporter is one export under way.
type exporter struct {
	a        *Archive
	sel      Selection
	reader   *ledger.Reader
	last     ledger.Checkpoint // which the bundle proves
	dir      string            // for what is not in memory; "": all of it is
	bundle   *evidence.Builder
	wanted   map[int64]bool // records with a proof of their own
	policies map[string]bool
	at       *finder // where records are found; nil: at a desk of its own
	noRules  bool    // leave the rules out
}

// finder finds records at a desk.
type finder struct {
	ctx  context.Context //nolint:containedctx // of one export
	desk *search.Desk
}

func (d *finder) Find(id string) ([]search.Entry, error) { return d.desk.Find(d.ctx, id) }

// each gives every record that a filter selects.
func (d *finder) each(f search.Filter, do func(search.Entry) error) error {
	for f.Limit = 1000; ; {
		p, err := d.desk.Records(d.ctx, f)
		if err != nil {
			return err
		}
		for _, e := range p.Entries {
			if err := do(e); err != nil {
				return err
			}
		}
		if p.Next < 0 {
			return nil
		}
		f.From = p.Next
	}
}

// open finds the checkpoint that the bundle is to end at.
func (e *exporter) open(ctx context.Context, keys keyRing, now time.Time) error {
	tiles, err := e.a.openTiles()
	if err != nil {
		return err
	}
	e.reader, e.policies = ledger.NewReader(e.a.store, tiles), map[string]bool{}
	logKey, verifier, err := e.a.logKey(keys)
	if err != nil {
		return err
	}
	if e.last, err = proven(ctx, tiles, verifier); err != nil {
		return err
	}
	if e.sel.To > 0 {
		if e.last, err = e.ending(ctx, e.sel.To); err != nil {
			return err
		}
	}
	if e.sel.From > 0 && e.sel.From >= e.last.Size {
		return fmt.Errorf("the log has %d entries under its newest checkpoint, none from %d on", e.last.Size, e.sel.From)
	}
	c := evidence.Contents{
		Mode: evidence.ModeRange, Origin: e.last.Origin, From: e.sel.From, To: e.last.Size, Created: now.UTC(), Last: e.last.Note,
		Query: e.sel.query(),
	}
	if e.sel.selected() {
		c.Mode, c.From, c.To = evidence.ModeSelected, 0, 0
	}
	if c.Signer, err = evidence.NewSigner(e.a.cfg.Family, keys.manifest); err != nil {
		return err
	}
	c.LogKey = logKey
	if c.IssuerKeys, err = pinnedKeys(keys.issuer); err != nil {
		return err
	}
	if err := e.continueFrom(ctx, &c); err != nil {
		return err
	}
	if e.a.pruned != nil {
		if e.sel.selected() || e.sel.From > 0 || e.last.Size != e.a.pruned.Size {
			return fmt.Errorf("%w: only the whole of it can be exported", errPruned)
		}
		if c.Pruning, err = e.pruning(ctx); err != nil {
			return err
		}
	}
	e.bundle, err = evidence.NewBuilder(c, e.dir)
	return err
}

// ending is the first published checkpoint of at least size entries.
func (e *exporter) ending(ctx context.Context, size int64) (ledger.Checkpoint, error) {
	const page = 64
	for at := size; at <= e.last.Size; {
		cs, err := e.a.store.Checkpoints(ctx, e.last.Origin, at, page)
		if err != nil {
			return ledger.Checkpoint{}, err
		}
		for _, c := range cs {
			if !c.Published.IsZero() && c.Size <= e.last.Size {
				return c, nil
			}
		}
		if len(cs) < page {
			break
		}
		at = cs[len(cs)-1].Size + 1
	}
	return ledger.Checkpoint{}, fmt.Errorf("no published checkpoint has %d entries: the newest has %d", size, e.last.Size)
}

// proven is the newest checkpoint that this process's tiles prove. Where another
// process sequences, the store may be a little ahead of it.
func proven(ctx context.Context, tiles *disk.Store, verifier note.Verifier) (ledger.Checkpoint, error) {
	msg, err := tiles.GetCheckpoint(ctx)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	return ledger.OpenCheckpoint(msg, verifier)
}

// continueFrom adds the first checkpoint of the log, so that the bundle shows
// that the tree only grew.
func (e *exporter) continueFrom(ctx context.Context, c *evidence.Contents) error {
	earlier, err := e.a.store.Checkpoints(ctx, e.last.Origin, 1, 1)
	if err != nil || len(earlier) == 0 || earlier[0].Size >= e.last.Size {
		return err
	}
	c.First = earlier[0].Note
	c.Consistency, err = e.reader.ConsistencyProof(ctx, e.last.Origin, earlier[0].Size, e.last.Size)
	return err
}

// fill adds the records and what they name.
func (e *exporter) fill(ctx context.Context) (err error) {
	if !e.sel.selected() && e.sel.From == 0 {
		for entry, err := range e.a.store.ReadRange(ctx, e.last.Origin, 0, e.last.Size) {
			if err != nil {
				return err
			}
			if err := e.add(ctx, entry); err != nil {
				return err
			}
		}
		return nil
	}
	if e.at == nil {
		desk, oerr := e.a.Desk(ctx)
		if oerr != nil {
			return oerr
		}
		defer func() { err = errors.Join(err, desk.Close()) }()
		e.at = &finder{ctx: ctx, desk: desk.Desk}
	}
	if err := e.find(e.at); err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(e.wanted)) {
		if err := e.addProven(ctx, index); err != nil {
			return err
		}
	}
	if e.sel.selected() {
		return nil
	}
	for entry, err := range e.a.store.ReadRange(ctx, e.last.Origin, e.sel.From, e.last.Size) {
		if err != nil {
			return err
		}
		if err := e.add(ctx, entry); err != nil {
			return err
		}
	}
	return e.prove(ctx, e.sel.From)
}

// find notes the indexes of the records that need a proof of their own: those
// that were asked for, or before a range those that it rests on.
func (e *exporter) find(x *finder) error {
	e.wanted = map[int64]bool{}
	add := func(entries ...search.Entry) {
		for _, r := range entries {
			if r.Index < e.last.Size && (e.sel.selected() || r.Index < e.sel.From) {
				e.wanted[r.Index] = true
			}
		}
	}
	if err := x.each(search.Filter{Kind: record.KindKey}, func(r search.Entry) error { add(r); return nil }); err != nil {
		return err
	}
	return e.asked(x, func(r search.Entry) error {
		for _, id := range restsOn(r.Record) {
			found, err := x.Find(id)
			if err != nil && !errors.Is(err, search.ErrNotFound) { // else it is not in this log, which the verifier says
				return err
			}
			add(found...)
		}
		add(r)
		return nil
	})
}

// holds says whether the bundle has the record of an index.
func (e *exporter) holds(index int64) bool {
	return e.wanted[index] || !e.sel.selected() && index >= e.sel.From && index < e.last.Size
}

// asked gives the records that were asked for.
func (e *exporter) asked(x *finder, do func(search.Entry) error) error {
	if !e.sel.selected() {
		return x.each(search.Filter{From: e.sel.From}, do)
	}
	for _, id := range append(slices.Clone(e.sel.IDs), e.sel.Disclose...) {
		found, err := x.Find(id)
		if err != nil {
			return err
		}
		for _, r := range found {
			if err := do(r); err != nil {
				return err
			}
		}
	}
	if e.sel.Txn == "" && e.sel.Person == "" {
		return nil
	}
	n := 0
	err := x.each(search.Filter{Txn: e.sel.Txn, Person: e.sel.Person}, func(r search.Entry) error {
		n++
		return do(r)
	})
	if err == nil && n == 0 {
		err = errors.New("no record is of that transaction or person")
	}
	return err
}

// restsOn names the records without which a record cannot be followed back to
// the person and on to its outcome.
func restsOn(r record.Record) []string {
	switch {
	case r.Decision != nil:
		ids := []string{r.ID}
		for _, h := range r.Decision.Chain {
			ids = append(ids, h.ReceiptHash+h.TokenHash) // one of them is ""
		}
		return ids
	case r.Outcome != nil:
		return []string{r.Outcome.Of}
	case r.Issuance != nil && r.Issuance.ParentHash != "":
		return []string{r.Issuance.ParentHash}
	default:
		return nil
	}
}

func (e *exporter) addProven(ctx context.Context, index int64) error {
	for entry, err := range e.a.store.ReadRange(ctx, e.last.Origin, index, index+1) {
		if err != nil {
			return err
		}
		if err := e.add(ctx, entry); err != nil {
			return err
		}
	}
	return e.prove(ctx, index)
}

func (e *exporter) prove(ctx context.Context, index int64) error {
	p, err := e.reader.ProveIndex(ctx, index, e.last)
	if err != nil {
		return err
	}
	return e.bundle.Proof(index, p.Hashes)
}

// add takes in a record, and what it names by digest as far as that is still
// kept: the verifier says what is missing.
func (e *exporter) add(ctx context.Context, of ledger.Entry) error {
	if of.Pruned() && e.a.pruned != nil {
		return e.bundle.Gone(of.Index, of.LeafHash)
	}
	if err := e.bundle.Record(evidence.Record{Index: of.Index, Envelope: of.Envelope}); err != nil {
		return err
	}
	rec, _, err := entry.Read(of.Envelope)
	if err != nil {
		return fmt.Errorf("entry %d: %w", of.Index, err)
	}
	switch {
	case rec.Issuance != nil && rec.Issuance.ReceiptHash != "":
		b, err := e.a.store.Blob(ctx, rec.Issuance.ReceiptHash)
		if errors.Is(err, ledger.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("entry %d: receipt: %w", of.Index, err)
		}
		return e.bundle.Receipt(string(b.Bytes))
	case rec.PolicyChange != nil:
		return e.addPolicy(ctx, rec.PolicyChange.BundleDigest)
	case rec.Decision != nil:
		if x := rec.Decision.Exchange; x != nil {
			if err := e.addExchange(ctx, x.StatementHash); err != nil {
				return err
			}
		}
		return e.addPolicy(ctx, rec.Decision.Policy.BundleDigest)
	case rec.Outcome != nil && rec.Outcome.Peer != nil:
		return e.addExchange(ctx, rec.Outcome.Peer.ExchangeReceiptHash)
	}
	return nil
}

// addExchange adds what a peer signed.
func (e *exporter) addExchange(ctx context.Context, hash string) error {
	if hash == "" {
		return nil
	}
	b, err := e.a.store.Blob(ctx, hash)
	switch {
	case errors.Is(err, ledger.ErrNotFound): // the verifier says that it is missing
		return nil
	case err != nil:
		return fmt.Errorf("exchange: %w", err)
	}
	return e.bundle.Exchange(b.Bytes)
}

// addPolicy adds a set of rules once.
func (e *exporter) addPolicy(ctx context.Context, digest string) error {
	if digest == "" || e.noRules || e.policies[digest] {
		return nil
	}
	b, err := e.a.store.Blob(ctx, digest)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("policy bundle: %w", err)
	}
	e.policies[digest] = true
	return e.bundle.Policy(evidence.PolicyBundle{Digest: digest, Bytes: b.Bytes})
}

// errPruned says that the bodies of a period are gone.
var errPruned = errors.New("the period was pruned at the end of its retention")

// pruning is the record that says what was pruned, and the proof that the open
// period, or a later one, has it.
func (e *exporter) pruning(ctx context.Context) (p evidence.Pruning, err error) {
	at := e.a.pruned.at.entry
	later := *e.a
	later.cfg, later.former = inPeriod(e.a.cfg, at.Origin), at.Origin != e.a.open
	keys, err := loadKeys(e.a.dataDir)
	if err != nil {
		return p, err
	}
	_, verifier, err := later.logKey(keys)
	if err != nil {
		return p, err
	}
	tiles, err := later.openTiles()
	if err != nil {
		return p, err
	}
	c, err := proven(ctx, tiles, verifier)
	if err != nil {
		return p, err
	}
	proof, err := ledger.NewReader(e.a.store, tiles).ProveIndex(ctx, at.Index, c)
	if err != nil {
		return p, fmt.Errorf("proving the pruning: %w", err)
	}
	return evidence.Pruning{Envelope: at.Envelope, Index: at.Index, Proof: proof.Hashes, Checkpoint: c.Note, Kept: e.a.pruned.list}, nil
}
