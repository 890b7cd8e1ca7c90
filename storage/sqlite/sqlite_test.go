package sqlite_test

import (
	"fmt"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func open(tb testing.TB, dir string) ledger.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), sqlite.Config{Path: dir + "/ledger.db", Create: true})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestAppendFlushProveFsck(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.CreateLog(ctx, storagetest.Log, storagetest.Origin); err != nil {
		t.Fatal(err)
	}
	w, err := ledger.NewWriter(ctx, ledger.WriterConfig{Store: s, Log: storagetest.Log, GWID: "g", Sealer: storagetest.NewSealer()})
	if err != nil {
		t.Fatal(err)
	}
	signer, verifier := storagetest.Key(t)
	chk, err := storagetest.NewChecker(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	tiles := storagetest.OpenTiles(t, dir)
	q, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{Store: s, Tiles: tiles, Log: storagetest.Log, Signer: signer, Verifier: verifier, Check: chk.Check})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		if _, err := w.Append(ctx, ledger.Draft{Body: storagetest.Draft{ID: fmt.Sprint("r", i), Text: "x"}}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 50 {
			if _, err := q.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := q.Flush(ctx)
	if err != nil || c.Size != 600 {
		t.Fatal(c, err)
	}
	if _, err := ledger.NewReader(s, tiles).Prove(ctx, "r77"); err != nil {
		t.Fatal(err)
	}
	rep, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: s, Tiles: tiles, Log: storagetest.Log, Verifier: verifier})
	if err != nil || rep.Err() != nil {
		t.Fatal(rep, err)
	}
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) { storagetest.Run(t, open) }
