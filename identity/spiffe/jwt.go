package spiffe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

// MaxJWTLife is how far ahead the `exp` of a JWT-SVID may be.
const MaxJWTLife = 15 * time.Minute

// JWTConfig configures a JWTSource. Audience, TrustDomains and Bundles are
// required.
type JWTConfig struct {
	// Name is the name of this source in records; empty: "spiffe".
	Name string
	// Audience is the URL of the token service.
	Audience string
	// TrustDomains are those whose workloads are accepted: the own one, and
	// federated ones.
	TrustDomains []string
	// Bundles gives the JWT authorities of each, such as JWTBundles. It is asked
	// for each JWT-SVID, for the trust domain of its `sub`, and for no other.
	Bundles jwtbundle.Source
}

// JWTSource authenticates workloads by JWT-SVIDs, for clients that have no
// certificate on the connection. It promises what Source does for certificates:
// one is accepted only if a key of its own trust domain's bundle signed it (I4),
// for the token service alone (I5), and if it expires within 15 minutes (I8).
//
// It is safe for concurrent use, starts no goroutine, and needs no closing.
type JWTSource struct {
	name     string
	audience string
	domains  map[spiffeid.TrustDomain]bool
	bundles  jwtbundle.Source
}

var _ identity.Assertions = (*JWTSource)(nil)

// NewJWTSource builds a JWTSource.
func NewJWTSource(cfg JWTConfig) (*JWTSource, error) {
	s := &JWTSource{name: cfg.Name, audience: cfg.Audience, domains: map[spiffeid.TrustDomain]bool{}, bundles: cfg.Bundles}
	if s.name == "" {
		s.name = "spiffe"
	}
	if err := workloadjwt.CheckServiceURL(cfg.Audience); err != nil {
		return nil, fmt.Errorf("configuring JWT-SVIDs: %w", err)
	}
	for _, name := range cfg.TrustDomains {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, fmt.Errorf("configuring JWT-SVIDs: trust domain %q: %w", name, err)
		}
		s.domains[td] = true
	}
	if len(s.domains) == 0 || s.bundles == nil {
		return nil, errors.New("configuring JWT-SVIDs: no trust domain, or no bundles")
	}
	return s, nil
}

// Authenticate implements identity.Assertions. The certificate that came along,
// and any `iss` in the JWT-SVID, say nothing of who it names.
func (s *JWTSource) Authenticate(_ context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	if assertionType != identity.AssertionSPIFFE {
		return identity.Workload{}, identity.ErrNoCredential
	}
	w, err := s.authenticate(assertion, now)
	if err != nil {
		return identity.Workload{}, workloadjwt.Refusal(s.name, err)
	}
	return w, nil
}

func (s *JWTSource) authenticate(assertion string, now time.Time) (identity.Workload, error) {
	jws, err := workloadjwt.Parse(assertion)
	if err != nil {
		return identity.Workload{}, err
	}
	c, err := jws.Claims()
	if err != nil {
		return identity.Workload{}, err
	}
	id, err := spiffeid.FromString(c.Subject)
	if err != nil {
		return identity.Workload{}, fmt.Errorf("sub %q: %w", c.Subject, err)
	}
	if !s.domains[id.TrustDomain()] {
		return identity.Workload{}, identity.ErrNoCredential
	}
	if id.Path() == "" {
		return identity.Workload{}, fmt.Errorf("sub %s names a trust domain, not a workload", id)
	}
	if err := s.check(jws, c, now); err != nil {
		return identity.Workload{}, err
	}
	if err := s.verify(jws, id.TrustDomain()); err != nil {
		return identity.Workload{}, err
	}
	agent, err := identity.ParseAgent(id.String())
	if err != nil {
		return identity.Workload{}, err
	}
	return identity.Workload{
		Agent: agent, Method: identity.MethodSPIFFEJWT, Source: s.name,
		Credential: jws.Hash(), NotAfter: c.Expiry,
	}, nil
}

// check does what needs no key (JWT-SVID standard §2, §3).
func (s *JWTSource) check(jws workloadjwt.JWS, c workloadjwt.Claims, now time.Time) error {
	algorithms := []workloadjwt.Algorithm{workloadjwt.RS256, workloadjwt.ES256, workloadjwt.ES384}
	if err := jws.CheckHeader(algorithms, "JWT", "JOSE"); err != nil {
		return err
	}
	if err := c.CheckAudience(s.audience); err != nil {
		return err
	}
	if err := c.CheckTimes(now); err != nil {
		return err
	}
	if ahead := c.Expiry.Sub(now); ahead > MaxJWTLife+Leeway {
		return &identity.AssertionError{
			Code: identity.AssertionTimes, Err: fmt.Errorf("it expires in %s, not within %s", ahead, MaxJWTLife),
		}
	}
	return nil
}

func (s *JWTSource) verify(jws workloadjwt.JWS, td spiffeid.TrustDomain) error {
	bundle, err := s.bundles.GetJWTBundleForTrustDomain(td)
	if err == nil && bundle.TrustDomain() != td {
		err = fmt.Errorf("asked for the bundle of %s, received that of %s", td, bundle.TrustDomain())
	}
	if err != nil {
		return &identity.AssertionError{Code: identity.AssertionUnavailable, Err: err}
	}
	key, ok := bundle.FindJWTAuthority(jws.KeyID())
	if !ok {
		return &identity.AssertionError{
			Code: identity.AssertionKey, Err: fmt.Errorf("the bundle of %s has no key %q", td, jws.KeyID()),
		}
	}
	return jws.VerifySignature(key)
}
