package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/record"
)

// A writer's key changes in steps, of which each may be the last before a crash:
//
//	plan noted ─▶ next key made ─▶ known (`add`) ─▶ in the place of the old one ─▶
//	signs, from one record on ─▶ that record durable ─▶ old key ended ─▶ plan gone
//
// The next start goes on where the plan stands. Until the key is known nothing is
// signed under it, and until its first record is durable the old one is not ended,
// so that at no step a record could be refused.

// ownWriter is a writer whose key is in this data directory.
type ownWriter struct {
	name    string // of its key's file
	role    record.Role
	key     ed25519.PrivateKey
	running *recorder // nil while nothing writes as it
}

func (w *ownWriter) keyID() string { return keyIDOf(w.key) }

func keyIDOf(key ed25519.PrivateKey) string { return record.KeyID(publicOf(key)) }

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(key[ed25519.SeedSize:])
}

// ownWriter is nil if the writer is not of this data directory.
func (l *ledgerService) ownWriter(id string) (*ownWriter, error) {
	for _, w := range []*ownWriter{
		{name: writerGateway, role: record.RoleGateway, running: l.gateway}, {name: writerTokens, role: record.RoleTokenService, running: l.tokens},
	} {
		if writerID(w.name, l.cfg.Node) != id {
			continue
		}
		key, err := readSigningKey(l.keysDir(), w.name)
		if isMissing(err) {
			return nil, nil //nolint:nilnil // it is another's
		}
		w.key = key
		return w, err
	}
	return nil, nil //nolint:nilnil // it is another's
}

func (l *ledgerService) keysDir() string { return filepath.Join(l.cfg.dataDir, keysDir) }

// plan is a change of a key that has begun: the file <name>.plan beside the keys.
type plan struct {
	From string `json:"from"` // keyid of the key that ends
	By   string `json:"by,omitempty"`
	ending
}

func planPath(dir, name string) string { return filepath.Join(dir, name+".plan") }

// nextName is the file of the key that a writer gets next.
func nextName(name string) string { return name + ".next" }

// NextWriterKey gives the public half of the key that a writer of the data
// directory gets when it is rotated, and makes it: for those who must know it
// before it signs. The server may run.
func NextWriterKey(dataDir, id string) (ed25519.PublicKey, error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return nil, err
	}
	l := &ledgerService{cfg: ledgerConfig{Ledger: cfg, dataDir: dataDir}}
	w, err := l.ownWriter(id)
	if err != nil {
		return nil, err
	}
	if w == nil {
		return nil, fmt.Errorf("the key of %q is not in %s", id, l.keysDir())
	}
	key, err := nextKey(l.keysDir(), w.name)
	if err != nil {
		return nil, err
	}
	return publicOf(key), nil
}

// nextKey reads the key that comes next, and makes it if it is not there.
func nextKey(dir, name string) (ed25519.PrivateKey, error) {
	return makeSigningKey(dir, nextName(name))
}

// rotate gives a writer of this process a new key, or finishes the change that has
// begun.
func (x *keyChange) rotate(ctx context.Context) error {
	if x.own == nil {
		return refusedKeys("it is a writer of another data directory: rotate it there, or make a key for it with --out")
	}
	switch begun, err := readPlan(x.l.keysDir(), x.own.name); {
	case err != nil:
		return err
	case begun != nil:
		return x.carryOut(ctx, *begun)
	case len(x.known.active(x.id)) == 0:
		return refusedKeys("all of its keys have ended: lineal ledger join makes it anew")
	}
	return x.replace(ctx, x.own.keyID(), ending{Op: record.KeyRetire})
}

// replace gives the writer of this process another key and ends the one it has, or
// the one that a change which has begun was to end.
func (x *keyChange) replace(ctx context.Context, keyID string, e ending) error {
	dir, name := x.l.keysDir(), x.own.name
	begun, err := readPlan(dir, name)
	if err != nil {
		return err
	}
	if begun != nil && begun.From != keyID {
		if err := x.carryOut(ctx, *begun); err != nil {
			return err
		}
	}
	p := plan{From: keyID, By: x.by, ending: e}
	if err := p.note(dir, name); err != nil {
		return err
	}
	return x.carryOut(ctx, p)
}

// replaces reports whether a change has begun that ends this key.
func (x *keyChange) replaces(keyID string) (bool, error) {
	begun, err := readPlan(x.l.keysDir(), x.own.name)
	return begun != nil && begun.From == keyID, err
}

// carryOut does what is left of a plan.
func (x *keyChange) carryOut(ctx context.Context, p plan) error {
	dir, name := x.l.keysDir(), x.own.name
	if x.own.keyID() == p.From { // else the next key is in its place
		next, err := nextKey(dir, name)
		if err != nil {
			return err
		}
		if err := x.introduce(ctx, publicOf(next)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(dir, nextName(name)+".key"), filepath.Join(dir, name+".key")); err != nil {
			return err
		}
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
		x.own.key = next
	}
	if err := x.begin(ctx); err != nil {
		return fmt.Errorf("beginning with the new key: %w", err)
	}
	for _, id := range x.known.active(x.id) { // those of a rotation that was given up too
		if id != p.From && x.known.keys[id].Since.compare(x.known.keys[x.own.keyID()].Since) < 0 {
			if err := x.end(ctx, id, ending{Op: record.KeyRetire}); err != nil {
				return err
			}
		}
	}
	if _, known := x.known.keys[p.From]; known { // else the log came back from a backup, and never had it
		by := x.by
		x.by = p.By
		err := x.end(ctx, p.From, p.ending)
		x.by = by
		if err != nil {
			return err
		}
	}
	return removePlan(dir, name)
}

// begin has the writer go on under its new key: the one that runs, or the next run
// of one that was stopped because of the old key.
func (x *keyChange) begin(ctx context.Context) error {
	if x.own.running == nil {
		return x.readmit(ctx)
	}
	return x.own.change(ctx)
}

// change has the running writer sign under its key from now on, and returns when a
// record under it is durable: nothing that it appends follows under another.
func (w *ownWriter) change(ctx context.Context) error {
	r := w.running
	if r.keys.now().KeyID() == w.keyID() && !r.keys.several() {
		return nil
	}
	if err := r.keys.use(w.key); err != nil {
		return err
	}
	rec := r.own(record.KindHeartbeat)
	rec.Heartbeat = &record.Heartbeat{State: record.Beat, Build: buildDigest(), Interval: int64(beatInterval.Seconds()), Counts: r.counts()}
	d, err := r.draft(rec)
	if err != nil {
		return err
	}
	p, err := r.later(ctx, d)
	if err != nil {
		return err
	}
	if _, err := p.Wait(ctx); err != nil {
		return err
	}
	r.keys.forget()
	return nil
}

func (p plan) note(dir, name string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(planPath(dir, name), text, 0o600)
}

// readPlan is nil if no change has begun.
func readPlan(dir, name string) (*plan, error) {
	text, err := os.ReadFile(planPath(dir, name))
	if isMissing(err) {
		return nil, nil //nolint:nilnil // none has begun
	}
	if err != nil {
		return nil, err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil || p.From == "" || p.Op != record.KeyRetire && p.Op != record.KeyRevoke {
		return nil, fmt.Errorf("%s is no plan of a change", planPath(dir, name))
	}
	return &p, nil
}

func removePlan(dir, name string) error {
	if err := os.Remove(planPath(dir, name)); err != nil && !isMissing(err) {
		return err
	}
	return durable.SyncDir(dir)
}

// finishChanges goes on with the changes of keys that a crash interrupted.
func (l *ledgerService) finishChanges(ctx context.Context) error {
	if l.admin == nil {
		return nil
	}
	var errs []error
	for _, name := range []string{writerGateway, writerTokens} {
		p, err := readPlan(l.keysDir(), name)
		if err != nil || p == nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, l.finish(ctx, writerID(name, l.cfg.Node), *p))
	}
	return errors.Join(errs...)
}

func (l *ledgerService) finish(ctx context.Context, id string, p plan) error {
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	l.changing.Lock()
	defer l.changing.Unlock()
	x, err := l.begin(ctx, id, p.By)
	if err == nil {
		err = x.carryOut(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("finishing a change of the key of %q: %w", id, err)
	}
	l.logger.InfoContext(ctx, "finished a change of a writer's key", slog.String("writer", id))
	return nil
}
