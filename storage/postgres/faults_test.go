package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

const patience = 60 * time.Second

// rawBatch makes a batch of one record without a writer.
func rawBatch(t *testing.T, gwID, run string, seq int64, prev, id string) ledger.Batch {
	t.Helper()
	l, err := storagetest.NewSealer().Link(storagetest.Draft{ID: id, Text: id}, ledger.Position{Log: storagetest.Log, GWID: gwID, Run: run, Seq: seq, Prev: prev})
	if err != nil {
		t.Fatal(err)
	}
	env, err := storagetest.NewSealer().Sign(l)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.Batch{
		Log: storagetest.Log, GWID: gwID, Run: run, First: seq, Prev: prev, Tail: l.RecordHash,
		Records: []ledger.Record{{RecordID: id, Envelope: env, Blobs: []ledger.Blob{{Digest: "blob of " + id, Class: "x", Bytes: []byte(id)}}}},
	}
}

func createLog(t *testing.T, s *postgres.Store) {
	t.Helper()
	if err := s.CreateLog(t.Context(), storagetest.Log, storagetest.Origin); err != nil {
		t.Fatal(err)
	}
}

func intakeIDs(t *testing.T, s *postgres.Store) string {
	t.Helper()
	rows, err := s.ReadIntake(t.Context(), storagetest.Log, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.RecordID)
	}
	return strings.Join(ids, " ")
}

// TestCutDuringCommit: a connection that ends while COMMIT is under way leaves
// the outcome open, whichever it is, and the same batch again settles it.
func TestCutDuringCommit(t *testing.T) {
	for name, at := range map[string]cut{"request lost": lostBefore, "answer lost": lostAfter} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, pgtest.Shared(t))
			cfg := config(t, t.TempDir())
			direct := openStore(t, cfg)
			createLog(t, direct)
			cfg.URL = pgtest.Shared(t).URLAt(p.port(), "postgres", "postgres")
			s := openStore(t, cfg)
			if _, err := s.OpenWriter(t.Context(), storagetest.Log, "g", "run"); err != nil {
				t.Fatal(err)
			}
			first := rawBatch(t, "g", "run", 0, "", "a")
			if _, err := s.Append(t.Context(), first); err != nil { // so that COMMIT is prepared
				t.Fatal(err)
			}
			second := rawBatch(t, "g", "run", 1, first.Tail, "b")
			p.cut.Store(at)
			if _, err := s.Append(t.Context(), second); !errors.Is(err, ledger.ErrAmbiguous) {
				t.Fatalf("append over a connection that was cut: %v", err)
			}
			for range 2 {
				if _, err := s.Append(t.Context(), second); err != nil {
					t.Fatalf("the same batch again: %v", err)
				}
			}
			if ids := intakeIDs(t, direct); ids != "a b" {
				t.Fatalf("intake is %q", ids)
			}
			if _, err := s.Append(t.Context(), rawBatch(t, "g", "run", 2, second.Tail, "c")); err != nil {
				t.Fatal(err)
			}
			if n := p.cancels.Load(); n != 0 {
				t.Errorf("%d cancel requests were sent, over a connection that commits", n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStandbyWaitCancelled: PostgreSQL acknowledges a commit whose wait for the
// standby was cancelled, with a warning. That is no acknowledgement, and the
// same batch again waits anew.
func TestStandbyWaitCancelled(t *testing.T) {
	server := pgtest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg := postgres.Config{URL: server.URL("postgres"), Create: true}
	s := openStore(t, cfg)
	createLog(t, s)
	if _, err := s.OpenWriter(ctx, storagetest.Log, "g", "run"); err != nil {
		t.Fatal(err)
	}
	watch, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Close(ctx) }()
	server.Exec(t, "postgres", `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`, `SELECT pg_reload_conf()`)
	standbyIsAwaited(ctx, t, server, watch)

	b := rawBatch(t, "g", "run", 0, "", "a")
	for _, end := range []string{"pg_cancel_backend", "pg_cancel_backend", "pg_terminate_backend", "pg_cancel_backend"} {
		done := make(chan error, 1)
		go func() {
			_, err := s.Append(ctx, b)
			done <- err
		}()
		if err := waitForStandby(ctx, t, watch, done); err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Exec(ctx, `SELECT `+end+`(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ledger.ErrAmbiguous) {
			t.Fatalf("%s: a commit that the standby did not confirm: %v", end, err)
		}
	}
	server.Exec(t, "postgres", `ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)
	if _, err := s.Append(ctx, b); err != nil {
		t.Fatalf("with nobody to wait for: %v", err)
	}
	if ids := intakeIDs(t, s); ids != "a" {
		t.Errorf("intake is %q", ids)
	}
}

// standbyIsAwaited returns when the server's processes have taken in that commits
// wait for a standby, which each does by itself some time after pg_reload_conf.
func standbyIsAwaited(ctx context.Context, t *testing.T, server *pgtest.Server, watch *pgx.Conn) {
	t.Helper()
	c, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	for ctx.Err() == nil {
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(ctx, `COMMENT ON SCHEMA public IS 'committed again'`)
			done <- err
		}()
		if waitForStandby(ctx, t, watch, done) != nil {
			continue // it did not wait
		}
		if _, err := watch.Exec(ctx, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal(ctx.Err())
}

// waitForStandby returns when one commit waits for the standby. That of done was to,
// and it is an error if it ended instead.
func waitForStandby(ctx context.Context, t *testing.T, watch *pgx.Conn, done <-chan error) error {
	t.Helper()
	for {
		var n int
		if err := watch.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			return nil
		}
		select {
		case err := <-done:
			return errors.Join(errors.New("a commit did not wait for the standby"), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// gateway appends from many goroutines through one writer until stopped, and
// keeps what was acknowledged.
type gateway struct {
	store *postgres.Store
	w     *ledger.Writer
	mu    sync.Mutex
	acked []string
	wg    sync.WaitGroup
}

func newGateway(t *testing.T, s *postgres.Store, id string) *gateway {
	t.Helper()
	w, err := ledger.NewWriter(t.Context(), ledger.WriterConfig{Store: s, Log: storagetest.Log, GWID: id, Sealer: storagetest.NewSealer(), Deadline: patience})
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{store: s, w: w}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.Close(ctx)
	})
	return g
}

// load starts callers that append until stop is closed, or each times; failed
// hears of errors and says whether they are expected.
func (g *gateway) load(t *testing.T, prefix string, callers, each int, stop <-chan struct{}, expected func(error) bool) {
	for c := range callers {
		g.wg.Go(func() {
			for i := 0; each == 0 || i < each; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%s-%d-%d", prefix, c, i)
				_, err := g.w.Append(t.Context(), ledger.Draft{Body: storagetest.Draft{ID: id, Text: "text of " + id}, Size: 512})
				switch {
				case err == nil:
					g.mu.Lock()
					g.acked = append(g.acked, id)
					g.mu.Unlock()
				case !expected(err):
					t.Errorf("append: %v", err)
					return
				default:
					time.Sleep(5 * time.Millisecond) // a caller tries again later
				}
			}
		})
	}
}

// openSequencer opens a sequencer as a process does. What is in the log is read
// for the check when the lease is held: before that, another process may still
// add to it, and a check that does not know these entries would refuse what
// follows them.
func openSequencer(ctx context.Context, t *testing.T, s *postgres.Store, tiles ledger.TileStore, ttl time.Duration) (*ledger.Sequencer, error) {
	signer, verifier := storagetest.Key(t)
	var c *storagetest.Checker
	return ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: s, Tiles: tiles, Log: storagetest.Log, Signer: signer, Verifier: verifier,
		Check: func(ctx context.Context, first int64, batch []ledger.Candidate) (verdicts []error, err error) {
			if c == nil {
				if c, err = storagetest.NewChecker(ctx, s); err != nil {
					return nil, err
				}
			}
			return c.Check(ctx, first, batch)
		},
		OnRejected: func(_ context.Context, r ledger.Rejected) { t.Errorf("record %s was refused: %v", r.RecordID, r.Err) },
		LeaseTTL:   ttl, SequenceEvery: 5 * time.Millisecond, CheckpointEvery: 50 * time.Millisecond,
	})
}

// wantAll closes the log and checks that each acknowledged record is in it once.
func wantAll(t *testing.T, s *postgres.Store, tiles ledger.TileStore, acked []string, exact bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var q *ledger.Sequencer
	for {
		var err error
		if q, err = openSequencer(ctx, t, s, tiles, time.Second); err == nil {
			break
		}
		if !errors.Is(err, ledger.ErrLeaseHeld) || ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	c, err := q.Flush(ctx)
	if err = errors.Join(err, q.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	_, verifier := storagetest.Key(t)
	rep, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: s, Tiles: tiles, Log: storagetest.Log, Verifier: verifier})
	if err = errors.Join(err, rep.Err()); err != nil {
		t.Fatal(err)
	}
	if _, err := storagetest.NewChecker(ctx, s); err != nil {
		t.Errorf("chain of a writer: %v", err)
	}
	times := make(map[string]int)
	for e, err := range s.ReadRange(ctx, storagetest.Origin, 0, c.Size) {
		if err != nil {
			t.Fatal(err)
		}
		times[e.RecordID]++
	}
	for _, id := range acked {
		if times[id] != 1 {
			t.Errorf("record %s was acknowledged and is in the log %d times", id, times[id])
		}
	}
	if exact && len(times) != len(acked) || len(acked) == 0 {
		t.Errorf("the log has %d records, %d were acknowledged", len(times), len(acked))
	}
}

func noError(error) bool { return false }

// TestManyGateways: two processes' stores append to one log at once, while a
// third one orders it.
func TestManyGateways(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, dir)
	orderer := openStore(t, cfg)
	createLog(t, orderer)
	tiles := storagetest.OpenTiles(t, dir)
	q, err := openSequencer(t.Context(), t, orderer, tiles, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- q.Run(ctx) }()
	cfg.Create = false
	var acked []string
	var gateways []*gateway
	for i := range 2 {
		g := newGateway(t, openStore(t, cfg), fmt.Sprintf("gw-%d", i))
		g.load(t, fmt.Sprintf("g%d", i), 64, 10, nil, noError)
		gateways = append(gateways, g)
	}
	for _, g := range gateways {
		g.wg.Wait()
		if len(g.acked) != 640 {
			t.Errorf("%d records were acknowledged", len(g.acked))
		}
		acked = append(acked, g.acked...)
	}
	stop()
	if err := errors.Join(<-ran, q.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	wantAll(t, orderer, tiles, acked, true)
}

// TestSequencersFight: several processes order one log with leases that run out
// all the time. Whoever loses stops; nothing is lost, doubled or forked.
func TestSequencersFight(t *testing.T) {
	dir := t.TempDir()
	cfg := config(t, dir)
	s := openStore(t, cfg)
	createLog(t, s)
	tiles := storagetest.OpenTiles(t, dir) // shared, as the bucket of two hosts is
	g := newGateway(t, s, "gw")
	stop := make(chan struct{})
	g.load(t, "r", 8, 0, stop, noError)
	var fighters sync.WaitGroup
	var mu sync.Mutex
	starts, lost := 0, 0
	for range 2 {
		own := openStore(t, cfg)
		fighters.Go(func() {
			for running := true; running; {
				select {
				case <-stop:
					return
				default:
				}
				q, err := openSequencer(t.Context(), t, own, tiles, time.Millisecond)
				if errors.Is(err, ledger.ErrLeaseHeld) || errors.Is(err, ledger.ErrEpochLost) {
					continue
				}
				if err != nil {
					t.Errorf("opening: %v", err)
					return
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				err = q.Run(ctx)
				cancel()
				mu.Lock()
				starts++
				if errors.Is(err, ledger.ErrEpochLost) {
					lost++
				} else if err != nil {
					t.Errorf("running: %v", err)
					running = false
				}
				mu.Unlock()
				_ = q.Close(t.Context())
			}
		})
	}
	time.Sleep(2 * time.Second)
	close(stop)
	g.wg.Wait()
	fighters.Wait()
	if lost == 0 {
		t.Errorf("in %d starts no sequencer lost its epoch: nothing was tested", starts)
	}
	wantAll(t, s, tiles, g.acked, true)
}

// TestCrashUnderLoad: the server is killed again and again while gateways
// append and a sequencer orders. Each acknowledged record is there once.
func TestCrashUnderLoad(t *testing.T) {
	server := pgtest.Start(t)
	dir := t.TempDir()
	cfg := postgres.Config{URL: server.URL("postgres"), Create: true}
	s := openStore(t, cfg)
	createLog(t, s)
	tiles := storagetest.OpenTiles(t, dir)
	expected := func(err error) bool { return !ledger.Fatal(err) && ledger.Code(err) == "ledger_unavailable" }
	stop := make(chan struct{})
	gateways := make([]*gateway, 2)
	for i := range gateways {
		gateways[i] = newGateway(t, openStore(t, cfg), fmt.Sprintf("gw-%d", i))
		gateways[i].load(t, fmt.Sprintf("g%d", i), 16, 0, stop, expected)
	}
	var sequencing sync.WaitGroup
	ordering := openStore(t, cfg)
	sequencing.Go(func() { // the supervisor that starts it anew
		for {
			select {
			case <-stop:
				return
			default:
			}
			q, err := openSequencer(t.Context(), t, ordering, tiles, 100*time.Millisecond)
			if err != nil {
				if ledger.Fatal(err) {
					t.Errorf("opening: %v", err)
					return
				}
				time.Sleep(20 * time.Millisecond)
				continue
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-stop
				cancel()
			}()
			_ = q.Run(ctx) // an answer that was lost ends it
			cancel()
			_ = q.Close(t.Context())
		}
	})
	for range 3 {
		time.Sleep(400 * time.Millisecond)
		server.Crash(t)
		server.Resume(t)
	}
	time.Sleep(400 * time.Millisecond)
	close(stop)
	var acked []string
	for _, g := range gateways {
		g.wg.Wait()
		if err := g.w.Err(); err != nil {
			t.Errorf("a writer ended: %v", err)
		}
		if err := g.w.Close(t.Context()); err != nil {
			t.Errorf("closing a writer: %v", err)
		}
		acked = append(acked, g.acked...)
	}
	sequencing.Wait()
	t.Logf("%d records were acknowledged over three crashes", len(acked))
	wantAll(t, s, tiles, acked, false)
}
