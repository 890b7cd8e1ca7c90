package storagetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/ledger"
)

// testMirror: another process's copy of the tiles proves what the first ones
// prove, grows with them, mends itself, and is enough to go on from.
func testMirror(t *testing.T, open Opener) {
	r := newRig(t, open)
	dir := t.TempDir()
	copied := OpenTiles(t, dir)
	_, verifier := Key(t)
	cfg := ledger.MirrorConfig{Source: r.store, Tiles: copied, Verifier: verifier}
	mirror := func() {
		t.Helper()
		if err := ledger.Mirror(r.ctx(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	mirror() // nothing is published yet
	acked, seen := r.grow(300)
	mirror()
	mirror() // nothing is new
	w, q := r.writer(func(c *ledger.WriterConfig) { c.GWID = "more" }), r.sequencer()
	for _, a := range r.fill(w, "more", 250) {
		acked = append(acked, a.RecordID)
	}
	seen = append(seen, r.flush(q))
	mirror()
	if err := q.Close(r.ctx()); err != nil {
		t.Fatal(err)
	}
	theirs := r.tiles
	r.tiles = copied
	r.verify(acked, seen)

	// Damage under it is found at the next growth, and mended.
	q = r.sequencer() // which goes on from the copy
	r.fill(w, "last", 1)
	seen = append(seen, r.flush(q))
	if err := q.Close(r.ctx()); err != nil {
		t.Fatal(err)
	}
	r.tiles = theirs
	cfg.Tiles = theirs
	if err := os.RemoveAll(filepath.Join(r.dir, "tiles", "tile", "0")); err != nil {
		t.Fatal(err)
	}
	mirror()
	r.verify(acked, seen)
}

// testMirrorRefuses: what a mirror has seen, and what the entries add up to, are
// held against whatever the database says is published.
func testMirrorRefuses(t *testing.T, open Opener) {
	r := newRig(t, open)
	_, seen := r.grow(30)
	signer, verifier := Key(t)
	last := seen[1]
	sign := func(size int64, root ledger.Hash) ledger.Checkpoint {
		text := fmt.Sprintf("%s\n%d\n%s\n", Origin, size, base64.StdEncoding.EncodeToString(root[:]))
		msg, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return ledger.Checkpoint{Origin: Origin, Size: size, Root: root, Note: msg}
	}
	other := last.Root
	other[0] ^= 1
	disagrees := last
	disagrees.Size--
	unsigned := last
	unsigned.Note = bytes.Replace(last.Note, []byte("\n30\n"), []byte("\n31\n"), 1)
	for name, c := range map[string]struct {
		before, says ledger.Checkpoint // mirrored before, published now
		want         error
	}{
		"the published one":             {ledger.Checkpoint{}, last, nil},
		"a later one":                   {seen[0], last, nil},
		"an earlier one":                {last, seen[0], ledger.ErrRollbackDetected},
		"another root of the same size": {last, sign(last.Size, other), ledger.ErrFork},
		"another root than the entries": {seen[0], sign(last.Size, other), ledger.ErrFork},
		"a row that is not the note":    {ledger.Checkpoint{}, disagrees, ledger.ErrCorrupt},
		"a note that nobody signed":     {ledger.Checkpoint{}, unsigned, ledger.ErrCorrupt},
		"more than there is":            {ledger.Checkpoint{}, sign(last.Size+1, last.Root), ledger.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			tiles := OpenTiles(t, t.TempDir())
			to := func(c ledger.Checkpoint) error {
				return ledger.Mirror(r.ctx(), ledger.MirrorConfig{Source: published{r.store, c}, Tiles: tiles, Verifier: verifier})
			}
			if c.before.Note != nil {
				if err := to(c.before); err != nil {
					t.Fatal(err)
				}
			}
			err := to(c.says)
			if c.want != nil {
				wantErr(t, name, err, c.want)
			} else if err != nil {
				t.Fatal(err)
			}
			after, err := tiles.GetCheckpoint(r.ctx())
			if keeps := bytes.Equal(after, c.says.Note); keeps != (c.want == nil) {
				t.Errorf("it keeps %q: %v", after, err)
			}
		})
	}
}

// published is a source that says something else of what is published.
type published struct {
	ledger.Source
	last ledger.Checkpoint
}

func (p published) LastCheckpoint(context.Context, string, bool) (ledger.Checkpoint, error) {
	return p.last, nil
}
