// Package authzen decides calls by a remote decision point that speaks OpenID AuthZEN, the Access Evaluation API of Authorization API 1.0.
//
//	policy.Input ─Document─▶ POST /access/v1/evaluation ─▶ {"decision": true} ─▶ Decision
//
//	subject   {"type":"Agent", "id":"spiffe://…", "properties":{"trust_domain":…}}
//	action    {"name":"mcp:tools/call"}
//	resource  {"type":"Tool", "id":"pay/transfer", "properties":{"service":…, "name":…, "location":…}}
//	context   {"version":"lineal.input.v1", "chain":{…}, "env":{…}, "args":{…}, …}
//
// The parts are those of [policy.Input.Document]. A permit is `decision` true
// and a `context` that this side understands in full: the specification lets a
// decision point hand duties over in it, and a permit under a duty that is not
// carried out is none (§5.5 leaves that choice to the caller). Understood are
// `rules`, the ids of the determining rules; `policy_version`, which names the
// rules as a whole; and the texts `reason_admin` and `reason_user`, which are
// not kept.
//
// Anything else denies, with a text in Errors: a status but 200, a body that is
// too large or not strict JSON, no or another `decision`, an answer to another
// request, a deadline that passed (threat A7). Unknown members beside
// `decision` and `context` are ignored, as the specification demands.
//
// A Decider is no policy.Lister, and asks no metadata: the endpoint is
// configured. Arguments go to the decision point in clear.
package authzen

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/lineal-auth/lineal/internal/pdp"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
)

// Engine is the engine of every decision.
const Engine = "authzen/1.0"

// DefaultPath is the path of the Access Evaluation API where metadata names no
// other.
const DefaultPath = "/access/v1/evaluation"

// Config configures a Decider. URL is required.
type Config struct {
	// URL is the base URL of the decision point, to which DefaultPath is
	// appended, or, with a path, the access_evaluation_endpoint itself: https, or
	// http on a loopback address.
	URL string
	// Zone is of env.weekday and env.minute; nil is UTC.
	Zone *time.Location
	// Timeout bounds a question besides the context's deadline; default
	// [pdp.DefaultTimeout]. MaxResponse is the most bytes of an answer; default
	// [pdp.DefaultMaxResponse].
	Timeout     time.Duration
	MaxResponse int64
	// HTTP carries the questions; see [pdp.Config].
	HTTP *http.Client
	// Bearer gives the token that the decision point asks for; nil sends none.
	Bearer func(context.Context) (string, error)
	// NewID makes the X-Request-ID of a question; if nil, random text.
	NewID func() string
}

// Decider asks one decision point. It is safe for concurrent use.
type Decider struct {
	client *pdp.Client
	url    string
	zone   *time.Location
	newID  func() string
}

var _ policy.Decider = (*Decider)(nil)

// New checks the configuration; it asks nothing yet.
func New(cfg Config) (*Decider, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.RawQuery != "" {
		return nil, errors.New("authzen: the URL is malformed or has a query")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = DefaultPath
	}
	client, err := pdp.New(pdp.Config{
		URL: u.String(), HTTP: cfg.HTTP, Timeout: cfg.Timeout, MaxResponse: cfg.MaxResponse, Bearer: cfg.Bearer,
	})
	if err != nil {
		return nil, err
	}
	d := &Decider{client: client, url: u.String(), zone: cfg.Zone, newID: cfg.NewID}
	if d.newID == nil {
		d.newID = rand.Text
	}
	return d, nil
}

// Decide asks once. Whatever goes wrong is a deny with its text in Errors.
func (d *Decider) Decide(ctx context.Context, in policy.Input) policy.Decision {
	out := policy.Decision{Version: d.version("")}
	doc, err := in.Document(d.zone)
	if err != nil {
		out.Errors = []string{"request: " + err.Error()}
		return out
	}
	id := d.newID()
	answer, header, err := d.client.Ask(ctx, request(doc), http.Header{"X-Request-Id": {id}})
	if err == nil {
		out, err = d.read(answer, header, id)
	}
	if err != nil {
		return policy.Decision{Version: out.Version, Errors: []string{err.Error()}, Unavailable: pdp.Unavailable(err)}
	}
	return out
}

// request is an Access Evaluation request (Authorization API 1.0 §6.1).
func request(doc policy.Document) strictjson.Value {
	m := func(name string, v strictjson.Value) strictjson.Member {
		return strictjson.Member{Name: name, Value: v}
	}
	context := []strictjson.Member{m("version", strictjson.String(policy.DocumentVersion))}
	return strictjson.Object(
		m("subject", entity(doc.Principal)),
		m("action", strictjson.Object(m("name", strictjson.String(doc.Action)))),
		m("resource", entity(doc.Resource)),
		m("context", strictjson.Object(append(context, doc.Context.Members()...)...)),
	)
}

// entity is a Subject or Resource: type and id, the rest as properties.
func entity(v strictjson.Value) strictjson.Value {
	var top, properties []strictjson.Member
	for _, m := range v.Members() {
		if m.Name == "type" || m.Name == "id" {
			top = append(top, m)
		} else {
			properties = append(properties, m)
		}
	}
	return strictjson.Object(append(top, strictjson.Member{Name: "properties", Value: strictjson.Object(properties...)})...)
}

// read is what an answer says. With an error only the version counts.
func (d *Decider) read(answer strictjson.Value, header http.Header, id string) (out policy.Decision, err error) {
	out.Version = d.version("")
	if ids := header.Values("X-Request-Id"); len(ids) > 1 || (len(ids) == 1 && ids[0] != id) {
		return out, pdp.Malformed("it answers another request")
	}
	if strictjson.KnownOpen(answer, "decision", "context") != nil {
		return out, pdp.Malformed("a member is spelled like a known one")
	}
	decision, _ := answer.Get("decision")
	if decision.Kind() != strictjson.KindBool {
		return out, pdp.Malformed("decision is not a boolean")
	}
	if context, ok := answer.Get("context"); ok {
		if out, err = d.readContext(context, decision.Bool()); err != nil {
			return out, err
		}
	}
	if decision.Bool() {
		out.Effect = policy.Permit
	}
	return out, nil
}

var validVersion = regexp.MustCompile(`^[!-~]{1,256}$`)

// readContext reads what goes with a decision. Of a refusal it may hold
// anything, of a permit only what is understood.
func (d *Decider) readContext(context strictjson.Value, permit bool) (out policy.Decision, err error) {
	out.Version = d.version("")
	if context.Kind() != strictjson.KindObject {
		return out, pdp.Malformed("context is not an object")
	}
	if permit && strictjson.Known(context, "rules", "policy_version", "reason_admin", "reason_user") != nil {
		return out, pdp.Malformed("it permits under a condition that is not understood")
	}
	if v, ok := context.Get("policy_version"); ok {
		text, isText := v.Text()
		if !isText || !validVersion.MatchString(text) {
			return out, pdp.Malformed("policy_version is not a short text")
		}
		out.Version = d.version(text)
	}
	if rules, ok := context.Get("rules"); ok {
		if out.Rules, err = pdp.Rules(rules); err != nil {
			return out, err
		}
	}
	return out, nil
}

// version names the rules as far as the decision point did: its endpoint, and
// the version it states if it does.
func (d *Decider) version(stated string) policy.Version {
	statement := strictjson.Object(
		strictjson.Member{Name: "engine", Value: strictjson.String(Engine)},
		strictjson.Member{Name: "endpoint", Value: strictjson.String(d.url)},
		strictjson.Member{Name: "policy_version", Value: strictjson.String(stated)},
	)
	return policy.Version{Digest: pdp.Digest(statement), Engine: Engine, Reader: policy.ReaderVersion}
}
