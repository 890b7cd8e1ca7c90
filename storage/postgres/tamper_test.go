package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// log is a ledger with a writer and a sequencer.
type log struct {
	t     *testing.T
	cfg   postgres.Config
	store *postgres.Store
	tiles ledger.TileStore
	w     *ledger.Writer
	q     *ledger.Sequencer
}

func newLog(t *testing.T) *log {
	t.Helper()
	dir := t.TempDir()
	l := &log{t: t, cfg: config(t, dir), tiles: storagetest.OpenTiles(t, dir)}
	l.store = openStore(t, l.cfg)
	createLog(t, l.store)
	var err error
	if l.q, err = openSequencer(t.Context(), t, l.store, l.tiles, time.Minute); err != nil {
		t.Fatal(err)
	}
	l.w = newGateway(t, l.store, storagetest.GWID).w
	return l
}

func (l *log) append(ids ...string) {
	l.t.Helper()
	for _, id := range ids {
		if _, err := l.w.Append(l.t.Context(), ledger.Draft{Body: storagetest.Draft{ID: id, Text: id}}); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *log) flush() ledger.Checkpoint {
	l.t.Helper()
	c, err := l.q.Flush(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// sql runs statements behind the ledger's back.
func (l *log) sql(statements ...string) {
	l.t.Helper()
	pgtest.Shared(l.t).Exec(l.t, "postgres", `SET search_path = `+l.cfg.Schema+`; `+strings.Join(statements, "; "))
}

func (l *log) fsck() []ledger.Problem {
	l.t.Helper()
	_, verifier := storagetest.Key(l.t)
	rep, err := ledger.Fsck(l.t.Context(), ledger.FsckConfig{Source: l.store, Tiles: l.tiles, Log: storagetest.Log, Verifier: verifier})
	if err != nil {
		l.t.Fatal(err)
	}
	return rep.Problems
}

// TestFsckFindsEveryRow changes each column that an entry or a checkpoint rests
// on, and takes it back.
func TestFsckFindsEveryRow(t *testing.T) {
	l := newLog(t)
	l.append("0", "1")
	l.flush()
	l.append("2", "3", "4")
	l.flush()
	if p := l.fsck(); len(p) != 0 {
		t.Fatal(p)
	}
	l.sql(`CREATE TABLE sound_entry AS TABLE entry; CREATE TABLE sound_body AS TABLE body; CREATE TABLE sound_head AS TABLE head; CREATE TABLE sound_checkpoint AS TABLE checkpoint`)
	type damage struct {
		name, sql string
		index     int64
	}
	const zero = `decode(repeat('00', 32), 'hex')`
	damages := []damage{
		{"entry lost", `DELETE FROM entry WHERE idx = 2`, 2},
		{"last entry lost", `DELETE FROM entry WHERE idx = 4`, 4},
		{"body lost", `DELETE FROM body WHERE record_id = '2'`, 2},
		{"bodies exchanged", `UPDATE entry SET record_id = 'x' WHERE idx = 1; UPDATE entry SET record_id = '1' WHERE idx = 3; UPDATE entry SET record_id = '3' WHERE idx = 1`, 1},
		{"head too small", `UPDATE head SET size = 4`, 4},
		{"head too large", `UPDATE head SET size = 6`, 5},
		{"checkpoint root", `UPDATE checkpoint SET root = ` + zero + ` WHERE size = 2`, -1},
		{"checkpoint note", `UPDATE checkpoint SET note = set_byte(note, 40, get_byte(note, 40) # 1) WHERE size = 2`, -1},
		{"published checkpoint lost", `DELETE FROM checkpoint WHERE size = 5`, -1},
	}
	for i := range int64(5) {
		damages = append(damages,
			damage{fmt.Sprintf("envelope %d", i), fmt.Sprintf(`UPDATE body SET envelope = set_byte(envelope, 40, get_byte(envelope, 40) # 1) WHERE record_id = '%d'`, i), i},
			damage{fmt.Sprintf("leaf hash %d", i), fmt.Sprintf(`UPDATE entry SET leaf_hash = `+zero+` WHERE idx = %d`, i), i})
	}
	for _, d := range damages {
		l.sql(d.sql)
		if p := l.fsck(); len(p) == 0 || p[0].Index != d.index {
			t.Errorf("%s: %v, want the first problem at %d", d.name, p, d.index)
		}
		for _, table := range []string{"entry", "body", "head", "checkpoint"} {
			l.sql(`DELETE FROM `+table, `INSERT INTO `+table+` TABLE sound_`+table)
		}
	}
	if p := l.fsck(); len(p) != 0 {
		t.Errorf("after all was put back: %v", p)
	}
}

// TestProofOfAChangedRow: the row and the tree must agree on what is proved.
func TestProofOfAChangedRow(t *testing.T) {
	l := newLog(t)
	l.append("a", "b")
	l.flush()
	l.sql(`UPDATE entry SET leaf_hash = decode(repeat('00', 32), 'hex') WHERE record_id = 'a'`)
	r := ledger.NewReader(l.store, l.tiles)
	if _, err := r.Prove(t.Context(), "a"); !errors.Is(err, ledger.ErrCorrupt) {
		t.Errorf("the changed row: %v", err)
	}
	if _, err := r.Prove(t.Context(), "b"); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

// TestClockBehind: indexes never carry an earlier time than their predecessors.
func TestClockBehind(t *testing.T) {
	l := newLog(t)
	l.append("a")
	l.flush()
	l.append("b")
	l.sql(`UPDATE head SET at = at + 60000`)
	h, err := l.store.Head(t.Context(), storagetest.Log)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := l.store.ReadIntake(t.Context(), storagetest.Log, 1)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	step := ledger.Sequenced{Log: storagetest.Log, Origin: storagetest.Origin, Epoch: h.Epoch, Size: 1, Rejected: []int64{rows[0].IntakeID}}
	if _, err := l.store.Sequence(t.Context(), step); !errors.Is(err, ledger.ErrClockBehind) {
		t.Fatalf("sequencing: %v", err)
	}
	l.sql(`UPDATE head SET at = at - 60000`)
	if c := l.flush(); c.Size != 2 {
		t.Fatalf("the log has %d entries", c.Size)
	}
}

// TestLateCommitOfASmallerID: ids of intake are given before the commit, so a
// row may appear behind one that has left already. It must not be passed over.
func TestLateCommitOfASmallerID(t *testing.T) {
	l := newLog(t)
	l.append("first")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := l.store.OpenWriter(ctx, storagetest.Log, "slow", "run"); err != nil {
		t.Fatal(err)
	}
	b := rawBatch(t, "slow", "run", 0, "", "late")
	conn, err := pgx.Connect(ctx, l.cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, `SET search_path = `+l.cfg.Schema); err != nil {
		t.Fatal(err)
	}
	slow, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(ctx, `INSERT INTO body VALUES ('late', $1)`, b.Records[0].Envelope); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Exec(ctx, `INSERT INTO intake (log, record_id, at) VALUES ($1, 'late', 1)`, storagetest.Log); err != nil {
		t.Fatal(err)
	}
	l.append("second")
	if c := l.flush(); c.Size != 2 {
		t.Fatalf("%d entries while one is not committed", c.Size)
	}
	if err := slow.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if c := l.flush(); c.Size != 3 {
		t.Fatalf("%d entries, the late one was passed over", c.Size)
	}
}

// TestDamageIsFinal: after the server reported damage, nothing is tried again
// in this process.
func TestDamageIsFinal(t *testing.T) {
	l := newLog(t)
	l.append("a")
	l.sql(`CREATE FUNCTION damaged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE 'XX001' USING MESSAGE = 'invalid page in block 7'; END $$`,
		`CREATE TRIGGER damaged BEFORE INSERT ON intake FOR EACH ROW EXECUTE FUNCTION damaged()`)
	if _, err := l.w.Append(t.Context(), ledger.Draft{Body: storagetest.Draft{ID: "b"}}); !errors.Is(err, ledger.ErrEngine) {
		t.Errorf("append: %v", err)
	}
	l.sql(`DROP TRIGGER damaged ON intake`)
	if _, err := l.store.OpenWriter(t.Context(), storagetest.Log, "g", "r"); !errors.Is(err, ledger.ErrEngine) {
		t.Errorf("the next write: %v", err)
	}
	if _, err := l.store.Head(t.Context(), storagetest.Log); !errors.Is(err, ledger.ErrEngine) {
		t.Errorf("the next read: %v", err)
	}
}
