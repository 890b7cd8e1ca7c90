package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// seenCheckpoint is the newest published checkpoint that this process knows of
// its log, for what is signed at each call: the store is asked beside the calls,
// and not for each. It never goes back: where the store does, because somebody put
// an older copy in its place, the larger tree that was seen is what is true.
type seenCheckpoint struct {
	newest atomic.Pointer[ledger.Checkpoint]
}

// seenEvery is the time between two looks; a checkpoint is published about as
// often.
const seenEvery = time.Second

// body is the checkpoint as records name it, "" if none was seen.
func (s *seenCheckpoint) body() string {
	c := s.newest.Load()
	if c == nil {
		return ""
	}
	return bodyOf(*c)
}

// look asks the store. What it does not say now stays as it was.
func (s *seenCheckpoint) look(ctx context.Context, l *ledgerService) {
	c, err := l.published(ctx)
	if err != nil {
		return
	}
	if old := s.newest.Load(); old == nil || old.Origin != c.Origin || old.Size < c.Size {
		s.newest.Store(&c)
	}
}

// follow looks until ctx ends. It is the one that looks.
func (s *seenCheckpoint) follow(ctx context.Context, l *ledgerService) {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.look(ctx, l)
		}
	}
}
