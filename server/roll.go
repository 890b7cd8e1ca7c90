package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// RollReport is what a roll did.
type RollReport struct {
	From, To string // origins
	Size     int64  // entries of From
	Root     ledger.Hash
	Key      string // of the new origin's checkpoints, as C2SP signed-note writes it
}

// rollingFile stands in a data directory from the first record of a roll to its
// end, so that no server starts on a period that is half closed: the period in a
// line, and after a rollback the signed checkpoint that the log ended with.
const rollingFile = "rolling"

// PrepareRoll makes the key of a period to come and gives its public half, for
// witnesses to know it before it signs. It may be repeated.
func PrepareRoll(dataDir, period string) (string, error) {
	was, err := readLedger(dataDir)
	if err != nil {
		return "", fmt.Errorf("preparing a roll: %w", err)
	}
	if err := nextPeriod(was, period); err != nil {
		return "", fmt.Errorf("preparing a roll: %w", err)
	}
	key, err := periodKey(dataDir, period, true)
	if err != nil {
		return "", fmt.Errorf("preparing a roll: %w", err)
	}
	return vkeyOf(inPeriod(was, was.Family+"/"+period).Origin(), key)
}

func nextPeriod(was config.Ledger, period string) error {
	switch {
	case period == "" || strings.ContainsAny(period, "/\\ \n+") || strings.HasPrefix(period, "."):
		return fmt.Errorf("%q is no name of a period", period)
	case period == was.Period:
		return fmt.Errorf("the period %s is open: ledger.period must name the next one", period)
	}
	return nil
}

// Roll closes the period that is open in the data directory and opens the one
// that cfg names (ledger.md 5.5 step 5):
//
//	seal ─▶ last checkpoint, published ─▶ open, keys, as the first entries ─▶ next key
//
// No process with the role ledger may run; gateways and token services that share
// the store go on meanwhile, and what they record waits. What was interrupted is
// repeated. Where another process rolled already, this one only takes over: a
// process with the role ledger gets the key from member, the data directory of
// one that has it.
func Roll(ctx context.Context, cfg config.Config, member string, now func() time.Time, logger *slog.Logger) (RollReport, error) {
	r := roller{cfg: cfg, dataDir: cfg.DataDir, member: member, now: now, logger: logger}
	if err := r.run(ctx, r.close); err != nil {
		return r.rep, fmt.Errorf("rolling: %w", err)
	}
	return r.rep, nil
}

type roller struct {
	cfg     config.Config
	dataDir string
	member  string
	now     func() time.Time
	logger  *slog.Logger

	was     config.Ledger // as noted, before
	keys    keyRing
	judging *admission // of the old period, at its end
	rep     RollReport
}

// run rolls; closing ends the open period and opens the next in the store.
func (r *roller) run(ctx context.Context, closing func(context.Context) error) (err error) {
	to := r.cfg.Ledger
	if r.was, err = readLedger(r.dataDir); err != nil {
		return err
	}
	if r.was.Period == to.Period && r.hasBegun() {
		return r.finish(ctx)
	}
	if err := nextPeriod(r.was, to.Period); err != nil {
		return err
	}
	if r.was.Family != to.Family || r.was.Node != to.Node || (r.was.Store == "") != (to.Store == "") {
		return fmt.Errorf("%s is of node %q of %s in another store: only ledger.period may change", r.dataDir, r.was.Node, r.was.Family)
	}
	if r.keys, err = loadKeys(r.dataDir); err != nil {
		return err
	}
	r.rep.From, r.rep.To = r.was.Origin(), to.Origin()
	origin, err := r.openOrigin(ctx)
	switch {
	case err != nil:
		return err
	case origin == r.rep.To: // by another process, or by this one before it was interrupted
	case origin != r.rep.From:
		return fmt.Errorf("the log is at %s, neither at %s nor at %s", origin, r.rep.From, r.rep.To)
	case r.keys.manifest == nil || r.keys.log == nil:
		return errNotHere("manifest or log")
	default:
		if err := closing(ctx); err != nil {
			return err
		}
	}
	if err := r.takeOver(ctx); err != nil {
		return err
	}
	return r.firstCheckpoint(ctx)
}

// openOrigin is the origin that the store has open. A period that was closed is
// refused before anything is written.
func (r *roller) openOrigin(ctx context.Context) (_ string, err error) {
	store, err := newEngine(r.dataDir, r.was, engineOptions{now: r.now, logger: r.logger}).reader(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	head, err := store.Head(ctx, r.was.Family)
	if err != nil || head.Origin == r.rep.To {
		return head.Origin, err
	}
	switch _, err := entryAt(ctx, store.ReadRange, r.rep.To, 0); {
	case err == nil:
		return "", fmt.Errorf("the period %s was closed: a period is opened once", r.cfg.Ledger.Period)
	case !errors.Is(err, ledger.ErrNotFound):
		return "", err
	}
	return head.Origin, nil
}

// close ends the period and opens the next in the store.
func (r *roller) close(ctx context.Context) (err error) {
	if end, err := r.lostEnd(); err != nil || end != nil {
		return errors.Join(err, errors.New("a roll after a rollback has begun: repeat it with --after-rollback"))
	}
	old := inPeriod(r.cfg.Ledger, r.rep.From)
	l, err := newLedgerService(ctx, newEngine(r.dataDir, old, engineOptions{now: r.now, logger: r.logger}), ledgerConfig{
		Ledger: old, dataDir: r.dataDir, keys: r.keys, sequences: true, byHand: true, now: r.now, logger: r.logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.abandon(ctx)) }()
	seq := l.order.holding()
	if seq == nil {
		return fmt.Errorf("another process has the log: stop those with the role ledger: %w", ledger.ErrLeaseHeld)
	}
	if err := r.begin(ctx, nil); err != nil {
		return err
	}
	r.judging = l.order.judging
	admin, err := l.openRecorder(ctx, writerAdmin, record.RoleAdmin, r.keys.manifest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.writer.Close(ctx)) }()
	c, err := r.seal(ctx, l, seq, admin)
	if err != nil {
		return err
	}
	r.rep.Size, r.rep.Root = c.Size, c.Root
	records, err := r.open(ctx, l, admin, c, record.PeriodRoll)
	if err != nil {
		return err
	}
	return seq.Roll(ctx, r.rep.To, records)
}

// begin is what comes before the old period is touched: the key of the new one,
// witnesses that know it, and the note that a roll has begun. end is the signed
// checkpoint that the log ended with, if it lost what followed.
func (r *roller) begin(ctx context.Context, end []byte) error {
	to := r.cfg.Ledger
	key, err := periodKey(r.dataDir, to.Period, true)
	if err != nil {
		return err
	}
	signer, _, err := ledger.NewCheckpointKey(r.rep.To, key)
	if err != nil {
		return err
	}
	witnesses, err := witnessConfig(to, r.now)
	if err != nil {
		return err
	}
	if err := ledger.CheckWitnesses(ctx, witnesses, signer, r.logger); err != nil {
		return fmt.Errorf("%s is not closed before the witnesses know the next (lineal ledger roll --prepare prints its key): %w", r.rep.From, err)
	}
	return durable.WriteFile(filepath.Join(r.dataDir, rollingFile), append([]byte(to.Period+"\n"), end...), 0o600)
}

// lostEnd is the checkpoint of a roll after a rollback that has begun, nil if none
// has.
func (r *roller) lostEnd() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(r.dataDir, rollingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	period, end, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case len(end) == 0:
		return nil, nil
	case string(period) != r.cfg.Ledger.Period:
		return nil, fmt.Errorf("a roll to the period %q has begun: finish that", period)
	}
	return end, nil
}

// seal makes the last record of the period, unless it is there, and publishes the
// checkpoint over it.
func (r *roller) seal(ctx context.Context, l *ledgerService, seq *ledger.Sequencer, admin *recorder) (ledger.Checkpoint, error) {
	id, err := r.pendingSeal(ctx, l)
	if err != nil || id != "" {
		if err == nil {
			return seq.Seal(ctx, id)
		}
		return ledger.Checkpoint{}, err
	}
	if _, err := seq.Flush(ctx); err != nil {
		return ledger.Checkpoint{}, err
	}
	state, err := r.judging.state(ctx)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	previous := ""
	if first, err := periodRecord(ctx, l.store, r.rep.From, 0); err != nil {
		return ledger.Checkpoint{}, err
	} else if first != nil {
		previous = first.Previous
	}
	rec := admin.own(record.KindPeriod)
	rec.Period = &record.Period{
		Op: record.PeriodSeal, Origin: r.rep.From, Previous: previous, Cause: record.PeriodRoll,
		Retention: retentionOf(r.cfg.Ledger.Retention, r.now()), StateDigest: state.Digest,
	}
	if err := admin.append(ctx, rec, []ledger.Blob{state}); err != nil {
		return ledger.Checkpoint{}, err
	}
	return seq.Seal(ctx, rec.ID)
}

// retentionOf is what a seal promises of the bodies of its period.
func retentionOf(c config.Retention, now time.Time) *record.Retention {
	if c.KeepDays == 0 {
		never := record.Timestamp("9999-12-31T23:59:59.999Z")
		return &record.Retention{NotBefore: never, DeleteBy: never}
	}
	from := now.UTC().AddDate(0, 0, c.KeepDays)
	return &record.Retention{NotBefore: record.At(from), DeleteBy: record.At(from.AddDate(0, 0, c.DeleteWithin()))}
}

// pendingSeal is the seal of a roll that was interrupted: the last entry, or in
// intake.
func (r *roller) pendingSeal(ctx context.Context, l *ledgerService) (id string, err error) {
	seals := func(rec record.Record) bool {
		return rec.Period != nil && rec.Period.Op == record.PeriodSeal && rec.Period.Origin == r.rep.From
	}
	head, err := l.store.Head(ctx, r.was.Family)
	if err != nil || head.Size == 0 {
		return "", err
	}
	last, err := entryAt(ctx, l.store.ReadRange, r.rep.From, head.Size-1)
	if err != nil {
		return "", err
	}
	if rec, err := r.judging.signedByManifest(last.Envelope); err == nil && seals(rec) {
		return rec.ID, nil
	}
	err = r.waiting(ctx, l, func(rec record.Record) {
		if seals(rec) {
			id = rec.ID
		}
	})
	return id, err
}

// maxIntake is more rows than intake takes.
const maxIntake = 1 << 20

// waiting reads the manifest key's records that wait in intake, in order.
func (r *roller) waiting(ctx context.Context, l *ledgerService, each func(record.Record)) error {
	rows, err := l.store.ReadIntake(ctx, r.was.Family, maxIntake)
	for _, row := range rows {
		if rec, err := r.judging.signedByManifest(row.Envelope); err == nil {
			each(rec)
		}
	}
	return err
}

// open makes the first records of the next period, as far as they do not wait
// already: what it goes on from, and which keys are whose, so that it can be
// verified by itself.
func (r *roller) open(ctx context.Context, l *ledgerService, admin *recorder, end ledger.Checkpoint, cause record.PeriodCause) (ids []string, err error) {
	opened, carried := false, map[string]bool{}
	if err := r.waiting(ctx, l, func(rec record.Record) {
		switch p := rec.Period; {
		case p != nil && p.Op == record.PeriodOpen && p.Origin == r.rep.To && p.Cause == cause && p.Previous == bodyOf(end):
			opened = true
		case rec.KeyChange != nil && rec.KeyChange.Op == record.KeyAdd && opened:
			carried[keyName(rec.KeyChange)] = true
		default:
			return
		}
		ids = append(ids, rec.ID)
	}); err != nil {
		return nil, err
	}
	if !opened {
		state, err := r.judging.state(ctx)
		if err != nil {
			return nil, err
		}
		rec := admin.own(record.KindPeriod)
		rec.Period = &record.Period{
			Op: record.PeriodOpen, Origin: r.rep.To, Previous: bodyOf(end), Cause: cause,
			Retention: retentionOf(r.cfg.Ledger.Retention, r.now()), StateDigest: state.Digest,
		}
		if err := admin.append(ctx, rec, []ledger.Blob{state}); err != nil {
			return nil, err
		}
		ids = append(ids, rec.ID)
	}
	changes, err := keysOf(ctx, l.store, r.rep.From, r.judging.next)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if carried[keyName(&c)] {
			continue
		}
		rec := admin.own(record.KindKey)
		rec.KeyChange = &c
		if err := admin.Record(ctx, rec); err != nil {
			return nil, err
		}
		ids = append(ids, rec.ID)
	}
	return ids, r.admitted(ctx, l, ids)
}

// admitted holds the first records to what every start will hold them to.
func (r *roller) admitted(ctx context.Context, l *ledgerService, ids []string) error {
	a := admissionOf(r.keys.manifestPublic, l.store, r.rep.To)
	for i, id := range ids {
		e, err := l.store.Lookup(ctx, id)
		if err == nil && i == 0 {
			err = a.begin(ctx, e.Envelope)
		}
		if err == nil {
			err = a.admit(e.Envelope)
		}
		if err != nil {
			return fmt.Errorf("first record %d of %s: %w", i, r.rep.To, err)
		}
	}
	return nil
}

func keyName(k *record.KeyChange) string { return string(k.Role) + " " + k.For + " " + k.KeyID }

// keysOf are the keys that a log's key records have in force at its end, in the
// order in which they were added.
func keysOf(ctx context.Context, src ledger.Source, origin string, size int64) (out []record.KeyChange, err error) {
	for e, err := range src.ReadRange(ctx, origin, 0, size) {
		if err != nil {
			return nil, err
		}
		rec, _, err := entry.Read(e.Envelope)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		k := rec.KeyChange
		if k == nil {
			continue
		}
		kept := out[:0]
		for _, have := range out {
			if keyName(&have) != keyName(k) {
				kept = append(kept, have)
			}
		}
		if out = kept; k.Op == record.KeyAdd {
			out = append(out, *k)
		}
	}
	return out, nil
}

// takeOver lets this data directory be of the new period. The key of the old one
// is gone after it: nobody signs another end for what was sealed.
func (r *roller) takeOver(ctx context.Context) error {
	to := r.cfg.Ledger
	if r.keys.log != nil {
		if err := r.takeKey(ctx); err != nil {
			return err
		}
		// Whoever is interrupted from here on starts with the tiles that there are.
		if _, err := disk.Open(disk.Config{Dir: tilesPath(r.dataDir, to), Create: true}); err != nil {
			return err
		}
	}
	if err := saveLedger(r.dataDir, to); err != nil {
		return err
	}
	return r.ended()
}

func (r *roller) ended() error {
	err := os.Remove(filepath.Join(r.dataDir, rollingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, durable.SyncDir(r.dataDir))
}

func (r *roller) hasBegun() bool {
	_, err := os.Lstat(filepath.Join(r.dataDir, rollingFile))
	return err == nil
}

// finish ends a roll that was interrupted after the directory was of the new period.
func (r *roller) finish(ctx context.Context) error {
	r.rep.To = r.cfg.Ledger.Origin()
	if err := r.ended(); err != nil {
		return err
	}
	if err := r.learnKey(ctx); err != nil {
		return err
	}
	return r.firstCheckpoint(ctx)
}

// takeKey puts the key of the new period into the place of the old one, of which
// the public half stays.
func (r *roller) takeKey(ctx context.Context) error {
	dir := filepath.Join(r.dataDir, keysDir)
	next, err := periodKey(r.dataDir, r.cfg.Ledger.Period, false)
	if errors.Is(err, fs.ErrNotExist) {
		if _, verr := os.Stat(vkeyFile(r.dataDir, r.rep.From)); verr == nil && r.isKey(ctx, r.keys.log) == nil {
			return r.learnKey(ctx) // interrupted after this
		}
		next, err = r.memberKey()
	}
	if err != nil {
		return err
	}
	if err := r.isKey(ctx, next); err != nil {
		return err
	}
	old, err := vkeyOf(r.rep.From, r.keys.log)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(vkeyFile(r.dataDir, r.rep.From), []byte(old+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, periodKeyName(r.cfg.Ledger.Period)+".key"), filepath.Join(dir, "log.key")); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	return r.learnKey(ctx)
}

func (r *roller) learnKey(context.Context) (err error) {
	if r.keys, err = loadKeys(r.dataDir); err != nil || r.keys.log == nil {
		return err
	}
	r.rep.Key, err = vkeyOf(r.rep.To, r.keys.log)
	return err
}

// memberKey copies the key from the process that rolled.
func (r *roller) memberKey() (ed25519.PrivateKey, error) {
	if r.member == "" {
		return nil, errors.New("another process rolled: --member must name the data directory of one with the role ledger")
	}
	theirs, err := readLedger(r.member)
	if err != nil {
		return nil, err
	}
	keys, err := loadKeys(r.member)
	if err != nil {
		return nil, err
	}
	if theirs.Origin() != r.rep.To || keys.log == nil {
		return nil, fmt.Errorf("%s is of %s, or has no key of its log", r.member, theirs.Origin())
	}
	return keys.log, writeKey(filepath.Join(r.dataDir, keysDir), periodKeyName(r.cfg.Ledger.Period), keys.log)
}

// isKey holds a key to the new period's checkpoints, if it has one.
func (r *roller) isKey(ctx context.Context, key ed25519.PrivateKey) error {
	store, err := newEngine(r.dataDir, r.was, engineOptions{now: r.now, logger: r.logger}).reader(ctx)
	if err != nil {
		return err
	}
	c, err := store.LastCheckpoint(ctx, r.rep.To, false)
	if err := errors.Join(store.Close()); err != nil {
		return err
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, v, err := ledger.NewCheckpointKey(r.rep.To, key)
	if err != nil {
		return err
	}
	if _, err := ledger.OpenCheckpoint(c.Note, v); err != nil {
		return fmt.Errorf("the key of %s is another one: %w", r.rep.To, err)
	}
	return nil
}

// firstCheckpoint publishes the beginning of the new period, where this process
// has its key.
func (r *roller) firstCheckpoint(ctx context.Context) error {
	if r.keys.log == nil {
		return nil
	}
	to := r.cfg.Ledger
	l, err := newLedgerService(ctx, newEngine(r.dataDir, to, engineOptions{now: r.now, logger: r.logger}), ledgerConfig{
		Ledger: to, dataDir: r.dataDir, keys: r.keys, sequences: true, createDir: true, now: r.now, logger: r.logger,
	})
	if err != nil {
		return fmt.Errorf("the period %s is open; its first checkpoint is for the next start: %w", to.Period, err)
	}
	return l.close(ctx)
}

func periodKeyName(period string) string { return "log-" + period }

// periodKey reads the key of a period to come, and makes it if it may.
func periodKey(dataDir, period string, create bool) (ed25519.PrivateKey, error) {
	dir, name := filepath.Join(dataDir, keysDir), periodKeyName(period)
	if create {
		return makeSigningKey(dir, name)
	}
	return readSigningKey(dir, name)
}

// vkeyFile is the public half of a former period's key.
func vkeyFile(dataDir, origin string) string {
	return filepath.Join(dataDir, keysDir, strings.ReplaceAll(origin, "/", "_")+".vkey")
}

func vkeyOf(origin string, key ed25519.PrivateKey) (string, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return "", errors.New("log key has no public part")
	}
	return note.NewEd25519VerifierKey(origin, pub)
}
