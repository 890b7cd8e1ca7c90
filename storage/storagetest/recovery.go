package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// grow makes a log of two flushes and gives what was acked and seen.
func (r *rig) grow(n int) (acked []string, seen []ledger.Checkpoint) {
	r.t.Helper()
	w, q := r.writer(nil), r.sequencer()
	for i, k := range []int{n / 3, n - n/3} {
		for _, a := range r.fill(w, fmt.Sprintf("grow%d", i), k) {
			acked = append(acked, a.RecordID)
		}
		seen = append(seen, r.flush(q))
	}
	if err := w.Close(r.ctx()); err != nil {
		r.t.Fatal(err)
	}
	if err := q.Close(r.ctx()); err != nil {
		r.t.Fatal(err)
	}
	return acked, seen
}

// testProofs proves every record under every checkpoint.
func testProofs(t *testing.T, open Opener) {
	r := newRig(t, open)
	acked, seen := r.grow(300)
	reader := ledger.NewReader(r.store, r.tiles)
	for _, id := range acked {
		r.checkProof(reader, id)
	}
	for _, c := range seen {
		for _, d := range seen {
			if c.Size <= d.Size {
				r.checkConsistency(reader, c, d)
			}
		}
	}
	_, err := reader.Prove(r.ctx(), "nobody")
	wantErr(t, "unknown record", err, ledger.ErrNotFound)
	r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "late" }), "late", 1)
	_, err = reader.Prove(r.ctx(), "late-0")
	wantErr(t, "record without an index", err, ledger.ErrNotPublished)
	_, err = reader.ConsistencyProof(r.ctx(), Origin, 1, 299)
	wantErr(t, "size without a checkpoint", err, ledger.ErrNotFound)
	_, err = reader.ConsistencyProof(r.ctx(), Origin, 300, 100)
	if err == nil {
		t.Error("sizes out of order were accepted")
	}
}

// testRejected: a candidate that fails the check gets no index, alarms, and
// does not stop the others.
func testRejected(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	bad := batch(t, "one", 0, "", "forged")
	bad.Records[0].Envelope = []byte(strings.Replace(string(bad.Records[0].Envelope), `"mac":"`, `"mac":"AAAA`, 1))
	r.mustAppend(bad)
	good := r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "other" }), "good", 2)
	cfg, err := r.sequencerConfig()
	if err != nil {
		t.Fatal(err)
	}
	var rejected []string
	cfg.OnRejected = func(_ context.Context, x ledger.Rejected) { rejected = append(rejected, x.RecordID) }
	q, err := ledger.OpenSequencer(r.ctx(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.flush(q); c.Size != 2 || len(rejected) != 1 || rejected[0] != "forged" {
		t.Fatalf("size %d, rejected %q", c.Size, rejected)
	}
	r.wantIntake()
	if e, err := r.store.Lookup(r.ctx(), "forged"); err != nil || e.Index != -1 {
		t.Fatalf("the body stays as evidence: index %d, %v", e.Index, err)
	}
	r.verify([]string{good[0].RecordID, good[1].RecordID}, nil)
}

// testCheckUnable: a check that cannot judge now delays, and loses nothing.
func testCheckUnable(t *testing.T, open Opener) {
	r := newRig(t, open)
	a := r.fill(r.writer(nil), "a", 1)
	cfg, err := r.sequencerConfig()
	if err != nil {
		t.Fatal(err)
	}
	check, able := cfg.Check, false
	cfg.Check = func(ctx context.Context, first int64, b []ledger.Candidate) ([]error, error) {
		if !able {
			return nil, errors.New("key directory is unreachable")
		}
		return check(ctx, first, b)
	}
	q, err := ledger.OpenSequencer(r.ctx(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Flush(r.ctx())
	wantErr(t, "Flush", err, ledger.ErrUnavailable)
	able = true
	r.flush(q)
	r.verify([]string{a[0].RecordID}, nil)
}

// fullDisk is a tile store that has no room for a while.
type fullDisk struct {
	ledger.TileStore
	after int // calls of PutTiles that still fit; -1: all of them
}

func (d *fullDisk) PutTiles(ctx context.Context, tiles []ledger.TileFile) error {
	if d.after == 0 {
		return ledger.ErrUnavailable
	}
	d.after--
	return d.TileStore.PutTiles(ctx, tiles)
}

// testDiskFullForAWhile: a step that ran out of space in its middle is done
// again, in the same process, and leaves no tile out.
func testDiskFullForAWhile(t *testing.T, open Opener) {
	r := newRig(t, open)
	healthy := r.tiles
	full := &fullDisk{TileStore: healthy, after: -1}
	r.tiles = full
	q, w := r.sequencer(), r.writer(nil)
	var acked []string
	for i := range 2 { // with no room at all, and with room for the full tile
		for _, a := range r.fill(w, fmt.Sprint(i), 260) {
			acked = append(acked, a.RecordID)
		}
		full.after = i
		_, err := q.Flush(r.ctx())
		wantErr(t, "Flush", err, ledger.ErrUnavailable)
		full.after = -1
		r.flush(q)
	}
	r.tiles = healthy
	r.verify(acked, nil)
}

// testLeafHashIsChecked: an entry whose envelope is not the one that got the
// index is never signed.
func testLeafHashIsChecked(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.openWriter("one")
	r.mustAppend(batch(t, "one", 0, "", "a"))
	h, err := r.store.AcquireLease(r.ctx(), Log, "rogue", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := r.store.ReadIntake(r.ctx(), Log, 1)
	if err != nil || len(rows) != 1 {
		t.Fatal(len(rows), err)
	}
	if _, err := r.store.Sequence(r.ctx(), ledger.Sequenced{Log: Log, Origin: Origin, Epoch: h.Epoch, Entries: []ledger.NewEntry{
		{IntakeID: rows[0].IntakeID, RecordID: "a", LeafHash: ledger.Hash{1}},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.ReleaseLease(r.ctx(), Log, h.Epoch); err != nil {
		t.Fatal(err)
	}
	_, err = r.trySequencer()
	wantErr(t, "opening", err, ledger.ErrCorrupt)
	_, err = r.store.LastCheckpoint(r.ctx(), Origin, false)
	wantErr(t, "checkpoint over it", err, ledger.ErrNotFound)
}

// testTwoSequencers: the one whose lease ran out and was taken stops for good.
func testTwoSequencers(t *testing.T, open Opener) {
	r := newRig(t, open)
	w := r.writer(nil)
	zombie := r.sequencer()
	h, err := r.store.Head(r.ctx(), Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.RenewLease(r.ctx(), Log, h.Epoch, -time.Hour); err != nil {
		t.Fatal(err)
	}
	q := r.sequencer()
	acks := r.fill(w, "a", 3)
	_, err = zombie.Flush(r.ctx())
	wantErr(t, "Flush of the zombie", err, ledger.ErrEpochLost)
	_, err = zombie.Flush(r.ctx())
	wantErr(t, "Flush again", err, ledger.ErrEpochLost)
	wantErr(t, "Run of the zombie", runOnce(r.ctx(), zombie), ledger.ErrEpochLost)
	if err := zombie.Close(r.ctx()); err != nil {
		t.Fatal(err)
	}
	r.flush(q)
	r.verify([]string{acks[0].RecordID, acks[1].RecordID, acks[2].RecordID}, nil)
}

func runOnce(ctx context.Context, q *ledger.Sequencer) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return q.Run(ctx)
}

// testRollback: the tiles of a larger, or of another, log beside this database.
func testRollback(t *testing.T, open Opener) {
	grown := newRig(t, open)
	grown.grow(30)
	small := newRig(t, open)
	small.grow(9)
	same := newRig(t, open)
	same.grow(30) // other writers' runs, so other entries

	for _, c := range []struct {
		name  string
		files []string // of the grown log, put beside the other database
		into  *rig
		want  error
	}{
		{"larger highest_seen", []string{"highest_seen"}, small, ledger.ErrRollbackDetected},
		{"larger checkpoint", []string{"checkpoint"}, small, ledger.ErrRollbackDetected},
		{"tiles beyond the head", []string{"tile/0/000.p/30"}, small, ledger.ErrRollbackDetected},
		{"another root", []string{"highest_seen"}, same, ledger.ErrFork},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.into.t = t
			undo := c.into.graft(grown, c.files)
			_, err := c.into.trySequencer()
			wantErr(t, "opening", err, c.want)
			undo()
			q := c.into.sequencer() // the twin
			if err := q.Close(c.into.ctx()); err != nil {
				t.Fatal(err)
			}
		})
	}
	small.t = t
	if err := os.WriteFile(filepath.Join(small.dir, "tiles", "highest_seen"), []byte("no note"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := small.trySequencer()
	wantErr(t, "highest_seen that is no note", err, ledger.ErrCorrupt)
}

// graft copies files of another log's tile directory over this one's.
func (r *rig) graft(from *rig, files []string) (undo func()) {
	r.t.Helper()
	var undos []func()
	for _, f := range files {
		src, dst := filepath.Join(from.dir, "tiles", f), filepath.Join(r.dir, "tiles", f)
		data, err := os.ReadFile(src)
		if err != nil {
			r.t.Fatal(err)
		}
		old, oldErr := os.ReadFile(dst)
		if err := os.WriteFile(dst, data, 0o600); err != nil {
			r.t.Fatal(err)
		}
		undos = append(undos, func() {
			if oldErr != nil {
				_ = os.Remove(dst)
				return
			}
			_ = os.WriteFile(dst, old, 0o600)
		})
	}
	return func() {
		for _, u := range undos {
			u()
		}
	}
}

// testTilesRebuilt: tiles are derived. Lost or damaged ones come back from the
// entries, under the signed root.
func testTilesRebuilt(t *testing.T, open Opener) {
	r := newRig(t, open)
	acked, seen := r.grow(270)
	for name, damage := range map[string]func(dir string) error{
		"all lost":      func(dir string) error { return os.RemoveAll(filepath.Join(dir, "tile")) },
		"edge tile":     func(dir string) error { return flip(filepath.Join(dir, "tile/0/001.p/14"), 5) },
		"edge bundle":   func(dir string) error { return flip(filepath.Join(dir, "tile/entries/001.p/14"), 5) },
		"upper tile":    func(dir string) error { return flip(filepath.Join(dir, "tile/1/000.p/1"), 5) },
		"checkpoints":   func(dir string) error { return os.Remove(filepath.Join(dir, "checkpoint")) },
		"cut edge tile": func(dir string) error { return os.Truncate(filepath.Join(dir, "tile/0/001.p/14"), 40) },
	} {
		if err := damage(filepath.Join(r.dir, "tiles")); err != nil {
			t.Fatal(name, err)
		}
		q := r.sequencer()
		if err := q.Close(r.ctx()); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.verify(acked, seen[1:]) // older partial tiles may be gone for good
		})
		r.t = t
	}
}

func flip(path string, at int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at%len(data)] ^= 0x10
	return os.WriteFile(path, data, 0o600)
}

// testFsckFindsEveryFile flips a byte in every file of the tile store.
func testFsckFindsEveryFile(t *testing.T, open Opener) {
	r := newRig(t, open)
	r.grow(270)
	if err := r.fsck().Err(); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(r.dir, "tiles")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if err := flip(path, 11); err != nil {
			return err
		}
		rep := r.fsck()
		if len(rep.Problems) == 0 || rep.Problems[0].File != name {
			t.Errorf("a flipped byte in %s: %v", name, rep.Err())
		}
		return flip(path, 11)
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 8 {
		t.Errorf("only %d files were damaged", files)
	}
	if err := r.fsck().Err(); err != nil {
		t.Fatalf("after all was put back: %v", err)
	}
	if err := os.Remove(filepath.Join(root, "tile/0/000")); err != nil {
		t.Fatal(err)
	}
	if p := r.fsck().Problems; len(p) == 0 || p[0].File != "tile/0/000" || p[0].Index != 0 {
		t.Errorf("a missing tile: %v", p)
	}
}

// testRebuild: rebuilding mends every derived file, and replaces nothing where
// the entries are not the signed ones.
func testRebuild(t *testing.T, open Opener) {
	r := newRig(t, open)
	acked, seen := r.grow(600)
	dir := filepath.Join(r.dir, "tiles")
	rebuild := func() (ledger.RebuildReport, error) {
		_, verifier := Key(t)
		return ledger.Rebuild(r.ctx(), ledger.RebuildConfig{Store: r.store, Tiles: r.tiles, Log: Log, Verifier: verifier})
	}
	for _, f := range []string{"tile/0/001", "tile/entries/000", "tile/1/000.p/2", "tile/entries/002.p/88"} {
		if err := flip(filepath.Join(dir, f), 9); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "tile/0/002.p/88")); err != nil {
		t.Fatal(err)
	}
	rep, err := rebuild()
	if err != nil || len(rep.Replaced) != 5 || rep.Size != 600 || rep.Root != seen[1].Root {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep, err = rebuild(); err != nil || len(rep.Replaced) != 0 {
		t.Fatalf("a second time: %+v, %v", rep, err)
	}
	r.verify(acked, seen)

	cfg, err := r.sequencerConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.LeaseTTL = time.Hour
	q, err := ledger.OpenSequencer(r.ctx(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = rebuild()
	wantErr(t, "beside a sequencer", err, ledger.ErrLeaseHeld)
	if err := q.Close(r.ctx()); err != nil {
		t.Fatal(err)
	}

	other := newRig(t, open) // of the same size, with other entries
	other.grow(600)
	for _, f := range []string{"checkpoint", "highest_seen"} {
		if err := os.Remove(filepath.Join(other.dir, "tiles", f)); err != nil {
			t.Fatal(err)
		}
	}
	r.graft(other, []string{"tile/0/000"})
	r.store = swapped{r.store, other.store}
	_, err = rebuild()
	wantErr(t, "entries that are not the signed ones", err, ledger.ErrCorrupt)
	if got, err := os.ReadFile(filepath.Join(dir, "tile/0/000")); err != nil {
		t.Fatal(err)
	} else if want, err := os.ReadFile(filepath.Join(other.dir, "tiles/tile/0/000")); err != nil || string(got) != string(want) {
		t.Fatalf("a file was replaced: %v", err)
	}
}

// swapped has the entries of another log.
type swapped struct {
	ledger.Store
	entries ledger.Store
}

func (s swapped) ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[ledger.Entry, error] {
	return s.entries.ReadRange(ctx, origin, a, b)
}
