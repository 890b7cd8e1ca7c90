// Package page is the auditor's web page over search and evidence.
//
//	certificate or login ─▶ viewer ─▶ question ─▶ desk, narrowed to the viewer ─▶ record ─▶ HTML
//	                         └──────────┴─────────────┴──▶ refusal, recorded
//
//	/ui/                      actions as they happen, with filters and a histogram
//	/ui/actions/{id}          one action: a sentence, its chain, the rule, its evidence
//	/ui/entries/{index}       one record of any kind
//	/ui/persons/{ref}, /ui/me what was done in a person's name
//	/ui/agents?id=URI         what an agent did
//	/ui/transactions/{id}     the calls of a transaction as they ran
//	/ui/reports, /ui/health   reports over the whole log; the state of the log
//	/ui/export                records that were chosen, as an evidence bundle
//	/ui/login, /ui/logout     a person's session
//
// The page is rendered here and works without a script; the one script on it
// checks evidence in the browser and follows what happens. Nothing is fetched
// from elsewhere, and the content security policy allows nothing else.
//
// It promises that nobody is told anything without a record of who asked what
// before it; that a person without an auditor's role is told only of calls in the
// person's own name, whichever page, id or filter is asked for (threat L9); and
// that whatever a record quotes stays text (threats L7, O8). It changes nothing
// but sessions, which are in memory and end with the process, and it does not
// listen: it belongs on the operators' listener (threat O2).
package page

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// Prefix is where the page is.
const Prefix = "/ui/"

// Desk answers questions; a [search.Desk] does.
type Desk interface {
	console.Desk
	Histogram(ctx context.Context, f search.Filter, bins int) (search.Histogram, error)
}

// The roles. An auditor and an operator see every record, a person only what was
// done in the person's own name.
const (
	RoleAuditor  = "auditor"
	RoleOperator = "operator"
	RolePerson   = "person"
)

// Rule is a rule of the policy in force at a decision.
type Rule struct {
	ID, File string
	Line     int
	Text     string
}

// Explanation is why policy answered as it did, as far as that is kept.
type Explanation struct {
	Rules []Rule
	// Again is what the same rules answer to the same question now, "same" or
	// "different"; "" where it cannot be put again.
	Again string
	// Missing is what is not at hand.
	Missing []string
}

// Selection is what a bundle is to hold: records by their ids, with what they
// rest on. Policies says that the rules are wanted with them.
type Selection struct {
	IDs      []string
	Policies bool
}

// Health is the state of the process and its log.
type Health struct {
	Ready   bool
	Checks  map[string]string // "ok" or "failed" by part
	Version string
	Build   string
	Node    string
	Policy  struct {
		Digest, Engine string
		Serial         int64
	}
	Checkpoint struct {
		Origin, Root string
		Size         int64
		Published    time.Time
		Note         string // with all signatures
	}
	// Certificates end then, by name of the service.
	Certificates map[string]time.Time
	// RevocationAge is how old the knowledge of revocations is, negative where
	// there is none.
	RevocationAge time.Duration
}

// Config configures a Service. What is not said to have a default is required.
type Config struct {
	// Who says which workload is on the connection, and its role.
	Who func(r *http.Request) console.Who
	// Desk gives a desk that holds up to the newest published checkpoint.
	Desk func(ctx context.Context) (Desk, error)
	// Record returns after rec is durable, else with an error. It fills in rec's
	// head but for its kind, and a query's as_of.
	Record func(ctx context.Context, rec record.Record) error
	// Explain says why a decision was made, by its record id.
	Explain func(ctx context.Context, id string) (Explanation, error)
	// Export writes the evidence bundle of a selection.
	Export func(ctx context.Context, w io.Writer, sel Selection) error
	// Trust is the policy file that a verifier of this log needs.
	Trust func() (string, error)
	// Health says how things are.
	Health func(ctx context.Context) (Health, error)

	// URL is where browsers find the page, scheme and host; "": anywhere.
	URL string
	// Login lets persons log in; nil: workloads alone see the page.
	Login *Login

	// RecordTimeout bounds the wait for durability; zero: 2 s.
	RecordTimeout time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger gets one line per request; nil: none.
	Logger *slog.Logger
}

// Service serves the page. It is safe for concurrent use, starts no goroutine
// and needs no closing.
type Service struct {
	cfg      Config
	mux      *http.ServeMux
	assets   assets
	sessions *sessions
	secret   [32]byte // of form tokens; ends with the process
	cross    *http.CrossOriginProtection
	// reporting holds a token while a report or an export reads the log.
	reporting chan struct{}
}

// New checks the configuration and builds a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Who == nil || cfg.Desk == nil || cfg.Record == nil || cfg.Explain == nil || cfg.Export == nil || cfg.Trust == nil || cfg.Health == nil {
		return nil, errors.New("making page: a required part is missing")
	}
	if cfg.Login != nil && (!cfg.Login.whole() || cfg.URL == "") {
		return nil, errors.New("making page: a login needs all of its parts, and the page's URL")
	}
	if cfg.RecordTimeout <= 0 {
		cfg.RecordTimeout = 2 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg: cfg, mux: http.NewServeMux(), sessions: newSessions(cfg.Now), cross: http.NewCrossOriginProtection(), reporting: make(chan struct{}, 1),
	}
	if _, err := rand.Read(s.secret[:]); err != nil {
		return nil, err
	}
	var err error
	if s.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

// routes is the whole page.
func (s *Service) routes() {
	for pattern, v := range map[string]view{
		"GET /ui/{$}":                        s.actions,
		"GET /ui/actions/{id}":               s.action,
		"GET /ui/actions/{id}/evidence":      s.actionEvidence,
		"GET /ui/entries/{index}":            s.entry,
		"GET /ui/trust":                      s.trust,
		"GET /ui/me":                         s.me,
		"GET /ui/persons/{ref}":              s.personOf,
		"GET /ui/agents":                     s.agent,
		"GET /ui/transactions/{id}":          s.transaction,
		"GET /ui/transactions/{id}/evidence": s.transactionEvidence,
		"GET /ui/reports":                    s.reports,
		"GET /ui/reports/{name}":             s.report,
		"GET /ui/health":                     s.health,
		"POST /ui/export":                    s.export,
		"POST /ui/logout":                    s.logout,
		"GET /{$}":                           home,
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, v) })
	}
	s.mux.HandleFunc("GET /ui/login", s.login)
	s.mux.HandleFunc("GET /ui/login/callback", s.callback)
	s.mux.HandleFunc("GET /ui/static/{version}/{name}", s.assets.serve)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, nowhere) })
}

// policy is the content security policy: our own files and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP answers one request below [Prefix]. Every one but for the files of
// the page itself is recorded, or the answer is 503.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // else a form of ours has no origin
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if clean := path.Clean(r.URL.Path); clean != r.URL.Path && clean+"/" != r.URL.Path { // which the mux would redirect, past the record
		s.serve(w, r, nowhere)
		return
	}
	if u, err := url.Parse(s.cfg.URL); s.cfg.URL != "" && (err != nil || u.Host != r.Host) {
		s.serve(w, r, func(context.Context, *request) (answer, error) {
			return answer{}, refuse(codeHostRefused, "host %.200q", r.Host)
		})
		return
	}
	s.mux.ServeHTTP(w, r)
}

// request is a question on its way.
type request struct {
	*http.Request

	s      *Service
	viewer viewer
	desk   Desk
}

// answer is what a view found: a template with its data, or what send writes;
// and how many records it cites.
type answer struct {
	template, title string
	// tab is the entry of the navigation, "" for that of the template.
	tab   string
	data  any
	cites int
	send  func(w http.ResponseWriter)
}

// view answers a question.
type view func(ctx context.Context, x *request) (answer, error)

// nowhere is a path that there is not.
func nowhere(context.Context, *request) (answer, error) {
	return answer{}, refuse(console.CodeNotFound, "no such page")
}

// home leads from the root of the listener to the page.
func home(context.Context, *request) (answer, error) {
	return answer{send: func(w http.ResponseWriter) {
		w.Header().Set("Location", Prefix)
		w.WriteHeader(http.StatusFound)
	}}, nil
}

// serve identifies first: who has no role learns nothing of what there is.
func (s *Service) serve(w http.ResponseWriter, r *http.Request, v view) {
	ctx := r.Context()
	x := &request{Request: r, s: s, viewer: s.viewerOf(r)}
	found, err := x.ask(ctx, v)
	if err != nil {
		x.refuse(ctx, w, err)
		return
	}
	s.cfg.Logger.InfoContext(ctx, "the page was looked at", slog.String("by", x.viewer.by), slog.String("path", r.URL.Path))
	if found.send != nil {
		found.send(w)
		return
	}
	x.render(ctx, w, http.StatusOK, found)
}

func (x *request) ask(ctx context.Context, v view) (answer, error) {
	switch {
	case x.viewer.by == "":
		return answer{}, refuse(console.CodeIdentityMissing, "nobody is named")
	case x.viewer.role == "":
		return answer{}, refuse(console.CodeNotOperator, "%s", x.viewer.by)
	}
	if x.Method != http.MethodGet && x.Method != http.MethodHead {
		if err := x.own(); err != nil {
			return answer{}, err
		}
	}
	desk, err := x.s.cfg.Desk(ctx)
	if err != nil {
		return answer{}, refuse(console.CodeIndexUnavailable, "%w", err)
	}
	x.desk = x.viewer.narrow(desk)
	found, err := v(ctx, x)
	if err != nil {
		return answer{}, err
	}
	return found, x.s.record(ctx, record.Record{Header: record.Header{Kind: record.KindQuery}, Query: &record.Query{
		By: x.viewer.by, Role: x.viewer.role, Question: x.line(), Count: int64(found.cites),
	}})
}

// own holds a request that is more than a look to the form it must come from:
// of this page, and made for this viewer.
func (x *request) own() error {
	if err := x.s.cross.Check(x.Request); err != nil {
		return refuse(console.CodeOriginRefused, "%w", err)
	}
	x.Body = http.MaxBytesReader(nil, x.Body, maxForm)
	if err := x.ParseForm(); err != nil {
		return refuse(console.CodeParameterInvalid, "the form cannot be read")
	}
	if !hmac.Equal([]byte(x.PostForm.Get("token")), []byte(x.formToken())) {
		return refuse(codeFormRefused, "no token of this viewer's")
	}
	return nil
}

const maxForm = 64 << 10

// formToken is what a form of this viewer carries: a page elsewhere cannot know
// it.
func (x *request) formToken() string {
	mac := hmac.New(sha256.New, x.s.secret[:])
	mac.Write([]byte("form\x00" + x.viewer.by + "\x00" + x.viewer.session))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// maxLine bounds the question in its record.
const maxLine = 2048

func (x *request) line() string {
	line := x.Method + " " + x.URL.RequestURI()
	if ids := x.PostForm["id"]; len(ids) > 0 {
		line += " " + strings.Join(ids, " ")
	}
	return strings.ToValidUTF8(line[:min(len(line), maxLine)], "")
}

// record waits no longer than allowed, and does not stop because the viewer went.
func (s *Service) record(ctx context.Context, rec record.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RecordTimeout)
	defer cancel()
	if err := s.cfg.Record(ctx, rec); err != nil {
		return refuse(console.CodeLedgerUnavailable, "%w", err)
	}
	return nil
}
