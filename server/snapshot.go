package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// snapshotEvery is how many entries a start may have to read at most, and a few
// of the last batch.
const snapshotEvery = 10_000

// snapshots keeps what the admission knows after some entry in a file, so that
// a start reads the entries after that one alone:
//
//	base64(HMAC-SHA-256(key, JSON)) "\n" JSON
//
// The file is derived. Its key comes from the log's, so that only who could
// sign checkpoints makes one; it is held to the log before it is used: the entry
// it ends with, and each writer's last record, must be there, byte for byte. One
// that disagrees ends the start. A missing one makes the start read everything.
type snapshots struct {
	path   string
	origin string
	key    []byte
}

func newSnapshots(tiles, origin string, log ed25519.PrivateKey) (*snapshots, error) {
	key, err := hkdf.Key(sha256.New, log.Seed(), nil, "lineal writers snapshot v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving key of snapshots: %w", err)
	}
	return &snapshots{path: tiles + ".state", origin: origin, key: key}, nil
}

// snapshot is an admission after Size entries.
type snapshot struct {
	Origin string                `json:"origin"`
	Size   int64                 `json:"size"`
	Last   []byte                `json:"last"` // leaf hash of the entry Size-1
	Keys   map[string]writerKey  `json:"keys"` // by keyid, the manifest key aside
	Tails  map[string]tail       `json:"tails"`
	Open   map[string]openPermit `json:"open"`
}

func (s *snapshots) mac(text []byte) []byte {
	m := hmac.New(sha256.New, s.key)
	m.Write(text)
	return m.Sum(nil)
}

// save writes the state of a, all of whose entries must be stored.
func (s *snapshots) save(ctx context.Context, a *admission) error {
	if a.next == 0 {
		return nil
	}
	last, err := a.entry(ctx, a.next-1)
	if err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	text, err := json.Marshal(a.snapshot(s.origin, last))
	if err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	file := append(base64.StdEncoding.AppendEncode(nil, s.mac(text)), '\n')
	if err := durable.WriteFile(s.path, append(file, text...), 0o600); err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	return nil
}

// load reads the file. fs.ErrNotExist, wrapped, if there is none; ErrCorrupt if
// it is not one of this log that was made with the key.
func (s *snapshots) load() (snapshot, error) {
	file, err := os.ReadFile(s.path)
	if err != nil {
		return snapshot{}, fmt.Errorf("reading snapshot: %w", err)
	}
	line, text, _ := bytes.Cut(file, []byte("\n"))
	mac, err := base64.StdEncoding.Strict().DecodeString(string(line))
	if err != nil || !hmac.Equal(mac, s.mac(text)) {
		return snapshot{}, fmt.Errorf("reading snapshot %s: %w: it was changed, or is of another log key", s.path, ledger.ErrCorrupt)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var snap snapshot
	if err := d.Decode(&snap); err != nil {
		return snapshot{}, fmt.Errorf("reading snapshot %s: %w: %w", s.path, ledger.ErrCorrupt, err)
	}
	if snap.Origin != s.origin || snap.Size <= 0 {
		return snapshot{}, fmt.Errorf("reading snapshot %s: %w: it is of %q at %d", s.path, ledger.ErrCorrupt, snap.Origin, snap.Size)
	}
	return snap, nil
}

// resume continues from the newest snapshot, if there is one, instead of from
// the first entry. size is that of the log.
func (a *admission) resume(ctx context.Context, s *snapshots, size int64) error {
	snap, err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if snap.Size > size {
		return fmt.Errorf("comparing snapshot %s: %w: it has %d entries, the log %d", s.path, ledger.ErrRollbackDetected, snap.Size, size)
	}
	last, err := a.entry(ctx, snap.Size-1)
	if err != nil {
		return fmt.Errorf("comparing snapshot: %w", err)
	}
	if !bytes.Equal(last.LeafHash[:], snap.Last) {
		return fmt.Errorf("comparing snapshot %s: %w: entry %d is another one", s.path, ledger.ErrFork, snap.Size-1)
	}
	for id, t := range snap.Tails {
		if err := a.stands(ctx, id, t, snap.Size); err != nil {
			return fmt.Errorf("comparing snapshot %s: %w: last record of %q: %w", s.path, ledger.ErrFork, id, err)
		}
	}
	for id, k := range snap.Keys {
		if len(k.Public) != ed25519.PublicKeySize || record.KeyID(k.Public) != id {
			return fmt.Errorf("comparing snapshot %s: %w: key %s", s.path, ledger.ErrCorrupt, id)
		}
		a.keys[id] = k
	}
	a.tails, a.next, a.saved = snap.Tails, snap.Size, snap.Size
	a.open.set(snap.Open)
	return nil
}

// stands insists that the log has a writer's record at the index of its tail.
func (a *admission) stands(ctx context.Context, id string, t tail, size int64) error {
	if t.Index < 0 || t.Origin == "" && t.Index >= size {
		return fmt.Errorf("index %d of %d", t.Index, size)
	}
	e, err := a.last(ctx, t)
	if err != nil || e.Pruned() { // of a former period, and nobody can look any more
		return err
	}
	rec, payload, err := entry.Read(e.Envelope)
	if err != nil {
		return err
	}
	if record.Hash(payload) != t.Hash || rec.Writer.ID != id || rec.Writer.Run != t.Run || rec.Writer.Seq != t.Seq {
		return fmt.Errorf("entry %d is another record", t.Index)
	}
	return nil
}

// entry reads one entry of the log.
func (a *admission) entry(ctx context.Context, index int64) (ledger.Entry, error) {
	return entryAt(ctx, a.read, a.origin, index)
}

// last reads a writer's last record, which may be of a former period.
func (a *admission) last(ctx context.Context, t tail) (ledger.Entry, error) {
	return entryAt(ctx, a.read, cmp.Or(t.Origin, a.origin), t.Index)
}

func entryAt(ctx context.Context, read readRange, origin string, index int64) (ledger.Entry, error) {
	for e, err := range read(ctx, origin, index, index+1) {
		return e, err
	}
	return ledger.Entry{}, fmt.Errorf("entry %d: %w", index, ledger.ErrNotFound)
}

// snapshot copies the state; last is the entry that it ends with.
func (a *admission) snapshot(origin string, last ledger.Entry) snapshot {
	return snapshot{
		Origin: origin, Size: a.next, Last: last.LeafHash[:], Keys: maps.Clone(a.keys), Tails: maps.Clone(a.tails), Open: a.open.all(),
	}
}

// equal reports whether two snapshots say the same.
func (s snapshot) equal(t snapshot) bool {
	x, xerr := json.Marshal(s) // sorts the maps
	y, yerr := json.Marshal(t)
	return xerr == nil && yerr == nil && bytes.Equal(x, y)
}
