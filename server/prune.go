package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// blobPruned is the class of the list of what stays of a pruned period.
const blobPruned = "pruned"

var (
	// ErrHeld says that a hold keeps a period.
	ErrHeld = errors.New("a hold keeps the period")
	// ErrKept says that the retention of a period has not ended.
	ErrKept = errors.New("the retention of the period has not ended")
)

// holdName keeps stories out of a record that stays for good.
var holdName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)

// PruneReport is what a pruning deletes, or would.
type PruneReport struct {
	Period  Period
	Bodies  int64 // of records
	Kept    int64 // records that stay: of the period itself, of keys and erasures
	Blobs   int   // receipts, values and rules that nothing else names
	Deleted bool
	Again   bool // an earlier pruning recorded it; the deletion was repeated
}

// Prune deletes the bodies of a period whose retention has ended, and what only
// they name (ledger.md §11). Hashes, tiles, checkpoints and the records of the
// period itself, of keys and of erasures stay, so that whatever was proven of the
// log still holds. Without apply it only counts.
//
// A pruning is a record in the open period, which names what stays, before
// anything is deleted; what was interrupted is repeated. ErrHeld, ErrKept: nothing
// was changed. The server of a data directory with SQLite must be stopped; with
// PostgreSQL the login must own the tables, and it is run in each data directory
// of the role ledger, because each has tiles.
func Prune(ctx context.Context, dataDir, period string, apply bool, now func() time.Time, logger *slog.Logger) (rep PruneReport, err error) {
	p := pruner{dataDir: dataDir, now: now}
	if err := p.open(ctx, period, apply, logger); err != nil {
		return rep, fmt.Errorf("pruning: %w", errors.Join(err, p.close(ctx)))
	}
	rep, err = p.run(ctx, apply)
	if err = errors.Join(err, p.close(ctx)); err != nil {
		return rep, fmt.Errorf("pruning: %w", err)
	}
	return rep, nil
}

type pruner struct {
	dataDir string
	now     func() time.Time
	cfg     config.Ledger // of the open period
	store   ledger.Store
	service *ledgerService // nil without apply; owns the store

	said journal
	at   Period

	records []string // whose bodies go
	blobs   map[string]bool
	kept    kept
}

func (p *pruner) open(ctx context.Context, period string, apply bool, logger *slog.Logger) (err error) {
	if p.cfg, err = readLedger(p.dataDir); err != nil {
		return err
	}
	e := newEngine(p.dataDir, p.cfg, engineOptions{now: p.now, logger: logger})
	if !apply {
		if p.store, err = e.reader(ctx); err != nil {
			return err
		}
	} else {
		if p.service, err = adminService(ctx, e, p.dataDir, p.cfg, p.now, logger); err != nil {
			return err
		}
		p.store = p.service.store
	}
	if p.said, err = journalOf(ctx, p.store, p.cfg.Family); err != nil {
		return err
	}
	periods, err := chainOf(ctx, p.store, p.cfg.Family)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(periods, func(x Period) bool { return x.Name == period })
	switch {
	case i < 0:
		return fmt.Errorf("there is no period %q: lineal ledger periods lists them", period)
	case !periods[i].Sealed:
		return fmt.Errorf("the period %s is open: only a closed one is pruned", period)
	case periods[i].Lost > 0:
		return fmt.Errorf("the period %s lost its end and has no seal that a pruning could be held to: it is kept", period)
	}
	p.at = periods[i]
	return nil
}

// adminService opens the ledger to record one thing, as an operator does.
func adminService(ctx context.Context, e engine, dataDir string, cfg config.Ledger, now func() time.Time, logger *slog.Logger) (*ledgerService, error) {
	keys, err := loadKeys(dataDir)
	if err != nil {
		return nil, err
	}
	if keys.manifest == nil || keys.log == nil {
		return nil, errNotHere("manifest or log")
	}
	l, err := newLedgerService(ctx, e, ledgerConfig{Ledger: cfg, dataDir: dataDir, keys: keys, sequences: true, now: now, logger: logger})
	if err != nil {
		return nil, err
	}
	if err := l.openRecorders(ctx, func(r config.Role) bool { return r == config.RoleLedger }, buildDigest()); err != nil {
		return nil, errors.Join(err, l.close(ctx))
	}
	return l, nil
}

func (p *pruner) close(ctx context.Context) error {
	switch {
	case p.service != nil:
		return p.service.close(ctx)
	case p.store != nil:
		return p.store.Close()
	}
	return nil
}

func (p *pruner) run(ctx context.Context, apply bool) (rep PruneReport, err error) {
	done := p.said.prunings[p.at.Origin]
	p.at.Pruned, p.at.Holds = done != nil, p.said.holding(p.cfg.Family, p.at.Origin)
	rep = PruneReport{Period: p.at, Again: done != nil}
	if err := p.may(done != nil); err != nil {
		return rep, err
	}
	if err := p.survey(ctx); err != nil {
		return rep, err
	}
	rep.Bodies, rep.Kept, rep.Blobs = int64(len(p.records)), int64(len(p.kept.Kept)), len(p.blobs)
	if !apply {
		return rep, nil
	}
	if done == nil {
		if err := p.record(ctx); err != nil {
			return rep, err
		}
		if p.said, err = journalOf(ctx, p.store, p.cfg.Family); err != nil { // another process may have held it meanwhile
			return rep, err
		}
		if p.at.Holds = p.said.holding(p.cfg.Family, p.at.Origin); len(p.at.Holds) > 0 {
			return rep, p.may(true)
		}
	}
	if err := p.delete(ctx); err != nil {
		return rep, fmt.Errorf("%w; it is recorded: repeat it", err)
	}
	rep.Deleted = true
	return rep, nil
}

// may refuses what is held, and what is not over unless that was recorded.
func (p *pruner) may(recorded bool) error {
	if len(p.at.Holds) > 0 {
		return fmt.Errorf("%w: %s", ErrHeld, strings.Join(p.at.Holds, ", "))
	}
	if now := record.At(p.now()); now < p.at.NotBefore && !recorded {
		return fmt.Errorf("%w: not before %s", ErrKept, p.at.NotBefore)
	}
	return nil
}

// survey finds what goes: the bodies of the period's records, and what no record
// that stays names.
func (p *pruner) survey(ctx context.Context) error {
	p.kept, p.blobs = kept{Origin: p.at.Origin, Size: p.at.Size, Kept: []int64{}}, map[string]bool{}
	for e, err := range p.store.ReadRange(ctx, p.at.Origin, 0, p.at.Size) {
		if err != nil {
			return err
		}
		if e.Pruned() {
			p.records = append(p.records, e.RecordID)
			continue
		}
		rec, _, err := readHolding(e, "")
		if err != nil {
			return err
		}
		if stays(rec) {
			p.kept.Kept = append(p.kept.Kept, e.Index)
			continue
		}
		p.records = append(p.records, e.RecordID)
		for _, d := range namedBy(rec) {
			p.blobs[d] = true
		}
	}
	for at, err := range recordsOf(ctx, p.store, p.cfg.Family, "") {
		if err != nil {
			return err
		}
		if at.entry.Origin == p.at.Origin && !stays(at.record) {
			continue
		}
		for _, d := range namedBy(at.record) {
			delete(p.blobs, d)
		}
	}
	return nil
}

// stays says what is never pruned: the way from period to period, whose keys were
// whose, and what a restored person map must forget again.
func stays(r record.Record) bool {
	return r.Kind == record.KindPeriod || r.Kind == record.KindKey || r.Kind == record.KindErasure
}

// namedBy are the blobs that a record names.
func namedBy(r record.Record) (digests []string) {
	add := func(ds ...string) {
		for _, d := range ds {
			if d != "" {
				digests = append(digests, d)
			}
		}
	}
	switch {
	case r.Decision != nil:
		add(r.Decision.SD...)
		add(r.Decision.Policy.BundleDigest)
	case r.Issuance != nil:
		add(r.Issuance.ReceiptHash, r.Issuance.BundleDigest)
	case r.PolicyChange != nil:
		add(r.PolicyChange.BundleDigest)
	case r.Registry != nil:
		add(r.Registry.Before, r.Registry.After)
	case r.Period != nil:
		add(r.Period.StateDigest)
	}
	return digests
}

// record says what is going to be deleted, before it is.
func (p *pruner) record(ctx context.Context) error {
	c, err := p.store.LastCheckpoint(ctx, p.at.Origin, true)
	if err != nil {
		return err
	}
	list, err := json.Marshal(p.kept)
	if err != nil {
		return err
	}
	rec := p.service.admin.own(record.KindPeriod)
	rec.Period = &record.Period{
		Op: record.PeriodPrune, Origin: p.at.Origin, Previous: bodyOf(c), Cause: record.PeriodRetention,
		Retention: &record.Retention{NotBefore: p.at.NotBefore, DeleteBy: p.at.DeleteBy}, StateDigest: sha256Of(list),
	}
	if err := p.service.admin.append(ctx, rec, []ledger.Blob{{Digest: sha256Of(list), Class: blobPruned, Bytes: list}}); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return p.service.order.flush(ctx)
}

func (p *pruner) delete(ctx context.Context) error {
	if err := p.store.Prune(ctx, ledger.Pruning{
		Log: p.cfg.Family, Origin: p.at.Origin, Records: p.records, Blobs: slices.Sorted(maps.Keys(p.blobs)),
	}); err != nil {
		return err
	}
	former := inPeriod(p.cfg, p.at.Origin)
	tiles, err := disk.Open(disk.Config{Dir: tilesPath(p.dataDir, former)})
	if err != nil {
		return err
	}
	return tiles.RemoveBundles()
}

// AddHold keeps a period, or all if period is "", from being pruned until it is
// released. id names it; basis is why, in a word. Both are in the record, which
// stays for good.
func AddHold(ctx context.Context, dataDir, id, period, basis string, now func() time.Time, logger *slog.Logger) error {
	return changeHold(ctx, dataDir, now, logger, func(family string, periods []Period, said journal) (*record.Period, error) {
		p := &record.Period{Op: record.PeriodHold, Origin: family, Cause: record.PeriodOrder, Hold: id, Basis: basis}
		if _, there := said.holds[id]; there {
			return nil, fmt.Errorf("there is a hold %q already", id)
		}
		if !holdName.MatchString(id) || !erasureBasis.MatchString(basis) {
			return nil, errors.New("a hold is named in lower-case letters, digits and hyphens, its basis is one word of lower-case letters")
		}
		if period == "" {
			return p, nil
		}
		i := slices.IndexFunc(periods, func(x Period) bool { return x.Name == period })
		if i < 0 {
			return nil, fmt.Errorf("there is no period %q", period)
		}
		if said.prunings[periods[i].Origin] != nil {
			return nil, fmt.Errorf("the period %s was pruned: there is nothing to hold", period)
		}
		p.Origin = periods[i].Origin
		return p, nil
	})
}

// ReleaseHold ends a hold.
func ReleaseHold(ctx context.Context, dataDir, id string, now func() time.Time, logger *slog.Logger) error {
	return changeHold(ctx, dataDir, now, logger, func(_ string, _ []Period, said journal) (*record.Period, error) {
		h, there := said.holds[id]
		if !there {
			return nil, fmt.Errorf("there is no hold %q", id)
		}
		return &record.Period{Op: record.PeriodRelease, Origin: h.Origin, Cause: record.PeriodOrder, Hold: id, Basis: h.Basis}, nil
	})
}

func changeHold(ctx context.Context, dataDir string, now func() time.Time, logger *slog.Logger,
	change func(family string, periods []Period, said journal) (*record.Period, error),
) (err error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	l, err := adminService(ctx, newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}), dataDir, cfg, now, logger)
	if err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	defer func() { err = errors.Join(err, l.close(ctx)) }()
	periods, err := chainOf(ctx, l.store, cfg.Family)
	if err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	said, err := journalOf(ctx, l.store, cfg.Family)
	if err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	rec := l.admin.own(record.KindPeriod)
	if rec.Period, err = change(cfg.Family, periods, said); err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	if err := l.admin.Record(ctx, rec); err != nil {
		return fmt.Errorf("changing holds: %w", err)
	}
	return nil
}
