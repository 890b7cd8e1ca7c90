package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// setBack is a deployment whose database can be kept, and set back to that.
type setBack struct {
	t       *testing.T
	cfg     config.Config // of the period to come
	was     config.Ledger
	keep    func()
	restore func()
	acked   []string // record ids of the gateway's
}

// engines are the deployments on which a database is set back: a file, and a
// PostgreSQL server.
var engines = map[string]func(t *testing.T) *setBack{
	"sqlite": func(t *testing.T) *setBack {
		t.Helper()
		s := newSetBack(t, func(*config.Ledger) {})
		db, kept := filepath.Join(s.cfg.DataDir, "ledger.db"), filepath.Join(t.TempDir(), "ledger.db")
		copied := func(from, to string) {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		s.keep = func() { copied(db, kept) }
		s.restore = func() {
			for _, beside := range []string{"-wal", "-shm"} {
				if err := os.Remove(db + beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			copied(kept, db)
		}
		return s
	},
	"postgres": func(t *testing.T) *setBack {
		t.Helper()
		pg := pgtest.Shared(t)
		name := pg.Database(t)
		s := newSetBack(t, func(l *config.Ledger) {
			l.Store, l.Persons = config.Secret(pg.URL(name)), config.Secret(pg.URL(pg.Database(t)))
		})
		s.keep = func() { pg.Exec(t, "postgres", "CREATE DATABASE "+name+"_kept TEMPLATE "+name) }
		s.restore = func() {
			pg.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)", "CREATE DATABASE "+name+" TEMPLATE "+name+"_kept")
		}
		return s
	},
}

func newSetBack(t *testing.T, change func(*config.Ledger)) *setBack {
	t.Helper()
	was := config.Ledger{Family: "ledger.test/std", Period: "2026-11", Region: "local", DataClass: "internal", Retention: config.Retention{KeepDays: 1}}
	change(&was)
	s := &setBack{t: t, was: was, cfg: config.Config{DataDir: filepath.Join(t.TempDir(), "data"), Ledger: was}}
	s.cfg.Ledger.Period = "2026-12"
	if err := Init(t.Context(), s.cfg.DataDir, was, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// grow runs the deployment's ledger, and has the gateway refuse n calls.
func (s *setBack) grow(n int) {
	s.t.Helper()
	l := openedLedgerWith(s.t, s.cfg.DataDir, func(*ledgerConfig) {}, func(e engine) engine { return e })
	s.refuse(l, n)
	if err := l.flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := l.close(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *setBack) refuse(l *ledgerService, n int) {
	s.t.Helper()
	for range n {
		rec := denied(s.t, l, "scope_exceeded")
		rec.Log = s.was.Family
		if err := l.gateway.Record(s.t.Context(), rec); err != nil {
			s.t.Fatal(err)
		}
		s.acked = append(s.acked, rec.ID)
	}
}

// beside records as a process does that does not sequence, and waits for nothing.
func (s *setBack) beside(n int) {
	s.t.Helper()
	keys, err := loadKeys(s.cfg.DataDir)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := newLedgerService(s.t.Context(), newEngine(s.cfg.DataDir, s.was, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: s.was, dataDir: s.cfg.DataDir, keys: keys, now: time.Now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if l.gateway, err = l.openRecorder(s.t.Context(), writerGateway, record.RoleGateway, keys.gateway); err != nil {
		s.t.Fatal(err)
	}
	s.refuse(l, n)
	if err := errors.Join(l.gateway.writer.Close(s.t.Context()), l.abandon(s.t.Context())); err != nil {
		s.t.Fatal(err)
	}
}

// refused: nothing sequences on the database as it is.
func (s *setBack) refused() {
	s.t.Helper()
	if err := s.start(); !IsRollback(err) {
		s.t.Errorf("a start: %v", err)
	}
}

// start opens the ledger as the server does, and closes it.
func (s *setBack) start() error {
	s.t.Helper()
	keys, err := loadKeys(s.cfg.DataDir)
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := newLedgerService(s.t.Context(), newEngine(s.cfg.DataDir, s.was, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: s.was, dataDir: s.cfg.DataDir, keys: keys, sequences: true, now: time.Now,
	})
	if err != nil {
		return err
	}
	return l.close(s.t.Context())
}

// roll rolls after the rollback.
func (s *setBack) roll(accept bool) (RollReport, *Loss, error) {
	s.t.Helper()
	var told *Loss
	rep, err := RollAfterRollback(s.t.Context(), s.cfg, RollbackOptions{
		AcceptLoss: accept, Tell: func(l Loss) error { told = &l; return nil },
	}, time.Now, nil)
	return rep, told, err
}

// placed counts the places of each of the gateway's records in both periods.
func (s *setBack) placed() map[string]int {
	s.t.Helper()
	a, err := OpenArchive(s.t.Context(), s.cfg.DataDir)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	at := map[string]int{}
	for p, err := range recordsOf(s.t.Context(), a.store, s.was.Family, "") {
		if err != nil {
			s.t.Fatal(err)
		}
		at[p.record.ID]++
	}
	return at
}

func (s *setBack) wantPlaced(ids []string, want int) {
	s.t.Helper()
	at := s.placed()
	for _, id := range ids {
		if at[id] != want {
			s.t.Errorf("record %s has %d places, want %d", id, at[id], want)
		}
	}
}

func (s *setBack) sound(periods ...string) {
	s.t.Helper()
	for _, p := range periods {
		kindsOf(s.t, s.cfg.DataDir, p) // which checks
	}
}

// exported is the bundle of a period; "" is the open one.
func (s *setBack) exported(period string) []byte {
	s.t.Helper()
	return bundleOf(s.t, s.cfg.DataDir, period)
}

// verified judges bundles under the policy of the deployment.
func (s *setBack) verified(bundles ...[]byte) []evidence.Report {
	s.t.Helper()
	trust := trustOf(s.t, s.cfg.DataDir, "https://sts.other.example") // it issued none of the tokens that the records name
	return evidence.VerifyPeriods(bundles, policyOf(s.t, trust))
}

func wantSaid(t *testing.T, r evidence.Report, d evidence.Dimension, want evidence.Status, says string) {
	t.Helper()
	f := r.Finding(d)
	if f.Status != want || !strings.Contains(strings.Join(f.Problems, "\n"), says) {
		t.Errorf("%s is %s, want %s with %q: %q", d, f.Status, want, says, f.Problems)
	}
}

// TestL3RestoredBackup: a deployment whose database was set back goes on in a new
// period, with everything that its tiles still have: each record that was
// acknowledged under a checkpoint is there once, and so is what a process recorded
// behind the older database before it was refused.
func TestL3RestoredBackup(t *testing.T) {
	for name, made := range engines {
		t.Run(name, func(t *testing.T) {
			s := made(t)
			s.grow(3)
			s.beside(2) // they wait for their indexes in the backup
			s.keep()
			s.grow(40)
			early := s.exported("")
			s.restore()
			s.refused()
			if _, err := Roll(t.Context(), s.cfg, "", time.Now, nil); !IsRollback(err) {
				t.Errorf("a plain roll: %v", err)
			}
			if _, err := os.Lstat(filepath.Join(s.cfg.DataDir, rollingFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a roll has begun: %v", err)
			}
			s.beside(2)

			rep, told, err := s.roll(false)
			if err != nil || told == nil || !told.Whole() || told.Stored >= told.End.Size || rep.Size != told.End.Size || rep.From != s.was.Origin() {
				t.Fatalf("%+v, %+v, %v", rep, told, err)
			}
			if _, _, err := s.roll(false); err == nil {
				t.Error("rolled twice")
			}
			s.was = s.cfg.Ledger
			s.grow(4)
			s.sound("2026-11", "2026-12")
			s.wantPlaced(s.acked, 1)

			old, next := s.exported("2026-11"), s.exported("")
			wantSaid(t, s.verified(early, next)[1], evidence.Origin, evidence.Pass, "") // it ends where it ended
			rs := s.verified(old, next)
			if rs[0].Result() == evidence.ResultInvalid {
				t.Errorf("the former period is %s: %+v", rs[0].Result(), rs[0].Findings())
			}
			for d, want := range map[evidence.Dimension]evidence.Status{
				evidence.Origin: evidence.Pass, evidence.Signature: evidence.Pass, evidence.WriterKeys: evidence.Pass, evidence.Inclusion: evidence.Pass,
				evidence.Completeness: evidence.Pass, evidence.Sequence: evidence.NotProven,
			} {
				wantSaid(t, rs[1], d, want, "")
			}
			wantSaid(t, rs[1], evidence.Sequence, evidence.NotProven, "opened after a rollback")
			wantSaid(t, rs[1], evidence.Sequence, evidence.NotProven, `writer "gateway": record`)
			wantSaid(t, s.verified(next)[0], evidence.Sequence, evidence.NotProven, "opened after a rollback")
			if err := s.start(); err != nil {
				t.Errorf("a start: %v", err)
			}
		})
	}
}

// TestL3LostEnd: where the tiles are gone too, nothing goes on until the operator
// takes the loss; then the next period names what was signed, and not what the
// database holds. Who has more of the former log sees what is missing, and nobody
// takes it for proven.
func TestL3LostEnd(t *testing.T) {
	for name, made := range engines {
		t.Run(name, func(t *testing.T) {
			s := made(t)
			s.grow(3)
			s.beside(2) // they wait for their indexes in the backup
			s.keep()
			before := len(s.acked)
			s.grow(20)
			early := s.exported("")
			s.restore()
			if err := os.RemoveAll(filepath.Join(tilesPath(s.cfg.DataDir, s.was), "tile")); err != nil {
				t.Fatal(err)
			}
			s.refused()
			_, told, err := s.roll(false)
			if !errors.Is(err, ErrLoss) || told == nil || told.Whole() || told.Missing == nil {
				t.Fatalf("%+v, %v", told, err)
			}
			if _, err := os.Lstat(filepath.Join(s.cfg.DataDir, rollingFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a roll has begun: %v", err)
			}
			if _, _, err := s.roll(true); err != nil {
				t.Fatal(err)
			}
			s.was = s.cfg.Ledger
			s.grow(4)
			s.sound("2026-11", "2026-12")
			s.wantPlaced(s.acked[:before], 1)
			s.wantPlaced(s.acked[before:before+20], 0)
			s.wantPlaced(s.acked[before+20:], 1)
			periods, err := periodsNow(t, s.cfg.DataDir)
			if err != nil || len(periods) != 2 || periods[0].Lost != told.End.Size || periods[0].Size >= periods[0].Lost || !periods[0].Sealed || periods[0].NotBefore == "" {
				t.Errorf("periods: %+v, %v", periods, err)
			}
			if _, err := Prune(t.Context(), s.cfg.DataDir, "2026-11", true, func() time.Time { return time.Now().AddDate(1, 0, 0) }, nil); err == nil {
				t.Error("a period without its end was pruned")
			}

			next := s.exported("")
			rs := s.verified(s.exported("2026-11"), next)
			wantSaid(t, rs[1], evidence.Origin, evidence.Pass, "")
			wantSaid(t, rs[1], evidence.Sequence, evidence.NotProven, "are in no bundle")
			rs = s.verified(early, next)
			wantSaid(t, rs[1], evidence.Origin, evidence.Pass, "")
			wantSaid(t, rs[1], evidence.Sequence, evidence.NotProven, "is in the log before as well")
			if rs[1].ExitCode() != 2 {
				t.Errorf("exit code %d", rs[1].ExitCode())
			}
		})
	}
}

func periodsNow(t *testing.T, dataDir string) ([]Period, error) {
	t.Helper()
	a, err := OpenArchive(t.Context(), dataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	return a.Periods(t.Context())
}

// TestRollbackErasesAgain: what was erased after the backup does not come back with
// it.
func TestRollbackErasesAgain(t *testing.T) {
	const erased, other = "ZX59lizZ22qhhrGe3Wu5KA", "AAAAlizZ22qhhrGe3Wu5KA"
	s := engines["sqlite"](t)
	withStore := func(f func(ledger.Store, *ledgerService) error) {
		t.Helper()
		l := openedLedgerWith(t, s.cfg.DataDir, func(*ledgerConfig) {}, func(e engine) engine { return e })
		if err := errors.Join(f(l.store, l), l.close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	sealed := func(ref string) ledger.Blob {
		return ledger.Blob{Digest: "of-" + ref, Class: "disclosure", Bytes: []byte("x"), Key: &ledger.DataKey{PersonRef: ref, Wrapped: []byte("k")}}
	}
	withStore(func(store ledger.Store, _ *ledgerService) error {
		return errors.Join(store.PutBlob(t.Context(), sealed(erased)), store.PutBlob(t.Context(), sealed(other)))
	})
	s.keep()
	withStore(func(_ ledger.Store, l *ledgerService) error {
		rec := l.admin.own(record.KindErasure)
		rec.Erasure = &record.Erasure{Target: record.ErasePerson, Ref: erased, Basis: "request", CompleteBy: record.At(time.Now())}
		return l.admin.Record(t.Context(), rec)
	})
	s.restore()
	if _, _, err := s.roll(false); err != nil {
		t.Fatal(err)
	}
	withStore(func(store ledger.Store, _ *ledgerService) error {
		for ref, want := range map[string]bool{erased: false, other: true} {
			b, err := store.Blob(t.Context(), "of-"+ref)
			if err != nil || (b.Key != nil) != want {
				t.Errorf("the key of %s: %+v, %v", ref, b.Key, err)
			}
		}
		return nil
	})
}

// TestL3NotRolledBack: a log that nobody has seen more of is not closed as one that
// lost its end.
func TestL3NotRolledBack(t *testing.T) {
	s := engines["sqlite"](t)
	s.grow(3)
	if _, told, err := s.roll(true); !IsNotRolledBack(err) || told != nil {
		t.Fatalf("%+v, %v", told, err)
	}
	if err := s.start(); err != nil {
		t.Error(err)
	}
}

// TestL3RollbackInterrupted: what was interrupted anywhere is repeated, and leaves
// what one leaves that was not; until then no server starts.
func TestL3RollbackInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		interrupt func(t *testing.T, r *roller, l *ledgerService, lost *ledger.Rollback) error
		rolled    bool
	}{
		"not at all": {func(*testing.T, *roller, *ledgerService, *ledger.Rollback) error { return nil }, false},
		"begun": {func(t *testing.T, r *roller, _ *ledgerService, lost *ledger.Rollback) error {
			return r.begin(t.Context(), lost.Loss().End.Note)
		}, false},
		"recovered": {func(t *testing.T, r *roller, _ *ledgerService, lost *ledger.Rollback) error {
			return errors.Join(r.begin(t.Context(), lost.Loss().End.Note), lost.Recover(t.Context()))
		}, false},
		"the next recorded": {func(t *testing.T, r *roller, l *ledgerService, lost *ledger.Rollback) error {
			err := errors.Join(r.begin(t.Context(), lost.Loss().End.Note), lost.Recover(t.Context()))
			_, oerr := r.openLost(t.Context(), l, lost)
			return errors.Join(err, oerr)
		}, false},
		"rolled": {func(t *testing.T, r *roller, l *ledgerService, lost *ledger.Rollback) error {
			err := errors.Join(r.begin(t.Context(), lost.Loss().End.Note), lost.Recover(t.Context()))
			records, oerr := r.openLost(t.Context(), l, lost)
			return errors.Join(err, oerr, lost.Roll(t.Context(), r.rep.To, records))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := engines["sqlite"](t)
			s.grow(3)
			s.keep()
			s.grow(20)
			s.restore()
			halfRolled(t, s, c.interrupt)
			if name != "not at all" {
				if err := noteLedger(s.cfg.DataDir, s.was); err == nil || !strings.Contains(err.Error(), "a roll of the log has begun") {
					t.Errorf("a server starts: %v", err)
				}
				if !c.rolled {
					if _, err := Roll(t.Context(), s.cfg, "", time.Now, nil); err == nil {
						t.Error("a plain roll went on")
					}
				}
			}
			rep, _, err := s.roll(false)
			if err != nil {
				t.Fatal(err)
			}
			if key, err := LogKey(s.cfg.DataDir); err != nil || key != rep.Key {
				t.Errorf("the key is %q, %v, reported was %q", key, err, rep.Key)
			}
			if got := kindsOf(t, s.cfg.DataDir, "2026-12"); got != "period key key" {
				t.Errorf("the new period has %q", got)
			}
			s.sound("2026-11")
			s.was = s.cfg.Ledger
			s.grow(2)
			s.sound("2026-12")
			s.wantPlaced(s.acked, 1)
		})
	}
}

// halfRolled does a part of a roll after a rollback, as closeLost does.
func halfRolled(t *testing.T, s *setBack, part func(*testing.T, *roller, *ledgerService, *ledger.Rollback) error) {
	t.Helper()
	r := begun(t, s.cfg)
	l, err := newLedgerService(t.Context(), newEngine(r.dataDir, s.was, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: s.was, dataDir: r.dataDir, keys: r.keys, byHand: true, now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := r.compare(t.Context(), l, s.was, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(part(t, r, l, lost), lost.Close(t.Context()), l.abandon(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// TestL3KeptCheckpoint: a checkpoint that somebody kept counts if the log signed
// it, and only then.
func TestL3KeptCheckpoint(t *testing.T) {
	s := engines["sqlite"](t)
	s.grow(3)
	s.keep()
	s.grow(20)
	tiles := tilesPath(s.cfg.DataDir, s.was)
	note, err := os.ReadFile(filepath.Join(tiles, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	s.restore()
	for _, lost := range []string{tiles, tiles + ".state"} { // the whole disk beside the database
		if err := os.RemoveAll(lost); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.roll(true); !IsNotRolledBack(err) {
		t.Fatalf("with nothing that has seen more: %v", err)
	}
	opts := RollbackOptions{AcceptLoss: true, Checkpoints: [][]byte{slices.Replace(slices.Clone(note), 20, 21, 'x')}}
	if _, err := RollAfterRollback(t.Context(), s.cfg, opts, time.Now, nil); err == nil {
		t.Error("a forged checkpoint was taken")
	}
	opts.Checkpoints[0] = note
	rep, err := RollAfterRollback(t.Context(), s.cfg, opts, time.Now, nil)
	if err != nil || rep.Size < 20 {
		t.Fatalf("%+v, %v", rep, err)
	}
}

// TestL3RollbackElsewhere: other processes of a deployment take the new period over
// as after any roll.
func TestL3RollbackElsewhere(t *testing.T) {
	s := engines["postgres"](t)
	other := s.cfg
	other.Ledger.Node, other.DataDir, other.Ledger.Period = "b", filepath.Join(t.TempDir(), "b"), s.was.Period
	joined(t, other, s.cfg.DataDir)
	s.grow(3)
	s.keep()
	s.grow(20)
	s.restore()
	if _, _, err := s.roll(false); err != nil {
		t.Fatal(err)
	}
	other.Ledger.Period = s.cfg.Ledger.Period
	if _, err := Roll(t.Context(), other, s.cfg.DataDir, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	if a, b := keyOf(t, s.cfg.DataDir), keyOf(t, other.DataDir); a != b {
		t.Errorf("two keys of one period: %s and %s", a, b)
	}
	gatewayOf(t, other)("after")
	s.was = s.cfg.Ledger
	s.grow(2)
	s.sound("2026-11", "2026-12")
	s.wantPlaced(s.acked, 1)
}

// errStop ends a roll where it is told what is lost.
var errStop = errors.New("stop")

// TestL3RollbackToldFirst: what is lost is said before anything is changed.
func TestL3RollbackToldFirst(t *testing.T) {
	s := engines["sqlite"](t)
	s.grow(3)
	s.keep()
	s.grow(20)
	s.restore()
	before := s.placed()
	_, err := RollAfterRollback(context.WithoutCancel(t.Context()), s.cfg, RollbackOptions{Tell: func(Loss) error { return errStop }}, time.Now, nil)
	if !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	if len(s.placed()) != len(before) {
		t.Error("the log was changed")
	}
	s.refused()
}
