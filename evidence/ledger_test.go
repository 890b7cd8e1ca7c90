package evidence_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

const (
	logFamily = "ledger.example/std"
	logOrigin = logFamily + "/1"
	manifest  = "ledger.example/manifest"
)

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("evidence ledger test " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// sealer fills in the head of a record at its place, the same in each run of the test.
type sealer struct {
	entry.Sealer
	role record.Role
	n    *int
}

func (s sealer) Link(draft any, at ledger.Position) (ledger.Linked, error) {
	r := draft.(record.Record)
	*s.n++
	r.Version, r.Log, r.ID = record.Version, at.Log, fmt.Sprintf("01a40584-b456-7aec-82b8-%012x", *s.n)
	r.Writer = record.Writer{ID: at.GWID, Run: at.Run, Role: s.role, KeyID: s.Signer.KeyID()}
	r.Time, r.DataClass, r.Region = "2027-03-02T09:14:07.318Z", record.DataInternal, record.RegionEU
	d, err := record.NewDraft(r)
	if err != nil {
		return ledger.Linked{}, err
	}
	return s.Sealer.Link(d, at)
}

// realLog is a ledger on SQLite and tiles on disk.
type realLog struct {
	t         *testing.T
	store     *sqlite.Store
	sequencer *ledger.Sequencer
	reader    *ledger.Reader
	records   int
	sizes     []int64
}

func openLog(t *testing.T) *realLog {
	t.Helper()
	ctx := t.Context()
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "ledger.db"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.CreateLog(ctx, logFamily, logOrigin); err != nil {
		t.Fatal(err)
	}
	tiles, err := disk.Open(disk.Config{Dir: filepath.Join(t.TempDir(), "tiles"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	signer, verifier, err := ledger.NewCheckpointKey(logOrigin, key("log"))
	if err != nil {
		t.Fatal(err)
	}
	seq, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: store, Tiles: tiles, Log: logFamily, Signer: signer, Verifier: verifier,
		Check: func(context.Context, int64, []ledger.Candidate) ([]error, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seq.Close(context.WithoutCancel(ctx)) })
	return &realLog{t: t, store: store, sequencer: seq, reader: ledger.NewReader(store, tiles)}
}

// write is one run of a writer, and a checkpoint over what it wrote.
func (l *realLog) write(id string, role record.Role, k ed25519.PrivateKey, records ...record.Record) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	signer, err := record.NewSigner(k)
	if err != nil {
		l.t.Fatal(err)
	}
	w, err := ledger.NewWriter(ctx, ledger.WriterConfig{
		Store: l.store, Log: logFamily, GWID: id, Sealer: sealer{entry.Sealer{Signer: signer}, role, &l.records}, Deadline: 30 * time.Second,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	var pending []*ledger.Pending
	for _, r := range records {
		p, err := w.Begin(ctx, ledger.Draft{Body: r})
		if err != nil {
			l.t.Fatal(err)
		}
		pending = append(pending, p)
	}
	for _, p := range pending {
		if _, err := p.Wait(ctx); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := w.Close(ctx); err != nil {
		l.t.Fatal(err)
	}
	c, err := l.sequencer.Flush(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	l.sizes = append(l.sizes, c.Size)
}

func beats(n int) []record.Record {
	rs := make([]record.Record, n)
	for i := range rs {
		rs[i] = record.Record{Header: record.Header{Kind: record.KindHeartbeat}, Heartbeat: &record.Heartbeat{
			State: record.Beat, Build: record.Hash([]byte("build")), Interval: 10, Counts: record.Counts{Permit: int64(i)},
		}}
	}
	return rs
}

func addKey(id string, k ed25519.PrivateKey) record.Record {
	pub := k.Public().(ed25519.PublicKey)
	return record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: &record.KeyChange{
		Op: record.KeyAdd, For: id, Role: record.RoleGateway, KeyID: record.KeyID(pub), PublicKey: base64.RawURLEncoding.EncodeToString(pub),
	}}
}

func publicKey(t *testing.T, name string, k ed25519.PrivateKey) evidence.Key {
	t.Helper()
	pub, err := evidence.NewKey(name, k.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// TestRealLedger exports from the real ledger, over more than one tile and two
// runs of a writer, and verifies: two implementations of the tree, of notes
// and of checkpoints must agree.
func TestRealLedger(t *testing.T) {
	l := openLog(t)
	l.write("admin", record.RoleAdmin, key("manifest"), addKey("gw-1", key("gw-1")))
	l.write("gw-1", record.RoleGateway, key("gw-1"), beats(200)...)
	l.write("gw-1", record.RoleGateway, key("gw-1"), beats(100)...)

	var text bytes.Buffer
	if err := evidence.WritePolicy(&text, evidence.Trust{
		Logs:      []evidence.Key{publicKey(t, logOrigin, key("log"))},
		Manifests: []evidence.Key{publicKey(t, manifest, key("manifest"))},
	}); err != nil {
		t.Fatal(err)
	}
	policy, err := evidence.ParsePolicy(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]evidence.Contents{
		"range":       l.export(0, evidence.ModeRange),
		"later range": l.export(256, evidence.ModeRange),
		"selected":    l.export(290, evidence.ModeSelected),
	} {
		var b bytes.Buffer
		if err := evidence.Write(&b, c); err != nil {
			t.Fatal(err)
		}
		r := evidence.Verify(b.Bytes(), policy)
		if r.ExitCode() != 0 {
			var out bytes.Buffer
			_ = r.WriteText(&out)
			t.Errorf("%s:\n%s", name, out.String())
		}
	}
}

// export reads a range or, for a selection, the records from `from` on, with
// the key record and the proofs that they need.
func (l *realLog) export(from int64, mode evidence.Mode) evidence.Contents {
	l.t.Helper()
	ctx := l.t.Context()
	last, err := l.reader.Published(ctx, logOrigin)
	if err != nil {
		l.t.Fatal(err)
	}
	first, err := l.reader.CheckpointAt(ctx, logOrigin, l.sizes[1])
	if err != nil {
		l.t.Fatal(err)
	}
	signer, err := evidence.NewSigner(manifest, key("manifest"))
	if err != nil {
		l.t.Fatal(err)
	}
	c := evidence.Contents{
		Mode: mode, Origin: logOrigin, From: from, To: last.Size, Query: "test", Created: time.Unix(1803978838, 0),
		First: first.Note, Last: last.Note, Signer: signer, Proofs: map[int64][]evidence.Hash{},
	}
	if mode == evidence.ModeSelected {
		c.From, c.To = 0, 0
	}
	if c.Consistency, err = l.reader.ConsistencyProof(ctx, logOrigin, first.Size, last.Size); err != nil {
		l.t.Fatal(err)
	}
	for e, err := range l.reader.Entries(ctx, logOrigin, 0, last.Size) {
		if err != nil {
			l.t.Fatal(err)
		}
		if e.Index > 0 && e.Index < from {
			continue
		}
		c.Records = append(c.Records, evidence.Record{Index: e.Index, Envelope: e.Envelope})
		p, err := l.reader.ProveIndex(ctx, e.Index, last)
		if err != nil {
			l.t.Fatal(err)
		}
		leaf := evidence.LeafHash(e.Envelope)
		if leaf != p.LeafHash {
			l.t.Fatalf("leaf %d: another hash than the ledger's", e.Index)
		}
		if err := evidence.VerifyInclusion(leaf, e.Index, last.Size, p.Hashes, last.Root); err != nil {
			l.t.Fatalf("leaf %d: %v", e.Index, err)
		}
		if mode == evidence.ModeSelected || from > 0 && e.Index <= from {
			c.Proofs[e.Index] = p.Hashes
		}
	}
	return c
}
