package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// killedRotation names the step of a rotation at which a process ends.
const killedRotation = "LINEAL_TEST_KILLED_ROTATION"

// TestL6KilledWhileRotating kills a process that records all the time, at each
// record of a rotation. The next start finishes what was begun; what was
// acknowledged is in the log, and nothing was refused.
func TestL6KilledWhileRotating(t *testing.T) {
	for _, step := range []string{
		"add not stored", "add stored", "first record not stored", "first record stored", "retire not stored", "retire stored",
		"never", // the twin
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := smallLog(t, 1)
			acked := killedRotating(t, dir, step)
			l := openedLedger(t, dir)
			if err := l.finishChanges(t.Context()); err != nil {
				t.Fatal(err)
			}
			all := logged(t, l)
			for _, id := range acked {
				if !slices.ContainsFunc(all, func(r record.Record) bool { return r.ID == id }) {
					t.Errorf("%s was acknowledged, and is not in the log", id)
				}
			}
			if got := standing(t, l, writerGateway); got != "retired current" {
				t.Errorf("keys: %s", got)
			}
			if got := signers(all, writerGateway); len(got) != 2 {
				t.Errorf("signed under %q", got)
			}
			if err := l.usable(); err != nil {
				t.Error(err)
			}
			closed(t, l)
			r := judgedLog(t, dir)
			wantFinding(t, r, evidence.WriterKeys, evidence.Pass)
			wantFinding(t, r, evidence.Sequence, evidence.Pass)
		})
	}
}

// killedRotating runs the rotation in a process of its own, and gives the ids of the
// records that were acknowledged there.
func killedRotating(t *testing.T, dir, step string) (acked []string) {
	t.Helper()
	told := killedProcess(t, killedRotation, dir, step)
	for line := range strings.Lines(told) {
		if id, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "acked "); ok {
			acked = append(acked, id)
		}
	}
	if len(acked) == 0 {
		t.Fatal("nothing was recorded before it was killed")
	}
	return acked
}

// rotateAndBeKilled is that process.
func rotateAndBeKilled(step, dir string) error {
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
	e := &rotating{engine: newEngine(dir, cfg, engineOptions{now: time.Now}), step: step, old: keyIDOf(keys.gateway)}
	l, err := newLedgerService(ctx, e, ledgerConfig{Ledger: cfg, dataDir: dir, keys: keys, sequences: true, now: time.Now})
	if err != nil {
		return err
	}
	if err := l.openRecorders(ctx, func(config.Role) bool { return true }, buildDigest()); err != nil {
		return err
	}
	recording, stop := context.WithCancel(ctx)
	defer stop()
	begun := make(chan struct{})
	var once sync.Once
	var load sync.WaitGroup
	var failed error
	load.Go(func() {
		for pause(recording, time.Millisecond) {
			rec := l.gateway.own(record.KindGap)
			rec.Gap = &record.Gap{From: rec.Time, To: rec.Time, Cause: "overload", DenialsDropped: map[string]int64{}}
			if failed = l.gateway.Record(ctx, rec); failed != nil {
				return
			}
			fmt.Println("acked", rec.ID)
			once.Do(func() { close(begun) })
		}
	})
	select {
	case <-begun:
	case <-ctx.Done():
	}
	_, err = l.Change(ctx, WriterChange{Op: admin.WriterRotate, Writer: writerGateway})
	stop()
	load.Wait()
	return errors.Join(err, failed, l.flush(ctx), l.close(ctx))
}

// rotating is an engine whose process ends at a step of a rotation.
type rotating struct {
	engine
	step, old string
}

func (k *rotating) ledger(ctx context.Context) (ledger.Store, error) {
	s, err := k.engine.ledger(ctx)
	return rotatingStore{s, k.step, k.old}, err
}

type rotatingStore struct {
	ledger.Store
	step, old string
}

// Append implements [ledger.Appender].
func (s rotatingStore) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	here := slices.ContainsFunc(b.Records, func(r ledger.Record) bool { return s.isStep(r.Envelope) })
	if here && strings.HasSuffix(s.step, " not stored") {
		die()
	}
	at, err := s.Store.Append(ctx, b)
	if err == nil && here {
		die()
	}
	return at, err
}

// isStep reports whether a record is the one of the step.
func (s rotatingStore) isStep(envelope []byte) bool {
	e, err := record.Open(envelope)
	if err != nil {
		return false
	}
	rec, err := record.Parse(e.Payload)
	if err != nil {
		return false
	}
	switch what := strings.TrimSuffix(strings.TrimSuffix(s.step, " stored"), " not"); what {
	case "add", "retire":
		return rec.KeyChange != nil && string(rec.KeyChange.Op) == what
	case "first record":
		return rec.Writer.ID == writerGateway && rec.Writer.KeyID != s.old
	}
	return false
}
