package server

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/sealed"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// The writers of a process, `gw.id` of their records. Where the process has a
// node name, that follows after a hyphen.
const (
	writerAdmin   = "admin"
	writerGateway = "gateway"
	writerTokens  = "tokens"
)

// writerID is the `gw.id` of one of a node's writers.
func writerID(writer, node string) string {
	if node == "" {
		return writer
	}
	return writer + "-" + node
}

// ledgerConfig is what a ledgerService needs.
type ledgerConfig struct {
	config.Ledger
	dataDir   string
	keys      keyRing
	sequences bool // this process takes part in the sequencing
	byHand    bool // it sequences when it is told to, and else not
	createLog bool
	createDir bool             // make the directory of the tiles
	guard     disk.GuardConfig // of the data directory; Dir is filled in
	metrics   *metrics         // nil: nothing is counted
	now       func() time.Time
	logger    *slog.Logger
}

// ledgerService is the ledger of one process: the store, the recorders that
// write to it, and its part in the sequencing.
type ledgerService struct {
	cfg    ledgerConfig
	store  ledger.Store
	order  *sequencing
	room   func() error // nil, or whether the disk has room for new work
	now    func() time.Time
	logger *slog.Logger
	sealer *sealed.Sealer // of this run's disclosures

	rejections rejections           // by this process, sequencing
	patrol     *patrol              // nil: it checks nothing by itself
	inForce    map[string]writerKey // of the log when this opened; nil where it does not follow it
	changing   sync.Mutex           // one change of keys at a time; guards read
	read       *admission           // of those changes: the log as far as they read it; nil before the first

	admin, gateway, tokens *recorder   // nil without the role
	recorders              []*recorder // those that are there

	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error // the first fatal error of a part; buffered
}

func tilesPath(dataDir string, l config.Ledger) string {
	return filepath.Join(dataDir, "tiles", strings.ReplaceAll(l.Origin(), "/", "_"))
}

// newLedgerService opens the store and begins to sequence, or to wait for its
// turn; recorders come after.
func newLedgerService(ctx context.Context, e engine, cfg ledgerConfig) (_ *ledgerService, err error) {
	l := &ledgerService{cfg: cfg, now: cfg.now, logger: cfg.logger, failed: make(chan error, 4)}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.sealer, err = sealed.NewSealer(cfg.keys.disclosures); err != nil {
		return nil, err
	}
	if l.store, err = e.ledger(ctx); err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.store.Close())
		}
	}()
	if cfg.createLog {
		if err := l.createLog(ctx); err != nil {
			return nil, err
		}
	}
	if cfg.Store == "" && !cfg.createLog { // else the disk that counts is another one
		cfg.guard.Dir = cfg.dataDir
		guard, err := disk.NewGuard(cfg.guard)
		if err != nil {
			return nil, err
		}
		l.room = guard.Check
	}
	if err := l.openSequencing(ctx); err != nil {
		return nil, fmt.Errorf("opening sequencer: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	if cfg.byHand {
		return l, nil
	}
	l.wg.Go(func() {
		if err := l.order.run(run); err != nil {
			l.fail(fmt.Errorf("sequencer: %w", err))
		}
	})
	return l, nil
}

// createLog makes the log, which must not be there: who made it has its keys.
func (l *ledgerService) createLog(ctx context.Context) error {
	switch _, err := l.store.Head(ctx, l.cfg.Family); {
	case err == nil:
		return fmt.Errorf("creating log: the store holds %s already; another process of its deployment joins it", l.cfg.Family)
	case !errors.Is(err, ledger.ErrNotFound):
		return fmt.Errorf("creating log: %w", err)
	}
	if err := l.store.CreateLog(ctx, l.cfg.Family, l.cfg.Origin()); err != nil {
		return fmt.Errorf("creating log: %w", err)
	}
	return nil
}

func (l *ledgerService) openSequencing(ctx context.Context) (err error) {
	l.order = &sequencing{
		store: l.store, family: l.cfg.Family, origin: l.cfg.Origin(), manifest: l.cfg.keys.manifestPublic, logger: l.logger,
		rejected: l.rejected,
	}
	if !l.cfg.sequences {
		return nil
	}
	// Tiles are this process's own, also where the store is shared: each process
	// that may sequence makes them from the entries, and checks the others by it.
	tiles, err := disk.Open(disk.Config{Dir: tilesPath(l.cfg.dataDir, l.cfg.Ledger), Create: l.cfg.createDir})
	if err != nil {
		return fmt.Errorf("opening tiles: %w", err)
	}
	l.order.tiles = tiles
	if l.order.snapshot, err = newSnapshots(tilesPath(l.cfg.dataDir, l.cfg.Ledger), l.cfg.Origin(), l.cfg.keys.log); err != nil {
		return err
	}
	if l.order.witnesses, err = witnessConfig(l.cfg.Ledger, l.now); err != nil {
		return err
	}
	if l.order.signer, l.order.verifier, err = ledger.NewCheckpointKey(l.cfg.Origin(), l.cfg.keys.log); err != nil {
		return err
	}
	if err := l.order.attend(ctx); err != nil {
		return err
	}
	l.inForce = l.order.keys()
	return nil
}

// fail keeps the first fatal error; the server ends on it.
func (l *ledgerService) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// introduce writes the key records, signed by the manifest key: which key is
// which writer's. It returns when they are in the log, so that nothing that
// these writers record can come before.
func (l *ledgerService) introduce(ctx context.Context) error {
	admin, err := l.openRecorder(ctx, writerAdmin, record.RoleAdmin, l.cfg.keys.manifest)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		name string
		role record.Role
		key  ed25519.PrivateKey
	}{{writerGateway, record.RoleGateway, l.cfg.keys.gateway}, {writerTokens, record.RoleTokenService, l.cfg.keys.tokens}} {
		if w.key == nil {
			continue
		}
		pub, ok := w.key.Public().(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("key of %s has no public part", w.name)
		}
		rec := admin.own(record.KindKey)
		rec.KeyChange = &record.KeyChange{
			Op: record.KeyAdd, For: writerID(w.name, l.cfg.Node), Role: w.role, KeyID: record.KeyID(pub),
			PublicKey: base64.RawURLEncoding.EncodeToString(pub),
		}
		if err := admin.Record(ctx, rec); err != nil {
			return errors.Join(fmt.Errorf("introducing %s: %w", w.name, err), admin.writer.Close(ctx))
		}
	}
	if err := admin.writer.Close(ctx); err != nil {
		return err
	}
	if err := l.order.flush(ctx); err != nil {
		return err
	}
	return l.readmitOwn(ctx)
}

// openRecorders begins a run of each writer with its heartbeat: the gateway's,
// the token service's, and, where the manifest key is, the admin's.
func (l *ledgerService) openRecorders(ctx context.Context, runs func(config.Role) bool, build string) (err error) {
	for _, w := range []struct {
		to      **recorder
		name    string
		role    record.Role
		key     ed25519.PrivateKey
		present bool
	}{
		{&l.gateway, writerGateway, record.RoleGateway, l.cfg.keys.gateway, runs(config.RoleGateway)},
		{&l.tokens, writerTokens, record.RoleTokenService, l.cfg.keys.tokens, runs(config.RoleTokens)},
		{&l.admin, writerAdmin, record.RoleAdmin, l.cfg.keys.manifest, runs(config.RoleLedger)},
	} {
		if !w.present {
			continue
		}
		if err := l.mayWrite(ctx, writerID(w.name, l.cfg.Node), w.key); err != nil {
			return err
		}
		if *w.to, err = l.openRecorder(ctx, w.name, w.role, w.key); err != nil {
			return err
		}
		l.recorders = append(l.recorders, *w.to)
		if err := (*w.to).beat(ctx, record.BeatStart, build, l.checkpointBody(ctx)); err != nil {
			return fmt.Errorf("first heartbeat of %s: %w", w.name, err)
		}
		l.keepBeating(*w.to, build)
	}
	l.untilClose(l.closePermits)
	if l.patrol = l.openPatrol(); l.patrol != nil {
		l.patrol.look(ctx) // never due yet: its numbers are there from the start
		l.untilClose(l.patrol.run)
	}
	return nil
}

// untilClose runs f until the service closes.
func (l *ledgerService) untilClose(f func(context.Context)) {
	run, cancel := context.WithCancel(context.Background())
	stop := l.cancel
	l.cancel = func() { cancel(); stop() }
	l.wg.Go(func() { f(run) })
}

// own is the recorder of what concerns the process itself: the admin's, or,
// where the manifest key is elsewhere, the first that there is.
func (l *ledgerService) own() *recorder {
	if l.admin != nil {
		return l.admin
	}
	return l.recorders[0]
}

// keepBeating writes heartbeats until the service closes.
func (l *ledgerService) keepBeating(r *recorder, build string) {
	run, cancel := context.WithCancel(context.Background())
	stop := l.cancel
	l.cancel = func() { cancel(); stop() }
	l.wg.Go(func() {
		tick := time.NewTicker(beatInterval)
		defer tick.Stop()
		for {
			select {
			case <-run.Done():
				return
			case <-r.writer.Done():
				if err := r.writer.Err(); err != nil {
					l.fail(fmt.Errorf("writer %s: %w", r.id, err))
				}
				return
			case <-tick.C:
				l.reportRejections(r)
				r.reportLosses(run)
				if err := r.beat(run, record.Beat, build, l.checkpointBody(run)); err != nil && run.Err() == nil {
					l.logger.WarnContext(run, "heartbeat not recorded", slog.String("writer", r.id), slog.String("cause", err.Error()))
				}
			}
		}
	})
}

// checkpointBody is the last published checkpoint as heartbeats state it: of the
// period that is open, which another process may have opened.
func (l *ledgerService) checkpointBody(ctx context.Context) string {
	c, err := l.published(ctx)
	if err != nil {
		return ""
	}
	return bodyOf(c)
}

// published is the last published checkpoint of the open period.
func (l *ledgerService) published(ctx context.Context) (ledger.Checkpoint, error) {
	head, err := l.store.Head(ctx, l.cfg.Family)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	return l.store.LastCheckpoint(ctx, head.Origin, true)
}

// flush returns when every outcome recorded so far is sequenced and published.
func (l *ledgerService) flush(ctx context.Context) error {
	for _, r := range l.recorders {
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	return l.order.flush(ctx)
}

// abandon closes without sequencing anything more.
func (l *ledgerService) abandon(ctx context.Context) error {
	l.cancel()
	l.wg.Wait()
	return errors.Join(l.order.close(ctx), l.store.Close())
}

// close stops in the order of the data: recorders first, then everything they
// wrote is sequenced and published, here or by the process that holds the
// lease, then the store.
func (l *ledgerService) close(ctx context.Context) error {
	var errs []error
	for _, r := range l.recorders {
		l.reportRejections(r)
		r.reportLosses(ctx)
		if err := r.beat(ctx, record.BeatStop, buildDigest(), l.checkpointBody(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("last heartbeat of %s: %w", r.id, err))
		}
		errs = append(errs, r.writer.Close(ctx))
	}
	if err := l.order.finish(ctx); err != nil {
		errs = append(errs, fmt.Errorf("publishing the end: %w", err))
	}
	l.cancel()
	l.wg.Wait()
	return errors.Join(append(errs, l.order.close(ctx), l.store.Close())...)
}
