package server

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/internal/sealed"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// recorder is one writer of the log: it fills in who writes, and hands records
// to the ledger, which gives each its place and makes it durable.
type recorder struct {
	writer *ledger.Writer
	id     string
	role   record.Role
	keys   *signing
	log    string
	header record.Header // data class and region of this writer's own records
	now    func() time.Time
	sealer *sealed.Sealer // of disclosures

	permits, denials, unavailable atomic.Int64 // decisions of this run
	durable                       atomic.Int64 // when a record became durable last, Unix nanoseconds
	metrics                       *metrics     // nil: none

	mu   sync.Mutex      // guards last, and is held while that is queued
	last *ledger.Pending // the newest record without a deadline

	losses losses
	logger *slog.Logger
}

// beatInterval is the time between heartbeats (ledger.md §3.2: interval_s).
const beatInterval = 10 * time.Second

// signing is the key under which a writer signs. Another may take its place while
// the writer runs: the ledger links one record at a time, so that there is one
// record from which on the next key signs, and none of the one before follows it.
type signing struct {
	current atomic.Pointer[record.Signer]
	mu      sync.Mutex               // guards all
	all     map[string]record.Signer // by keyid: what is linked already is signed under its own
}

func newSigning(key ed25519.PrivateKey) (*signing, error) {
	s := &signing{all: make(map[string]record.Signer)}
	return s, s.use(key)
}

// use has what is linked from now on signed under key.
func (s *signing) use(key ed25519.PrivateKey) error {
	signer, err := record.NewSigner(key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.all[signer.KeyID()] = signer
	s.mu.Unlock()
	s.current.Store(&signer)
	return nil
}

// forget destroys every key but the current one. Nothing may be linked under them.
func (s *signing) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.all = map[string]record.Signer{now.KeyID(): now}
}

// several reports whether a key before the current one is still here.
func (s *signing) several() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all) > 1
}

func (s *signing) now() record.Signer { return *s.current.Load() }

func (s *signing) of(keyID string) (record.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.all[keyID]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("the key %s is not here any more", keyID)
}

// sealer lets the ledger seal records without knowing what they say.
type sealer struct{ keys *signing }

func (s sealer) Link(draft any, at ledger.Position) (ledger.Linked, error) {
	d, ok := draft.(record.Draft)
	if !ok {
		return ledger.Linked{}, fmt.Errorf("sealing a %T", draft)
	}
	keyID := s.keys.now().KeyID()
	payload, hash, err := d.LinkAs(keyID, at.Seq, at.Prev)
	if err != nil {
		return ledger.Linked{}, err
	}
	return ledger.Linked{RecordID: d.RecordID(), RecordHash: hash, Payload: payload, Key: keyID}, nil
}

func (s sealer) Sign(l ledger.Linked) ([]byte, error) {
	signer, err := s.keys.of(l.Key)
	if err != nil {
		return nil, err
	}
	return record.Sign(l.Payload, signer)
}

func (sealer) Place(envelope []byte) (ledger.Position, string, error) { return entry.Place(envelope) }

// openRecorder begins a run of the writer. Its first record is its heartbeat.
func (l *ledgerService) openRecorder(ctx context.Context, name string, role record.Role, key ed25519.PrivateKey) (*recorder, error) {
	keys, err := newSigning(key)
	if err != nil {
		return nil, err
	}
	id := writerID(name, l.cfg.Node)
	w, err := ledger.NewWriter(ctx, ledger.WriterConfig{
		Store: l.store, Log: l.cfg.Family, GWID: id, Sealer: sealer{keys}, Now: l.now, Logger: l.logger,
		Room: l.room, Observer: l.cfg.metrics.observer(),
	})
	if err != nil {
		return nil, fmt.Errorf("opening writer %s: %w", id, err)
	}
	return &recorder{
		writer: w, id: id, role: role, keys: keys, log: l.cfg.Family, now: l.now, logger: l.logger, sealer: l.sealer, metrics: l.cfg.metrics,
		header: record.Header{DataClass: record.DataClass(l.cfg.DataClass), Region: record.Region(l.cfg.Region)},
	}, nil
}

// Record returns after the record, and what it discloses, is durable.
func (r *recorder) Record(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	_, err := r.RecordHash(ctx, rec, disclosed...)
	return err
}

// RecordHash is Record, and gives the record's hash.
func (r *recorder) RecordHash(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) (string, error) {
	blobs, err := r.sealed(rec, disclosed)
	if err != nil {
		return "", err
	}
	return r.appendHash(ctx, rec, blobs)
}

func (r *recorder) append(ctx context.Context, rec record.Record, blobs []ledger.Blob) error {
	_, err := r.appendHash(ctx, rec, blobs)
	return err
}

func (r *recorder) appendHash(ctx context.Context, rec record.Record, blobs []ledger.Blob) (hash string, err error) {
	d, err := r.draft(rec)
	if err != nil {
		return "", err
	}
	d.Blobs = blobs
	if hash, err = r.appendDraft(ctx, d, refusalOf(d)); err == nil {
		r.durable.Store(r.now().UnixNano())
	}
	r.count(rec, err)
	if rec.Decision != nil && refusalOf(d) == "" && ledger.CauseOf(err) != "" {
		r.losses.unavailable(r.now(), err)
	}
	return hash, err
}

// RecordLater queues a record without a deadline.
func (r *recorder) RecordLater(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	d, err := r.draft(rec)
	if err != nil {
		return err
	}
	if d.Blobs, err = r.sealed(rec, disclosed); err != nil {
		return err
	}
	err = r.queueDraft(ctx, d, refusalOf(d))
	r.count(rec, err) // refusals queue here while the ledger is out
	return err
}

// draft fills in the writer. A permit whose caller gave up before it was
// durable, and which therefore went nowhere, gets the outcome that says so.
func (r *recorder) draft(rec record.Record) (ledger.Draft, error) {
	rec.Writer = record.Writer{ID: r.id, Role: r.role, Run: r.writer.Run(), KeyID: r.keys.now().KeyID()}
	rec.Log = r.log
	d, err := record.NewDraft(rec)
	if err != nil {
		return ledger.Draft{}, err
	}
	out := ledger.Draft{Body: d, Size: d.Size() * 2} // base64 and signature
	if rec.Decision != nil && rec.Decision.Verdict.Effect == record.Permit {
		out.IfAbandoned = func(ledger.Ack) *ledger.Draft { return r.notForwarded(rec) }
	}
	return out, nil
}

// drain returns when every outcome queued so far is durable: a record that
// queues after them is.
func (r *recorder) drain(ctx context.Context) error {
	r.mu.Lock()
	last := r.last
	r.mu.Unlock()
	if last == nil {
		return nil
	}
	_, err := last.Wait(ctx)
	return err
}

func (r *recorder) notForwarded(of record.Record) *ledger.Draft {
	rec := r.own(record.KindOutcome)
	rec.DataClass, rec.Region = of.DataClass, of.Region
	rec.Outcome = &record.Outcome{
		Of: of.ID, CallID: of.Decision.CallID, Status: record.StatusNotForwarded,
		Reason: "record_late", Ended: record.At(r.now()),
	}
	d, err := r.draft(rec)
	if err != nil {
		return nil
	}
	return &d
}

// own is the head of a record that this writer writes about itself.
func (r *recorder) own(kind record.Kind) record.Record {
	h := r.header
	h.Version, h.Kind, h.ID, h.Log, h.Time = record.Version, kind, newID(), r.log, record.At(r.now())
	h.NotAsserted = []record.NotAsserted{}
	return record.Record{Header: h}
}

// beat writes a heartbeat: that this writer lives, and what it last saw of the
// log, which bounds the clock of the records around it.
func (r *recorder) beat(ctx context.Context, state record.BeatState, build, checkpoint string) error {
	rec := r.own(record.KindHeartbeat)
	rec.Heartbeat = &record.Heartbeat{
		State: state, Build: build, Interval: int64(beatInterval / time.Second), Counts: r.counts(), Checkpoint: checkpoint,
	}
	return r.Record(ctx, rec)
}

// counts are the decisions of this run.
func (r *recorder) counts() record.Counts {
	return record.Counts{Permit: r.permits.Load(), Deny: r.denials.Load(), Unavailable: r.unavailable.Load()}
}

// count keeps the numbers that heartbeats state.
func (r *recorder) count(rec record.Record, err error) {
	if rec.Decision != nil {
		r.metrics.decided(rec.Decision, err)
	}
	if rec.Outcome != nil && err == nil {
		r.metrics.ended(rec.Outcome)
	}
	switch d := rec.Decision; {
	case d == nil:
	case err != nil:
		r.unavailable.Add(1)
	case d.Verdict.Effect == record.Permit:
		r.permits.Add(1)
	default:
		r.denials.Add(1)
	}
}

// newID is a UUIDv7 in lower case.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
