package server

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// rollable is a deployment with some records, and its configuration for the next
// period.
func rollable(t *testing.T) config.Config {
	t.Helper()
	cfg := config.Config{
		DataDir: filepath.Join(t.TempDir(), "data"),
		Ledger:  config.Ledger{Family: "ledger.test/std", Period: "2026-11", Region: "local", DataClass: "internal", Retention: config.Retention{KeepDays: 1}},
	}
	if err := Init(t.Context(), cfg.DataDir, cfg.Ledger, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	if err := AddHold(t.Context(), cfg.DataDir, "case-1", "", "audit", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	cfg.Ledger.Period = "2026-12"
	return cfg
}

// begun is a roll that is done by hand.
func begun(t *testing.T, cfg config.Config) *roller {
	t.Helper()
	r := &roller{cfg: cfg, dataDir: cfg.DataDir, now: time.Now}
	var err error
	if r.was, err = readLedger(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	if r.keys, err = loadKeys(cfg.DataDir); err != nil {
		t.Fatal(err)
	}
	r.rep.From, r.rep.To = r.was.Origin(), cfg.Ledger.Origin()
	if _, err := periodKey(cfg.DataDir, cfg.Ledger.Period, true); err != nil {
		t.Fatal(err)
	}
	return r
}

// halfway makes the first records of a roll, and ends there.
func (r *roller) halfway(ctx context.Context, opened bool) (err error) {
	old := inPeriod(r.cfg.Ledger, r.rep.From)
	l, err := newLedgerService(ctx, newEngine(r.dataDir, old, engineOptions{now: r.now}), ledgerConfig{
		Ledger: old, dataDir: r.dataDir, keys: r.keys, sequences: true, byHand: true, now: r.now,
	})
	if err != nil {
		return err
	}
	admin, err := l.openRecorder(ctx, writerAdmin, record.RoleAdmin, r.keys.manifest)
	if err != nil {
		return errors.Join(err, l.abandon(ctx))
	}
	r.judging = l.order.judging
	c, err := r.seal(ctx, l, l.order.holding(), admin)
	if err == nil && opened {
		_, err = r.open(ctx, l, admin, c, record.PeriodRoll)
	}
	return errors.Join(err, admin.writer.Close(ctx), l.abandon(ctx))
}

// TestL3RollInterrupted: a roll that ended anywhere is repeated, and leaves what one
// that did not end leaves: one seal, one beginning, one key.
func TestL3RollInterrupted(t *testing.T) {
	for name, interrupted := range map[string]func(t *testing.T, r *roller) error{
		"not at all":        func(*testing.T, *roller) error { return nil },
		"sealed":            func(t *testing.T, r *roller) error { return r.halfway(t.Context(), false) },
		"the next recorded": func(t *testing.T, r *roller) error { return r.halfway(t.Context(), true) },
		"rolled":            func(t *testing.T, r *roller) error { return r.close(t.Context()) },
		"the key taken":     func(t *testing.T, r *roller) error { return errors.Join(r.close(t.Context()), r.takeKey(t.Context())) },
		"the directory of the next": func(t *testing.T, r *roller) error {
			return errors.Join(r.close(t.Context()), r.takeKey(t.Context()), saveLedger(r.dataDir, r.cfg.Ledger))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := rollable(t)
			if err := interrupted(t, begun(t, cfg)); err != nil {
				t.Fatal(err)
			}
			rep, err := Roll(t.Context(), cfg, "", time.Now, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err == nil {
				t.Error("rolled twice")
			}
			if key, err := LogKey(cfg.DataDir); err != nil || key != rep.Key {
				t.Errorf("the key is %q, %v, reported was %q", key, err, rep.Key)
			}
			for period, want := range map[string]string{
				"2026-11": "key key heartbeat period heartbeat period", "2026-12": "period key key",
			} {
				if got := kindsOf(t, cfg.DataDir, period); got != want {
					t.Errorf("%s has %q, want %q", period, got, want)
				}
			}
		})
	}
}

// mustBeSound is what fsck says of a log or a period, which finds nothing.
func mustBeSound(t *testing.T, a *Archive) FsckReport {
	t.Helper()
	rep, err := a.Fsck(t.Context())
	if err == nil {
		err = rep.Err()
	}
	if err != nil {
		t.Errorf("fsck of %s: %v", a.cfg.Origin(), err)
	}
	return rep
}

// kindsOf lists the records of a period, which must be sound.
func kindsOf(t *testing.T, dataDir, period string) string {
	t.Helper()
	a, err := OpenPeriod(t.Context(), dataDir, period)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	rep := mustBeSound(t, a)
	var kinds []string
	for e, err := range a.store.ReadRange(t.Context(), rep.Origin, 0, rep.Size) {
		if err != nil {
			t.Fatal(err)
		}
		rec, _, err := readHolding(e, "")
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, string(rec.Kind))
	}
	return strings.Join(kinds, " ")
}

// TestRollTakenOver: a roll that ended before the new period's first checkpoint
// leaves a deployment that starts.
func TestRollTakenOver(t *testing.T) {
	cfg := rollable(t)
	r := begun(t, cfg)
	if err := errors.Join(r.close(t.Context()), r.takeOver(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := AddHold(t.Context(), cfg.DataDir, "case-2", "", "audit", time.Now, nil); err != nil {
		t.Error(err)
	}
	if got := kindsOf(t, cfg.DataDir, "2026-12"); got != "period key key heartbeat period heartbeat" {
		t.Errorf("the new period has %q", got)
	}
}

// TestRollBegun: no server starts on a period that is half closed, nor on one that
// is not open.
func TestRollBegun(t *testing.T) {
	cfg := rollable(t)
	old := cfg.Ledger
	old.Period = "2026-11"
	if err := noteLedger(cfg.DataDir, cfg.Ledger); err == nil || !strings.Contains(err.Error(), "lineal ledger roll opens the next") {
		t.Errorf("the next period, before it was opened: %v", err)
	}
	if err := noteLedger(cfg.DataDir, old); err != nil {
		t.Errorf("the open period: %v", err)
	}
	if err := begun(t, cfg).close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range []config.Ledger{old, cfg.Ledger} {
		if err := noteLedger(cfg.DataDir, l); err == nil || !strings.Contains(err.Error(), "a roll of the log has begun") {
			t.Errorf("%s, half rolled: %v", l.Period, err)
		}
	}
	if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	if err := noteLedger(cfg.DataDir, cfg.Ledger); err != nil {
		t.Errorf("the new period: %v", err)
	}
	if err := noteLedger(cfg.DataDir, old); err == nil {
		t.Error("the closed period was started")
	}
}

// TestL3StateOfThePeriod: the next period goes on from the state that its first
// record names, and from no other.
func TestL3StateOfThePeriod(t *testing.T) {
	cfg := rollable(t)
	if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	store, err := newEngine(cfg.DataDir, cfg.Ledger, engineOptions{now: time.Now}).reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	keys, err := loadKeys(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	head, err := store.Head(t.Context(), cfg.Ledger.Family)
	if err != nil {
		t.Fatal(err)
	}
	if err := admissionOf(keys.manifestPublic, store, head.Origin).catchUp(t.Context(), head.Size); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(ledger.Blob) ledger.Blob{
		"another writer's tail": func(b ledger.Blob) ledger.Blob {
			b.Bytes = []byte(strings.Replace(string(b.Bytes), `"seq":`, `"seq":1`, 1))
			return b
		},
		"nothing": func(b ledger.Blob) ledger.Blob { b.Bytes = nil; return b },
	} {
		a := admissionOf(keys.manifestPublic, store, head.Origin)
		a.blob = func(ctx context.Context, digest string) (ledger.Blob, error) {
			b, err := store.Blob(ctx, digest)
			return change(b), err
		}
		if err := a.catchUp(t.Context(), head.Size); !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestL3PeriodsMoved: a deployment with two periods moves to PostgreSQL, goes on to
// a third there, and prunes the first; other processes follow, and what they
// record meanwhile is in the period that comes.
func TestL3PeriodsMoved(t *testing.T) {
	pg := pgtest.Shared(t)
	cfg := rollable(t)
	if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	cfg.Ledger.Store, cfg.Ledger.Persons = config.Secret(pg.URL(pg.Database(t))), config.Secret(pg.URL(pg.Database(t)))
	rep, err := Move(t.Context(), cfg, time.Now, nil)
	if err != nil || rep.Size != 3 {
		t.Fatalf("moving: %+v, %v", rep, err)
	}
	other := cfg
	other.Ledger.Node, other.DataDir = "b", filepath.Join(t.TempDir(), "b")
	joined(t, other, cfg.DataDir)

	late := gatewayOf(t, other)
	late("before")
	cfg.Ledger.Period = "2027-01"
	if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	late("after")
	if err := AddHold(t.Context(), cfg.DataDir, "case-2", "2026-12", "audit", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	other.Ledger.Period = "2027-01"
	if _, err := Roll(t.Context(), other, "", time.Now, nil); err == nil || !strings.Contains(err.Error(), "--member") {
		t.Errorf("another process without the key: %v", err)
	}
	if _, err := Roll(t.Context(), other, cfg.DataDir, time.Now, nil); err != nil {
		t.Errorf("another process with the key: %v", err)
	}
	if a, b := keyOf(t, cfg.DataDir), keyOf(t, other.DataDir); a != b {
		t.Errorf("two keys of one period: %s and %s", a, b)
	}
	for period, want := range map[string]string{"2026-12": "before", "2027-01": "after"} {
		if got := kindsOf(t, cfg.DataDir, period); !strings.Contains(got, "gap") {
			t.Errorf("%s lacks what was recorded %s it began: %s", period, want, got)
		}
	}
	prunedInTime(t, cfg.DataDir)
}

// prunedInTime prunes the first period, as soon as it may and nothing holds it.
func prunedInTime(t *testing.T, dataDir string) {
	t.Helper()
	later := func() time.Time { return time.Now().AddDate(0, 0, 2) }
	prune := func(period string, now func() time.Time) error {
		_, err := Prune(t.Context(), dataDir, period, true, now, nil)
		return err
	}
	if err := prune("2026-11", time.Now); !errors.Is(err, ErrHeld) {
		t.Errorf("pruning inside a hold: %v", err)
	}
	if err := ReleaseHold(t.Context(), dataDir, "case-1", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	if err := prune("2026-11", time.Now); !errors.Is(err, ErrKept) {
		t.Errorf("pruning before its time: %v", err)
	}
	if err := prune("2026-12", later); !errors.Is(err, ErrHeld) {
		t.Errorf("pruning inside a hold of one period: %v", err)
	}
	if err := prune("2027-01", later); err == nil {
		t.Error("the open period was pruned")
	}
	for range 2 {
		if err := prune("2026-11", later); err != nil {
			t.Errorf("pruning: %v", err)
		}
	}
	a, err := OpenPeriod(t.Context(), dataDir, "2026-11")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	rep, err := a.Fsck(t.Context())
	if err != nil || rep.Err() != nil || rep.Pruned != 2 {
		t.Errorf("after pruning: %+v, %v", rep, err)
	}
}

func keyOf(t *testing.T, dataDir string) string {
	t.Helper()
	key, err := LogKey(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// joined makes the data directory of another process with all roles.
func joined(t *testing.T, cfg config.Config, member string) {
	t.Helper()
	deployment, err := loadKeys(member)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := joinKeys(cfg, member, deployment); err != nil {
		t.Fatal(err)
	}
	keys, err := loadKeys(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLedgerService(t.Context(), newEngine(cfg.DataDir, cfg.Ledger, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: cfg.Ledger, dataDir: cfg.DataDir, keys: keys, sequences: true, createDir: true, now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.introduce(t.Context()), l.close(t.Context()), saveLedger(cfg.DataDir, cfg.Ledger)); err != nil {
		t.Fatal(err)
	}
}

// gatewayOf runs the gateway of a process without the role ledger; what it returns
// records something.
func gatewayOf(t *testing.T, cfg config.Config) func(cause string) {
	t.Helper()
	keys, err := loadKeys(cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLedgerService(t.Context(), newEngine(cfg.DataDir, cfg.Ledger, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: cfg.Ledger, dataDir: cfg.DataDir, keys: keys, now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.openRecorder(t.Context(), writerGateway, record.RoleGateway, keys.gateway)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(r.writer.Close(ctx), l.abandon(ctx)); err != nil {
			t.Error(err)
		}
	})
	return func(cause string) {
		t.Helper()
		rec := r.own(record.KindGap)
		rec.Gap = &record.Gap{From: rec.Time, To: rec.Time, Cause: cause, DenialsDropped: map[string]int64{}}
		if err := r.Record(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
}
