package client

import (
	"container/list"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/token"
)

// poolKey says which token serves a call. The parent implies person and
// chain; the certificate is what the token is bound to (threat X14).
type poolKey struct {
	parent      token.Raw
	audience    string
	details     string
	certificate string
}

type pooled struct {
	key   poolKey
	tok   Token
	until time.Time // when it is exchanged anew
}

// pool keeps tokens until a random 70 to 85 % of their life, never past their
// parent, the most recently used first.
type pool struct {
	most  int
	now   func() time.Time
	group onceGroup

	mu    sync.Mutex // guards order and byKey
	order *list.List
	byKey map[poolKey]*list.Element
}

func newPool(most int, now func() time.Time) *pool {
	return &pool{
		most: most, now: now, group: onceGroup{calls: make(map[poolKey]*shared)},
		order: list.New(), byKey: make(map[poolKey]*list.Element),
	}
}

func (p *pool) get(ctx context.Context, key poolKey, parentEnds time.Time, fetch func(context.Context) (Token, error)) (Token, error) {
	if tok, ok := p.lookUp(key); ok {
		return tok, nil
	}
	return p.group.do(ctx, key, func(ctx context.Context) (Token, error) {
		if tok, ok := p.lookUp(key); ok { // another run ended between look-up and here
			return tok, nil
		}
		tok, err := fetch(ctx)
		if err == nil {
			p.put(key, tok, parentEnds)
		}
		return tok, err
	})
}

func (p *pool) lookUp(key poolKey) (Token, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.byKey[key]
	if !ok {
		return Token{}, false
	}
	entry, _ := e.Value.(*pooled)
	if !p.now().Before(entry.until) {
		p.remove(e)
		return Token{}, false
	}
	p.order.MoveToFront(e)
	return entry.tok, true
}

func (p *pool) put(key poolKey, tok Token, parentEnds time.Time) {
	now := p.now()
	life := tok.Expires.Sub(now)
	//nolint:gosec // jitter spreads refreshes; nothing rests on its being unguessable
	until := now.Add(time.Duration(float64(life) * (0.70 + 0.15*rand.Float64())))
	if parentEnds.Before(until) {
		until = parentEnds
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.byKey[key]; ok {
		p.remove(e)
	}
	p.byKey[key] = p.order.PushFront(&pooled{key: key, tok: tok, until: until})
	for p.order.Len() > p.most {
		p.remove(p.order.Back())
	}
}

// drop forgets a token that was refused.
func (p *pool) drop(raw token.Raw) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.order.Front(); e != nil; e = e.Next() {
		if entry, _ := e.Value.(*pooled); entry.tok.Raw == raw {
			p.remove(e)
			return
		}
	}
}

// remove needs p.mu.
func (p *pool) remove(e *list.Element) {
	entry, _ := e.Value.(*pooled)
	delete(p.byKey, entry.key)
	p.order.Remove(e)
}
