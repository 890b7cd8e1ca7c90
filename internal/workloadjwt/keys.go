package workloadjwt

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
)

const (
	fetchTimeout    = 5 * time.Second
	refreshAfter    = 10 * time.Minute // a set this old is fetched anew
	staleAfter      = time.Hour        // a set that could not be for this long is used no more
	refetchInterval = 10 * time.Second // from a fetch to the next, at least
	retryInterval   = time.Second      // the same after a failure, while there are no keys
	unknownFor      = 30 * time.Second // how long a kid stays unknown without a fetch
	maxUnknown      = 256              // such kids
)

// key is one published key.
type key struct {
	id        string
	algorithm Algorithm // "" if its publisher does not say
	public    crypto.PublicKey
}

func (k key) fits(alg Algorithm) bool {
	return (k.algorithm == "" || k.algorithm == alg) && Fits(k.public, alg)
}

// keySet holds the keys of one issuer. It fetches when it is asked, not in the
// background: for a key it does not know, at most once in ten seconds, and for
// any key when the set is ten minutes old; then one caller pays and the others
// use what is there.
type keySet struct {
	issuer string
	fetch  func(context.Context) ([]key, error)
	now    func() time.Time
	logger *slog.Logger
	turn   chan struct{} // holds one item while somebody fetches

	mu      sync.Mutex // guards what follows
	keys    map[string][]key
	fetched time.Time            // last success
	next    time.Time            // when the next attempt is allowed
	unknown map[string]time.Time // until when
	lastErr error                // of the last attempt
}

func newKeySet(issuer string, fetch func(context.Context) ([]key, error), now func() time.Time, logger *slog.Logger) *keySet {
	return &keySet{
		issuer: issuer, fetch: fetch, now: now, logger: logger,
		turn: make(chan struct{}, 1), unknown: map[string]time.Time{},
	}
}

// find returns the issuer's keys of this id that fit the algorithm; its error is
// a refusal.
func (s *keySet) find(ctx context.Context, kid string, alg Algorithm) ([]crypto.PublicKey, error) {
	found, due := s.look(kid, alg)
	switch {
	case len(found) > 0 && due:
		select {
		case s.turn <- struct{}{}:
		default:
			return found, nil // somebody fetches already
		}
	case due:
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, refuse(identity.AssertionUnavailable, "keys of %s: %w", s.issuer, ctx.Err())
		}
	default:
		return s.answer(found, kid, alg)
	}
	defer func() { <-s.turn }()
	if found, due = s.look(kid, alg); due && s.allowed() { // nobody fetched meanwhile
		fresh := s.refresh(ctx)
		if found, _ = s.look(kid, alg); fresh && len(found) == 0 {
			s.remember(kid)
		}
	}
	return s.answer(found, kid, alg)
}

func (s *keySet) answer(found []crypto.PublicKey, kid string, alg Algorithm) ([]crypto.PublicKey, error) {
	if len(found) > 0 {
		return found, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		return nil, refuse(identity.AssertionUnavailable, "keys of %s: %w", s.issuer, s.lastErr)
	}
	return nil, refuse(identity.AssertionKey, "%s has no key %q for %s", s.issuer, kid, alg)
}

// look finds keys, and says whether a fetch could help and is allowed, or is
// under way.
func (s *keySet) look(kid string, alg Algorithm) (found []crypto.PublicKey, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	age := now.Sub(s.fetched)
	if s.keys != nil && age >= staleAfter {
		s.keys = nil
		s.lastErr = errors.Join(errors.New("the last set is too old to use"), s.lastErr)
	}
	for _, k := range s.keys[kid] {
		if k.fits(alg) {
			found = append(found, k.public)
		}
	}
	allowed := !now.Before(s.next)
	if len(found) > 0 {
		return found, allowed && age >= refreshAfter
	}
	if until, refused := s.unknown[kid]; refused && now.Before(until) && s.keys != nil {
		return nil, false
	}
	return nil, allowed || len(s.turn) > 0
}

func (s *keySet) allowed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.now().Before(s.next)
}

// refresh fetches the set and swaps it whole; a failure, which is false, changes
// nothing. The caller has the turn. Its end does not cancel the fetch: the next one needs the
// keys as well.
func (s *keySet) refresh(ctx context.Context) bool {
	fetchCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	keys, err := s.fetch(fetchCtx)
	if err == nil && len(keys) == 0 {
		err = errors.New("no usable key")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.lastErr = err
	if err != nil {
		s.next = now.Add(refetchInterval)
		if s.keys == nil {
			s.next = now.Add(retryInterval)
		}
		s.logger.WarnContext(ctx, "fetching keys of workload issuer failed",
			slog.String("issuer", s.issuer), slog.String("error", err.Error()))
		return false
	}
	s.keys, s.fetched, s.next = map[string][]key{}, now, now.Add(refetchInterval)
	for _, k := range keys {
		s.keys[k.id] = append(s.keys[k.id], k)
	}
	maps.DeleteFunc(s.unknown, func(kid string, _ time.Time) bool { return s.keys[kid] != nil })
	s.logger.DebugContext(ctx, "fetched keys of workload issuer",
		slog.String("issuer", s.issuer), slog.Int("keys", len(keys)))
	return true
}

// remember keeps an unknown kid from being fetched for again. The set of such
// kids is small: a flood empties it, and then the refetch interval bounds (N5).
func (s *keySet) remember(kid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unknown) >= maxUnknown {
		clear(s.unknown)
	}
	s.unknown[kid] = s.now().Add(unknownFor)
}
