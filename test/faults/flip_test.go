package faults

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// entries reads what the log has, or says why it cannot.
func entries(ctx context.Context, s ledger.Source, size int64) (out [][]byte, err error) {
	for e, err := range s.ReadRange(ctx, Origin, 0, size) {
		if err != nil {
			return nil, err
		}
		out = append(out, e.Envelope)
	}
	return out, nil
}

// TestFlippedBits flips bits all over the database file. Whatever the file then
// gives, a log that is not the one that was written never passes for it: opening,
// reading or fsck says so.
func TestFlippedBits(t *testing.T) {
	asked(t)
	p := Place{Dir: t.TempDir()}
	told := writer(t, p, "-sequence", "-records", "300", "-callers", "8").end()
	if !told.Done {
		t.Fatalf("stopped %v", told.Stopped)
	}
	sound, err := os.ReadFile(p.database())
	if err != nil {
		t.Fatal(err)
	}
	want, found, err := examined(t, p)
	if err != nil || found != nil || len(want) != 301 {
		t.Fatalf("the sound log: %d entries, %v, %v", len(want), found, err)
	}
	const page = 4096
	flips := 1 // of each page
	if wholeTable() {
		flips = 40
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	noticed, harmless := 0, 0
	for at := 0; at+page <= len(sound); at += page {
		for range flips {
			damaged := bytes.Clone(sound)
			bit := rnd.IntN(page * 8)
			damaged[at+bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(p.database(), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			got, found, err := examined(t, p)
			switch {
			case err != nil || found != nil:
				noticed++
			case !equal(got, want):
				t.Errorf("bit %d of page %d changes the log, and nothing notices", bit, at/page)
			default:
				harmless++ // free space, or what only a writer needs
			}
		}
	}
	if noticed == 0 || harmless == 0 {
		t.Errorf("%d flips were noticed, %d harmless", noticed, harmless)
	}
	t.Logf("%d flipped bits: %d noticed, %d change nothing that the log says", noticed+harmless, noticed, harmless)
	if err := os.WriteFile(p.database(), sound, 0o600); err != nil { // the twin
		t.Fatal(err)
	}
	holds(t, p, told)
}

// examined opens the log for reading: its entries, what fsck found, and what kept
// it from being read.
func examined(t *testing.T, p Place) (got [][]byte, found, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, side := range []string{"-wal", "-shm"} { // readers leave them
		if err := os.Remove(p.database() + side); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: p.database(), ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = s.Close() }() // a reader
	tiles, err := disk.Open(disk.Config{Dir: filepath.Join(p.Dir, "tiles"), ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	_, verifier, err := logKey()
	if err != nil {
		return nil, nil, err
	}
	rep, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: s, Tiles: tiles, Log: Family, Verifier: verifier})
	if err != nil {
		return nil, nil, err
	}
	if found = rep.Err(); found != nil {
		return nil, found, nil
	}
	got, err = entries(ctx, s, rep.Size)
	return got, nil, err
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// TestDamagedWriter: the row of a writer is not part of the log. Where its run or
// place is damaged, the next start sets them anew. Where its tail is, or the
// record that it belongs to, or that record itself, the writer is not opened, and
// nothing is acknowledged that could not follow. What was there before stays.
func TestDamagedWriter(t *testing.T) {
	for statement, refused := range map[string]bool{
		`UPDATE writer SET next_seq = next_seq + 16 WHERE gw_id = 'gw'`:                                                         false,
		`UPDATE writer SET run = run || 'A' WHERE gw_id = 'gw'`:                                                                 false,
		`UPDATE writer SET tail = CASE substr(tail, 1, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr(tail, 2) WHERE gw_id = 'gw'`: true,
		`UPDATE writer SET last = replace(last, '-7', '-8') WHERE gw_id = 'gw'`:                                                 true,
		`UPDATE writer SET run = '' WHERE gw_id = 'gw'`:                                                                         true,
	} {
		p := Place{Dir: t.TempDir()}
		before := writer(t, p, "-sequence", "-records", "10").end()
		tamper(t, p, statement)
		after := writer(t, p, "-sequence", "-records", "10").end()
		sum := all(t, before, after)
		if !refused {
			holds(t, p, sum)
			continue
		}
		if len(after.Acked) != 0 || after.Done || len(after.Stopped) != 1 {
			t.Errorf("%s: %d acknowledged, stopped %q, done %v", statement, len(after.Acked), after.Stopped, after.Done)
		}
		if err := Check(t.Context(), p, before); err != nil {
			t.Error(err)
		}
	}
}

// tamper runs SQL behind the ledger's back.
func tamper(t *testing.T, p Place, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", p.database())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
