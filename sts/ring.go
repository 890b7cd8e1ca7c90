package sts

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// IssuerKeys are the keys of the issuer: those that sign here, and those that
// any of its token services signs with. It is safe for concurrent use.
type IssuerKeys interface {
	token.Signers
	token.KeySource
	// Refresh takes in what other processes did and what was revoked. It is called
	// before each signature; on an error nothing is signed.
	Refresh(ctx context.Context) error
	// Published are the keys of the JWK set, the current ones first.
	Published(ctx context.Context) []token.PublicKey
}

// RingConfig configures a Ring. What is not said to have a default is required.
type RingConfig struct {
	// Issuer is `iss`.
	Issuer string
	// Held are the private keys of this process, in the order in which they sign:
	// each until the next begins. Keys that were retired may be left out; one that
	// signs may not, until the next has begun.
	Held []HeldKey
	// Keys is what all token services of the issuer share, and Revocations their
	// list of what was revoked.
	Keys        registry.Keys
	Revocations registry.Revocations
	// Voucher is the public half of the key that signs the entries of Keys, the same
	// for all of them; the database does not hold it.
	Voucher ed25519.PublicKey
	// Vouch is that key. A process that does not hold it changes nothing: its keys
	// sign when they are known through another that does. It is nil there.
	Vouch crypto.Signer
	// Record makes a change a record, durably when it returns nil. It comes before
	// the change: a key without a record signs nothing. Nil exactly if Vouch is.
	Record func(ctx context.Context, change record.KeyChange) error
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger gets what an operator must look at; nil: none.
	Logger *slog.Logger
}

// Ring is the keys of an issuer with several token services, which rotate.
//
//	add ──▶ next ──10 min──▶ current ──next key's turn──▶ retired ──1 h──▶ gone
//	         └─────────────────┴─── revoked, at once ──────┴──▶ no more
//
// A key is published before it signs, for longer than any verifier keeps the set
// that it knows, and it stays published while anything that it signed is alive.
// The order cannot be had otherwise. Each key is published with the times between
// which it signs, so that nobody accepts what it signs before or after.
//
// A Ring learns within a second what another process changed. Run writes what the
// passing of time changes; signing and publishing do not depend on it.
type Ring struct {
	cfg    RingConfig
	now    func() time.Time
	logger *slog.Logger

	turn  sync.Mutex // held by who reads or writes the registry
	known atomic.Pointer[ringState]
}

// ringState is what was read of the registry; it never changes.
type ringState struct {
	keys       keySet
	revoked    map[string]bool // kid
	through    int64           // the revocation up to which that is so
	read       time.Time
	generation uint64
	refused    map[string]int64 // kid → version of an entry that is not ours
}

// ringAge is for how long a Ring goes by what it read of the entries. What is
// revoked it asks at each signature.
const ringAge = time.Second

// OpenRing gives the held keys their times, publishes them and makes the records.
func OpenRing(ctx context.Context, cfg RingConfig) (*Ring, error) {
	r, err := openRing(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("opening key ring: %w", err)
	}
	return r, nil
}

func openRing(ctx context.Context, cfg RingConfig) (*Ring, error) {
	if cfg.Issuer == "" || cfg.Keys == nil || cfg.Revocations == nil || len(cfg.Voucher) != ed25519.PublicKeySize {
		return nil, errors.New("issuer, keys, revocations and voucher are required")
	}
	if (cfg.Vouch == nil) != (cfg.Record == nil) || cfg.Vouch != nil && !cfg.Voucher.Equal(cfg.Vouch.Public()) {
		return nil, errors.New("vouch and record belong together, and vouch to voucher")
	}
	if err := checkHeld(cfg.Held); err != nil {
		return nil, err
	}
	cfg.Held = slices.Clone(cfg.Held)
	r := &Ring{cfg: cfg, now: cfg.Now, logger: cfg.Logger}
	if r.now == nil {
		r.now = time.Now //nolint:forbidigo // the one default clock
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	r.known.Store(&ringState{keys: keySet{}, revoked: map[string]bool{}, refused: map[string]int64{}})
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	return r, r.survey(ctx)
}

// enter gives the held keys their times.
func (r *Ring) enter(ctx context.Context) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	if err := r.read(ctx); err != nil {
		return err
	}
	return r.change(ctx, func(now time.Time, s keySet) ([]ringKey, error) {
		if known := r.known.Load(); len(known.keys) == 0 && len(known.refused) > 0 {
			return nil, errors.New("the registry's keys of this issuer were not written by this deployment")
		}
		for _, h := range r.cfg.Held {
			if _, refused := r.known.Load().refused[h.Signer.KeyID()]; refused {
				return nil, fmt.Errorf("the registry's entry of key %s was not written by this deployment", h.Signer.KeyID())
			}
		}
		return s.plan(r.cfg.Held, now)
	})
}

// survey says at the start what an operator must know of.
func (r *Ring) survey(ctx context.Context) error {
	if err := r.Tend(ctx); err != nil {
		return err
	}
	now, s := r.now(), r.known.Load()
	held, coming := map[string]bool{}, time.Time{}
	for _, h := range r.cfg.Held {
		k, known := s.keys[h.Signer.KeyID()]
		if !known { // here is nobody who may add it
			coming = now
			continue
		}
		held[k.kid()] = true
		if k.state(now) == KeyNext && coming.IsZero() {
			coming = k.useFrom
		}
	}
	for kid, k := range s.keys {
		if !held[kid] && k.state(now) == KeyCurrent {
			r.logger.WarnContext(ctx, "a current key is not held here; if no other token service signs with it, list it before the others or revoke it",
				slog.String("kid", kid))
		}
	}
	if _, signs := s.keys.current(r.cfg.Held, now); signs {
		return nil
	}
	if coming.IsZero() {
		return errors.New("every key listed has retired or was revoked: list a new one")
	}
	r.logger.ErrorContext(ctx, "no key listed may sign yet, and nothing is issued: list the key that signed so far before the others, "+
		"and each key also where the manifest key is", slog.Time("earliest", coming))
	return nil
}

// SignerAt implements token.Signers.
func (r *Ring) SignerAt(t time.Time) (token.Signer, error) {
	if s, ok := r.known.Load().keys.current(r.cfg.Held, t); ok {
		return s, nil
	}
	return nil, fmt.Errorf("no key of this token service may sign what is issued at %s", t.UTC().Format(time.RFC3339))
}

// Key implements token.KeySource.
func (r *Ring) Key(ctx context.Context, kid string) (token.PublicKey, error) {
	now := r.now()
	if k, ok := r.known.Load().keys[kid]; ok && slices.Contains(publishedStates, k.state(now)) {
		return k.bounded(), nil
	}
	if err := r.refreshOld(ctx); err != nil {
		return token.PublicKey{}, err
	}
	if k, ok := r.known.Load().keys[kid]; ok && slices.Contains(publishedStates, k.state(now)) {
		return k.bounded(), nil
	}
	return token.PublicKey{}, fmt.Errorf("%w %q", token.ErrKeyUnknown, kid)
}

var publishedStates = []KeyState{KeyNext, KeyCurrent, KeyRetired}

// Generation implements token.KeySource.
func (r *Ring) Generation() uint64 { return r.known.Load().generation }

// Published implements IssuerKeys. If the registry cannot be asked it answers
// with what it knows: a key does not become another.
func (r *Ring) Published(ctx context.Context) []token.PublicKey {
	if err := r.refreshOld(ctx); err != nil {
		r.logger.WarnContext(ctx, "keys published as they were last known", slog.String("cause", err.Error()))
	}
	return r.known.Load().keys.published(r.now())
}

// Refresh implements IssuerKeys.
func (r *Ring) Refresh(ctx context.Context) error {
	last, err := r.cfg.Revocations.LastRevoked(ctx)
	if err != nil {
		return err
	}
	return r.refresh(ctx, func(s *ringState) bool { return last == s.through && r.young(s) })
}

// refreshOld reads the registry if it was not read for a second.
func (r *Ring) refreshOld(ctx context.Context) error { return r.refresh(ctx, r.young) }

func (r *Ring) young(s *ringState) bool {
	age := r.now().Sub(s.read)
	return age >= 0 && age < ringAge
}

// refresh reads the registry unless what is known is good enough. What is due
// may fail to be written: it is tried again, and what is revoked is out of use
// already.
func (r *Ring) refresh(ctx context.Context, enough func(*ringState) bool) error {
	if enough(r.known.Load()) {
		return nil
	}
	r.turn.Lock()
	defer r.turn.Unlock()
	if enough(r.known.Load()) { // another caller has just read it
		return nil
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if err := r.change(ctx, r.due); err != nil {
		r.logger.ErrorContext(ctx, "key ring not tended", slog.String("cause", err.Error()))
	}
	return nil
}

// Tend reads the registry and does what is due: what was revoked is marked, a
// next key takes the place of a current one that was revoked, and a key that
// ended gets its last record. It may run at any number of processes at once.
func (r *Ring) Tend(ctx context.Context) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	if err := r.read(ctx); err != nil {
		return err
	}
	return r.change(ctx, r.due)
}

// due is what the passing of time and the list of revocations change.
func (r *Ring) due(now time.Time, s keySet) (out []ringKey, err error) {
	for _, kid := range slices.Sorted(maps.Keys(s)) {
		k := s[kid]
		revoked := k.state(now) == KeyRevoked
		switch {
		case k.struck:
			k.revoked, k.struck = now.Truncate(time.Second), false
		case k.ended.IsZero() && (revoked && !now.Before(k.revoked.Add(keySettle)) || k.state(now) == KeyGone):
			k.ended = ceil(now)
		default:
			continue
		}
		s[kid] = k
		out = append(out, k)
	}
	if k, ok := s.promote(r.cfg.Held, now); ok {
		out = append(out, k)
	}
	return out, nil
}

// Run tends the ring until ctx ends.
func (r *Ring) Run(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := r.Tend(ctx); err != nil && ctx.Err() == nil {
				r.logger.ErrorContext(ctx, "key ring not tended", slog.String("cause", err.Error()))
			}
		}
	}
}

const (
	tendEvery = 5 * time.Second
	maxRaces  = 8 // how often another process may be first
)

// change asks what to change of what was read, and writes that: record first. If
// another process was first it reads and asks again. Who may not vouch writes
// nothing. The caller has the turn.
func (r *Ring) change(ctx context.Context, what func(now time.Time, s keySet) ([]ringKey, error)) error {
	if r.cfg.Vouch == nil {
		_, err := what(r.now(), maps.Clone(r.known.Load().keys))
		return err
	}
	for range maxRaces {
		changes, err := what(r.now(), maps.Clone(r.known.Load().keys))
		if err != nil || len(changes) == 0 {
			return err
		}
		err = r.write(ctx, changes)
		if again := r.read(ctx); again != nil {
			return errors.Join(err, again)
		}
		if !errors.Is(err, registry.ErrExists) {
			return err
		}
	}
	return errors.New("other token services change the keys all the time")
}

func (r *Ring) write(ctx context.Context, changes []ringKey) error {
	for _, k := range changes {
		change, tell, err := r.recordOf(k)
		if err != nil {
			return err
		}
		if tell {
			if err := r.cfg.Record(ctx, change); err != nil {
				return fmt.Errorf("recording key %s: %w", k.kid(), err)
			}
		}
		entry, err := k.seal(r.cfg.Issuer, r.cfg.Vouch)
		if err != nil {
			return err
		}
		if err := r.cfg.Keys.PutIssuerKey(ctx, entry); err != nil {
			return err
		}
		r.logger.InfoContext(ctx, "issuer key changed", slog.String("kid", k.kid()), slog.String("state", string(k.state(r.now()))),
			slog.Time("use_from", k.useFrom), slog.Time("retires", k.retires), slog.Int64("version", entry.Version))
	}
	return nil
}

// recordOf is the record that goes before a change. A turn that is moved or ends
// has none of its own: the record of the key that follows says from when.
func (r *Ring) recordOf(k ringKey) (change record.KeyChange, tell bool, err error) {
	raw, err := k.public.Raw()
	if err != nil {
		return change, false, err
	}
	change = record.KeyChange{
		Op: record.KeyAdd, For: r.cfg.Issuer, Role: record.RoleIssuer, KeyID: record.Hash(raw),
		PublicKey: base64.RawURLEncoding.EncodeToString(raw), TokenKeyID: k.kid(),
	}
	before, known := r.known.Load().keys[k.kid()]
	switch {
	case !k.ended.IsZero() && !k.revoked.IsZero():
		change.Op, change.Since = record.KeyRevoke, record.At(k.revoked)
	case !k.ended.IsZero():
		change.Op = record.KeyRetire
	case !known || !before.useFrom.Equal(k.useFrom):
		if !k.useFrom.IsZero() {
			change.From = record.At(k.useFrom)
		}
	default:
		return change, false, nil
	}
	return change, true, nil
}

// read takes in the entries and the revocations since the last time.
func (r *Ring) read(ctx context.Context) error {
	old := r.known.Load()
	s := &ringState{
		keys: keySet{}, revoked: map[string]bool{}, refused: map[string]int64{}, through: old.through, read: r.now(), generation: old.generation,
	}
	entries, err := r.cfg.Keys.IssuerKeys(ctx, r.cfg.Issuer)
	if err != nil {
		return err
	}
	for _, e := range entries {
		k, err := openEntry(e, r.cfg.Voucher)
		if err != nil {
			s.refused[e.KeyID] = e.Version
			if old.refused[e.KeyID] != e.Version {
				r.logger.ErrorContext(ctx, "an entry of the registry is no key of this issuer: it is not published",
					slog.String("kid", e.KeyID), slog.String("cause", err.Error()))
			}
			continue
		}
		s.keys[k.kid()] = k
	}
	for kid := range old.revoked {
		s.revoked[kid] = true
	}
	if err := r.readRevoked(ctx, s); err != nil {
		return err
	}
	for kid, was := range old.keys {
		k, ok := s.keys[kid]
		if !ok || k.version < was.version {
			return fmt.Errorf("the entry of key %s stood at version %d, the registry was rolled back", kid, was.version)
		}
		if k.version != was.version {
			s.generation++
		}
	}
	s.strike()
	r.known.Store(s)
	return nil
}

// strike takes out of use what was revoked and is not marked yet.
func (s *ringState) strike() {
	for kid, k := range s.keys {
		if s.revoked[kid] && k.revoked.IsZero() {
			k.revoked, k.struck = s.read, true
			s.keys[kid] = k
		}
	}
}

func (r *Ring) readRevoked(ctx context.Context, s *ringState) error {
	for {
		page, err := r.cfg.Revocations.RevokedSince(ctx, s.through, feedPage)
		if err != nil {
			return err
		}
		if page.Through < s.through {
			return fmt.Errorf("the list of revocations ends at %d, it was %d long", page.Through, s.through)
		}
		for _, e := range page.Entries {
			if e.Kind == string(token.RevokedKey) {
				s.revoked[e.Value] = true
			}
		}
		s.through = page.Through
		if page.Through >= page.Last {
			return nil
		}
	}
}
