package cedar

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lineal-auth/lineal/policy"
)

// Live is the engine in force, and one on trial. A call reads the pointer once,
// so that all of it is decided by one version (threat A6). It is safe for
// concurrent use; the zero value denies everything.
type Live struct {
	key     ed25519.PublicKey
	current atomic.Pointer[Engine]
	shadow  atomic.Pointer[Engine]
	swap    sync.Mutex // one swap at a time; guards nothing that a call reads
}

var (
	_ policy.Decider = (*Live)(nil)
	_ policy.Lister  = (*Live)(nil)
)

// NewLive starts with the bundle in archive; without a sound one there is no
// start (threat A1). Later bundles must be signed by the same key.
func NewLive(archive []byte, key ed25519.PublicKey, minSerial int64) (*Live, error) {
	e, err := Load(archive, key, minSerial)
	if err != nil {
		return nil, err
	}
	l := &Live{key: key}
	l.current.Store(e)
	return l, nil
}

// Swap puts another bundle in force. Its serial must be higher, or it must be
// the very bundle in force. On an error, a *LoadError, the last good one stays;
// the caller raises the alarm.
func (l *Live) Swap(archive []byte) error {
	return l.SwapAfter(archive, func(*Engine) error { return nil })
}

// SwapAfter is Swap with something to do between: before is called with the
// engine of another bundle once it is known to be sound, and before it decides
// anything. If it fails, the last good one stays.
func (l *Live) SwapAfter(archive []byte, before func(*Engine) error) error {
	l.swap.Lock()
	defer l.swap.Unlock()
	now := l.current.Load()
	if now == nil {
		return refuse(CodeSignature, "", errors.New("no key: use NewLive"))
	}
	e, err := Load(archive, l.key, now.version.Serial)
	if err != nil {
		return err
	}
	if e.version.Serial == now.version.Serial && e.version.Digest != now.version.Digest {
		return refuse(CodeSerial, "", fmt.Errorf("serial %d is in force with other content", e.version.Serial))
	}
	if e.version.Digest == now.version.Digest {
		return nil
	}
	if err := before(e); err != nil {
		return err
	}
	l.current.Store(e)
	return nil
}

// SetShadow puts a bundle on trial: it is evaluated after the one in force and
// changes nothing. nil ends the trial.
func (l *Live) SetShadow(archive []byte) error {
	l.swap.Lock()
	defer l.swap.Unlock()
	if archive == nil {
		l.shadow.Store(nil)
		return nil
	}
	e, err := Load(archive, l.key, 0)
	if err != nil {
		return err
	}
	l.shadow.Store(e)
	return nil
}

// Shadow is the engine on trial, nil if there is none.
func (l *Live) Shadow() *Engine { return l.shadow.Load() }

// Engine is the engine in force, nil for the zero value.
func (l *Live) Engine() *Engine { return l.current.Load() }

// Decide asks the engine in force, then the one on trial.
func (l *Live) Decide(ctx context.Context, in policy.Input) policy.Decision {
	e := l.current.Load()
	if e == nil {
		return policy.Decision{Errors: []string{"request: no policy is loaded"}}
	}
	d := e.Decide(ctx, in)
	if s := l.shadow.Load(); s != nil {
		trial := s.Decide(ctx, in)
		d.Shadow = &trial
	}
	return d
}

// Listed asks the engine in force.
func (l *Live) Listed(ctx context.Context, in policy.Input) bool {
	e := l.current.Load()
	return e != nil && e.Listed(ctx, in)
}
