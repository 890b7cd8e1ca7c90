package server

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"iter"

	"github.com/lineal-auth/lineal/internal/parallel"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// admission decides which candidates get an index: each must be a readable
// record, signed by the key that its writer has at that index, and follow the
// same writer's previous record without a gap. It is the ledger's injected
// check; to the ledger itself entries are opaque.
type admission struct {
	manifest string // keyid of the manifest key, which may sign for the admin
	public   ed25519.PublicKey
	origin   string
	keys     map[string]writerKey // by keyid, those that ended too; the manifest key aside
	tails    map[string]tail      // gw.id → last record

	read readRange
	blob func(ctx context.Context, digest string) (ledger.Blob, error)
	next int64 // entries taken in

	open permits // of those entries

	saved int64                                   // entries under the newest snapshot
	keep  func(ctx context.Context, a *admission) // makes the next one; may be nil
}

// tail is a writer's last record.
type tail struct {
	Run   string `json:"run"`
	Seq   int64  `json:"seq"`
	Hash  string `json:"hash"`
	Index int64  `json:"index"`
	// Origin is of the period that holds it, "" if that is the one spoken of.
	Origin string `json:"origin,omitempty"`
	// KeyID is of the key that signed it; "" in the state of an older period.
	KeyID string `json:"keyid,omitempty"`
	// Stopped: it says that its run ended.
	Stopped bool `json:"stopped,omitempty"`
}

// tailOf makes the record at an index its writer's last one.
func tailOf(rec record.Record, hash string, index int64) tail {
	w := rec.Writer
	return tail{
		Run: w.Run, Seq: w.Seq, Hash: hash, Index: index, KeyID: w.KeyID,
		Stopped: rec.Heartbeat != nil && rec.Heartbeat.State == record.BeatStop,
	}
}

// readRange is [ledger.Source].ReadRange.
type readRange func(ctx context.Context, origin string, from, to int64) iter.Seq2[ledger.Entry, error]

// newAdmission makes an admission that takes in the log so far, through read,
// so that a start continues exactly where the last run ended.
func newAdmission(manifest ed25519.PublicKey, read readRange) *admission {
	return &admission{
		manifest: record.KeyID(manifest), public: manifest, keys: make(map[string]writerKey), tails: make(map[string]tail), read: read,
	}
}

// admissionOf is the check of the sequencer over one origin of a log.
func admissionOf(manifest ed25519.PublicKey, src ledger.Source, origin string) *admission {
	a := newAdmission(manifest, src.ReadRange)
	a.origin, a.blob = origin, src.Blob
	return a
}

// catchUp takes in the entries up to an index. Until this process holds the
// lease, another one may add entries; who judged without them would refuse
// every record that follows one of them, and for good.
func (a *admission) catchUp(ctx context.Context, to int64) error {
	batch := make([]ledger.Entry, 0, openAtOnce)
	for e, err := range a.read(ctx, a.origin, a.next, to) {
		if err != nil {
			return cmp.Or(a.takeIn(ctx, batch), fmt.Errorf("reading the log: %w", err)) // the first thing wrong
		}
		if batch = append(batch, e); len(batch) == openAtOnce {
			if err := a.takeIn(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := a.takeIn(ctx, batch); err != nil {
		return err
	}
	if a.next != to {
		return fmt.Errorf("the log has %d entries, of which %d were taken in", to, a.next)
	}
	if a.keep != nil && a.next >= a.saved+snapshotEvery {
		a.saved = a.next // once, whether it is kept or not
		a.keep(ctx, a)
	}
	return nil
}

// openAtOnce is how many entries are opened beside each other.
const openAtOnce = 256

// takeIn takes in entries that follow. What depends on nothing but the entry and its
// key, three quarters of the work, is done for all of them on every processor.
func (a *admission) takeIn(ctx context.Context, batch []ledger.Entry) error {
	ready := make([]looked, len(batch))
	parallel.Each(len(batch), func(i int) { ready[i] = a.lookAt(batch[i].Envelope) })
	for i, e := range batch {
		if a.next == 0 {
			if err := a.begin(ctx, e.Envelope); err != nil {
				return fmt.Errorf("beginning of the log: %w", err)
			}
		}
		if err := a.admitted(ready[i]); err != nil {
			return fmt.Errorf("entry %d of the log: %w", e.Index, err)
		}
		a.next++
	}
	return nil
}

// check is the ledger.Check.
func (a *admission) check(ctx context.Context, first int64, batch []ledger.Candidate) ([]error, error) {
	if err := a.catchUp(ctx, first); err != nil {
		return nil, err
	}
	verdicts := make([]error, len(batch))
	for i, c := range batch {
		if verdicts[i] = a.admit(c.Envelope); verdicts[i] == nil {
			a.next++
		}
	}
	return verdicts, nil
}

// looked is an envelope that was opened before its turn.
type looked struct {
	envelope record.Envelope
	record   record.Record
	err      error
	by       ed25519.PublicKey // under which its signature verified; nil: not tried, or not so
}

// lookAt reads an envelope, and verifies it under the key that its writer has by now,
// which may be another one when its turn comes. It changes nothing.
func (a *admission) lookAt(envelope []byte) (o looked) {
	if o.envelope, o.err = record.Open(envelope); o.err != nil {
		return o
	}
	if o.record, o.err = record.Parse(o.envelope.Payload); o.err != nil {
		return o
	}
	if pub, err := a.keyOf(o.record.Writer); err == nil && o.envelope.Verify(pub) == nil {
		o.by = pub
	}
	return o
}

func (a *admission) admit(envelope []byte) error { return a.admitted(a.lookAt(envelope)) }

func (a *admission) admitted(o looked) error {
	if o.err != nil {
		return o.err
	}
	e, rec := o.envelope, o.record
	pub, err := a.keyOf(rec.Writer)
	if err != nil {
		return err
	}
	if rec.Writer.KeyID != e.KeyID {
		return fmt.Errorf("it is signed under key %s and names %s", e.KeyID, rec.Writer.KeyID)
	}
	if !pub.Equal(o.by) {
		if err := e.Verify(pub); err != nil {
			return err
		}
	}
	if err := a.follows(rec.Writer); err != nil {
		return err
	}
	if err := a.learn(rec, e.KeyID); err != nil {
		return err
	}
	a.tails[rec.Writer.ID] = tailOf(rec, record.Hash(e.Payload), a.next)
	a.open.see(rec)
	return nil
}

// follows checks seq and prev.
func (a *admission) follows(w record.Writer) error {
	last, known := a.tails[w.ID]
	switch {
	case !known && (w.Seq != 0 || w.Prev != ""):
		return fmt.Errorf("first record of %q has seq %d and a predecessor %q", w.ID, w.Seq, w.Prev)
	case known && w.Prev != last.Hash:
		return fmt.Errorf("%q does not follow its previous record", w.ID)
	case known && w.Run == last.Run && w.Seq != last.Seq+1:
		return fmt.Errorf("%q jumps from seq %d to %d", w.ID, last.Seq, w.Seq)
	case known && w.Run != last.Run && w.Seq != 0:
		return fmt.Errorf("a new run of %q begins with seq %d", w.ID, w.Seq)
	}
	return nil
}

// learn takes in key records, which only the manifest key may sign.
func (a *admission) learn(rec record.Record, keyID string) error {
	if rec.Kind != record.KindKey && rec.Kind != record.KindPeriod {
		return nil
	}
	if keyID != a.manifest {
		return fmt.Errorf("a %s record that the manifest key did not sign", rec.Kind)
	}
	if rec.Kind == record.KindPeriod {
		return nil
	}
	if rec.KeyChange.Role == record.RoleIssuer {
		return nil // it signs tokens, and never a record
	}
	return a.change(rec.KeyChange)
}
