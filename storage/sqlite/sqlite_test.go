package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LINEAL_TEST_READER"); dir != "" {
		os.Exit(readerProcess(dir))
	}
	goleak.VerifyTestMain(m)
}

func path(dir string) string { return filepath.Join(dir, "ledger.db") }

func open(tb testing.TB, dir string) ledger.Store { return openAt(tb, dir, nil) }

func openAt(tb testing.TB, dir string, now func() time.Time) *sqlite.Store {
	tb.Helper()
	s, err := sqlite.Open(tb.Context(), sqlite.Config{Path: path(dir), Create: true, Now: now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() }) // the second time is a no-op
	return s
}

func TestContract(t *testing.T) { storagetest.Run(t, open) }

// log is a ledger with a writer and a sequencer.
type log struct {
	t     *testing.T
	dir   string
	store *sqlite.Store
	w     *ledger.Writer
	q     *ledger.Sequencer
	tiles ledger.TileStore
}

func newLog(t *testing.T, dir string, now func() time.Time) *log {
	t.Helper()
	l := &log{t: t, dir: dir, store: openAt(t, dir, now), tiles: storagetest.OpenTiles(t, dir)}
	if err := l.store.CreateLog(t.Context(), storagetest.Log, storagetest.Origin); err != nil {
		t.Fatal(err)
	}
	q, err := l.sequencer(0)
	if err != nil {
		t.Fatal(err)
	}
	l.q = q
	if l.w, err = ledger.NewWriter(t.Context(), ledger.WriterConfig{Store: l.store, Log: storagetest.Log, GWID: storagetest.GWID, Sealer: storagetest.NewSealer()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.w.Close(context.Background()) })
	return l
}

func (l *log) sequencer(clockWait time.Duration) (*ledger.Sequencer, error) {
	l.t.Helper()
	c, err := storagetest.NewChecker(l.t.Context(), l.store)
	if err != nil {
		l.t.Fatal(err)
	}
	signer, verifier := storagetest.Key(l.t)
	return ledger.OpenSequencer(l.t.Context(), ledger.SequencerConfig{
		Store: l.store, Tiles: l.tiles, Log: storagetest.Log, Signer: signer, Verifier: verifier, Check: c.Check, ClockWait: clockWait,
	})
}

func (l *log) append(id string) {
	l.t.Helper()
	if _, err := l.w.Append(l.t.Context(), ledger.Draft{Body: storagetest.Draft{ID: id, Text: id}}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) flush() {
	l.t.Helper()
	if _, err := l.q.Flush(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) close() {
	l.t.Helper()
	ctx := l.t.Context()
	if err := errors.Join(l.w.Close(ctx), l.q.Close(ctx), l.store.Close()); err != nil {
		l.t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	if _, err := sqlite.Open(ctx, sqlite.Config{}); err == nil {
		t.Error("opened without a path")
	}
	for _, ro := range []bool{false, true} {
		_, err := sqlite.Open(ctx, sqlite.Config{Path: path(dir), ReadOnly: ro})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing database, read-only %v: %v", ro, err)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("a refused Open left %v, %v", names, err)
	}
	other := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, `CREATE TABLE x (y); PRAGMA user_version = 1`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		_, err := sqlite.Open(ctx, sqlite.Config{Path: other, Create: create})
		if err == nil || !strings.Contains(err.Error(), "not a ledger") {
			t.Errorf("a database of something else, create %v: %v", create, err)
		}
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path(dir), Create: true}) // the twin
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(ctx, sqlite.Config{Path: path(dir)}); !errors.Is(err, sqlite.ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path(dir)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if s, err = sqlite.Open(ctx, sqlite.Config{Path: path(dir)}); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateLog(ctx, "log", "origin"); !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("CreateLog without Create: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefusesJournalMode: another tool may have changed the file.
func TestOpenRefusesJournalMode(t *testing.T) {
	dir := t.TempDir()
	if err := openAt(t, dir, nil).Close(); err != nil {
		t.Fatal(err)
	}
	tamper(t, dir, `PRAGMA journal_mode = DELETE`)
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(dir)}); err == nil || !strings.Contains(err.Error(), "want wal") {
		t.Fatalf("got %v", err)
	}
	tamper(t, dir, `PRAGMA journal_mode = WAL`)
	if err := openAt(t, dir, nil).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReaderInAnotherProcess: trace and fsck work while the server writes.
func TestReaderInAnotherProcess(t *testing.T) {
	l := newLog(t, t.TempDir(), nil)
	for i := range 3 {
		l.append(fmt.Sprint(i))
		l.flush()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), "LINEAL_TEST_READER="+l.dir)
		out, err := cmd.CombinedOutput()
		if want := fmt.Sprintf("size %d\n", i+1); err != nil || string(out) != want {
			t.Fatalf("reader says %q, %v; want %q", out, err, want)
		}
	}
	l.close()
	// And without a server: the WAL has been moved and its files are gone.
	r, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(l.dir), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := r.Head(t.Context(), storagetest.Log); err != nil || h.Size != 3 {
		t.Errorf("head %+v, %v", h, err)
	}
	if _, err := r.OpenWriter(t.Context(), storagetest.Log, "g", "r"); !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("a write: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func readerProcess(dir string) int {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, sqlite.Config{Path: path(dir), ReadOnly: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	h, err := s.Head(ctx, storagetest.Log)
	n := int64(0)
	for _, readErr := range s.ReadRange(ctx, storagetest.Origin, 0, h.Size) {
		err = errors.Join(err, readErr)
		n++
	}
	if err = errors.Join(err, s.Close()); err != nil || n != h.Size {
		fmt.Println(n, err)
		return 1
	}
	fmt.Printf("size %d\n", h.Size)
	return 0
}

// TestReaderAfterCrash: a WAL that nobody moved is still read.
func TestReaderAfterCrash(t *testing.T) {
	l := newLog(t, t.TempDir(), nil)
	l.append("a")
	l.flush()
	crashed := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, path(l.dir)+suffix, path(crashed)+suffix)
	}
	r, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(crashed), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Lookup(t.Context(), "a"); err != nil || e.Index != 0 {
		t.Errorf("lookup: %+v, %v", e, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	l.close()
}

// TestClockBehind: indexes never carry an earlier time than their
// predecessors.
func TestClockBehind(t *testing.T) {
	now := time.Date(2027, 3, 2, 9, 0, 0, 0, time.UTC)
	l := newLog(t, t.TempDir(), func() time.Time { return now })
	l.append("a")
	l.flush()
	l.append("b")
	now = now.Add(-time.Minute)
	q, err := l.sequencer(time.Millisecond)
	if err == nil {
		_, err = q.Flush(t.Context())
	}
	if !errors.Is(err, ledger.ErrLeaseHeld) { // by the first, which has not run out
		t.Fatalf("a lease of the future: %v", err)
	}
	if err := l.q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if q, err = l.sequencer(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Flush(t.Context()); !errors.Is(err, ledger.ErrClockBehind) {
		t.Fatalf("flush: %v", err)
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	if l.q, err = l.sequencer(0); err != nil {
		t.Fatal(err)
	}
	l.flush()
	if h, err := l.store.Head(t.Context(), storagetest.Log); err != nil || h.Size != 2 {
		t.Fatalf("head %+v, %v", h, err)
	}
	l.close()
}

// TestRestoredBackup: an older database under a running writer, and under a
// new start.
func TestRestoredBackup(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t, dir, nil)
	for i := range 4 {
		l.append(fmt.Sprint(i))
	}
	l.flush()
	l.close()
	backup := filepath.Join(t.TempDir(), "backup")
	copyFile(t, path(dir), backup)

	l = newLog(t, dir, nil)
	l.append("late")
	l.flush()
	l.close()
	copyFile(t, backup, path(dir))

	l.store = openAt(t, dir, nil)
	if _, err := l.sequencer(0); !errors.Is(err, ledger.ErrRollbackDetected) {
		t.Fatalf("sequencer over a restored backup: %v", err)
	}
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFsckFindsEveryRow changes each column that an entry or a checkpoint
// rests on.
func TestFsckFindsEveryRow(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t, dir, nil)
	for i := range 5 {
		l.append(fmt.Sprint(i))
		if i == 1 {
			l.flush()
		}
	}
	l.flush()
	l.close()
	sound := filepath.Join(t.TempDir(), "sound")
	copyFile(t, path(dir), sound)
	if p := fsck(t, dir); len(p) != 0 {
		t.Fatal(p)
	}
	const flip = `CAST(substr(%[1]s, 1, 40) || char(unicode(substr(%[1]s, 41, 1)) + 1) || substr(%[1]s, 42) AS BLOB)`
	type damage struct {
		name, sql string
		index     int64
	}
	damages := []damage{
		{"entry lost", `DELETE FROM entry WHERE idx = 2`, 2},
		{"last entry lost", `DELETE FROM entry WHERE idx = 4`, 4},
		{"body lost", `DELETE FROM body WHERE record_id = '2'`, 2},
		{"bodies exchanged", `UPDATE entry SET record_id = CASE idx WHEN 1 THEN 'x' ELSE '1' END WHERE idx IN (1, 3); UPDATE entry SET record_id = '3' WHERE idx = 1`, 1},
		{"head too small", `UPDATE head SET size = 4`, 4},
		{"head too large", `UPDATE head SET size = 6`, 5},
		{"checkpoint root", `UPDATE checkpoint SET root = zeroblob(32) WHERE size = 2`, -1},
		{"checkpoint note", `UPDATE checkpoint SET note = ` + fmt.Sprintf(flip, "CAST(note AS TEXT)") + ` WHERE size = 2`, -1},
		{"published checkpoint lost", `DELETE FROM checkpoint WHERE size = 5`, -1},
	}
	for i := range int64(5) {
		damages = append(damages,
			damage{fmt.Sprintf("envelope %d", i), fmt.Sprintf(`UPDATE body SET envelope = `+fmt.Sprintf(flip, "CAST(envelope AS TEXT)")+` WHERE record_id = '%d'`, i), i},
			damage{fmt.Sprintf("leaf hash %d", i), fmt.Sprintf(`UPDATE entry SET leaf_hash = zeroblob(32) WHERE idx = %d`, i), i})
	}
	for _, d := range damages {
		copyFile(t, sound, path(dir))
		tamper(t, dir, d.sql)
		p := fsck(t, dir)
		if len(p) == 0 || p[0].Index != d.index {
			t.Errorf("%s: %v, want the first problem at %d", d.name, p, d.index)
		}
	}
}

// TestTilesAreNotRebuiltFromOtherEntries: lost tiles come back only under the
// signed root. Here two entries were exchanged, each whole in itself.
func TestTilesAreNotRebuiltFromOtherEntries(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t, dir, nil)
	l.append("a")
	w, err := ledger.NewWriter(t.Context(), ledger.WriterConfig{Store: l.store, Log: storagetest.Log, GWID: "other", Sealer: storagetest.NewSealer()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(t.Context(), ledger.Draft{Body: storagetest.Draft{ID: "b"}}); err != nil {
		t.Fatal(err)
	}
	l.flush()
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	if err := os.RemoveAll(filepath.Join(dir, "tiles", "tile")); err != nil {
		t.Fatal(err)
	}
	const exchange = `UPDATE entry SET idx = 9 WHERE idx = 0; UPDATE entry SET idx = 0 WHERE idx = 1; UPDATE entry SET idx = 1 WHERE idx = 9`
	tamper(t, dir, exchange)
	l.store = openAt(t, dir, nil)
	if _, err := l.sequencer(0); !errors.Is(err, ledger.ErrCorrupt) {
		t.Fatalf("opening over exchanged entries: %v", err)
	}
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	tamper(t, dir, exchange) // back
	l = newLog(t, dir, nil)
	l.close()
}

// TestProofOfAChangedRow: the row and the tree must agree on what is proved.
func TestProofOfAChangedRow(t *testing.T) {
	l := newLog(t, t.TempDir(), nil)
	l.append("a")
	l.append("b")
	l.flush()
	tamper(t, l.dir, `UPDATE entry SET leaf_hash = zeroblob(32) WHERE record_id = 'a'`)
	r := ledger.NewReader(l.store, l.tiles)
	if _, err := r.Prove(t.Context(), "a"); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("the changed row: %v", err)
	}
	if _, err := r.Prove(t.Context(), "b"); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	l.close()
}

func fsck(t *testing.T, dir string) []ledger.Problem {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(dir), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	_, verifier := storagetest.Key(t)
	rep, err := ledger.Fsck(t.Context(), ledger.FsckConfig{Source: s, Tiles: storagetest.OpenTiles(t, dir), Log: storagetest.Log, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return rep.Problems
}

// TestCorruptDatabaseIsFinal: after the engine has failed, nothing is tried
// again in this process.
func TestCorruptDatabaseIsFinal(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t, dir, nil)
	for i := range 50 {
		l.append(fmt.Sprint(i))
	}
	l.close()
	var page int64
	db, err := sql.Open("sqlite", path(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(t.Context(), `SELECT rootpage FROM sqlite_schema WHERE name = 'intake'`).Scan(&page); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path(dir), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 4096), (page-1)*4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.IntakeStats(t.Context(), storagetest.Log); !errors.Is(err, ledger.ErrEngine) {
		t.Errorf("reading a corrupt table: %v", err)
	}
	if _, err := s.OpenWriter(t.Context(), storagetest.Log, "g", "r"); !errors.Is(err, ledger.ErrEngine) {
		t.Errorf("the next write: %v", err)
	}
	_ = s.Close()
}

// tamper runs SQL behind the ledger's back, and leaves no WAL.
func tamper(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(statement, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
