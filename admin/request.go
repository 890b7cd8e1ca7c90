package admin

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/internal/query"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
)

const (
	prefix      = "/admin/v1/"
	maxBody     = 64 << 10
	maxTarget   = 2048
	defaultPage = 100
	maxPage     = 1000
)

// request is one request on its way.
type request struct {
	s *Service
	r *http.Request
	w http.ResponseWriter

	kind    registry.EntryKind // of the entries that the path names
	id      string             // of the one entry, "" for all
	account record.Registry    // what is recorded if it is refused, or changes something
	allow   string             // the methods of the path, for a refused one
}

// operation is what a method does at a path.
type operation struct {
	op    record.RegistryOp
	needs Role
	run   func(*request, context.Context) (answer, error)
}

type collection struct {
	entry record.RegistryEntry
	kind  registry.EntryKind // "" for what is no entry of the directory
	all   map[string]operation
	one   map[string]operation
}

// collections is the whole API.
var collections = map[string]collection{
	"agents":    entries(record.EntryAgent, registry.EntryAgent),
	"resources": entries(record.EntryResource, registry.EntryResource),
	"issuers":   entries(record.EntryIssuer, registry.EntryIssuer),
	"clients":   entries(record.EntryClient, registry.EntryClient),
	"revocations": {entry: record.EntryRevocation, all: map[string]operation{
		http.MethodGet:  {record.RegistryRead, Auditor, (*request).listRevocations},
		http.MethodPost: {record.RegistryRevoke, Operator, (*request).revoke},
	}},
	"writers": {
		entry: record.EntryWriter,
		all:   map[string]operation{http.MethodGet: {record.RegistryRead, Auditor, (*request).listWriters}},
		one:   map[string]operation{http.MethodPost: {record.RegistryChange, Operator, (*request).changeWriter}},
	},
	"status": {entry: record.EntryStatus, all: map[string]operation{
		http.MethodGet: {record.RegistryRead, Auditor, (*request).status},
	}},
}

func entries(entry record.RegistryEntry, kind registry.EntryKind) collection {
	return collection{
		entry: entry, kind: kind,
		all: map[string]operation{http.MethodGet: {record.RegistryRead, Auditor, (*request).list}},
		one: map[string]operation{
			http.MethodGet:    {record.RegistryRead, Auditor, (*request).get},
			http.MethodPut:    {record.RegistryChange, Operator, (*request).put},
			http.MethodDelete: {record.RegistryRemove, Operator, (*request).remove},
		},
	}
}

// serve identifies first: who is no operator learns nothing of what there is.
func (x *request) serve(ctx context.Context) (answer, error) {
	op, unknown := x.route()
	if err := x.identify(); err != nil {
		return answer{}, err
	}
	if len(x.r.Header.Values("Origin")) > 0 { // a browser that holds an operator's certificate
		return answer{}, refuse(CodeOriginRefused, "a request from %q", x.r.Header.Get("Origin"))
	}
	if unknown != nil {
		return answer{}, unknown
	}
	if op.needs == Operator && Role(x.account.Role) != Operator {
		return answer{}, refuse(CodeRoleInsufficient, "%s may not %s", x.account.Role, op.op)
	}
	return op.run(x, ctx)
}

// route finds the operation and fills the account with what the request is for.
func (x *request) route() (operation, error) {
	path, ok := strings.CutPrefix(x.r.URL.EscapedPath(), prefix)
	name, rest, item := strings.Cut(path, "/")
	c, known := collections[name]
	if !ok || !known {
		return operation{}, refuse(CodeNotFound, "no such path")
	}
	x.kind, x.account.Entry = c.kind, c.entry
	at := c.all
	if item {
		id, err := url.PathUnescape(rest)
		if err != nil || rest == "" || strings.Contains(rest, "/") || c.one == nil {
			return operation{}, refuse(CodeNotFound, "no such path")
		}
		if len(id) <= maxTarget && strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0 {
			x.account.Target = id
		}
		at, x.id = c.one, id
	}
	op, ok := at[x.r.Method]
	if !ok {
		var methods []string
		for m := range at {
			methods = append(methods, m)
		}
		slices.Sort(methods)
		x.allow = strings.Join(methods, ", ")
		return operation{}, refuse(CodeMethodNotAllowed, "%s", x.r.Method)
	}
	x.account.Op = op.op
	return op, nil
}

// identify says who calls, by the certificate of the connection alone.
func (x *request) identify() error {
	w, err := x.s.cfg.Source.Identify(x.r, x.s.cfg.Now())
	if err != nil {
		return refuse(CodeIdentityMissing, "%w", err)
	}
	if w.Agent.IsZero() {
		return refuse(CodeIdentityMissing, "nobody is named")
	}
	x.account.By = w.Agent.String()
	role, ok := x.s.cfg.Operators[w.Agent]
	if !ok {
		return refuse(CodeNotOperator, "%s", w.Agent)
	}
	x.account.Role = string(role)
	return nil
}

// record makes the account durable, or for a query what was asked and how much
// was told.
func (x *request) record(ctx context.Context, kind record.Kind, documents ...[]byte) error {
	account := x.account
	return x.s.append(ctx, record.Record{Header: record.Header{Kind: kind}, Registry: &account}, documents...)
}

// tell records that count entries are told, before they are.
func (x *request) tell(ctx context.Context, count int) error {
	question := x.r.Method + " " + x.r.URL.RequestURI()
	if len(question) > maxTarget {
		question = question[:maxTarget]
	}
	return x.s.append(ctx, record.Record{Header: record.Header{Kind: record.KindQuery}, Query: &record.Query{
		By: x.account.By, Role: x.account.Role, Question: question, Count: int64(count),
	}})
}

// append waits no longer than allowed, and does not stop because the caller went.
func (s *Service) append(ctx context.Context, rec record.Record, documents ...[]byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RecordTimeout)
	defer cancel()
	if err := s.cfg.Recorder.Record(ctx, rec, documents...); err != nil {
		return refuse(CodeLedgerUnavailable, "%w", err)
	}
	return nil
}

// parameters takes each of names at most once, and nothing else.
func (x *request) parameters(names ...string) (url.Values, error) {
	q, err := query.Parse(x.r.URL.RawQuery, names...)
	if err != nil {
		return nil, refuse(CodeParameterInvalid, "%w", err)
	}
	return q, nil
}

// limit is the size of a page.
func limit(q url.Values) (int, error) {
	n, err := query.Number(q, "limit", 1, maxPage, defaultPage)
	if err != nil {
		return 0, refuse(CodeParameterInvalid, "%w", err)
	}
	return int(n), nil
}

// body reads the document that was sent.
func (x *request) body() ([]byte, error) {
	media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || len(x.r.Header.Values("Content-Type")) != 1 || x.r.Header.Get("Content-Encoding") != "" {
		return nil, refuse(CodeMediaType, "content type %.80q", x.r.Header.Get("Content-Type"))
	}
	b, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refuse(CodeTooLarge, "more than %d bytes", maxBody)
	case err != nil:
		return nil, refuse(CodeBodyInvalid, "the body ended early")
	}
	return b, nil
}

// precondition is the state of an entry that the caller changes: its revision,
// or 0 where there must be none.
func (x *request) precondition() (revision int64, err error) {
	match, none := x.r.Header.Values("If-Match"), x.r.Header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return 0, refuse(CodePreconditionMissing, "neither If-Match nor If-None-Match")
	case len(match) == 0 && len(none) == 1 && none[0] == "*":
		return 0, nil
	case len(match) != 1 || len(none) != 0:
		return 0, refuse(CodeParameterInvalid, "If-Match and If-None-Match name more than one state")
	}
	text, ok := strings.CutPrefix(match[0], `"`)
	if ok {
		text, ok = strings.CutSuffix(text, `"`)
	}
	revision, err = strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || revision < 1 || tag(revision) != match[0] {
		return 0, refuse(CodeParameterInvalid, "If-Match is no ETag of an entry")
	}
	return revision, nil
}

// tag is the ETag of an entry.
func tag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }
