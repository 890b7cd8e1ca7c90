package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
)

// eraseWithin is how long backups of the person map may hold an erased person
// (ledger.md §11).
const eraseWithin = 30 * 24 * time.Hour

// erasureBasis keeps names and stories out of a record that stays for good.
var erasureBasis = regexp.MustCompile(`^[a-z_]{1,64}$`)

// ErasureReport is what an erasure deleted here.
type ErasureReport struct {
	Persons    int       // rows of the person map
	Keys       int64     // data keys of values
	CompleteBy time.Time // when backups must have passed; zero for a repetition
}

// Erase deletes who is behind a reference, and the keys of the values that were
// sealed for that person, after an erasure record: what the log holds of the
// person is a random reference from then on, and every proof still holds. basis
// is why, in a word such as "request". The server of the data directory must be
// stopped, and the person map at hand.
func Erase(ctx context.Context, dataDir, ref, basis string, now func() time.Time, logger *slog.Logger) (rep ErasureReport, err error) {
	if _, err := identity.ParsePerson("urn:x", ref); err != nil {
		return rep, fmt.Errorf("erasing: %w", err)
	}
	if !erasureBasis.MatchString(basis) {
		return rep, errors.New("erasing: the basis is one word of lower-case letters")
	}
	cfg, persons, err := personMap(ctx, dataDir, now, logger)
	if err != nil {
		return rep, fmt.Errorf("erasing: %w", err)
	}
	defer func() { err = errors.Join(err, persons.Close()) }()
	if _, err := persons.Lookup(ctx, ref); err != nil {
		return rep, fmt.Errorf("erasing: %w", err)
	}
	l, err := adminService(ctx, newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}), dataDir, cfg, now, logger)
	if err != nil {
		return rep, fmt.Errorf("erasing: %w", err)
	}
	defer func() { err = errors.Join(err, l.close(ctx)) }()
	rep.CompleteBy = now().Add(eraseWithin).UTC()
	rec := l.admin.own(record.KindErasure)
	rec.Erasure = &record.Erasure{Target: record.ErasePerson, Ref: ref, Basis: basis, CompleteBy: record.At(rep.CompleteBy)}
	if err := l.admin.Record(ctx, rec); err != nil {
		return rep, fmt.Errorf("erasing: recording: %w", err)
	}
	return rep, rep.forget(ctx, l.store, persons, ref)
}

// EraseAgain repeats every erasure that the log tells of: after the person map or
// the store came back from a backup. The server must be stopped.
func EraseAgain(ctx context.Context, dataDir string, now func() time.Time, logger *slog.Logger) (rep ErasureReport, err error) {
	cfg, persons, err := personMap(ctx, dataDir, now, logger)
	if err != nil {
		return rep, fmt.Errorf("erasing again: %w", err)
	}
	defer func() { err = errors.Join(err, persons.Close()) }()
	store, err := newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}).ledger(ctx)
	if err != nil {
		return rep, fmt.Errorf("erasing again: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	refs, err := erased(ctx, store, cfg)
	if err != nil {
		return rep, fmt.Errorf("erasing again: %w", err)
	}
	for _, ref := range refs {
		if err := rep.forget(ctx, store, persons, ref); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// personMap opens the person map of a data directory.
func personMap(ctx context.Context, dataDir string, now func() time.Time, logger *slog.Logger) (config.Ledger, personStore, error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return cfg, nil, err
	}
	persons, err := newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}).knownPersons(ctx)
	if err != nil {
		return cfg, nil, err
	}
	if persons == nil {
		return cfg, nil, errors.New("the person map is not here: run this where the token service keeps it")
	}
	return cfg, persons, nil
}

// erased are the references of the erasure records of all periods, in their order.
func erased(ctx context.Context, store ledger.Store, cfg config.Ledger) (refs []string, err error) {
	for rec, err := range recordsOf(ctx, store, cfg.Family, `"kind":"erasure"`) {
		if err != nil {
			return nil, err
		}
		if r := rec.record; r.Erasure != nil && r.Erasure.Target == record.ErasePerson {
			refs = append(refs, r.Erasure.Ref)
		}
	}
	return refs, nil
}

// forget deletes keys first: they open what the person said, the map only tells
// who it was. What is gone already is no error.
func (rep *ErasureReport) forget(ctx context.Context, store ledger.Store, persons personStore, ref string) error {
	n, err := store.Shred(ctx, ref)
	if err != nil {
		return fmt.Errorf("erasing: %w; the record is in the log: repeat with --again", err)
	}
	rep.Keys += n
	switch err := persons.Forget(ctx, ref); {
	case err == nil:
		rep.Persons++
	case !errors.Is(err, registry.ErrNotFound):
		return fmt.Errorf("erasing: %w; the record is in the log: repeat with --again", err)
	}
	return nil
}
