package storagetest

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
)

// The names that all fixtures use.
const (
	Log    = "ledger.example/std"
	Origin = "ledger.example/std/2027-03"
	GWID   = "gw-test-1"
)

// Key gives the checkpoint key of Origin, the same in each run.
func Key(tb testing.TB) (note.Signer, note.Verifier) {
	tb.Helper()
	seed := sha256.Sum256([]byte("lineal-test/" + Origin))
	s, v, err := ledger.NewCheckpointKey(Origin, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		tb.Fatal(err)
	}
	return s, v
}

// Payload is what [Sealer] signs: a record reduced to what the ledger's
// promises can be checked on.
type Payload struct {
	ID   string `json:"id"`
	GW   string `json:"gw"`
	Run  string `json:"run"`
	Seq  int64  `json:"seq"`
	Prev string `json:"prev"`
	Text string `json:"text"`
}

type envelope struct {
	Payload []byte `json:"payload"`
	MAC     []byte `json:"mac"`
}

// Draft is the draft that [Sealer] takes.
type Draft struct {
	ID   string // the record id
	Text string
}

// ErrSeal is the refusal of a draft whose text is "unsealable".
var ErrSeal = errors.New("draft cannot be sealed")

// Sealer links drafts as a record package does, and authenticates them with a
// MAC: the contract is about bytes that must not change, and a suite of
// hundreds of restarts would spend its time on signatures.
type Sealer struct{}

// NewSealer makes the sealer that [Checker] accepts.
func NewSealer() Sealer { return Sealer{} }

func (Sealer) mac(payload []byte) []byte {
	m := hmac.New(sha256.New, []byte("lineal-test/writer"))
	m.Write(payload)
	return m.Sum(nil)
}

// Link implements [ledger.Sealer].
func (s Sealer) Link(draft any, at ledger.Position) (ledger.Linked, error) {
	d, ok := draft.(Draft)
	if !ok || d.Text == "unsealable" {
		return ledger.Linked{}, ErrSeal
	}
	p, err := json.Marshal(Payload{ID: d.ID, GW: at.GWID, Run: at.Run, Seq: at.Seq, Prev: at.Prev, Text: d.Text})
	if err != nil {
		return ledger.Linked{}, err
	}
	return ledger.Linked{RecordID: d.ID, RecordHash: hash(p), Payload: p}, nil
}

// Sign implements [ledger.Sealer].
func (s Sealer) Sign(l ledger.Linked) ([]byte, error) {
	return json.Marshal(envelope{Payload: l.Payload, MAC: s.mac(l.Payload)})
}

// Place implements [ledger.Sealer].
func (s Sealer) Place(env []byte) (ledger.Position, string, error) {
	p, h, err := s.Open(env)
	return ledger.Position{Log: Log, GWID: p.GW, Run: p.Run, Seq: p.Seq, Prev: p.Prev}, h, err
}

// Open verifies an envelope and reads its payload.
func (s Sealer) Open(env []byte) (Payload, string, error) {
	var e envelope
	if err := json.Unmarshal(env, &e); err != nil {
		return Payload{}, "", err
	}
	if !hmac.Equal(e.MAC, s.mac(e.Payload)) {
		return Payload{}, "", errors.New("MAC does not verify")
	}
	var p Payload
	return p, hash(e.Payload), json.Unmarshal(e.Payload, &p)
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// Checker judges candidates as the real check does: signature, contiguous seq
// and prev. It may be asked by one sequencer at a time.
type Checker struct {
	mu    sync.Mutex
	tails map[string]writerTail // by writer id
}

type writerTail struct {
	run  string
	next int64
	hash string
}

// NewChecker starts from the entries that are in the log, as every start does.
func NewChecker(ctx context.Context, src ledger.Source) (*Checker, error) {
	c := &Checker{tails: make(map[string]writerTail)}
	head, err := src.Head(ctx, Log)
	if err != nil {
		return nil, err
	}
	for e, err := range src.ReadRange(ctx, head.Origin, 0, head.Size) {
		if err != nil {
			return nil, err
		}
		if err := c.admit(e.Envelope); err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	return c, nil
}

// Check implements [ledger.Check].
func (c *Checker) Check(_ context.Context, _ int64, batch []ledger.Candidate) ([]error, error) {
	verdicts := make([]error, len(batch))
	for i, b := range batch {
		verdicts[i] = c.admit(b.Envelope)
	}
	return verdicts, nil
}

func (c *Checker) admit(env []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, h, err := NewSealer().Open(env)
	if err != nil {
		return err
	}
	t := c.tails[p.GW]
	if p.Run != t.run {
		t = writerTail{run: p.Run, hash: t.hash}
	}
	if p.Seq != t.next || p.Prev != t.hash {
		return fmt.Errorf("writer %s: seq %d prev %q, want %d %q", p.GW, p.Seq, p.Prev, t.next, t.hash)
	}
	c.tails[p.GW] = writerTail{run: p.Run, next: p.Seq + 1, hash: h}
	return nil
}

// OpenTiles opens the tile store of Origin below dir.
func OpenTiles(tb testing.TB, dir string) *disk.Store {
	tb.Helper()
	d, err := disk.Open(disk.Config{Dir: dir + "/tiles", Create: true})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}
