// Package faults runs the ledger as a process of its own, breaks what it stands on, and checks what is left.
//
//	appender ──records──▶ ledger.Writer ─▶ store ─▶ ledger.Sequencer ─▶ tiles
//	    │                                    ▲
//	    └──"ack …", "checkpoint …"──▶ test   └── killed, cut, full, stopped, restored
//
// What the process said before it ended is what the world relied on. [Check]
// holds what a fresh start finds to it: every acknowledged record is in the log
// once, every writer's chain has no hole, every checkpoint that left still
// holds, the files are sound, and the log verifies offline.
//
// It is for tests. Its keys are known to everybody, and its records say nothing.
package faults

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// The names of the log under test.
const (
	Family = "ledger.example/std"
	Origin = Family + "/1"
	Admin  = "admin" // the writer that introduces the others
)

// Place is where a log is kept.
type Place struct {
	Dir   string        // of the tiles, and of the database unless URL is given
	URL   string        // of a PostgreSQL database
	Clock time.Duration // added to the clock of a SQLite store
}

// key is that of a name: the same in every process.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("lineal fault test " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey {
	return k.Public().(ed25519.PublicKey)
}

func logKey() (note.Signer, note.Verifier, error) {
	return ledger.NewCheckpointKey(Origin, key("log"))
}

func (p Place) database() string { return filepath.Join(p.Dir, "ledger.db") }
func (p Place) tiles() string    { return filepath.Join(p.Dir, "tiles") }

// Open opens the store for writing, and makes the log at first use.
func (p Place) Open(ctx context.Context) (ledger.Store, *disk.Store, error) {
	s, err := p.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err = s.CreateLog(ctx, Family, Origin); err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	d, err := disk.Open(disk.Config{Dir: p.tiles(), Create: true})
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return s, d, nil
}

func (p Place) open(ctx context.Context) (ledger.Store, error) {
	if p.URL != "" {
		return postgres.Open(ctx, postgres.Config{URL: p.URL, Create: true, Conns: 4})
	}
	cfg := sqlite.Config{Path: p.database(), Create: true, Now: func() time.Time { return time.Now().Add(p.Clock) }}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// A process that is just being started holds what its parent had open.
		if s, err := sqlite.Open(ctx, cfg); !errors.Is(err, sqlite.ErrLocked) || time.Now().After(deadline) {
			return s, err
		}
	}
}

// draft is a record before its writer fills in the head.
type draft struct {
	id  string
	rec record.Record
}

// sealer fills in the head of a draft at its place.
type sealer struct {
	entry.Sealer
	role record.Role
}

func newSealer(writer string, role record.Role) (sealer, error) {
	s, err := record.NewSigner(key(writer))
	return sealer{entry.Sealer{Signer: s}, role}, err
}

// Link implements [ledger.Sealer].
func (s sealer) Link(body any, at ledger.Position) (ledger.Linked, error) {
	d, ok := body.(draft)
	if !ok {
		return ledger.Linked{}, fmt.Errorf("sealing a %T", body)
	}
	r := d.rec
	r.Version, r.Log, r.ID, r.Time = record.Version, at.Log, d.id, record.At(time.Now())
	r.Writer = record.Writer{ID: at.GWID, Run: at.Run, Role: s.role, KeyID: s.Signer.KeyID()}
	r.DataClass, r.Region, r.NotAsserted = record.DataInternal, record.RegionEU, []record.NotAsserted{}
	rd, err := record.NewDraft(r)
	if err != nil {
		return ledger.Linked{}, err
	}
	return s.Sealer.Link(rd, at)
}

// beat is the record that the appender writes: n is its number.
func beat(n int) record.Record {
	return record.Record{Header: record.Header{Kind: record.KindHeartbeat}, Heartbeat: &record.Heartbeat{
		State: record.Beat, Build: record.Hash([]byte("appender")), Interval: 10, Counts: record.Counts{Permit: int64(n)},
	}}
}

// introduction says which key is a writer's.
func introduction(writer string) record.Record {
	pub := public(key(writer))
	return record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: &record.KeyChange{
		Op: record.KeyAdd, For: writer, Role: record.RoleGateway, KeyID: record.KeyID(pub),
		PublicKey: base64.RawURLEncoding.EncodeToString(pub),
	}}
}

// chains is what is known of the writers of a log: a second telling of what the
// server's admission of records knows.
type chains struct {
	keys  map[string]ed25519.PublicKey // by key id
	tails map[string]tail              // by writer
	next  int64
}

type tail struct {
	run, hash string
	seq       int64
}

func newChains() *chains {
	pub := public(key(Admin))
	return &chains{keys: map[string]ed25519.PublicKey{record.KeyID(pub): pub}, tails: make(map[string]tail)}
}

// catchUp takes in the entries up to an index.
func (c *chains) catchUp(ctx context.Context, src ledger.Source, to int64) error {
	for e, err := range src.ReadRange(ctx, Origin, c.next, to) {
		if err != nil {
			return err
		}
		if err := c.admit(e.Envelope); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	if c.next != to {
		return fmt.Errorf("the log ends at %d of %d entries", c.next, to)
	}
	return nil
}

// check is the ledger.Check over a store.
func (c *chains) check(src ledger.Source) ledger.Check {
	return func(ctx context.Context, first int64, batch []ledger.Candidate) ([]error, error) {
		if err := c.catchUp(ctx, src, first); err != nil {
			return nil, err
		}
		verdicts := make([]error, len(batch))
		for i, b := range batch {
			verdicts[i] = c.admit(b.Envelope)
		}
		return verdicts, nil
	}
}

// knows reports whether a writer's key is introduced.
func (c *chains) knows(writer string) bool {
	return c.keys[record.KeyID(public(key(writer)))] != nil
}

func (c *chains) admit(envelope []byte) error {
	e, err := record.Open(envelope)
	if err != nil {
		return err
	}
	pub := c.keys[e.KeyID]
	if pub == nil {
		return fmt.Errorf("key %s is no writer's", e.KeyID)
	}
	if err := e.Verify(pub); err != nil {
		return err
	}
	r, err := record.Parse(e.Payload)
	if err != nil {
		return err
	}
	w, last := r.Writer, c.tails[r.Writer.ID]
	want := int64(0)
	if w.Run == last.run {
		want = last.seq + 1
	}
	if w.Seq != want || w.Prev != last.hash {
		return fmt.Errorf("writer %s has seq %d after %q, want %d after %q", w.ID, w.Seq, w.Prev, want, last.hash)
	}
	if k := r.KeyChange; k != nil {
		raw, err := base64.RawURLEncoding.DecodeString(k.PublicKey)
		if err != nil {
			return err
		}
		if k.Op == record.KeyAdd {
			c.keys[k.KeyID] = raw
		} else {
			delete(c.keys, k.KeyID)
		}
	}
	c.tails[w.ID] = tail{run: w.Run, hash: record.Hash(e.Payload), seq: w.Seq}
	c.next++
	return nil
}
