// Package sts is the token endpoint and its metadata.
//
//	person's ID token + application ──▶ T0, R0      (tokens.md §8)
//	Tn-1 + the agent it names       ──▶ Tn, Rn      (tokens.md §7)
//	Tn-1 + a partner's client       ──▶ a grant, Rn (tokens.md §11)
//	a partner's grant + its client  ──▶ T0, R0      (tokens.md §11)
//
//	POST {issuer}/token   who ─▶ form ─▶ subject ─▶ target ─▶ scope ─▶ life, key ─▶ tree, ledger ─▶ answer
//	                       └───────┴────────┴─────────┴─────────┴──────────┴──▶ refusal, recorded
//	GET  {issuer}/chains/{jti}   the receipts of a chain, to who may read them
//	GET  {issuer}/revocations    what was revoked, pushed to who serves or verifies an audience
//	POST {issuer}/revoke, /introspect   RFC 7009 for the holder, RFC 7662 for the receiver
//	GET  {issuer}/jwks, /.well-known/oauth-authorization-server
//	GET  {issuer}/authorize, /callback, POST /consent   a person's login at a client
//
// It is an OAuth 2.0 authorization server whose grant is token exchange
// (RFC 8693). An exchange can only narrow: the new hop is built by
// [delegation.Chain.Extend] under the rules that verify it, within what the
// workload may ever hold. Who acts comes from the certificate of the connection,
// or from a JWT of the workload's platform together with the first key that was
// proven with it, and from nowhere else.
//
// No token leaves before its receipt is in the tree of issued delegations and
// in the ledger, and each refusal is a record too. A caller learns the OAuth
// error and a fixed sentence; the reason stands in the record.
//
// A workload without certificate gets, by client_credentials, a token for this
// service alone, with which it asks for chains and revocations.
//
// Persons may also log in directly at a client: authorization code and PKCE,
// with a refresh token, which no exchange has (tokens.md §8).
//
// The service keeps no state of its own, so that any number of them may run
// over one registry. It knows no passwords, persons log in at their provider,
// and it reads no identity from a header.
package sts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// Recorder makes records durable.
type Recorder interface {
	// Record returns after the draft is durable in the ledger, or with an error;
	// then the draft may be there or not. It is safe for concurrent use.
	Record(ctx context.Context, d record.Draft) error
	// Dropped counts a refusal that gets no record of its own; the next gap record
	// of the writer says how many there were for the reason. It is safe for
	// concurrent use and waits for nothing.
	Dropped(reason Code)
}

// Logins verifies the ID tokens that start a delegation.
type Logins interface {
	// Verify verifies an ID token that app presents, app being authenticated.
	// The error should be a *Refusal with one of the codes of ID tokens; any
	// other refuses as CodeIDTokenMalformed. It is safe for concurrent use.
	Verify(ctx context.Context, rawIDToken string, app identity.Agent) (Login, error)
}

// Login is a verified login of a person at an application.
type Login struct {
	Issuer, Subject string // the person at the provider
	ClientID        string // the OIDC client the ID token was issued to
	AuthTime        time.Time
	ACR             string
	AMR             []string
	Expires         time.Time
	Hash            string // H(ID token)
}

// DefaultLifetime is the life of a token where nothing shortens it.
const DefaultLifetime = 300 * time.Second

const (
	maxLifetime     = time.Hour
	unboundLifetime = 120 * time.Second
	leastLifetime   = 5 * time.Second // what a new token must have left
	maxBody         = 64 << 10
	maxParameters   = 64
	readerCache     = 256 // tokens that were asked to be revoked
)

// Config configures a Service. What is not said to have a default is required.
type Config struct {
	// Issuer is `iss`, byte for byte: an https URL without trailing slash, query
	// or fragment. The endpoints are below it.
	Issuer string
	// MTLS is the base URL under which the token endpoint takes client
	// certificates, if that is not Issuer (RFC 8705 §5); "" if it is.
	MTLS string
	// Keys are the issuer's keys, a [Ring] wherever they rotate or several token
	// services sign. Nil: Signer is the only one, for good.
	Keys   IssuerKeys
	Signer token.Signer

	Directory registry.Directory
	Persons   registry.Persons
	Issued    registry.Issued
	// Logins verifies ID tokens; nil: no root can be started here.
	Logins Logins
	// Login lets persons log in directly at clients; nil: they do not.
	Login *LoginConfig
	// Source authenticates workloads by what is on the connection.
	Source identity.Source
	// Assertions authenticates workloads by JWTs of their platforms; nil: by what
	// is on the connection alone.
	Assertions *AssertionConfig
	// Partners are other organisations; nil: there are none.
	Partners *PartnerConfig
	// Proofs verifies DPoP proofs; nil: a request that holds one is refused.
	Proofs *token.ProofVerifier
	// Revocations is the list of what was revoked, read at each exchange.
	Revocations registry.Revocations
	Recorder    Recorder

	// Writer, Log, Region and DataClass stand in each record; Writer's place in
	// the sequence is the recorder's business.
	Writer    record.Writer
	Log       string
	Region    record.Region
	DataClass record.DataClass
	// PolicyVersion gives `pol`: the digest of the policy in force, base64url
	// SHA-256. It is asked for each token.
	PolicyVersion func() string

	// Auditors are workloads that may read every chain.
	Auditors []identity.Agent
	// Lifetime is the longest life of a token; zero: DefaultLifetime. At most one
	// hour.
	Lifetime time.Duration
	// RecordTimeout bounds the wait for durability; zero: 2 s.
	RecordTimeout time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// NewID makes jti, txn and record ids, UUIDv7 in lower case; nil: random ones.
	NewID func() (string, error)
	// Logger gets one line per request; nil: none.
	Logger *slog.Logger
}

// Service is the token service. It is safe for concurrent use, starts no
// goroutine and needs no closing; only the streams of revocations do not end by
// themselves, see EndFeeds.
type Service struct {
	cfg      Config
	base     string // path of the issuer, "" at the root
	issuer   *token.Issuer
	revoked  *revoked
	verifier *token.Verifier
	reader   *token.Verifier // the same, but blind to what is revoked
	metadata []byte
	openID   []byte // the same for OpenID Connect Discovery

	partners  *partners // nil: none
	documents documents // of clients
	refusals  budget

	feeds  atomic.Int64 // streams of revocations that are open
	ending sync.Once
	ended  chan struct{} // closed by EndFeeds
}

// New checks the configuration and builds a Service.
func New(cfg Config) (*Service, error) {
	s, err := newService(cfg)
	if err != nil {
		return nil, fmt.Errorf("making token service: %w", err)
	}
	return s, nil
}

func newService(cfg Config) (*Service, error) {
	if cfg.Directory == nil || cfg.Persons == nil || cfg.Issued == nil || cfg.Source == nil || cfg.Recorder == nil ||
		cfg.Revocations == nil {
		return nil, errors.New("directory, persons, issued, source, revocations and recorder are required")
	}
	base, err := checkBase(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if cfg.MTLS != "" {
		if _, err := checkBase(cfg.MTLS); err != nil {
			return nil, fmt.Errorf("mTLS alias: %w", err)
		}
	}
	if cfg, err = withDefaults(cfg); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, base: base, revoked: newRevoked(cfg.Revocations, cfg.Now), ended: make(chan struct{})}
	s.refusals.each = make(map[netip.Prefix]*bucket)
	if s.issuer, err = token.NewRotatingIssuer(cfg.Issuer, cfg.Keys); err != nil {
		return nil, err
	}
	if err := s.makeVerifiers(); err != nil {
		return nil, err
	}
	if s.partners, err = newPartners(cfg); err != nil {
		return nil, err
	}
	if s.metadata, s.openID, err = writeMetadata(cfg, s.partners); err != nil {
		return nil, err
	}
	return s, s.tryRecord()
}

// tryRecord drafts a record, so that a mistake in Writer, Log and so on shows
// at the start and not at the first request.
func (s *Service) tryRecord() error {
	id, err := s.cfg.NewID()
	if err != nil {
		return fmt.Errorf("making an id: %w", err)
	}
	x := &exchange{s: s, form: form{hash: hashBody(nil)}}
	_, err = s.draft(x.accountRefused(CodeRequestMalformed), id, s.cfg.Now())
	return err
}

func withDefaults(cfg Config) (Config, error) {
	if cfg.Keys == nil {
		keys, err := fixed(cfg.Signer)
		if err != nil {
			return cfg, err
		}
		cfg.Keys = keys
	}
	if cfg.PolicyVersion == nil || cfg.PolicyVersion() == "" {
		return cfg, errors.New("no policy version")
	}
	if cfg.Login != nil {
		login := *cfg.Login
		if err := login.check(); err != nil {
			return cfg, err
		}
		cfg.Login = &login
	}
	if cfg.Assertions != nil {
		assertions := *cfg.Assertions
		if err := assertions.check(); err != nil {
			return cfg, err
		}
		if cfg.Proofs == nil {
			return cfg, errors.New("assertions need a verifier of DPoP proofs")
		}
		cfg.Assertions = &assertions
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	if cfg.Lifetime < leastLifetime || cfg.Lifetime > maxLifetime {
		return cfg, fmt.Errorf("lifetime %s is outside %s to %s", cfg.Lifetime, leastLifetime, maxLifetime)
	}
	if cfg.RecordTimeout <= 0 {
		cfg.RecordTimeout = 2 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.NewID == nil {
		cfg.NewID = func() (string, error) {
			id, err := uuid.NewV7()
			return id.String(), err
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// makeVerifiers builds the verifiers that accept the keys of this issuer alone.
func (s *Service) makeVerifiers() (err error) {
	verify := token.Config{
		Issuers:     []token.TrustedIssuer{{Name: s.cfg.Issuer, Keys: s.cfg.Keys}},
		Chains:      Chains{Issuer: s.cfg.Issuer, Issued: s.cfg.Issued},
		Revocations: s.revoked,
		Now:         s.cfg.Now,
		Logger:      s.cfg.Logger,
	}
	if s.verifier, err = token.NewVerifier(verify); err != nil {
		return err
	}
	verify.Revocations, verify.CacheSize = token.NoRevocations{}, readerCache
	s.reader, err = token.NewVerifier(verify)
	return err
}

// serveKeys is GET {issuer}/jwks: next, current and retired keys, of all token
// services of this issuer. Caches keep it for less than a key is published before
// it signs, and a key that is revoked is gone from them soon.
func (s *Service) serveKeys(w http.ResponseWriter, r *http.Request) {
	if !allowRead(w, r) {
		return
	}
	body, err := token.JWKS(s.cfg.Keys.Published(r.Context())...)
	if err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "keys not published", slog.String("cause", err.Error()))
		http.Error(w, "the keys cannot be read now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=60")
	writeJSON(w, http.StatusOK, body)
}

// checkBase accepts a base URL and returns its path.
func checkBase(raw string) (path string, err error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("%q is no https URL", raw)
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return "", fmt.Errorf("%q has user information, a query or a fragment", raw)
	case strings.HasSuffix(raw, "/"):
		return "", fmt.Errorf("%q ends with a slash", raw)
	case u.EscapedPath() != u.Path || strings.Contains(u.Path, "//") || u.String() != raw:
		return "", fmt.Errorf("%q is not in normal form", raw)
	}
	return u.Path, nil
}

// Issuer is the issuer URL.
func (s *Service) Issuer() string { return s.cfg.Issuer }

// The forms in which clients ask for the metadata: RFC 8414 §3.1, and OpenID
// Connect Discovery §4.1, which some ask for alone. Both take the path of the
// issuer before or after them.
const (
	wellKnown = "/.well-known/oauth-authorization-server"
	openID    = "/.well-known/openid-configuration"
)

// ServeHTTP serves the endpoints below the issuer's path.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	path, below := strings.CutPrefix(r.URL.Path, s.base)
	switch {
	case r.URL.Path == wellKnown+s.base, below && path == wellKnown:
		s.serveDocument(w, r, s.metadata)
	case s.cfg.Login != nil && (r.URL.Path == openID+s.base || below && path == openID):
		s.serveDocument(w, r, s.openID)
	case below && path == "/jwks":
		s.serveKeys(w, r)
	case below && path == "/token":
		s.serveToken(w, r)
	case below && strings.HasPrefix(path, "/chains/"):
		s.serveChain(w, r, path[len("/chains/"):])
	case below && path == "/revocations":
		s.serveFeed(w, r)
	case below && path == "/revoke":
		s.serveRevoke(w, r)
	case below && path == "/introspect":
		s.serveIntrospect(w, r)
	case below && path == "/authorize":
		s.serveLogin(w, r, http.MethodGet, (*visit).authorize)
	case below && path == "/callback":
		s.serveLogin(w, r, http.MethodGet, (*visit).callback)
	case below && path == "/consent":
		s.serveLogin(w, r, http.MethodPost, (*visit).consent)
	default:
		http.NotFound(w, r)
	}
}
