package server

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// console is what operators ask of the records, by program and by page.
func (s *Server) console(operators map[identity.Agent]admin.Role) (api, pages http.Handler, err error) {
	d := &liveDesk{dataDir: s.cfg.DataDir}
	s.opened = append(s.opened, d)
	recorder := adminRecorder{s.ledger}
	who := func(r *http.Request) console.Who {
		who, err := s.tokensID.Identify(r, s.now())
		if err != nil || who.Agent.IsZero() {
			return console.Who{}
		}
		return console.Who{By: who.Agent.String(), Role: string(operators[who.Agent])}
	}
	if pages, err = s.page(d, who); err != nil {
		return nil, nil, err
	}
	api, err = console.New(console.Config{
		Who:    who,
		Desk:   func(ctx context.Context) (console.Desk, error) { return d.current(ctx) },
		Record: func(ctx context.Context, rec record.Record) error { return recorder.Record(ctx, rec) },
		Logger: s.logger,
	})
	return api, pages, err
}

// liveDesk is a desk over this process's log. It is opened by the first question.
type liveDesk struct {
	dataDir string

	mu      sync.Mutex // guards what follows
	archive *Archive
	desk    *Desk
	closed  bool
}

// current follows the log up to its newest published checkpoint. Questions do
// not stop each other: one that went away leaves the index where it came.
func (l *liveDesk) current(ctx context.Context) (*search.Desk, error) {
	desk, archive, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	to, err := archive.asOf(ctx)
	if err != nil {
		return nil, err
	}
	return desk, desk.Follow(ctx, to)
}

func (l *liveDesk) open(ctx context.Context) (*search.Desk, *Archive, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, errors.New("the server is closing")
	}
	if l.desk == nil {
		long := context.WithoutCancel(ctx) // it outlives the question that opened it
		a, err := OpenArchive(long, l.dataDir)
		if err != nil {
			return nil, nil, err
		}
		d, err := a.openDesk(long)
		if err != nil {
			return nil, nil, errors.Join(err, a.Close())
		}
		l.archive, l.desk = a, d
	}
	return l.desk.Desk, l.archive, nil
}

// Close waits for no question: the listeners have ended before.
func (l *liveDesk) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.desk == nil {
		return nil
	}
	return errors.Join(l.desk.Close(), l.archive.Close())
}
