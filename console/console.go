// Package console is the HTTP API over search: what auditors ask of the records.
//
//	auditor's certificate ─▶ who ─▶ question ─▶ index, brought up to date ─▶ record ─▶ answer
//	                          └────────┴───────────┴──▶ refusal, recorded
//
//	GET /v1/records               a page of records that match
//	GET /v1/records/{id}          the records that an id names
//	GET /v1/records/{id}/trace    how a call came about, or all calls of a transaction
//	GET /v1/reports/{name}        a report over the whole log
//
// Who asks is what the connection proves; the caller of this package says who
// that is and which role it has. Both roles of operators may ask.
//
// It promises that nobody is told anything without a record of who asked what
// before it, and that each answer says as of which checkpoint it holds. It
// changes nothing, keeps no session, serves no page for browsers (console/page
// does), and does not listen: it belongs on the operators' listener (threat O2).
package console

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/lineal-auth/lineal/internal/refusal"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// OpenAPI describes the API, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Desk answers questions; a [search.Desk] does.
type Desk interface {
	Records(ctx context.Context, f search.Filter) (search.Page, error)
	Find(ctx context.Context, id string) ([]search.Entry, error)
	Trace(ctx context.Context, id string) (search.Lineage, error)
	Tell(ctx context.Context, f search.Filter, limit int) (search.Stories, error)
	Report(ctx context.Context, name string, cfg search.ReportConfig) (search.Report, error)
	AsOf() (a search.AsOf, complete bool)
}

// Who is on the connection: the workload that it proves, and the role that the
// configuration gives it; empty where there is none.
type Who struct{ By, Role string }

// Config configures a Service. What is not said to have a default is required.
type Config struct {
	// Who says who asks.
	Who func(r *http.Request) Who
	// Desk gives a desk that holds up to the newest published checkpoint.
	Desk func(ctx context.Context) (Desk, error)
	// Record returns after rec is durable, else with an error. It fills in rec's
	// head but for its kind, and a query's as_of.
	Record func(ctx context.Context, rec record.Record) error

	// RecordTimeout bounds the wait for durability; zero: 2 s.
	RecordTimeout time.Duration
	// Logger gets one line per request; nil: none.
	Logger *slog.Logger
}

// Service serves the API. It is safe for concurrent use, starts no goroutine and
// needs no closing.
type Service struct {
	cfg Config
	mux *http.ServeMux
	// reporting holds a token while a report reads the log: one at a time.
	reporting chan struct{}
}

// New checks the configuration and builds a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Who == nil || cfg.Desk == nil || cfg.Record == nil {
		return nil, errors.New("making console: who asks, the desk and the recorder are required")
	}
	if cfg.RecordTimeout <= 0 {
		cfg.RecordTimeout = 2 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, mux: http.NewServeMux(), reporting: make(chan struct{}, 1)}
	for path, q := range questions {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, q) })
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, nowhere) })
	return s, nil
}

// ServeHTTP answers one request. Every one is recorded, or the answer is 503.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if path.Clean(r.URL.Path) != r.URL.Path { // which the mux would redirect, past the record
		s.serve(w, r, nowhere)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// nowhere is a path that there is not.
func nowhere(context.Context, *request) (any, int, error) {
	return nil, 0, refuse(CodeNotFound, "no such path")
}

// request is a question on its way.
type request struct {
	*http.Request

	s    *Service
	who  Who
	desk Desk
}

// question answers with what is sent, and how many records that cites.
type question func(ctx context.Context, r *request) (answer any, cites int, err error)

// serve identifies first: who has no role learns nothing of what there is.
func (s *Service) serve(w http.ResponseWriter, r *http.Request, q question) {
	ctx := r.Context()
	x := &request{Request: r, s: s, who: s.cfg.Who(r)}
	answer, err := x.ask(ctx, q)
	if err != nil {
		x.refuse(ctx, w, err)
		return
	}
	s.cfg.Logger.InfoContext(ctx, "records were read", slog.String("by", x.who.By), slog.String("path", r.URL.Path))
	refusal.WriteJSON(w, http.StatusOK, answer)
}

func (x *request) ask(ctx context.Context, q question) (any, error) {
	switch {
	case x.who.By == "":
		return nil, refuse(CodeIdentityMissing, "nobody is named")
	case x.who.Role == "":
		return nil, refuse(CodeNotOperator, "%s", x.who.By)
	case len(x.Header.Values("Origin")) > 0: // a browser that holds an auditor's certificate
		return nil, refuse(CodeOriginRefused, "a request from %q", x.Header.Get("Origin"))
	case x.Method != http.MethodGet:
		return nil, refuse(CodeMethodNotAllowed, "%s", x.Method)
	}
	var err error
	if x.desk, err = x.s.cfg.Desk(ctx); err != nil {
		return nil, refuse(CodeIndexUnavailable, "%w", err)
	}
	answer, cites, err := q(ctx, x)
	if err != nil {
		return nil, err
	}
	return answer, x.s.record(ctx, record.Record{Header: record.Header{Kind: record.KindQuery}, Query: &record.Query{
		By: x.who.By, Role: x.who.Role, Question: x.line(), Count: int64(cites),
	}})
}

// maxLine bounds the question in its record.
const maxLine = 2048

func (x *request) line() string {
	line := x.Method + " " + x.URL.RequestURI()
	return line[:min(len(line), maxLine)]
}

// record waits no longer than allowed, and does not stop because the caller went.
func (s *Service) record(ctx context.Context, rec record.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RecordTimeout)
	defer cancel()
	if err := s.cfg.Record(ctx, rec); err != nil {
		return refuse(CodeLedgerUnavailable, "%w", err)
	}
	return nil
}
