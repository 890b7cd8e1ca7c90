package server

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// What an operator is told of a writer's keys, and asks for.
type (
	// WriterKey is a key as the log has it.
	WriterKey = admin.WriterKey
	// WriterOp is one operation.
	WriterOp = admin.WriterOp
	// WriterChange is what is to be done to a writer's keys.
	WriterChange = admin.WriterChange
	// KeyChanged is a key record that was made.
	KeyChanged = admin.KeyChanged
)

// changeWithin bounds a change of a writer's keys, which waits for indexes.
const changeWithin = 20 * time.Second

// Writers lists the keys of the log's writers. The server may run.
func Writers(ctx context.Context, dataDir string) (keys []WriterKey, err error) {
	a, err := OpenArchive(ctx, dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	ring, err := loadKeys(dataDir)
	if err != nil {
		return nil, err
	}
	known := admissionOf(ring.manifestPublic, a.store, a.cfg.Origin())
	if ring.log != nil {
		snaps, err := newSnapshots(tilesPath(dataDir, a.cfg), a.cfg.Origin(), ring.log)
		if err != nil {
			return nil, err
		}
		if err := known.resume(ctx, snaps, math.MaxInt64); err != nil {
			return nil, err
		}
	}
	head, err := a.store.Head(ctx, a.cfg.Family)
	if err != nil {
		return nil, err
	}
	if err := known.catchUp(ctx, head.Size); err != nil {
		return nil, err
	}
	return known.list(), nil
}

// ChangeWriter changes the keys of a writer where no server runs on the data
// directory, which must hold the manifest key: what a running server does for an
// operator of its admin API. What was interrupted is repeated.
func ChangeWriter(ctx context.Context, dataDir string, c WriterChange, now func() time.Time, logger *slog.Logger) (done []KeyChanged, err error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return nil, err
	}
	l, err := adminService(ctx, newEngine(dataDir, cfg, engineOptions{now: now, logger: logger}), dataDir, cfg, now, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close(ctx)) }()
	return l.Change(ctx, c)
}

// list is what the log says of every key that it knows.
func (a *admission) list() []WriterKey {
	var out []WriterKey
	for id, k := range a.keys {
		at := k.Since.in(a.origin)
		w := WriterKey{
			Writer: k.Writer, Role: string(k.Role), KeyID: id, PublicKey: base64.RawURLEncoding.EncodeToString(k.Public),
			State: admin.KeyAdded, Period: at.Origin, Index: at.Index,
		}
		switch {
		case k.End != nil:
			end := k.End.At.in(a.origin)
			w.State, w.EndPeriod, w.EndIndex = admin.KeyRetired, end.Origin, end.Index
			w.Stolen, w.Cause = string(k.End.Stolen), k.End.Cause
			if k.End.Op == record.KeyRevoke {
				w.State = admin.KeyRevoked
			}
		case a.tails[k.Writer].KeyID == id:
			w.State = admin.KeyCurrent
		}
		out = append(out, w)
	}
	for id, t := range a.tails { // the admins' key is added by no record
		if t.KeyID == a.manifest {
			out = append(out, WriterKey{
				Writer: id, Role: string(record.RoleAdmin), KeyID: a.manifest, PublicKey: base64.RawURLEncoding.EncodeToString(a.public),
				State: admin.KeyCurrent, Period: a.origin,
			})
		}
	}
	slices.SortFunc(out, func(x, y WriterKey) int {
		return cmp.Or(strings.Compare(x.Writer, y.Writer), strings.Compare(x.Period, y.Period), cmp.Compare(x.Index, y.Index), strings.Compare(x.KeyID, y.KeyID))
	})
	return out
}

// Keys implements [admin.Writers].
func (l *ledgerService) Keys(ctx context.Context) ([]WriterKey, error) {
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	l.changing.Lock()
	defer l.changing.Unlock()
	known, err := l.known(ctx)
	if err != nil {
		return nil, err
	}
	return known.list(), nil
}

// known is what the log says of its writers, with all that waits in intake now. It
// goes on from what it read before, so that a change under load reads only what came
// in meanwhile. The caller holds changing.
func (l *ledgerService) known(ctx context.Context) (*admission, error) {
	if err := l.settled(ctx); err != nil {
		return nil, err
	}
	if l.read == nil {
		a := admissionOf(l.cfg.keys.manifestPublic, l.store, l.order.origin)
		if l.order.snapshot != nil {
			if err := a.resume(ctx, l.order.snapshot, math.MaxInt64); err != nil {
				return nil, err
			}
		}
		l.read = a
	}
	head, err := l.store.Head(ctx, l.cfg.Family)
	if err != nil {
		return nil, err
	}
	if head.Origin != l.order.origin {
		return nil, fmt.Errorf("%w: the log is at %s", ledger.ErrUnavailable, head.Origin)
	}
	return l.read, l.read.catchUp(ctx, head.Size)
}

// settled returns when what is in intake now has its index or was refused.
func (l *ledgerService) settled(ctx context.Context) error {
	intake, err := l.store.IntakeStats(ctx, l.cfg.Family)
	if err != nil || intake.Rows == 0 {
		return err
	}
	for {
		rows, err := l.store.ReadIntake(ctx, l.cfg.Family, 1)
		if err != nil || len(rows) == 0 || rows[0].IntakeID > intake.MaxID {
			return err
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("waiting for the sequencer: %w: %w", ledger.ErrUnavailable, ctx.Err())
		}
	}
}

// Change implements [admin.Writers].
func (l *ledgerService) Change(ctx context.Context, c WriterChange) (done []KeyChanged, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	l.changing.Lock()
	defer l.changing.Unlock()
	x, err := l.begin(ctx, c.Writer, c.By)
	if err != nil {
		return nil, fmt.Errorf("keys of %q: %w", c.Writer, err)
	}
	switch c.Op {
	case admin.WriterRotate:
		err = x.rotate(ctx)
	case admin.WriterAdd:
		err = x.add(ctx, c.PublicKey)
	case admin.WriterRetire:
		err = x.retire(ctx, c.KeyID, c.Gone)
	case admin.WriterRevoke:
		err = x.revoke(ctx, c)
	default:
		err = refusedKeys("%q is no operation", c.Op)
	}
	if err != nil {
		err = fmt.Errorf("keys of %q: %w", c.Writer, err)
	}
	return x.done, err
}

// keyChange is one change of a writer's keys.
type keyChange struct {
	l     *ledgerService
	id    string
	by    string
	known *admission
	own   *ownWriter // nil if the writer is another process's
	done  []KeyChanged
}

func refusedKeys(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{admin.ErrWriterRefused}, args...)...)
}

func (l *ledgerService) begin(ctx context.Context, id, by string) (x *keyChange, err error) {
	if l.admin == nil || l.cfg.keys.manifest == nil {
		return nil, refusedKeys("this process does not hold the manifest key")
	}
	x = &keyChange{l: l, id: id, by: by}
	if x.known, err = l.known(ctx); err != nil {
		return nil, err
	}
	if x.own, err = l.ownWriter(id); err != nil {
		return nil, err
	}
	t, wrote := x.known.tails[id]
	switch {
	case wrote && t.KeyID == x.known.manifest:
		return nil, refusedKeys("it signs with the manifest key, which does not change")
	case !wrote && !slices.ContainsFunc(slices.Collect(maps.Values(x.known.keys)), func(k writerKey) bool { return k.Writer == id }):
		return nil, admin.ErrNoWriter
	}
	return x, nil
}

// role is that of the writer's keys.
func (x *keyChange) role() record.Role {
	for _, k := range x.known.keys {
		if k.Writer == x.id && k.Role != "" {
			return k.Role
		}
	}
	if x.own != nil {
		return x.own.role
	}
	return record.RoleGateway
}

// put records a change of a key and returns when it has its index.
func (x *keyChange) put(ctx context.Context, c record.KeyChange) error {
	c.For, c.By = x.id, x.by
	rec := x.l.admin.own(record.KindKey)
	rec.KeyChange = &c
	if err := x.l.admin.Record(ctx, rec); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if _, err := x.l.known(ctx); err != nil { // which is x.known
		return err
	}
	k, there := x.known.keys[c.KeyID]
	if !there || (k.End == nil) != (c.Op == record.KeyAdd) {
		return fmt.Errorf("%w: the sequencer did not take record %s", ledger.ErrUnavailable, rec.ID)
	}
	x.done = append(x.done, KeyChanged{Op: string(c.Op), Writer: x.id, KeyID: c.KeyID, Record: rec.ID})
	return nil
}

// introduce makes a key known, unless it is.
func (x *keyChange) introduce(ctx context.Context, key ed25519.PublicKey) error {
	id := record.KeyID(key)
	switch k, known := x.known.keys[id]; {
	case known && k.Writer != x.id:
		return refusedKeys("the key %s is of %q", id, k.Writer)
	case known && k.End != nil:
		return refusedKeys("the key %s has ended, and stays so", id)
	case known:
		return nil
	}
	return x.put(ctx, record.KeyChange{
		Op: record.KeyAdd, Role: x.role(), KeyID: id, PublicKey: base64.RawURLEncoding.EncodeToString(key),
	})
}

// end ends a key, unless it has ended so before.
func (x *keyChange) end(ctx context.Context, keyID string, e ending) error {
	k := x.known.keys[keyID]
	if k.End != nil && (e.Op == record.KeyRetire || k.End.Stolen != "" && k.End.Stolen <= e.Since) {
		return nil
	}
	return x.put(ctx, record.KeyChange{
		Op: e.Op, Role: x.role(), KeyID: keyID, PublicKey: base64.RawURLEncoding.EncodeToString(k.Public), Since: e.Since, Cause: e.Cause,
	})
}

// ending is how a key ends.
type ending struct {
	Op    record.KeyOp     `json:"op"`
	Since record.Timestamp `json:"since,omitempty"`
	Cause string           `json:"cause,omitempty"`
}

// add makes a key known that is in the data directory of another process, and
// lets the writer begin again if it had none.
func (x *keyChange) add(ctx context.Context, text string) error {
	if x.own != nil {
		return refusedKeys("it is a writer of this process: rotate it")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return refusedKeys("%.60q is no Ed25519 key in base64url", text)
	}
	if err := x.introduce(ctx, raw); err != nil {
		return err
	}
	return x.readmit(ctx)
}

// readmit lets the writer begin a run after its last record in the log.
func (x *keyChange) readmit(ctx context.Context) error {
	var tail ledger.Tail
	if t, wrote := x.known.tails[x.id]; wrote {
		last, err := x.known.last(ctx, t)
		if err != nil {
			return err
		}
		tail = ledger.Tail{Prev: t.Hash, RecordID: last.RecordID}
	}
	return x.l.store.ReadmitWriter(ctx, x.l.cfg.Family, x.id, tail)
}

// retire ends one key that another follows, or all keys of a writer that left.
func (x *keyChange) retire(ctx context.Context, keyID string, gone bool) error {
	active := x.known.active(x.id)
	if keyID != "" {
		if k, known := x.known.keys[keyID]; !known || k.Writer != x.id {
			return refusedKeys("it has no key %q", keyID)
		}
		if !slices.Contains(active, keyID) {
			return refusedKeys("the key %s has ended", keyID)
		}
		if len(active) > 1 {
			if x.known.tails[x.id].KeyID == keyID {
				return refusedKeys("it signs under %s: start its process with the other key first", keyID)
			}
			return x.end(ctx, keyID, ending{Op: record.KeyRetire})
		}
	}
	switch t, wrote := x.known.tails[x.id]; {
	case len(active) == 0:
		return refusedKeys("all of its keys have ended")
	case x.own != nil && x.own.running != nil:
		return refusedKeys("this process writes as it: rotate it, or stop the process")
	case wrote && !t.Stopped && !gone:
		return refusedKeys("its last record does not say that it stopped: stop its process, or say that it is gone")
	}
	// First nothing more is acknowledged, then the key ends: else there would be
	// records that were acknowledged and get no place.
	if err := x.halt(ctx); err != nil {
		return err
	}
	for _, id := range active {
		if err := x.end(ctx, id, ending{Op: record.KeyRetire}); err != nil {
			return err
		}
	}
	return nil
}

// halt has the store acknowledge nothing more of the writer, and waits for the
// indexes of what it did.
func (x *keyChange) halt(ctx context.Context) error {
	if err := x.l.store.RetireWriter(ctx, x.l.cfg.Family, x.id); err != nil {
		return err
	}
	return x.l.settled(ctx)
}

// revoke ends a key that others may have. A writer of this process goes on under
// a new one; one elsewhere is stopped, and goes on when it has another.
func (x *keyChange) revoke(ctx context.Context, c WriterChange) error {
	e, err := x.l.theft(c)
	if err != nil {
		return err
	}
	active := x.known.active(x.id)
	keyID := c.KeyID
	switch {
	case keyID == "" && x.own != nil:
		keyID = x.own.keyID()
	case keyID == "" && len(active) == 1:
		keyID = active[0]
	case keyID == "":
		return refusedKeys("it has %d keys in force: name the one that was stolen", len(active))
	}
	k, known := x.known.keys[keyID]
	if x.own != nil {
		begun, err := x.replaces(keyID)
		if err != nil {
			return err
		}
		if begun {
			return x.replace(ctx, keyID, e)
		}
	}
	switch {
	case !known || k.Writer != x.id:
		return refusedKeys("it has no key %q", keyID)
	case k.End != nil && k.End.Stolen != "" && k.End.Stolen <= e.Since:
		return refusedKeys("the key %s is revoked since %s", keyID, k.End.Stolen)
	case k.End != nil:
		return x.end(ctx, keyID, e)
	case x.own != nil && x.own.keyID() == keyID:
		return x.replace(ctx, keyID, e)
	case x.own != nil || x.known.tails[x.id].KeyID != keyID && len(active) > 1:
		return x.end(ctx, keyID, e) // nothing is signed under it any more
	}
	if err := x.halt(ctx); err != nil {
		return err
	}
	if err := x.end(ctx, keyID, e); err != nil {
		return err
	}
	if len(active) > 1 {
		return x.readmit(ctx)
	}
	return nil
}

// theft reads what a revocation says.
func (l *ledgerService) theft(c WriterChange) (ending, error) {
	switch {
	case c.Since.IsZero():
		return ending{}, refusedKeys("a revocation says since when the key is suspect")
	case c.Since.After(l.now()):
		return ending{}, refusedKeys("since %s is in the future", c.Since.UTC().Format(time.RFC3339))
	case !erasureBasis.MatchString(c.Cause):
		return ending{}, refusedKeys("the cause is one word of lower-case letters")
	}
	return ending{Op: record.KeyRevoke, Since: record.At(c.Since), Cause: c.Cause}, nil
}

// mayWrite holds the key of a writer of this process to the log, where it follows
// that. A directory that came back from a backup may hold one that has ended, a log
// that came back may not know it: what it signs would be acknowledged and get no
// place.
func (l *ledgerService) mayWrite(ctx context.Context, id string, key ed25519.PrivateKey) error {
	keyID := keyIDOf(key)
	inForce := func(keys map[string]writerKey) bool {
		k, known := keys[keyID]
		return known && k.Writer == id && k.End == nil
	}
	if l.inForce == nil || keyID == record.KeyID(l.cfg.keys.manifestPublic) || inForce(l.inForce) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	l.changing.Lock()
	defer l.changing.Unlock()
	known, err := l.known(ctx) // its addition may have waited for an index
	if err != nil {
		return err
	}
	if !inForce(known.keys) {
		return fmt.Errorf("opening writer %s: its key %s is not in force: lineal ledger writers lists those that are, and rotates to another: %w", id, keyID, ledger.ErrRetired)
	}
	return nil
}

// readmitOwn lets the writers of this process begin a run that were there before
// and left.
func (l *ledgerService) readmitOwn(ctx context.Context) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	known, err := l.known(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{writerGateway, writerTokens} {
		x := keyChange{l: l, id: writerID(name, l.cfg.Node), known: known}
		if err := x.readmit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// isMissing reports a file that is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
