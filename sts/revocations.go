package sts

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// revocationLife is how long an entry is kept that ends at all: nothing that
// was issued when it was made is accepted longer (tokens.md §10).
const revocationLife = maxLifetime + token.Leeway + time.Second

// Revocation is what [Service.Revoke] ends. Kind, Value, Cause and By are
// required.
type Revocation struct {
	Kind token.RevocationKind
	// Value is the jti of a hop, with all below it; a txn; a person's reference;
	// an agent's URI; a kid; the thumbprint of a certificate or DPoP key.
	Value string
	// Before bounds a person to chains, and an agent to hops, that began at or
	// before it; zero: now. It may not lie in the future: whoever must not begin
	// anything any more is disabled in the registry.
	Before time.Time
	// Ends is when a key or certificate ends by itself; zero: not known, and the
	// entry is kept for good.
	Ends time.Time
	// Cause and By stand in the record: why, and which operator or agent.
	Cause, By string
}

// Revoke ends authority and returns the number of the entry. When it returns
// nil the record is in the ledger and the entry in the registry: no exchange
// succeeds any more, and the feed tells every gateway. On an error, a
// [*Refusal], it may be in force or not, and must be repeated.
func (s *Service) Revoke(ctx context.Context, r Revocation) (seq int64, err error) {
	now := s.cfg.Now()
	e, err := s.entry(r, now)
	if err != nil {
		return 0, refuse(CodeParameterInvalid, "%w", err)
	}
	draft, err := s.draftRevocation(r, e, now)
	if err != nil {
		return 0, refuse(CodeParameterInvalid, "%w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RecordTimeout)
	defer cancel()
	if err := s.cfg.Recorder.Record(ctx, draft); err != nil {
		return 0, refuse(CodeLedgerUnavailable, "%w", err)
	}
	seq, err = s.cfg.Revocations.Revoke(ctx, registry.Revocation{
		Kind: string(e.Kind), Value: e.Value, Before: e.Before, Ends: e.Ends,
	})
	if err != nil {
		return 0, refuse(CodeRegistryUnavailable, "%w", err)
	}
	if e.Kind == token.RevokedKey { // the feeds that wake sign with another
		if err := s.cfg.Keys.Refresh(ctx); err != nil {
			s.cfg.Logger.WarnContext(ctx, "key revoked, and the ring not read again yet", slog.String("cause", err.Error()))
		}
	}
	s.revoked.wake()
	if err := s.endFamilies(ctx, e); err != nil {
		return 0, err
	}
	s.cfg.Logger.WarnContext(ctx, "revoked", slog.String("kind", string(r.Kind)), slog.String("value", r.Value),
		slog.Int64("seq", seq), slog.String("by", r.By), slog.String("cause", r.Cause))
	if err := s.cfg.Revocations.PruneRevoked(ctx, now); err != nil { // it is in force; what ended may wait
		s.cfg.Logger.WarnContext(ctx, "ended revocations not removed", slog.String("cause", err.Error()))
	}
	return seq, nil
}

// entry is r as the list has it.
func (s *Service) entry(r Revocation, now time.Time) (token.Revocation, error) {
	e := token.Revocation{Kind: r.Kind, Value: r.Value, Before: r.Before, Ends: now.Add(revocationLife).UTC()}
	switch r.Kind {
	case token.RevokedPerson, token.RevokedAgent:
		if e.Before.IsZero() {
			e.Before = now
		}
		if e.Before.After(now) {
			return e, fmt.Errorf("revoking %s: up to %s, which is in the future", r.Kind, e.Before)
		}
		e.Before = e.Before.UTC()
	case token.RevokedKey, token.RevokedCert:
		e.Ends = r.Ends
	case token.RevokedHop, token.RevokedTxn:
	}
	return e, e.Check()
}

func (s *Service) draftRevocation(r Revocation, e token.Revocation, now time.Time) (record.Draft, error) {
	id, err := s.cfg.NewID()
	if err != nil {
		return record.Draft{}, fmt.Errorf("making a record id: %w", err)
	}
	body := &record.Revocation{Target: record.RevocationTarget(e.Kind), Value: e.Value, Cause: r.Cause, By: r.By}
	if !e.Before.IsZero() {
		body.Before = record.At(e.Before)
	}
	d, err := record.NewDraft(record.Record{
		Header: record.Header{
			Version: record.Version, Kind: record.KindRevocation, ID: id, Log: s.cfg.Log, Writer: s.cfg.Writer,
			Time: record.At(now), DataClass: s.cfg.DataClass, Region: s.cfg.Region,
		},
		Revocation: body,
	})
	if err != nil {
		return record.Draft{}, fmt.Errorf("drafting the record: %w", err)
	}
	return d, nil
}

// revoked is the token service's own token.RevocationSource. It asks the
// registry at each check how long the list is, which another process may have
// lengthened, and reads what is new: its knowledge has no age.
type revoked struct {
	list registry.Revocations
	now  func() time.Time

	mu      sync.RWMutex // guards what follows
	set     *token.RevocationSet
	through int64
	changed chan struct{} // closed and replaced at each Revoke of this process
}

func newRevoked(list registry.Revocations, now func() time.Time) *revoked {
	return &revoked{list: list, now: now, set: token.NewRevocationSet(), changed: make(chan struct{})}
}

// Check implements token.RevocationSource.
func (r *revoked) Check(ctx context.Context, p token.Presented) (token.Standing, error) {
	kind, err := r.check(ctx, func(s *token.RevocationSet) token.RevocationKind { return s.Match(p) })
	return token.Standing{Revoked: kind}, err
}

// checkService is Check for a service token.
func (r *revoked) checkService(ctx context.Context, t token.ServiceToken) (token.RevocationKind, error) {
	return r.check(ctx, func(s *token.RevocationSet) token.RevocationKind { return s.MatchService(t) })
}

func (r *revoked) check(ctx context.Context, match func(*token.RevocationSet) token.RevocationKind) (token.RevocationKind, error) {
	last, err := r.list.LastRevoked(ctx)
	if err != nil {
		return "", err
	}
	r.mu.RLock()
	through, kind := r.through, match(r.set)
	r.mu.RUnlock()
	if kind != "" || through == last {
		return kind, nil
	}
	if last < through {
		return "", fmt.Errorf("the list of revocations ends at %d, it was %d long", last, through)
	}
	return r.read(ctx, last, match)
}

// read takes in the entries up to last, and matches again.
func (r *revoked) read(ctx context.Context, last int64, match func(*token.RevocationSet) token.RevocationKind) (token.RevocationKind, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.through < last {
		page, err := r.list.RevokedSince(ctx, r.through, feedPage)
		if err != nil {
			return "", err
		}
		if page.Through <= r.through {
			return "", fmt.Errorf("the list of revocations ends at %d, not at %d", page.Through, last)
		}
		for _, e := range page.Entries {
			if err := r.set.Add(entryOf(e)); err != nil {
				return "", err
			}
		}
		r.through = page.Through
	}
	r.set.Prune(r.now())
	return match(r.set), nil
}

func entryOf(e registry.Revocation) token.Revocation {
	return token.Revocation{Seq: e.Seq, Kind: token.RevocationKind(e.Kind), Value: e.Value, Before: e.Before, Ends: e.Ends}
}

// wake tells the feeds of this process that the list is longer.
func (r *revoked) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// waiting is closed at the next Revoke. Take it before reading the list.
func (r *revoked) waiting() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}
