package page

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"sync"
	"time"
)

// sessions are the persons who are logged in. They are kept here and not in the
// cookie, so that who signs out is out; a restart signs everybody out.
type sessions struct {
	now func() time.Time

	mu   sync.Mutex // guards what follows
	open map[string]*session
}

// session is kept under the hash of its cookie.
type session struct {
	viewer      viewer
	begun, seen time.Time
}

const (
	sessionIdle = 30 * time.Minute
	sessionLife = 8 * time.Hour
	// mostSessions bounds the memory; the one that was idle for longest gives way.
	mostSessions = 10_000
	// sessionCookie is sent over TLS alone, to this host alone, by no page of
	// another site but for following a link, and no script reads it.
	sessionCookie = "__Host-lineal"
)

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, open: map[string]*session{}}
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// begin opens a session, and gives its cookie.
func (s *sessions) begin(v viewer) *http.Cookie {
	secret := rand.Text() + rand.Text() // 260 bits
	v.session = hashOf(secret)
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	s.open[v.session] = &session{viewer: v, begun: now, seen: now}
	return cookie(sessionCookie, secret, int(sessionLife/time.Second))
}

// sweep removes what has ended and, of too many, the one idle for longest.
func (s *sessions) sweep(now time.Time) {
	oldest := ""
	for name, x := range s.open {
		if x.ended(now) {
			delete(s.open, name)
		} else if oldest == "" || x.seen.Before(s.open[oldest].seen) {
			oldest = name
		}
	}
	if len(s.open) >= mostSessions {
		delete(s.open, oldest)
	}
}

func (x *session) ended(now time.Time) bool {
	return now.Sub(x.seen) > sessionIdle || now.Sub(x.begun) > sessionLife || now.Before(x.begun)
}

// of gives the viewer of a request's session.
func (s *sessions) of(r *http.Request) (viewer, bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return viewer{}, false
	}
	now, name := s.now(), hashOf(c.Value)
	s.mu.Lock()
	defer s.mu.Unlock()
	x, known := s.open[name]
	if !known {
		return viewer{}, false
	}
	if x.ended(now) {
		delete(s.open, name)
		return viewer{}, false
	}
	x.seen = now
	return x.viewer, true
}

// end ends a session.
func (s *sessions) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, name)
}

// cookie makes a cookie; a life of -1 removes it.
func cookie(name, value string, life int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: life, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// sessionOf gives the viewer of a request's session, as long as the person may
// take part.
func (s *Service) sessionOf(ctx context.Context, r *http.Request) (viewer, bool) {
	if s.cfg.Login == nil {
		return viewer{}, false
	}
	v, known := s.sessions.of(r)
	if known && !s.cfg.Login.Enabled(ctx, v.ref) {
		s.sessions.end(v.session)
		return viewer{}, false
	}
	return v, known
}
