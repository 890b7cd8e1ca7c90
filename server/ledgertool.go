package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
)

// FsckReport is what Fsck found.
type FsckReport struct {
	ledger.FsckReport
	Tiles string // the directory of tiles
	// Records is nil if every record is readable, signed by the key that its
	// writer had at that index, and follows the same writer's previous one.
	Records error
	// Lost is up to how many entries a former period was signed, if it lost its end
	// and has fewer; else 0.
	Lost int64
}

// Err is nil for a sound log.
func (r FsckReport) Err() error { return errors.Join(r.FsckReport.Err(), r.Records) }

// Fsck checks the whole log against the deployment's own keys: tree, tiles,
// bundles and checkpoints, and then each record at its index. It reads only.
func (a *Archive) Fsck(ctx context.Context) (FsckReport, error) {
	keys, err := loadKeys(a.dataDir)
	if err != nil {
		return FsckReport{}, err
	}
	_, verifier, err := a.logKey(keys)
	if err != nil {
		return FsckReport{}, err
	}
	tiles, err := a.openTiles()
	if err != nil {
		return FsckReport{}, err
	}
	rep := FsckReport{Tiles: tilesPath(a.dataDir, a.cfg)}
	if a.former {
		if rep.Lost, err = a.lost(ctx); err != nil {
			return rep, err
		}
	}
	if rep.FsckReport, err = ledger.Fsck(ctx, ledger.FsckConfig{
		Source: a.store, Tiles: tiles, Log: a.cfg.Family, Verifier: verifier, Closed: a.former, Lost: rep.Lost > 0, Pruned: a.pruned.gone(),
	}); err != nil {
		return rep, err
	}
	if a.former {
		rep.Records = a.checkFormer(ctx, keys, rep.Size)
		return rep, nil
	}
	snaps, err := newSnapshots(rep.Tiles, rep.Origin, keys.log)
	if err != nil {
		return rep, err
	}
	rep.Records = checkRecords(ctx, admissionOf(keys.manifestPublic, a.store, rep.Origin), snaps, rep.Size)
	return rep, nil
}

// lost is as FsckReport.Lost.
func (a *Archive) lost(ctx context.Context) (int64, error) {
	periods, err := chainOf(ctx, a.store, a.cfg.Family)
	for _, p := range periods {
		if p.Origin == a.cfg.Origin() && p.Lost > p.Size {
			return p.Lost, nil
		}
	}
	return 0, err
}

// checkFormer reads all entries of a closed period. Of one that was pruned, the
// tree and the pruning say what is left.
func (a *Archive) checkFormer(ctx context.Context, keys keyRing, size int64) error {
	if a.pruned != nil {
		return nil
	}
	return admissionOf(keys.manifestPublic, a.store, a.cfg.Origin()).catchUp(ctx, size)
}

// checkRecords reads all entries, and compares the snapshot with what they say.
func checkRecords(ctx context.Context, a *admission, s *snapshots, size int64) error {
	snap, err := s.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a.catchUp(ctx, size)
	case err != nil:
		return errors.Join(err, a.catchUp(ctx, size))
	case snap.Size > size: // of a log that has grown since size was read
		return a.catchUp(ctx, size)
	}
	if err := a.catchUp(ctx, snap.Size); err != nil {
		return err
	}
	last, err := a.entry(ctx, snap.Size-1)
	if err != nil {
		return err
	}
	if !a.snapshot(s.origin, last).equal(snap) {
		return fmt.Errorf("comparing snapshot %s: %w: the entries say otherwise", s.path, ledger.ErrCorrupt)
	}
	return a.catchUp(ctx, size)
}

// LogHandler serves the tiles and checkpoints of the log: see
// [ledger.NewHandler].
func (a *Archive) LogHandler(entries bool, logger *slog.Logger) (http.Handler, error) {
	tiles, err := a.openTiles()
	if err != nil {
		return nil, err
	}
	return ledger.NewHandler(ledger.HandlerConfig{Reader: ledger.NewReader(a.store, tiles), Tiles: tiles, Origin: a.cfg.Origin(), Entries: entries, Logger: logger})
}

// logHandler serves the tree of the log that this process keeps: checkpoint and
// hash tiles. Entry bundles hold the records, and who looks at those is recorded,
// so they are not here. It is nil where other processes keep the tree.
func (s *Server) logHandler() (http.Handler, error) {
	l := s.ledger
	if l.order.tiles == nil {
		return nil, nil //nolint:nilnil // nothing to serve
	}
	return ledger.NewHandler(ledger.HandlerConfig{
		Reader: ledger.NewReader(l.store, l.order.tiles), Tiles: l.order.tiles, Origin: l.cfg.Origin(), Logger: l.logger,
	})
}

func (a *Archive) openTiles() (*disk.Store, error) {
	return disk.Open(disk.Config{Dir: tilesPath(a.dataDir, a.cfg), ReadOnly: true})
}

// LogKey is the key of the log's checkpoints as C2SP signed-note writes it.
func LogKey(dataDir string) (string, error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return "", err
	}
	keys, err := loadKeys(dataDir)
	if err != nil {
		return "", err
	}
	if keys.log == nil {
		return "", errNotHere("log")
	}
	pub, ok := keys.log.Public().(ed25519.PublicKey)
	if !ok {
		return "", errors.New("log key has no public part")
	}
	return note.NewEd25519VerifierKey(cfg.Origin(), pub)
}

// RebuildReport is what Rebuild did.
type RebuildReport struct {
	ledger.RebuildReport
	Writers []string // whose rows said otherwise than the log, and that may write again
}

// Rebuild writes what is derived from the entries anew: tiles, bundles,
// checkpoint files, the snapshot of the writers, and what the store says of each
// writer's last record. No server may run on the data directory.
func Rebuild(ctx context.Context, dataDir string, now func() time.Time, logger *slog.Logger) (rep RebuildReport, err error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return rep, err
	}
	keys, err := loadKeys(dataDir)
	if err != nil {
		return rep, err
	}
	verifier, err := logVerifier(keys, cfg.Origin())
	if err != nil {
		return rep, err
	}
	store, err := newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}).ledger(ctx)
	if err != nil {
		return rep, fmt.Errorf("opening ledger: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	tiles, err := disk.Open(disk.Config{Dir: tilesPath(dataDir, cfg), Create: true})
	if err != nil {
		return rep, err
	}
	if rep.RebuildReport, err = ledger.Rebuild(ctx, ledger.RebuildConfig{Store: store, Tiles: tiles, Log: cfg.Family, Verifier: verifier}); err != nil {
		return rep, err
	}
	snaps, err := newSnapshots(tilesPath(dataDir, cfg), cfg.Origin(), keys.log)
	if err != nil {
		return rep, err
	}
	check := admissionOf(keys.manifestPublic, store, rep.Origin)
	if err := check.catchUp(ctx, rep.Size); err != nil {
		return rep, err
	}
	if err := snaps.save(ctx, check); err != nil {
		return rep, err
	}
	rep.Writers, err = resetWriters(ctx, store, cfg.Family, check)
	return rep, err
}

// resetWriters makes the rows of writers what the log says, where they are not. A
// writer whose records still wait for an index keeps its row.
func resetWriters(ctx context.Context, store ledger.Store, family string, known *admission) ([]string, error) {
	tails := make(map[string]ledger.Tail, len(known.tails))
	for id, t := range known.tails {
		last, err := known.last(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("reading the last record of %s: %w", id, err)
		}
		tails[id] = ledger.Tail{Prev: t.Hash, RecordID: last.RecordID}
	}
	return store.ResetWriters(ctx, family, known.next, tails)
}

// logVerifier verifies the checkpoints of a data directory's log.
func logVerifier(keys keyRing, origin string) (note.Verifier, error) {
	if keys.log == nil {
		return nil, errNotHere("log")
	}
	_, v, err := ledger.NewCheckpointKey(origin, keys.log)
	return v, err
}
