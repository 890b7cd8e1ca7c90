package server

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lineal-auth/lineal/config"
)

// patrolling is a ledger whose patrol is asked by hand, at a clock of its own.
type patrolling struct {
	t   *testing.T
	l   *ledgerService
	p   *patrol
	at  time.Time
	log bytes.Buffer
}

func newPatrolling(t *testing.T, dir string) *patrolling {
	t.Helper()
	// Its own is off, and what others left is gone: those look by the clock of the machine.
	cfg, err := readLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(tilesPath(dir, cfg) + ".fsck"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	l := openedLedgerWith(t, dir, func(c *ledgerConfig) { c.Fsck.Off = true }, func(e engine) engine { return e })
	x := &patrolling{t: t, l: l, at: time.Date(2027, 3, 9, 8, 0, 0, 0, time.UTC)}
	t.Cleanup(func() { _ = x.l.close(t.Context()) }) // of a log that is damaged, in some
	x.begin()
	return x
}

// begin is the patrol as a start finds it.
func (x *patrolling) begin() {
	x.l.now = func() time.Time { return x.at }
	x.l.cfg.Fsck = config.Fsck{}
	x.l.logger = slog.New(slog.NewTextHandler(&x.log, nil))
	x.p = x.l.openPatrol()
	x.l.patrol = x.p
}

// after lets time pass and looks.
func (x *patrolling) after(d time.Duration) {
	x.at = x.at.Add(d)
	x.p.look(x.t.Context())
}

// numbers are what is scraped of the checks.
func (x *patrolling) numbers() string {
	x.t.Helper()
	s := &Server{ledger: x.l}
	s.started.Store(true)
	r := prometheus.NewRegistry()
	r.MustRegister(&ledgerGauges{s})
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	var out []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "lineal_ledger_fsck_") {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return strings.Join(out, "\n")
}

func (x *patrolling) shows(want ...string) {
	x.t.Helper()
	got := x.numbers()
	for _, w := range want {
		if !strings.Contains(got+"\n", w+"\n") {
			x.t.Errorf("the numbers lack %q:\n%s", w, got)
		}
	}
}

// execSQL changes the ledger behind the product's back.
func execSQL(t *testing.T, dir, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "ledger.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	res, err := db.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%d rows changed, %v", n, err)
	}
}

// TestPatrolEachDay: a sound log is checked an hour after the start, and then a day
// after each check, also across a restart.
func TestPatrolEachDay(t *testing.T) {
	x := newPatrolling(t, smallLog(t, 20))
	x.after(0)
	x.shows("lineal_ledger_fsck_age_seconds 0", "lineal_ledger_fsck_findings 0")
	x.after(59 * time.Minute)
	if strings.Contains(x.log.String(), "was checked") || strings.Contains(x.numbers(), "fsck_last_success") {
		t.Fatalf("checked within the first hour:\n%s", x.log.String())
	}
	x.after(time.Minute)
	first := x.at
	success := "lineal_ledger_fsck_last_success_timestamp_seconds 1.8"
	if !strings.Contains(x.log.String(), "the log was checked") || !strings.Contains(x.numbers(), success) {
		t.Fatalf("not checked after the first hour:\n%s%s", x.log.String(), x.numbers())
	}
	x.at = x.at.Add(time.Minute)
	x.shows("lineal_ledger_fsck_age_seconds 60", "lineal_ledger_fsck_findings 0", "lineal_ledger_fsck_duration_seconds 0")
	x.begin() // a start, which comes to no check before its day
	x.after(23*time.Hour + 58*time.Minute)
	if !x.p.state.Ended.Equal(first) {
		t.Errorf("checked at %s, and the last was at %s", x.p.state.Ended, first)
	}
	x.after(time.Minute)
	if !x.p.state.Ended.Equal(x.at) {
		t.Errorf("not checked a day after the last, at %s", x.at)
	}
	x.at = x.at.Add(49 * time.Hour)
	x.begin() // it was off for two days, and is asked to settle first
	x.after(0)
	x.shows(fmt.Sprintf("lineal_ledger_fsck_age_seconds %d", 49*3600))
	x.after(time.Hour)
	x.shows("lineal_ledger_fsck_age_seconds 0")
}

// TestPatrolFindsRot: one flipped bit in an entry, and one in a tile, is named with
// its index, in the log and in the numbers, and the process stays ready. After the
// repair the next check is an hour after the start, and finds nothing.
func TestPatrolFindsRot(t *testing.T) {
	var dir, tile string
	for name, c := range map[string]struct {
		rot, mend func()
		index     string
	}{
		"entry": {
			func() {
				execSQL(t, dir, `UPDATE body SET envelope = CAST(replace(CAST(envelope AS TEXT), 'payloadType', 'payloadTypf') AS BLOB)
					WHERE record_id = (SELECT record_id FROM entry WHERE idx = 7)`)
			},
			func() {
				execSQL(t, dir, `UPDATE body SET envelope = CAST(replace(CAST(envelope AS TEXT), 'payloadTypf', 'payloadType') AS BLOB)
					WHERE record_id = (SELECT record_id FROM entry WHERE idx = 7)`)
			},
			"index=7",
		},
		"tile": {
			func() { tile = flipTile(t, dir, "") },
			func() { flipTile(t, dir, tile) },
			"index=0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir = smallLog(t, 300)
			c.rot()
			x := newPatrolling(t, dir)
			x.after(0)
			x.after(time.Hour)
			said := x.log.String()
			if !strings.Contains(said, "level=ERROR") || !strings.Contains(said, "the log is damaged") || !strings.Contains(said, c.index+" ") {
				t.Errorf("%s is not named:\n%s", c.index, said)
			}
			if got := x.numbers(); strings.Contains(got, "lineal_ledger_fsck_findings 0") || strings.Contains(got, "last_success") {
				t.Errorf("the numbers do not show it:\n%s", got)
			}
			if err := x.l.usable(); strings.Contains(fmt.Sprint(err), "damage") {
				t.Errorf("readiness: %v", err)
			}
			c.mend()
			x.begin()
			x.after(time.Hour)
			x.shows("lineal_ledger_fsck_findings 0", "lineal_ledger_fsck_age_seconds 0")
		})
	}
}

// flipTile changes a bit of the first tile of hashes, and gives its path.
func flipTile(t *testing.T, dir, path string) string {
	t.Helper()
	if path == "" {
		cfg, err := readLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(tilesPath(dir, cfg), "tile", "0", "000")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPatrolOfAZombie: a process that lost its lease without knowing checks nothing,
// begins none and ends what it began; its numbers are not those of the log.
func TestPatrolOfAZombie(t *testing.T) {
	dir := smallLog(t, 20)
	x := newPatrolling(t, dir)
	x.after(0)
	execSQL(t, dir, `UPDATE head SET epoch = epoch + 1`)
	x.after(time.Hour)
	if !x.p.state.Ended.IsZero() || x.numbers() != "" {
		t.Errorf("a zombie checked the log at %s:\n%s", x.p.state.Ended, x.numbers())
	}
	if err := x.p.pace(t.Context()); err == nil {
		t.Error("a zombie goes on with its check")
	}
}

// TestPatrolOff: off is off; without the word it is there.
func TestPatrolOff(t *testing.T) {
	dir := smallLog(t, 1)
	for _, off := range []bool{true, false} {
		l := openedLedgerWith(t, dir, func(c *ledgerConfig) { c.Fsck = config.Fsck{Off: off} }, func(e engine) engine { return e })
		if (l.patrol == nil) != off {
			t.Errorf("off %t: a patrol %t", off, l.patrol != nil)
		}
		if err := l.close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPatrolReadsSlowly: the check rests, and ends at once when the process stops.
func TestPatrolReadsSlowly(t *testing.T) {
	x := newPatrolling(t, smallLog(t, 30))
	rests := 0
	s := paced{Store: x.l.store, step: 10, rest: func(context.Context) error {
		if rests++; rests == 3 {
			return errPassedOn
		}
		return nil
	}}
	read := 0
	var ended error
	for _, err := range s.ReadRange(t.Context(), x.l.cfg.Origin(), 0, 30) {
		if err != nil {
			ended = err
			break
		}
		read++
	}
	if !errors.Is(ended, errPassedOn) || read != 29 || rests != 3 {
		t.Errorf("%d entries with %d rests, %v", read, rests, ended)
	}
}
