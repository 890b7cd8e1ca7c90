package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// spoil has the database run a function for each row of a table that it makes
// from now on.
const spoil = `CREATE OR REPLACE FUNCTION spoil_table() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE c RECORD;
BEGIN
  FOR c IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
    IF c.object_identity = '%[1]s' THEN EXECUTE 'CREATE TRIGGER spoil BEFORE INSERT ON %[1]s FOR EACH ROW EXECUTE FUNCTION public.spoil_row()'; END IF;
  END LOOP;
END $$`

func spoilRow(body string) string {
	return `CREATE OR REPLACE FUNCTION spoil_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + body + `; RETURN NEW; END $$`
}

const spoilOn = `CREATE EVENT TRIGGER spoil ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.spoil_table()`

// TestL3LedgerMove takes a deployment from SQLite to PostgreSQL as an operator
// does. A copy that differs in one byte is refused before anything is signed; a
// move that was killed is repeated; until the end the source goes on; and what
// was recorded before, between and after is one log that verifies.
func TestL3LedgerMove(t *testing.T) {
	pg := pgtest.Shared(t)
	c := newCalling(t)
	runLineal(t, 0, "ledger", "init", "--config", c.config)
	c.allow()
	c.serveFor(c.config, 20)

	database := pg.Database(t)
	to := c.moved(pg.URL(database), pg.URL(pg.Database(t)))
	runLineal(t, 4, "serve", "--config", to)                // not before it was moved
	runLineal(t, 1, "ledger", "move", "--config", c.config) // to where?

	pg.Exec(t, database, spoilRow(`NEW.envelope := set_byte(NEW.envelope, 100, get_byte(NEW.envelope, 100) # 1)`),
		fmt.Sprintf(spoil, "lineal.body"), spoilOn)
	before := runLineal(t, 0, "ledger", "fsck", "--data", c.data)
	c.refusesMove(to, "comparing table body: the copy is not the same as the source")
	pg.Exec(t, database, spoilRow(`NEW.leaf_hash := set_byte(NEW.leaf_hash, 0, get_byte(NEW.leaf_hash, 0) # 1)`),
		fmt.Sprintf(spoil, "lineal.entry"))
	c.refusesMove(to, "comparing table entry: the copy is not the same as the source")
	if after := runLineal(t, 0, "ledger", "fsck", "--data", c.data); after != before {
		t.Errorf("the source was %s, is %s", before, after)
	}
	if n := pg.Query(t, database, `SELECT kind FROM lineal.layout`); n != "ledger, being moved" {
		t.Errorf("the refused copy is %q", n)
	}
	runLineal(t, 1, "ledger", "upgrade", "--config", to) // nobody takes it for a ledger

	pg.Exec(t, database, spoilRow(`PERFORM pg_advisory_xact_lock(7)`), fmt.Sprintf(spoil, "lineal.checkpoint"))
	killInside(t, pg, database, "ledger", "move", "--config", to)
	c.serveFor(c.config, 20) // the source goes on

	pg.Exec(t, database, `DROP EVENT TRIGGER spoil`)
	out := runLineal(t, 0, "ledger", "move", "--config", to)
	if !strings.Contains(out, "store        PostgreSQL") {
		t.Errorf("it said %s", out)
	}
	runLineal(t, 4, "serve", "--config", c.config) // and never back
	c.refusesMove(to, "in PostgreSQL already")
	c.serveFor(to, 20)

	runLineal(t, 0, "ledger", "fsck", "--data", c.data)
	bundle := filepath.Join(t.TempDir(), "evidence.zip")
	runLineal(t, 0, "export", "--data", c.data, "--out", bundle)
	runLineal(t, 0, "verify", bundle, "--policy", c.trust())
	c.accounted(60, runLineal(t, 0, "records", "--data", c.data))
}

// TestL3LedgerMoveAway: a database that holds another deployment is left alone.
func TestL3LedgerMoveAway(t *testing.T) {
	pg := pgtest.Shared(t)
	c, other := newCalling(t), newCalling(t)
	store, persons := pg.URL(pg.Database(t)), pg.URL(pg.Database(t))
	to, there := c.moved(store, persons), other.moved(store, persons)
	runLineal(t, 0, "ledger", "init", "--config", there)
	before := runLineal(t, 0, "ledger", "fsck", "--data", other.data)

	runLineal(t, 0, "ledger", "init", "--config", c.config)
	c.refusesMove(to, "the database holds data of another deployment")
	if after := runLineal(t, 0, "ledger", "fsck", "--data", other.data); after != before {
		t.Errorf("the other was %s, is %s", before, after)
	}
	runLineal(t, 0, "ledger", "fsck", "--data", c.data)
}

// moved is the configuration with PostgreSQL databases.
func (c *calling) moved(store, persons string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	const at = "data_class: internal"
	changed := strings.Replace(string(text), at, fmt.Sprintf("%s, store: %q, persons: %q", at, store, persons), 1)
	path := filepath.Join(filepath.Dir(c.config), "moved.yaml")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// serveFor runs the deployment until the model got so many more calls.
func (c *calling) serveFor(config string, calls int) {
	c.t.Helper()
	p := startLineal(c.t, "serve", "--config", config)
	p.ready(c.probes)
	stop := c.call(2)
	before := c.reached()
	within(c.t, "the calls do not reach the model", func() bool { return c.reached() >= before+calls })
	stop()
	p.end(syscall.SIGTERM, 0)
}

// refusesMove runs a move that must say why not.
func (c *calling) refusesMove(config, why string) {
	c.t.Helper()
	out, err := exec.Command("lineal", "ledger", "move", "--config", config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		c.t.Errorf("want %q: %v, %s", why, err, out)
	}
}

// killInside kills a command when it waits for the lock that a row takes.
func killInside(t *testing.T, pg *pgtest.Server, database string, args ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(7)`); err != nil {
		t.Fatal(err)
	}
	p := startLineal(t, args...)
	within(t, "the move does not come to the table", func() bool {
		return pg.Query(t, database, `SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted`) == "1"
	})
	p.end(syscall.SIGKILL, -1)
}
