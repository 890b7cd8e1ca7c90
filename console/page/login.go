package page

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/record"
)

// Person is who the provider says logged in.
type Person struct{ Issuer, Subject string }

// Login lets persons log in at an OpenID provider: authorization code, PKCE
// S256, state and nonce. All of it is required.
type Login struct {
	// Start gives the URL at which the person signs in.
	Start func(ctx context.Context, state, nonce, verifier string) (string, error)
	// Finish redeems the code and verifies the ID token. iss is the answer's, ""
	// if it had none. An error that wraps ErrProvider says nothing about the person.
	Finish func(ctx context.Context, code, iss, nonce, verifier string) (Person, error)
	// Reference gives the reference that stands for the person in records. Enabled
	// says whether the one behind a reference may take part.
	Reference func(ctx context.Context, p Person) (string, error)
	Enabled   func(ctx context.Context, ref string) bool
	// Role gives the role of a person; "" is RolePerson.
	Role func(p Person) string
	// Seal and Open keep what a login must know between its two requests, in a
	// cookie that nobody else can read or make.
	Seal func(plain []byte) (string, error)
	Open func(sealed string) ([]byte, error)
}

// ErrProvider says that the provider cannot be asked now.
var ErrProvider = errors.New("the provider cannot be asked")

func (l *Login) whole() bool {
	return l.Start != nil && l.Finish != nil && l.Reference != nil && l.Enabled != nil && l.Role != nil && l.Seal != nil && l.Open != nil
}

// loginCookie binds a login to the browser that began it.
const (
	loginCookie = "__Host-lineal-login"
	loginLife   = 10 * time.Minute
)

// begun is a login that was begun.
type begun struct {
	State, Nonce, Verifier, Next string
	At                           time.Time
}

// login sends the browser to the provider. It shows nothing, so it is no look.
func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	x := &request{Request: r, s: s}
	if s.cfg.Login == nil {
		x.refuse(ctx, w, refuse(console.CodeNotFound, "nobody logs in here"))
		return
	}
	b := begun{State: rand.Text(), Nonce: rand.Text(), Verifier: rand.Text() + rand.Text(), Next: local(r.URL.Query().Get("next")), At: s.cfg.Now()}
	to, err := s.cfg.Login.Start(ctx, b.State, b.Nonce, b.Verifier)
	if err != nil {
		x.refuse(ctx, w, refuse(codeProviderMissing, "%w", err))
		return
	}
	plain, err := json.Marshal(b)
	if err == nil {
		var sealed string
		if sealed, err = s.cfg.Login.Seal(plain); err == nil {
			http.SetCookie(w, cookie(loginCookie, sealed, int(loginLife/time.Second)))
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusSeeOther)
			return
		}
	}
	x.refuse(ctx, w, refuse(codeProviderMissing, "%w", err))
}

// callback ends a login. Who logged in is a record, and so is who did not.
func (s *Service) callback(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	x := &request{Request: r, s: s}
	http.SetCookie(w, cookie(loginCookie, "", -1))
	v, next, err := x.finish(ctx)
	if err == nil {
		x.viewer = v
		err = s.record(ctx, record.Record{Header: record.Header{Kind: record.KindQuery}, Query: &record.Query{
			By: v.by, Role: v.role, Question: "GET " + r.URL.Path, // without the code
		}})
	}
	if err != nil {
		x.refuse(ctx, w, err)
		return
	}
	http.SetCookie(w, s.sessions.begin(v))
	w.Header().Set("Location", next)
	w.WriteHeader(http.StatusSeeOther)
}

// finish says who logged in, and where the person wanted to go.
func (x *request) finish(ctx context.Context) (viewer, string, error) {
	l := x.s.cfg.Login
	if l == nil {
		return viewer{}, "", refuse(console.CodeNotFound, "nobody logs in here")
	}
	b, err := x.begun()
	if err != nil {
		return viewer{}, "", refuse(codeLoginExpired, "%w", err)
	}
	q := x.URL.Query()
	for name, values := range q {
		if len(values) != 1 {
			return viewer{}, "", refuse(codeLoginRefused, "%.40q is doubled", name)
		}
	}
	if q.Get("code") == "" {
		return viewer{}, "", refuse(codeLoginRefused, "the provider answers %.200q", q.Get("error"))
	}
	p, err := l.Finish(ctx, q.Get("code"), q.Get("iss"), b.Nonce, b.Verifier)
	if errors.Is(err, ErrProvider) {
		return viewer{}, "", refuse(codeProviderMissing, "%w", err)
	}
	if err != nil {
		return viewer{}, "", refuse(codeLoginRefused, "%w", err)
	}
	ref, err := l.Reference(ctx, p)
	if err != nil {
		return viewer{}, "", refuse(console.CodeIndexUnavailable, "%w", err)
	}
	if !l.Enabled(ctx, ref) {
		return viewer{}, "", refuse(codeLoginRefused, "the person is disabled")
	}
	v := viewer{by: ref, ref: ref, role: l.Role(p), name: p.Subject}
	if v.role == "" {
		v.role = RolePerson
	}
	return v, b.Next, nil
}

// begun is the login that this browser began, with this state.
func (x *request) begun() (begun, error) {
	c, err := x.Cookie(loginCookie)
	if err != nil {
		return begun{}, err
	}
	plain, err := x.s.cfg.Login.Open(c.Value)
	if err != nil {
		return begun{}, err
	}
	var b begun
	if err := json.Unmarshal(plain, &b); err != nil {
		return begun{}, err
	}
	if age := x.s.cfg.Now().Sub(b.At); age > loginLife || age < 0 {
		return begun{}, errors.New("it was begun too long ago")
	}
	if state := x.URL.Query().Get("state"); b.State == "" || subtle.ConstantTimeCompare([]byte(state), []byte(b.State)) != 1 {
		return begun{}, errors.New("the state is of another login")
	}
	return b, nil
}

// local is a page of ours to go to after a login; anything else is the first.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(next, Prefix) || strings.ContainsAny(next, "\\\r\n") {
		return Prefix
	}
	if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
		return Prefix
	}
	return u.RequestURI()
}

// logout ends the session.
func (s *Service) logout(_ context.Context, x *request) (answer, error) {
	return answer{send: func(w http.ResponseWriter) {
		s.sessions.end(x.viewer.session)
		http.SetCookie(w, cookie(sessionCookie, "", -1))
		w.Header().Set("Location", Prefix)
		w.WriteHeader(http.StatusSeeOther)
	}}, nil
}
