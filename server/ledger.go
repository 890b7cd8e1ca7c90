package server

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// The writers of a deployment, `gw.id` of their records.
const (
	writerAdmin   = "admin"
	writerGateway = "gateway"
	writerTokens  = "tokens"
)

// ledgerService is the ledger of one process: store, tiles, sequencer and the
// recorders that write to it.
type ledgerService struct {
	cfg    config.Ledger
	store  *sqlite.Store
	tiles  *disk.Store
	seq    *ledger.Sequencer
	reader *ledger.Reader
	now    func() time.Time
	logger *slog.Logger

	admin, gateway, tokens *recorder

	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error // the first fatal error of a part; buffered
}

func ledgerPath(dataDir string) string { return filepath.Join(dataDir, "ledger.db") }

func tilesPath(dataDir string, l config.Ledger) string {
	return filepath.Join(dataDir, "tiles", strings.ReplaceAll(l.Origin(), "/", "_"))
}

// Init creates a deployment in an empty data directory: its keys, its log, and
// as the first records the keys of its writers. Only this function creates a
// log; a server that finds none refuses to start (ledger.md §4).
func Init(ctx context.Context, dataDir string, l config.Ledger, now func() time.Time, logger *slog.Logger) error {
	if err := durable.MkdirAll(dataDir, 0o700); err != nil {
		return fmt.Errorf("creating %s: %w", dataDir, err)
	}
	if err := createKeys(dataDir); err != nil {
		return err
	}
	keys, err := loadKeys(dataDir)
	if err != nil {
		return err
	}
	s, err := newLedgerService(ctx, dataDir, l, keys, true, now, logger)
	if err != nil {
		return err
	}
	return errors.Join(s.introduce(ctx, keys), s.close(ctx), saveLedger(dataDir, l))
}

// newLedgerService opens store, tiles and sequencer; recorders come after.
func newLedgerService(ctx context.Context, dataDir string, l config.Ledger, keys keyRing, create bool, now func() time.Time, logger *slog.Logger) (*ledgerService, error) {
	s := &ledgerService{cfg: l, now: now, logger: logger, failed: make(chan error, 4)}
	var err error
	if s.store, err = sqlite.Open(ctx, sqlite.Config{Path: ledgerPath(dataDir), Create: create, Now: now, Logger: logger}); err != nil {
		return nil, fmt.Errorf("opening ledger: %w", err)
	}
	if err := s.openLog(ctx, dataDir, keys, create); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	return s, nil
}

func (l *ledgerService) openLog(ctx context.Context, dataDir string, keys keyRing, create bool) (err error) {
	if create {
		if err := l.store.CreateLog(ctx, l.cfg.Family, l.cfg.Origin()); err != nil {
			return fmt.Errorf("creating log: %w", err)
		}
	}
	if l.tiles, err = disk.Open(disk.Config{Dir: tilesPath(dataDir, l.cfg), Create: create}); err != nil {
		return fmt.Errorf("opening tiles: %w", err)
	}
	signer, verifier, err := ledger.NewCheckpointKey(l.cfg.Origin(), keys.log)
	if err != nil {
		return err
	}
	if l.seq, err = l.openSequencer(ctx, keys, signer, verifier); err != nil {
		return fmt.Errorf("opening sequencer: %w", err)
	}
	l.reader = ledger.NewReader(l.store, l.tiles)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	l.wg.Go(func() {
		if err := l.seq.Run(run); err != nil {
			l.fail(fmt.Errorf("sequencer: %w", err))
		}
	})
	return nil
}

func (l *ledgerService) openSequencer(ctx context.Context, keys keyRing, signer note.Signer, verifier note.Verifier) (*ledger.Sequencer, error) {
	head, err := l.store.Head(ctx, l.cfg.Family)
	if err != nil {
		return nil, err
	}
	manifest, ok := keys.manifest.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("manifest key has no public part")
	}
	check := newAdmission(manifest, func(ctx context.Context, from, to int64) iter.Seq2[ledger.Entry, error] {
		return l.store.ReadRange(ctx, head.Origin, from, to)
	})
	if err := check.catchUp(ctx, head.Size); err != nil {
		return nil, err
	}
	return ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: l.store, Tiles: l.tiles, Log: l.cfg.Family, Signer: signer, Verifier: verifier, Check: check.check,
		OnRejected: func(ctx context.Context, r ledger.Rejected) {
			l.logger.ErrorContext(ctx, "record refused by the sequencer", slog.String("record", r.RecordID), slog.String("cause", r.Err.Error()))
		},
		Logger: l.logger,
	})
}

// fail keeps the first fatal error; the server ends on it.
func (l *ledgerService) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// introduce writes the key records, signed by the manifest key: which key is
// which writer's.
func (l *ledgerService) introduce(ctx context.Context, keys keyRing) error {
	admin, err := l.openRecorder(ctx, writerAdmin, record.RoleAdmin, keys.manifest)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		id   string
		role record.Role
		key  ed25519.PrivateKey
	}{{writerGateway, record.RoleGateway, keys.gateway}, {writerTokens, record.RoleTokenService, keys.tokens}} {
		pub, ok := w.key.Public().(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("key of %s has no public part", w.id)
		}
		rec := admin.own(record.KindKey)
		rec.KeyChange = &record.KeyChange{
			Op: record.KeyAdd, For: w.id, Role: w.role, KeyID: record.KeyID(pub),
			PublicKey: base64.RawURLEncoding.EncodeToString(pub),
		}
		if err := admin.Record(ctx, rec); err != nil {
			return errors.Join(fmt.Errorf("introducing %s: %w", w.id, err), admin.writer.Close(ctx))
		}
	}
	if err := admin.writer.Close(ctx); err != nil {
		return err
	}
	_, err = l.seq.Flush(ctx)
	return err
}

// openRecorders begins a run of each writer with its heartbeat.
func (l *ledgerService) openRecorders(ctx context.Context, keys keyRing, build string) (err error) {
	for _, w := range []struct {
		to   **recorder
		id   string
		role record.Role
		key  ed25519.PrivateKey
	}{
		{&l.admin, writerAdmin, record.RoleAdmin, keys.manifest},
		{&l.gateway, writerGateway, record.RoleGateway, keys.gateway},
		{&l.tokens, writerTokens, record.RoleTokenService, keys.tokens},
	} {
		if *w.to, err = l.openRecorder(ctx, w.id, w.role, w.key); err != nil {
			return err
		}
		if err := (*w.to).beat(ctx, record.BeatStart, build, l.checkpointBody(ctx)); err != nil {
			return fmt.Errorf("first heartbeat of %s: %w", w.id, err)
		}
		l.keepBeating(*w.to, build)
	}
	return nil
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
				if err := r.beat(run, record.Beat, build, l.checkpointBody(run)); err != nil && run.Err() == nil {
					l.logger.WarnContext(run, "heartbeat not recorded", slog.String("writer", r.id), slog.String("cause", err.Error()))
				}
			}
		}
	})
}

// checkpointBody is the last published checkpoint as heartbeats state it.
func (l *ledgerService) checkpointBody(ctx context.Context) string {
	c, err := l.reader.Published(ctx, l.cfg.Origin())
	if err != nil {
		return ""
	}
	return record.CheckpointBody(c.Origin, uint64(c.Size), c.Root) //nolint:gosec // a size is never negative
}

// close stops in the order of the data: recorders first, then everything they
// wrote is sequenced and published, then the store.
func (l *ledgerService) close(ctx context.Context) error {
	var errs []error
	for _, r := range []*recorder{l.gateway, l.tokens, l.admin} {
		if r == nil {
			continue
		}
		if err := r.beat(ctx, record.BeatStop, buildDigest(), l.checkpointBody(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("last heartbeat of %s: %w", r.id, err))
		}
		errs = append(errs, r.writer.Close(ctx))
	}
	if _, err := l.seq.Flush(ctx); err != nil {
		errs = append(errs, fmt.Errorf("publishing the end: %w", err))
	}
	l.cancel()
	l.wg.Wait()
	return errors.Join(append(errs, l.seq.Close(ctx), l.store.Close())...)
}
