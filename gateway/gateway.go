// Package gateway stands before an upstream and lets through the calls that scope and policy allow.
//
//	request ─▶ identify ─▶ verify ─▶ read ─▶ permit ─▶ decide ─▶ record ─▶ forward
//
// [Gateway.ServeHTTP] is those seven steps in that order. Each takes the call
// and adds its answer to it, or refuses; a refusal of any step is recorded
// before it is answered. There is no path to an upstream around the record.
//
// The gateway is stateless: verified tokens are caches keyed by content, and
// records are durable in the ledger before a call goes on. It knows no
// protocol; a [Protocol] reads requests and writes refusals, in a folder of
// its own below this one.
//
// It does not follow redirects, does not retry, never passes a caller's token
// on, and makes no statement about what an upstream did with a call.
package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// Recorder makes records durable. It fills in the writer's position; the rest
// of a record is the gateway's.
type Recorder interface {
	// Record returns after the record is durable in the ledger. A
	// *record.LimitError says that it is too large; any other error that it is
	// not durable, which is answered as ledger_unavailable. It must not change
	// r, whose slices are shared between calls, and is safe for concurrent use.
	// disclosed are the values that r names by digest; they are as durable as r,
	// beside it, and are kept from whoever may read records alone.
	Record(ctx context.Context, r record.Record, disclosed ...record.Disclosure) error
	// RecordLater queues an outcome, or the refusal of a call while the ledger
	// is out. It returns once the record is queued, and waits while the queue is
	// full. A record that Record may have stored before is stored once.
	RecordLater(ctx context.Context, r record.Record, disclosed ...record.Disclosure) error
}

// Verifier verifies delegation tokens; *token.Verifier is the one.
type Verifier interface {
	Verify(ctx context.Context, raw string, want token.Want) (token.Verified, error)
	// Recheck says whether what was verified is still not revoked. It is asked
	// while an answer streams, and answers from memory.
	Recheck(ctx context.Context, got token.Verified, maxStaleness time.Duration) error
}

// Config says what a Gateway needs. The fields without "if nil" are required.
type Config struct {
	// PublicURL is the external base URL. Every URL that the gateway publishes
	// and every route's audience starts with it.
	PublicURL string
	// Issuer is the URL of the token service, named in challenges' metadata.
	Issuer string
	// AllowedHosts and AllowedOrigins are accepted besides those of PublicURL.
	AllowedHosts, AllowedOrigins []string
	Routes                       []Route
	Source                       identity.Source
	Verifier                     Verifier
	// Proofs verifies DPoP proofs (RFC 9449); if nil, the scheme DPoP is refused.
	// A proof names the public URL.
	Proofs   *token.ProofVerifier
	Policy   policy.Decider
	Recorder Recorder
	// Exchange countersigns calls between organisations; nil: none is.
	Exchange *ExchangeConfig
	// Bindings keeps whose the ids are that outlive a call; if nil, none of them
	// is known in a later one.
	Bindings registry.Bindings
	// Log is the ledger family that records name; Region and DataClass are
	// stated in each record.
	Log, Region, DataClass string
	// RecordTimeout bounds the wait for durability; if zero, 2 s.
	RecordTimeout time.Duration
	// BodyTimeout bounds how long a request's body may take to arrive; if zero,
	// 30 s.
	BodyTimeout time.Duration
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// NewID makes call and record ids, UUIDv7 in lower case; if nil, random
	// ones by the system's clock.
	NewID func() string
	// Salt fills salt with random bytes; if nil, by crypto/rand.
	Salt func(salt []byte)
	// UpstreamFailed is told of each call that a route's upstream failed, or the
	// gateway's own credential for it: a code of the refusal table with Upstream set,
	// or [UpstreamAnswered5xx]. What a client's own receiver of callbacks does is none
	// of it. If nil, nobody is told.
	UpstreamFailed func(route string, code Code)
	// Logger takes the operator's log; if nil, nothing is logged.
	Logger *slog.Logger
}

// Route is one upstream behind the gateway.
type Route struct {
	// Name is the service's name in policy.
	Name string
	// Prefix is the path that the route answers, "/mcp/orders". Its audience
	// is PublicURL + Prefix.
	Prefix string
	// Base is a path above Prefix all of which the route answers, for clients that
	// join its URL otherwise; if empty, Prefix.
	Base string
	// As is the Prefix of an earlier route whose name and audience this one has too:
	// the same service in a binding whose clients choose no path; if empty, the
	// route is a service by itself.
	As       string
	Protocol Protocol
	// Kind is the callee's kind in records.
	Kind record.CalleeKind
	// Upstream is the base URL; the protocol's suffix is joined to it.
	Upstream *url.URL
	// Transport sends to the upstream, with the gateway's own credential at
	// the connection, if it has one. It must not follow redirects.
	Transport http.RoundTripper
	// Callbacks sends callbacks of the upstream to the URLs that clients named. It
	// must reach only what such a URL may name, and not follow redirects (threats
	// D1, D2); if nil, callbacks are refused.
	Callbacks http.RoundTripper
	// Credential sets the upstream's credential on the outgoing request; nil
	// sends none. It never sees the caller's token.
	Credential func(out *http.Request) error
	// Partner gets the token of the organisation behind the route for each call; nil:
	// the upstream is of this one. With it, Lineal-Exchange goes along where
	// Config.Exchange is set.
	Partner PartnerTokens
	// PartnerOrg is its name in records; "": calls are not countersigned.
	PartnerOrg string
	// Broker gets the upstream's token for each call, in exchange for the caller's;
	// nil: the upstream gets none of another issuer's.
	Broker Broker
	// Delegate names the agent behind the route. It gets the verified token in
	// Lineal-Delegation, and only if the token's may_act names it
	// (tokens.md §5); Upstream must then be https. The zero value: the upstream
	// never sees a token.
	Delegate identity.Agent
	// PassDenials lets the upstream's own 401 and 403 pass unchanged: it gets no
	// credential of the gateway's, and judges what the caller sent to it.
	PassDenials bool
	// APIKeyToken accepts the caller's token in x-api-key (LLM routes).
	APIKeyToken bool
	// AllowUnbound accepts tokens without a key; the record marks them.
	AllowUnbound bool
	// RequireDPoP accepts only tokens bound by DPoP, where no client certificate
	// reaches the gateway.
	RequireDPoP bool
	// MaxStaleness is how old the knowledge of revocations may be; if zero,
	// [token.DefaultMaxStaleness]. Less than the feed's heartbeat refuses calls
	// without need.
	MaxStaleness time.Duration
	// Handles says whose an id is that outlives its call; if "", HandlesAgent.
	Handles Handles
	// MaxBody bounds the request in bytes; if zero, 1 MiB.
	MaxBody int64
	// MaxAnswer bounds an answer that the protocol reads whole; if zero, 8 MiB.
	MaxAnswer int64
	// HeaderTimeout bounds the wait for the upstream's response headers; if
	// zero, 60 s.
	HeaderTimeout time.Duration

	resource string // the path of the audience
	audience string
	scopes   []string // all that its clients can use
}

// Audience is the route's resource identifier, the `aud` of its tokens.
func (r *Route) Audience() string { return r.audience }

// Gateway is an http.Handler. It is safe for concurrent use.
type Gateway struct {
	cfg            Config
	routes         []*Route // longest base first
	host, origin   string
	loopback       bool
	allowedHosts   []string
	allowedOrigins []string
	log            *slog.Logger
	pending        pending
	chains         chainCache
	rules          atomic.Pointer[policy.Version] // the last that a decision named
}

// New checks the configuration and builds a Gateway.
func New(cfg Config) (*Gateway, error) {
	base, err := url.Parse(cfg.PublicURL)
	if err != nil || base.Host == "" || (base.Path != "" && base.Path != "/") || base.Host != strings.ToLower(base.Host) {
		return nil, fmt.Errorf("gateway: public URL %q: want scheme and lower-case host alone", cfg.PublicURL)
	}
	if cfg.Source == nil || cfg.Verifier == nil || cfg.Policy == nil || cfg.Recorder == nil {
		return nil, errors.New("gateway: source, verifier, policy and recorder are required") // threat A1
	}
	if err := cfg.checkExchange(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.NewID == nil {
		cfg.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	if cfg.Salt == nil {
		cfg.Salt = func(salt []byte) { _, _ = rand.Read(salt) } // never fails (crypto/rand)
	}
	if cfg.RecordTimeout == 0 {
		cfg.RecordTimeout = 2 * time.Second
	}
	if cfg.BodyTimeout == 0 {
		cfg.BodyTimeout = 30 * time.Second
	}
	g := &Gateway{
		cfg: cfg, host: base.Host, origin: base.Scheme + "://" + base.Host, loopback: isLoopback(base.Hostname()),
		allowedHosts: cfg.AllowedHosts, allowedOrigins: cfg.AllowedOrigins, log: cfg.Logger,
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	v := cfg.Policy.Decide(context.Background(), policy.Input{}).Version
	if v.Digest == "" {
		return nil, errors.New("gateway: the policy names no version of itself: no rules are in force") // threat A1
	}
	g.rules.Store(&v)
	for i := range cfg.Routes {
		route, err := g.addRoute(cfg.Routes[i])
		if err != nil {
			return nil, err
		}
		g.routes = append(g.routes, route)
	}
	sort.SliceStable(g.routes, func(i, j int) bool { return len(g.routes[i].Base) > len(g.routes[j].Base) })
	return g, nil
}

func (g *Gateway) addRoute(r Route) (*Route, error) {
	if r.Name == "" || !strings.HasPrefix(r.Prefix, "/") || strings.HasSuffix(r.Prefix, "/") || checkPath(&url.URL{Path: r.Prefix}) != nil {
		return nil, fmt.Errorf("gateway: route %q: prefix %q must be canonical, begin with a slash and not end with one", r.Name, r.Prefix)
	}
	if r.Base == "" {
		r.Base = r.Prefix
	}
	if r.Base == "/" || strings.HasSuffix(r.Base, "/") || (r.Prefix != r.Base && !strings.HasPrefix(r.Prefix, r.Base+"/")) {
		return nil, fmt.Errorf("gateway: route %q: base %q is not above prefix %q", r.Name, r.Base, r.Prefix)
	}
	if r.Protocol == nil || r.Upstream == nil || r.Transport == nil {
		return nil, fmt.Errorf("gateway: route %q: protocol, upstream and transport are required", r.Name)
	}
	if !r.Delegate.IsZero() && r.Upstream.Scheme != "https" { // threat F1
		return nil, fmt.Errorf("gateway: route %q: a delegation goes to its agent over mutual TLS only", r.Name)
	}
	if r.Broker != nil && (r.Partner != nil || r.Credential != nil || !r.Delegate.IsZero()) {
		return nil, fmt.Errorf("gateway: route %q: the upstream gets one credential", r.Name)
	}
	if r.PassDenials && (r.Credential != nil || r.Broker != nil) { // rule d of gateway.md §2
		return nil, fmt.Errorf("gateway: route %q: denials of the gateway's own credential do not pass", r.Name)
	}
	if r.RequireDPoP && (g.cfg.Proofs == nil || r.AllowUnbound) {
		return nil, fmt.Errorf("gateway: route %q: DPoP is required, and not verified or not needed", r.Name)
	}
	if !slices.Contains([]Handles{"", HandlesPerson, HandlesAgent, HandlesDelegation}, r.Handles) {
		return nil, fmt.Errorf("gateway: route %q: no rule %q for handles", r.Name, r.Handles)
	}
	resource := cmp.Or(r.As, r.Prefix)
	for _, other := range g.routes {
		if r.As != "" && other.Prefix == r.As && other.Name == r.Name {
			continue
		}
		if other.Prefix == r.Prefix || other.Base == r.Base || other.Name == r.Name {
			return nil, fmt.Errorf("gateway: route %q: name or prefix is taken", r.Name)
		}
	}
	if r.MaxStaleness == 0 {
		r.MaxStaleness = token.DefaultMaxStaleness
	}
	if r.MaxStaleness <= recheckEvery {
		return nil, fmt.Errorf("gateway: route %q: staleness of %s is not above %s", r.Name, r.MaxStaleness, recheckEvery)
	}
	if r.MaxBody == 0 {
		r.MaxBody = 1 << 20
	}
	if r.MaxAnswer == 0 {
		r.MaxAnswer = 8 << 20
	}
	if r.HeaderTimeout == 0 {
		r.HeaderTimeout = time.Minute
	}
	if r.As != "" && !slices.ContainsFunc(g.routes, func(o *Route) bool { return o.Prefix == r.As && o.Name == r.Name && o.As == "" }) {
		return nil, fmt.Errorf("gateway: route %q: no route %q of that name before it", r.Name, r.As)
	}
	r.resource = resource
	r.audience, r.scopes = strings.TrimSuffix(g.cfg.PublicURL, "/")+resource, scopesOf(r.Protocol.Actions())
	return &r, nil
}

// ServeHTTP answers one call: the six steps of deciding, and forward.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r,
		(*call).identify, // who is on this connection
		(*call).verify,   // the token, its chain back to the person, its binding to this connection
		(*call).read,     // the request, strictly, into what scope and policy speak of
		(*call).permit,   // does the delegated scope of every hop permit it
		(*call).decide,   // do the operator's rules permit it
		(*call).record,   // durable before the call goes on
		(*call).forward,  // what was judged, with the upstream's own credential; outcome after
	)
}

// Wait returns when every outcome of the calls so far is queued to the
// ledger, or ctx ends. It is for a clean stop.
func (g *Gateway) Wait(ctx context.Context) error { return g.pending.wait(ctx) }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
