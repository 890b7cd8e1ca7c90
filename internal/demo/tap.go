package demo

import (
	"context"
	"net/http"
	"strings"
	"sync"
)

// exchange is one HTTP exchange of an agent with the gateway, as the agent's
// own process sees it.
type exchange struct {
	url    string
	token  string // as presented: what an attacker finds in the memory of the agent
	id     string // Lineal-Request-Id, the call's id
	status int
	code   string // Lineal-Code, empty if the call was permitted
}

// tap watches an agent's requests on their way to the gateway. The story takes
// the ids of calls from it, and the attacks the tokens.
type tap struct {
	next http.RoundTripper

	mu   sync.Mutex          // guards what follows
	last map[string]exchange // by URL
}

func newTap(next http.RoundTripper) *tap { return &tap{next: next, last: map[string]exchange{}} }

func (t *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	x := exchange{
		url: r.URL.String(), token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
		id: resp.Header.Get("Lineal-Request-Id"), status: resp.StatusCode, code: resp.Header.Get("Lineal-Code"),
	}
	t.mu.Lock()
	t.last[x.url] = x
	t.mu.Unlock()
	if seen, ok := r.Context().Value(keySeen).(*seen); ok {
		seen.add(x)
	}
	return resp, nil
}

// at is the last exchange with a URL.
func (t *tap) at(url string) exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[url]
}

type contextKey int

const keySeen contextKey = iota

// seen collects the exchanges that one piece of work leads to.
type seen struct {
	mu  sync.Mutex // guards all
	all []exchange
}

func withSeen(ctx context.Context) (context.Context, *seen) {
	s := &seen{}
	return context.WithValue(ctx, keySeen, s), s
}

func (s *seen) add(x exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, x)
}

// last is the newest exchange, the zero value if there was none.
func (s *seen) last() exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return exchange{}
	}
	return s.all[len(s.all)-1]
}
