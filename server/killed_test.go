package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// The environment of a process that is one call, and ends at a step of it.
const (
	killedAt  = "LINEAL_TEST_KILLED_AT"
	killedDir = "LINEAL_TEST_KILLED_DIR"
)

// TestL2KilledAtEachStep kills a process at each step of a call: its permit is
// recorded, then it goes on, then its outcome is recorded. No call went on whose
// permit is not in the log; and every permit whose process did not live to say
// what followed is closed as unknown after a restart, once.
func TestL2KilledAtEachStep(t *testing.T) {
	for _, step := range []struct {
		at      string
		permits int
		outcome record.Status // "" if there is none
	}{
		{"permit not stored", 0, ""},
		{"permit stored", 1, record.StatusUnknown},
		{"permit acknowledged", 1, record.StatusUnknown},
		{"call made", 1, record.StatusUnknown},
		{"outcome not stored", 1, record.StatusUnknown},
		{"outcome stored", 1, record.StatusCompleted},
		{"never", 1, record.StatusCompleted}, // the twin
	} {
		t.Run(step.at, func(t *testing.T) {
			dir := smallLog(t, 1)
			permit, called := killedCall(t, dir, step.at)
			if wantCalled := slices.Contains([]string{"call made", "outcome not stored", "outcome stored", "never"}, step.at); called != wantCalled {
				t.Fatalf("the call was made: %v", called)
			}
			l := openedLedgerWith(t, dir, func(c *ledgerConfig) {
				c.now = func() time.Time { return time.Now().Add(outcomeWithin + time.Minute) }
			}, func(e engine) engine { return e })
			if err := l.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // once, however often it looks
				l.closeOverdue(t.Context(), l.own())
			}
			permits := 0
			for _, rec := range logged(t, l) {
				if rec.ID == permit {
					permits++
				}
			}
			if permits != step.permits || called && permits != 1 {
				t.Errorf("%d permits in the log; the call was made: %v", permits, called)
			}
			outcomes := outcomesOf(t, l, permit)
			if step.outcome == "" && len(outcomes) != 0 || step.outcome != "" && (len(outcomes) != 1 || outcomes[0].Outcome.Status != step.outcome) {
				t.Errorf("outcomes %+v", outcomes)
			}
			if err := l.close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// killedCall runs the call in a process of its own, and gives the id of its permit
// and whether it was made.
func killedCall(t *testing.T, dir, step string) (permit string, called bool) {
	t.Helper()
	told := killedProcess(t, killedAt, dir, step)
	for line := range strings.Lines(told) {
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "permit "); ok {
			permit = id
		}
		called = called || line == "called"
	}
	if permit == "" {
		t.Fatalf("the process began no call: %s", told)
	}
	return permit, called
}

// killedProcess runs this test's program as a process of its own, which variable has
// end at a step, and gives what it printed. It was killed there, unless the step is
// "never".
func killedProcess(t *testing.T, variable, dir, step string) (told string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0]) //nolint:gosec // this test's own program
	cmd.Env = append(os.Environ(), variable+"="+step, killedDir+"="+dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ended := ok && status.Signaled() && status.Signal() == syscall.SIGKILL; ctx.Err() != nil || ended != (step != "never") || !ended && err != nil {
		t.Fatalf("the process ended with %v: %s%s", err, out.String(), errs.String())
	}
	return out.String()
}

// callAndBeKilled is that process. It records as a gateway does, and what it
// prints stands for the call.
func callAndBeKilled(step, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg, err := readLedger(dir)
	if err != nil {
		return err
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return err
	}
	e := &killing{engine: newEngine(dir, cfg, engineOptions{now: time.Now})}
	l, err := newLedgerService(ctx, e, ledgerConfig{Ledger: cfg, dataDir: dir, keys: keys, sequences: true, now: time.Now})
	if err != nil {
		return err
	}
	if err := l.openRecorders(ctx, func(config.Role) bool { return true }, buildDigest()); err != nil {
		return err
	}
	payload, err := os.ReadFile(filepath.FromSlash("../record/testdata/decision-permit.json"))
	if err != nil {
		return err
	}
	permit, err := record.Parse(payload)
	if err != nil {
		return err
	}
	own := l.gateway.own(record.KindDecision)
	permit.ID, permit.Time, permit.Decision.CallID = own.ID, own.Time, newID()
	outcome := outcomeOf(l, permit)
	fmt.Println("permit", permit.ID)

	e.steps(step, permit.ID, outcome.ID)
	if err := l.gateway.Record(ctx, permit); err != nil {
		return err
	}
	if step == "permit acknowledged" {
		die()
	}
	fmt.Println("called")
	if step == "call made" {
		die()
	}
	if err := l.gateway.RecordLater(ctx, outcome); err != nil {
		return err
	}
	return errors.Join(l.flush(ctx), l.close(ctx))
}

// killing is an engine whose process ends at a step of a record.
type killing struct {
	engine
	store *killingStore
}

func (k *killing) ledger(ctx context.Context) (ledger.Store, error) {
	s, err := k.engine.ledger(ctx)
	k.store = &killingStore{Store: s, step: make(chan [3]string, 1)}
	return k.store, err
}

func (k *killing) steps(step, permit, outcome string) {
	k.store.step <- [3]string{step, permit, outcome}
}

type killingStore struct {
	ledger.Store
	step chan [3]string // step, permit, outcome; empty until the call begins
}

// Append implements [ledger.Appender].
func (s *killingStore) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	var step, permit, outcome string
	select {
	case x := <-s.step:
		step, permit, outcome = x[0], x[1], x[2]
		s.step <- x
	default:
	}
	has := func(id string) bool {
		return id != "" && slices.ContainsFunc(b.Records, func(r ledger.Record) bool { return r.RecordID == id })
	}
	if step == "permit not stored" && has(permit) || step == "outcome not stored" && has(outcome) {
		die()
	}
	at, err := s.Store.Append(ctx, b)
	if err == nil && (step == "permit stored" && has(permit) || step == "outcome stored" && has(outcome)) {
		die()
	}
	return at, err
}

// die ends this process as nothing else can.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
