package client

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/token"
)

// refreshRetry is how long after a refresh that failed the next one begins.
const refreshRetry = 5 * time.Second

// poolKey says which token serves a call. The parent implies person and
// chain; the certificate is what the token is bound to (threat X14).
type poolKey struct {
	parent      token.Raw
	audience    string
	details     string // as asked for, before they are completed
	certificate string
}

// pooled is one token in the pool: fresh until refresh, then used on while
// another is fetched, and of no use from ends on.
type pooled struct {
	key     poolKey
	tok     Token
	refresh time.Time
	ends    time.Time
}

// Stats counts what a client's pool did since it was made.
type Stats struct {
	// Hits are tokens found, Misses those that a call had to wait for.
	Hits, Misses uint64
	// Exchanges are the tries to get a token, Refreshes the ones of them that no
	// call waited for, Failures the ones of them that gave none.
	Exchanges, Refreshes, Failures uint64
	// Dropped are tokens that went before their time: refused by a gateway, of
	// another certificate, or for want of room.
	Dropped uint64
	// Tokens is how many the pool holds now.
	Tokens int
}

// fetcher gets one token from the token service.
type fetcher func(context.Context) (Token, error)

// pool keeps tokens, the most recently used first. At a random 70 to 85 % of
// its life a token is fetched anew in the background, once for all that use it;
// it is used on while that fails, until it or its parent ends.
type pool struct {
	most   int
	now    func() time.Time
	log    *slog.Logger
	flight flight

	mu          sync.Mutex // guards what follows
	order       *list.List
	byKey       map[poolKey]*list.Element
	certificate string // of the newest token
	stats       Stats
}

func newPool(most int, now func() time.Time, log *slog.Logger) *pool {
	ctx, stop := context.WithCancel(context.Background())
	return &pool{
		most: most, now: now, log: log,
		flight: flight{calls: make(map[poolKey]*shared), ctx: ctx, stop: stop},
		order:  list.New(), byKey: make(map[poolKey]*list.Element),
	}
}

// get returns the token of key: the pool's, or by fetch, which concurrent
// callers share.
func (p *pool) get(ctx context.Context, key poolKey, parentEnds time.Time, fetch fetcher) (Token, error) {
	tok, found, due := p.lookUp(key, true)
	if found && !due {
		return tok, nil
	}
	s, err := p.flight.start(ctx, key, func(ctx context.Context) (Token, error) {
		return p.fetch(ctx, key, parentEnds, found, fetch)
	})
	switch {
	case found:
		return tok, nil // good for some time yet, whether another comes or not
	case err != nil:
		return Token{}, err
	}
	return s.wait(ctx)
}

// fetch gets the token of key, unless a run that ended meanwhile has.
func (p *pool) fetch(ctx context.Context, key poolKey, parentEnds time.Time, refresh bool, fetch fetcher) (Token, error) {
	if tok, found, due := p.lookUp(key, false); found && !due {
		return tok, nil
	}
	tok, err := fetch(ctx)
	p.count(func(s *Stats) {
		s.Exchanges++
		if refresh {
			s.Refreshes++
		}
		if err != nil {
			s.Failures++
		}
	})
	if err != nil {
		if refresh {
			p.log.WarnContext(ctx, "token not refreshed; the last one is used while it lasts", slog.String("audience", key.audience), slog.String("cause", err.Error()))
			p.postpone(key)
		}
		return Token{}, err
	}
	p.put(key, tok, parentEnds)
	return tok, nil
}

func (p *pool) count(change func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}

// lookUp finds a token that can still be used. due says that it is time for
// another.
func (p *pool) lookUp(key poolKey, counts bool) (tok Token, found, due bool) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byKey[key]
	if ok && !now.Before(entryOf(e).ends) {
		p.remove(e)
		ok = false
	}
	if counts && ok {
		p.stats.Hits++
	} else if counts {
		p.stats.Misses++
	}
	if !ok {
		return Token{}, false, false
	}
	p.order.MoveToFront(e)
	return entryOf(e).tok, true, !now.Before(entryOf(e).refresh)
}

// put keeps a token, and forgets what can be of no use any more: tokens that
// ended, alone or with their parents, and those of a certificate before.
func (p *pool) put(key poolKey, tok Token, parentEnds time.Time) {
	now := p.now()
	life := tok.Expires.Sub(now)
	//nolint:gosec // jitter spreads refreshes; nothing rests on its being unguessable
	refresh := now.Add(time.Duration(float64(life) * (0.70 + 0.15*rand.Float64())))
	ends := tok.Expires
	if parentEnds.Before(ends) {
		ends = parentEnds
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byKey[key]; ok {
		p.remove(e)
	}
	p.byKey[key] = p.order.PushFront(&pooled{key: key, tok: tok, refresh: refresh, ends: ends})
	rotated := p.certificate != key.certificate
	p.certificate = key.certificate
	for e := p.order.Front().Next(); e != nil; {
		next := e.Next()
		switch ended := !now.Before(entryOf(e).ends); {
		case ended:
			p.remove(e)
		case rotated && entryOf(e).key.certificate != key.certificate:
			p.stats.Dropped++
			p.remove(e)
		}
		e = next
	}
	for p.order.Len() > p.most {
		p.stats.Dropped++
		p.remove(p.order.Back())
	}
}

// postpone has a token used on, and the next try later.
func (p *pool) postpone(key poolKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byKey[key]; ok {
		entryOf(e).refresh = p.now().Add(refreshRetry)
	}
}

// drop forgets a token that was refused.
func (p *pool) drop(raw token.Raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.order.Front(); e != nil; e = e.Next() {
		if entryOf(e).tok.Raw == raw {
			p.stats.Dropped++
			p.remove(e)
			return
		}
	}
}

func (p *pool) read() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Tokens = p.order.Len()
	return s
}

// remove needs p.mu.
func (p *pool) remove(e *list.Element) {
	delete(p.byKey, entryOf(e).key)
	p.order.Remove(e)
}

func entryOf(e *list.Element) *pooled {
	entry, _ := e.Value.(*pooled)
	return entry
}

// errClosed says that the client was closed.
var errClosed = errors.New("client: closed")

// flight lets concurrent callers of one key share one run. It owns the runs.
type flight struct {
	ctx  context.Context //nolint:containedctx // the life of all runs
	stop context.CancelFunc
	runs sync.WaitGroup

	mu    sync.Mutex // guards calls, and runs against close
	calls map[poolKey]*shared
}

type shared struct {
	done chan struct{}
	tok  Token
	err  error
}

// start begins a run for key, or joins the one there is. A caller that gives
// up does not end the run for the others.
func (f *flight) start(ctx context.Context, key poolKey, fetch fetcher) (*shared, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return nil, errClosed
	}
	if s, running := f.calls[key]; running {
		return s, nil
	}
	s := &shared{done: make(chan struct{})}
	f.calls[key] = s
	f.runs.Add(1)
	go f.run(context.WithoutCancel(ctx), key, s, fetch)
	return s, nil
}

// run ends by fetchTimeout at the latest, or with the flight.
func (f *flight) run(ctx context.Context, key poolKey, s *shared, fetch fetcher) {
	defer f.runs.Done()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	s.tok, s.err = fetch(ctx)
	f.mu.Lock()
	delete(f.calls, key)
	f.mu.Unlock()
	close(s.done)
}

// wait returns what the run came to.
func (s *shared) wait(ctx context.Context) (Token, error) {
	select {
	case <-s.done:
		return s.tok, s.err
	case <-ctx.Done():
		return Token{}, ctx.Err()
	}
}

// close ends all runs and waits for them.
func (f *flight) close() {
	f.mu.Lock()
	f.stop()
	f.mu.Unlock()
	f.runs.Wait()
}
