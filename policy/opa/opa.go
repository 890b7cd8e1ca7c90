// Package opa decides calls by rules in an Open Policy Agent, over its REST API.
//
//	policy.Input ─Document─▶ POST /v1/data/<path>?provenance=true {"input": …} ─▶ {"result": …} ─▶ Decision
//
// A [Decider] sends the documented JSON form of the question
// ([policy.Input.Document]) and takes one of two results:
//
//	true | false                                    of a rule such as `allow`
//	{"allow": true, "rules": ["finance-db-read"]}   of a rule that also says why
//
// Anything else denies, with a text in Errors: no result because the rule is
// undefined, a result of another form, a status but 200, a body that is too
// large or not strict JSON, a deadline that passed (threat A7). Nothing is
// retried or cached.
//
// The version of a decision is as much as OPA says: its own version as the
// engine, and as digest that of the path asked and the revisions of its
// bundles. Where OPA serves no bundle or could not be asked, the digest names
// the path alone, and says nothing about the rules behind it.
//
// A Decider is no policy.Lister: OPA is asked about calls, and a list shows
// what scope covers. Arguments go to OPA in clear; run it as near as the
// gateway itself.
package opa

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/pdp"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
)

// Config configures a Decider. URL and Path are required.
type Config struct {
	// URL is OPA's base URL: https, or http on a loopback address.
	URL string
	// Path is the rule below `data`, "lineal/decision".
	Path string
	// Zone is of env.weekday and env.minute; nil is UTC.
	Zone *time.Location
	// Timeout bounds a question besides the context's deadline; default
	// [pdp.DefaultTimeout]. MaxResponse is the most bytes of an answer; default
	// [pdp.DefaultMaxResponse].
	Timeout     time.Duration
	MaxResponse int64
	// HTTP carries the questions; see [pdp.Config].
	HTTP *http.Client
	// Bearer gives the token that OPA's own authentication asks for; nil sends none.
	Bearer func(context.Context) (string, error)
}

// Decider asks one rule of one OPA. It is safe for concurrent use.
type Decider struct {
	client *pdp.Client
	path   string
	zone   *time.Location
}

var _ policy.Decider = (*Decider)(nil)

// validPath is a path of packages and a rule.
var validPath = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)+$`)

// New checks the configuration; it asks nothing yet.
func New(cfg Config) (*Decider, error) {
	if !validPath.MatchString(cfg.Path) {
		return nil, errors.New("opa: the path names a package and a rule, such as lineal/decision")
	}
	base, err := url.Parse(cfg.URL)
	if err != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("opa: the URL is malformed or has a query")
	}
	u := base.JoinPath("v1", "data", cfg.Path)
	u.RawQuery = "provenance=true"
	client, err := pdp.New(pdp.Config{
		URL: u.String(), HTTP: cfg.HTTP, Timeout: cfg.Timeout, MaxResponse: cfg.MaxResponse, Bearer: cfg.Bearer,
	})
	if err != nil {
		return nil, err
	}
	return &Decider{client: client, path: cfg.Path, zone: cfg.Zone}, nil
}

// Decide asks once. Whatever goes wrong is a deny with its text in Errors.
func (d *Decider) Decide(ctx context.Context, in policy.Input) policy.Decision {
	unknown := policy.Decision{Version: d.version("", nil)}
	doc, err := in.Document(d.zone)
	if err != nil {
		unknown.Errors = []string{"request: " + err.Error()}
		return unknown
	}
	question := strictjson.Object(strictjson.Member{Name: "input", Value: doc.Value()})
	answer, _, err := d.client.Ask(ctx, question, nil)
	if err != nil {
		unknown.Errors, unknown.Unavailable = []string{err.Error()}, pdp.Unavailable(err)
		return unknown
	}
	decision, err := d.read(answer)
	if err != nil {
		return policy.Decision{Version: decision.Version, Errors: []string{err.Error()}}
	}
	return decision
}

// members are those of an answer (OPA's DataResponseV1). Others may come; one
// that is like these is refused.
var members = []string{"result", "decision_id", "provenance", "explanation", "metrics", "rule_labels", "warning"}

// read is what an answer says. With an error only the version counts.
func (d *Decider) read(answer strictjson.Value) (out policy.Decision, err error) {
	out.Version = d.version("", nil)
	if err := strictjson.KnownOpen(answer, members...); err != nil {
		return out, pdp.Malformed("a member is spelled like a known one")
	}
	if p, ok := answer.Get("provenance"); ok {
		engine, bundles, err := provenance(p)
		if err != nil {
			return out, err
		}
		out.Version = d.version(engine, bundles)
	}
	result, ok := answer.Get("result")
	if !ok {
		return out, pdp.Malformed("no result: the rule is undefined")
	}
	allow, rules := result, strictjson.Array()
	switch result.Kind() {
	case strictjson.KindBool:
		if result.Bool() {
			rules = strictjson.Strings(d.path)
		}
	case strictjson.KindObject:
		if allow, rules, err = readObject(result); err != nil {
			return out, err
		}
	default:
		return out, pdp.Malformed("the result is neither a boolean nor an object")
	}
	if out.Rules, err = pdp.Rules(rules); err != nil {
		return out, err
	}
	if allow.Bool() {
		out.Effect = policy.Permit
	}
	return out, nil
}

// readObject is the result that says why: exactly allow and rules.
func readObject(result strictjson.Value) (allow, rules strictjson.Value, err error) {
	if strictjson.Known(result, "allow", "rules") != nil {
		return allow, rules, pdp.Malformed("the result has a member besides allow and rules")
	}
	allow, _ = result.Get("allow")
	if allow.Kind() != strictjson.KindBool {
		return allow, rules, pdp.Malformed("allow is not a boolean")
	}
	rules, ok := result.Get("rules")
	if !ok {
		return allow, rules, pdp.Malformed("the result has no rules")
	}
	return allow, rules, nil
}

// provenance is what OPA says of itself: its version and the revision of each
// bundle in force.
func provenance(p strictjson.Value) (engine string, bundles map[string]string, err error) {
	version, ok := p.Get("version")
	if p.Kind() != strictjson.KindObject || !ok {
		return "", nil, pdp.Malformed("provenance names no version")
	}
	engine, ok = version.Text()
	if !ok || !validVersion.MatchString(engine) {
		return "", nil, pdp.Malformed("provenance names no version")
	}
	list, _ := p.Get("bundles")
	bundles = make(map[string]string, list.Len())
	for _, b := range list.Members() {
		revision, _ := b.Value.Get("revision")
		text, ok := revision.Text()
		if !ok {
			return "", nil, pdp.Malformed("provenance names a bundle without a revision")
		}
		bundles[b.Name] = text
	}
	return engine, bundles, nil
}

var validVersion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$`)

// version names the rules as far as OPA did.
func (d *Decider) version(engine string, bundles map[string]string) policy.Version {
	var revisions []strictjson.Member
	for _, name := range slices.Sorted(maps.Keys(bundles)) {
		revisions = append(revisions, strictjson.Member{Name: name, Value: strictjson.String(bundles[name])})
	}
	statement := strictjson.Object(
		strictjson.Member{Name: "engine", Value: strictjson.String("opa")},
		strictjson.Member{Name: "path", Value: strictjson.String(d.path)},
		strictjson.Member{Name: "bundles", Value: strictjson.Object(revisions...)},
	)
	return policy.Version{
		Digest: pdp.Digest(statement), Engine: strings.TrimSuffix("opa/"+engine, "/"), Reader: policy.ReaderVersion,
	}
}
