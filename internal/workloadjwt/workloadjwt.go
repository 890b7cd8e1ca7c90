// Package workloadjwt verifies the JWTs with which platforms vouch for their
// workloads. It is what the identity sources for Kubernetes, AWS, Azure, GCP and
// generic OpenID issuers share; each adds the rules of its own row in tokens.md §9.
//
//	JWT ──filter──▶ issuer ──────▶ alg, typ ─▶ audience ─▶ times ─▶ key ───────▶ signature ─▶ Claims ─▶ Agent
//	                configured,                exactly               that issuer's   go-jose     the source's rules
//	                byte-equal                 one                   alone
//
// It promises that accepted claims were signed by a key of exactly the configured
// issuer they name (threat I4), with an algorithm of that source's list and the
// kind of key it asks for (P10), for the configured audience alone (I5), and are
// valid at the time given (I8). Cheap checks come first, and keys are fetched at a
// bounded rate whatever arrives (N5).
//
// Issuers are configured, never discovered; what is discovered is the key set of
// a configured one, over TLS, without redirects. Keys of two issuers are never
// joined.
//
// It does not keep a JWT from being presented twice: platforms serve the same one
// again until it expires. The caller binds it to a key by identity.Workload's
// Credential (I6).
package workloadjwt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
)

// MaxLife is the longest life any source may allow; managed identities of Azure
// have a day.
const MaxLife = 25 * time.Hour

// Config configures a Verifier; all but the last three fields are required.
type Config struct {
	// Name is the source in records and agent URIs: a DNS label.
	Name string
	// Issuers are the issuers of the source.
	Issuers []Issuer
	// Audience is the one `aud`, byte for byte.
	Audience string
	// Algorithms are those the issuers sign with.
	Algorithms []Algorithm
	// MaxLife bounds `exp` - `iat`; at most MaxLife.
	MaxLife time.Duration

	// HTTP fetches discovery documents and keys; nil: a client of its own,
	// without proxy. Redirects are never followed.
	HTTP *http.Client
	// Now is the clock of the key caches; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// Issuer is one issuer and where its keys are: at most one of the two; if
// neither, they are found by OpenID Connect Discovery.
type Issuer struct {
	// URL is its `iss`, byte for byte: an https URL without query and fragment.
	URL string
	// JWKSURL is an https URL of its keys.
	JWKSURL string
	// JWKSFile is a file of its keys, read again when a key is unknown and every
	// ten minutes.
	JWKSFile string
}

// Verifier verifies the JWTs of one source. It is safe for concurrent use, starts
// no goroutine, and needs no closing.
type Verifier struct {
	cfg     Config
	issuers map[string]*keySet
}

// New builds a Verifier. It fetches nothing: that happens with the first JWT of
// an issuer, and again after a failure, so that an issuer which is down does not
// keep Lineal from starting.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	v := &Verifier{cfg: cfg, issuers: map[string]*keySet{}}
	client := safeClient(cfg.HTTP)
	for _, i := range cfg.Issuers {
		if v.issuers[i.URL] != nil {
			return nil, fmt.Errorf("issuer %s is listed twice", i.URL)
		}
		fetch, err := i.fetcher(client)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", i.URL, err)
		}
		v.issuers[i.URL] = newKeySet(i.URL, fetch, cfg.Now, cfg.Logger)
	}
	return v, nil
}

func (cfg Config) check() error {
	switch {
	case !IsLabel(cfg.Name):
		return fmt.Errorf("name %q is no DNS label", cfg.Name)
	case len(cfg.Issuers) == 0:
		return errors.New("no issuer")
	case cfg.Audience == "":
		return errors.New("no audience")
	case len(cfg.Algorithms) == 0:
		return errors.New("no algorithm")
	case cfg.MaxLife <= 0 || cfg.MaxLife > MaxLife:
		return fmt.Errorf("longest life %s is not within %s", cfg.MaxLife, MaxLife)
	}
	for _, a := range cfg.Algorithms {
		if a != RS256 && a != ES256 && a != ES384 {
			return fmt.Errorf("algorithm %q is not supported", a)
		}
	}
	for _, i := range cfg.Issuers {
		if i.URL == cfg.Audience { // what this service signs is no platform's word
			return fmt.Errorf("issuer %s is also the audience", i.URL)
		}
	}
	return nil
}

// CheckServiceURL accepts what can be the URL of a token service, and so be the
// audience of an assertion; the default audiences of clouds are no URLs (I5).
func CheckServiceURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.ContainsAny(s, "?#") {
		return fmt.Errorf("audience %q is not the URL of a token service", s)
	}
	return nil
}

// IsLabel reports whether s is a DNS label (RFC 1123 §2.1) in lower case.
func IsLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) < 0
}

// Name is the name of the source.
func (v *Verifier) Name() string { return v.cfg.Name }

// Authenticate verifies an assertion at now and lets agent say whom it names.
// agent sees verified claims only; its error is a refusal, with the code of an
// *identity.AssertionError or else AssertionWorkload.
func (v *Verifier) Authenticate(
	ctx context.Context, assertionType, assertion string, now time.Time, agent func(Claims) (identity.Agent, error),
) (identity.Workload, error) {
	if assertionType != identity.AssertionJWT {
		return identity.Workload{}, identity.ErrNoCredential
	}
	w, err := v.authenticate(ctx, assertion, now, agent)
	if err != nil {
		return identity.Workload{}, Refusal(v.cfg.Name, err)
	}
	return w, nil
}

func (v *Verifier) authenticate(
	ctx context.Context, assertion string, now time.Time, agent func(Claims) (identity.Agent, error),
) (identity.Workload, error) {
	// RFC 9068's at+jwt and Lineal's own types are other kinds of token, maybe of
	// the same issuer.
	jws, c, err := v.verify(ctx, assertion, now, func(j JWS) error { return j.CheckHeader(v.cfg.Algorithms, "JWT") })
	if err != nil {
		return identity.Workload{}, err
	}
	// The claims were read from the bytes that are now verified.
	who, err := agent(c)
	if err != nil {
		return identity.Workload{}, err
	}
	if who.IsZero() {
		return identity.Workload{}, errors.New("it names nobody")
	}
	return identity.Workload{
		Agent: who, Method: identity.MethodWorkloadJWT, Source: v.cfg.Name,
		Credential: jws.Hash(), NotAfter: c.Expiry,
	}, nil
}

// Verify verifies a JWT that is no workload's credential, but a statement of one
// of the issuers to this audience: of exactly this `typ`, which must be there.
// The error is an *identity.AssertionError.
func (v *Verifier) Verify(ctx context.Context, raw, typ string, now time.Time) (JWS, Claims, error) {
	jws, c, err := v.verify(ctx, raw, now, func(j JWS) error {
		if j.typ == "" {
			return refuse(identity.AssertionAlgorithm, "no typ")
		}
		return j.CheckHeader(v.cfg.Algorithms, typ)
	})
	switch {
	case errors.Is(err, identity.ErrNoCredential):
		err = refuse(identity.AssertionIssuer, "the issuer is not configured")
	case err == nil:
		return jws, c, nil
	}
	return JWS{}, Claims{}, Refusal(v.cfg.Name, err)
}

// verify is what both do, the cheap checks first.
func (v *Verifier) verify(ctx context.Context, raw string, now time.Time, header func(JWS) error) (JWS, Claims, error) {
	jws, err := Parse(raw)
	if err != nil {
		return jws, Claims{}, err
	}
	c, err := jws.Claims()
	if err != nil {
		return jws, c, err
	}
	keys := v.issuers[c.Issuer]
	if keys == nil {
		return jws, c, identity.ErrNoCredential
	}
	for _, check := range []func() error{
		func() error { return header(jws) },
		func() error { return c.CheckAudience(v.cfg.Audience) },
		func() error { return c.CheckTimes(now) },
		func() error { return c.CheckLife(v.cfg.MaxLife) },
	} {
		if err := check(); err != nil {
			return jws, c, err
		}
	}
	candidates, err := keys.find(ctx, jws.keyID, jws.algorithm)
	if err != nil {
		return jws, c, err
	}
	return jws, c, jws.VerifySignature(candidates...)
}

func refuse(code identity.AssertionCode, format string, args ...any) *identity.AssertionError {
	return &identity.AssertionError{Code: code, Err: fmt.Errorf(format, args...)}
}

// Refusal makes err the *identity.AssertionError of a source. An error without a
// code has AssertionWorkload; ErrNoCredential, which is no refusal, stays.
func Refusal(source string, err error) error {
	if errors.Is(err, identity.ErrNoCredential) {
		return identity.ErrNoCredential
	}
	if e, ok := errors.AsType[*identity.AssertionError](err); ok {
		return &identity.AssertionError{Code: e.Code, Source: source, Err: e.Err}
	}
	return &identity.AssertionError{Code: identity.AssertionWorkload, Source: source, Err: err}
}
