package postgres_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func tryOpen(t *testing.T, cfg postgres.Config) error {
	t.Helper()
	s, err := postgres.Open(t.Context(), cfg)
	if err == nil {
		err = s.Close()
	}
	return err
}

func TestOpenRefuses(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	url := server.URL(db)
	for name, cfg := range map[string]postgres.Config{
		"no URL":               {},
		"a URL of nothing":     {URL: "postgres://127.0.0.1:1/x?connect_timeout=2"},
		"a reader who creates": {URL: url, ReadOnly: true, Create: true},
		"a schema in capitals": {URL: url, Schema: "Lineal", Create: true},
		"a schema of SQL":      {URL: url, Schema: `x"; DROP TABLE y; --`, Create: true},
		"no such login":        {URL: server.URLAt(server.Port(), "nobody", db), Create: true},
	} {
		if err := tryOpen(t, cfg); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for _, ro := range []bool{false, true} {
		if err := tryOpen(t, postgres.Config{URL: url, ReadOnly: ro}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing schema, read-only %v: %v", ro, err)
		}
	}
	server.Exec(t, db, `CREATE SCHEMA other`, `CREATE TABLE other.x (y INT)`)
	for _, create := range []bool{false, true} {
		if err := tryOpen(t, postgres.Config{URL: url, Schema: "other", Create: create}); err == nil || !strings.Contains(err.Error(), "something else") {
			t.Errorf("a schema of something else, create %v: %v", create, err)
		}
	}
	s := openStore(t, postgres.Config{URL: url, Create: true}) // the twin
	createLog(t, s)
	for _, cfg := range []postgres.Config{{URL: url}, {URL: url, ReadOnly: true}} {
		again := openStore(t, cfg)
		if err := again.CreateLog(t.Context(), "other", "other/1"); !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("%+v creates a log: %v", cfg, err)
		}
		if h, err := again.Head(t.Context(), storagetest.Log); err != nil || h.Origin != storagetest.Origin {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	server.Exec(t, db, `UPDATE lineal.layout SET version = 99`)
	for _, create := range []bool{false, true} {
		if err := tryOpen(t, postgres.Config{URL: url, Create: create}); err == nil || !strings.Contains(err.Error(), "version 99") {
			t.Errorf("a later version, create %v: %v", create, err)
		}
	}
}

// TestUnsafeServerIsRefused changes each setting that durability rests on.
func TestUnsafeServerIsRefused(t *testing.T) {
	server := pgtest.Start(t)
	cfg := postgres.Config{URL: server.URL("postgres"), Create: true}
	s := openStore(t, cfg)
	createLog(t, s)
	strict := cfg
	strict.Standby = true
	if err := tryOpen(t, strict); !errors.Is(err, postgres.ErrUnsafe) {
		t.Errorf("no standby where one is required: %v", err)
	}
	for _, c := range []struct {
		setting string
		safe    bool
	}{
		{"synchronous_commit = 'off'", false},
		{"synchronous_commit = 'local'", false},
		{"synchronous_commit = 'remote_write'", false},
		{"synchronous_commit = 'remote_apply'", true},
		{"full_page_writes = 'off'", false},
		{"fsync = 'off'", false},
		{"fsync = 'on'", true},
	} {
		name, _, _ := strings.Cut(c.setting, " ")
		server.Exec(t, "postgres", `ALTER SYSTEM SET `+c.setting, `SELECT pg_reload_conf()`)
		want := strings.Trim(strings.TrimPrefix(c.setting, name+" = "), "'")
		waitForSetting(t, server, name, want)
		if err := tryOpen(t, cfg); c.safe != (err == nil) || !c.safe && !errors.Is(err, postgres.ErrUnsafe) {
			t.Errorf("%s: %v", c.setting, err)
		}
		if name == "synchronous_commit" { // a reload does not reach a session that was checked
			if got, err := s.Setting(t.Context(), name); err != nil || got != "on" {
				t.Errorf("synchronous_commit of a session that was checked before is %s, %v", got, err)
			}
		}
		server.Exec(t, "postgres", `ALTER SYSTEM RESET `+name, `SELECT pg_reload_conf()`)
		waitForSetting(t, server, name, "on")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	server.Crash(t)
	f, err := os.Create(filepath.Join(server.Data(), "standby.signal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	server.Resume(t)
	for _, c := range []postgres.Config{{URL: cfg.URL}, {URL: cfg.URL, ReadOnly: true}} {
		if err := tryOpen(t, c); !errors.Is(err, postgres.ErrUnsafe) || !strings.Contains(err.Error(), "recovery") {
			t.Errorf("a standby, read-only %v: %v", c.ReadOnly, err)
		}
	}
}

// waitForSetting waits until new sessions have a setting.
func waitForSetting(t *testing.T, server *pgtest.Server, name, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if got := server.Query(t, "postgres", `SELECT current_setting('`+name+`')`); got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not become %s", name, want)
		}
	}
}

// TestSessions: what keeps a stopped process from holding up the others.
func TestSessions(t *testing.T) {
	s := openStore(t, config(t, t.TempDir()))
	for name, want := range map[string]string{
		"idle_in_transaction_session_timeout": "10s", "statement_timeout": "0", "lock_timeout": "0", "application_name": "lineal",
		"default_transaction_isolation": "read committed",
	} {
		if got, err := s.Setting(t.Context(), name); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", name, got, err, want)
		}
	}
}

// TestRoles: each role can do its part and nothing else.
func TestRoles(t *testing.T) {
	server := pgtest.Shared(t)
	db := server.Database(t)
	owner := openStore(t, postgres.Config{URL: server.URL(db), Create: true})
	createLog(t, owner)
	for range 2 { // it may be run again
		if err := owner.Roles(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	server.Exec(t, db, `CREATE ROLE a LOGIN IN ROLE lineal_append`, `CREATE ROLE s LOGIN IN ROLE lineal_sequencer`, `CREATE ROLE r LOGIN IN ROLE lineal_reader`)
	as := func(login string) *postgres.Store {
		return openStore(t, postgres.Config{URL: server.URLAt(server.Port(), login, db)})
	}
	appends, orders, reads := as("a"), as("s"), as("r")
	ctx := t.Context()

	if _, err := appends.OpenWriter(ctx, storagetest.Log, "g", "run"); err != nil {
		t.Fatal(err)
	}
	b := rawBatch(t, "g", "run", 0, "", "r1")
	b.Records[0].Blobs[0].Key = &ledger.DataKey{PersonRef: "p", Wrapped: []byte("w")}
	for range 2 {
		if _, err := appends.Append(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := appends.PutBlob(ctx, ledger.Blob{Digest: "policy", Class: "policy"}); err != nil {
			t.Fatal(err)
		}
	}
	h, err := orders.AcquireLease(ctx, storagetest.Log, "me", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := orders.ReadIntake(ctx, storagetest.Log, 10)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if _, err := orders.Sequence(ctx, ledger.Sequenced{Log: storagetest.Log, Origin: storagetest.Origin, Epoch: h.Epoch, Entries: []ledger.NewEntry{{IntakeID: rows[0].IntakeID, RecordID: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	if err := orders.InsertCheckpoint(ctx, storagetest.Log, h.Epoch, ledger.Checkpoint{Origin: storagetest.Origin, Size: 1, Note: []byte("n")}); err != nil {
		t.Fatal(err)
	}
	if err := orders.PublishCheckpoint(ctx, storagetest.Log, h.Epoch, ledger.Checkpoint{Origin: storagetest.Origin, Size: 1, Note: []byte("n")}); err != nil {
		t.Fatal(err)
	}
	if e, err := reads.Lookup(ctx, "r1"); err != nil || e.Index != 0 {
		t.Errorf("reader: %+v, %v", e, err)
	}
	if b, err := reads.Blob(ctx, "blob of r1"); err != nil || b.Key == nil {
		t.Errorf("reader: %+v, %v", b, err)
	}

	again := rawBatch(t, "g", "run", 1, b.Tail, "r2")
	if _, err := appends.Append(ctx, again); err != nil {
		t.Fatal(err)
	}
	if rows, err = orders.ReadIntake(ctx, storagetest.Log, 10); err != nil || len(rows) != 1 || rows[0].GWID != "g" {
		t.Fatal(rows, err)
	}
	if _, err := orders.Sequence(ctx, ledger.Sequenced{Log: storagetest.Log, Origin: storagetest.Origin, Epoch: h.Epoch, Size: 1, Rejected: []int64{rows[0].IntakeID}}); err != nil {
		t.Fatal(err)
	}
	if _, err := appends.Append(ctx, rawBatch(t, "g", "run", 2, again.Tail, "r3")); !errors.Is(err, ledger.ErrRejected) {
		t.Errorf("after the sequencer refused a record: %v", err)
	}

	for name, do := range map[string]func() error{
		"sequencer resets": func() error { _, err := orders.ResetWriters(ctx, storagetest.Log, 1, nil); return err },
		"append orders":    func() error { _, err := appends.AcquireLease(ctx, storagetest.Log, "me", time.Minute); return err },
		"sequencer writes": func() error { _, err := orders.OpenWriter(ctx, storagetest.Log, "g", "run2"); return err },
		"reader writes":    func() error { _, err := reads.OpenWriter(ctx, storagetest.Log, "g", "run2"); return err },
		"reader orders":    func() error { return reads.ReleaseLease(ctx, storagetest.Log, h.Epoch) },
	} {
		if err := do(); !errors.Is(err, ledger.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, login := range []string{"a", "s", "r"} {
		for _, sql := range []string{
			`UPDATE lineal.body SET envelope = ''`, `DELETE FROM lineal.body`, `DELETE FROM lineal.entry`, `UPDATE lineal.entry SET idx = 9`,
			`DELETE FROM lineal.checkpoint`, `UPDATE lineal.checkpoint SET root = ''`, `DELETE FROM lineal.writer`, `TRUNCATE lineal.entry`, `DELETE FROM lineal.blob`,
		} {
			if err := server.TryAs(t, login, db, sql); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("%s: %s: %v", login, sql, err)
			}
		}
	}
}
