package sts

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
	"github.com/lineal-auth/lineal/registry"
)

// Partner is the token service of another organisation, as this one deals with
// it (tokens.md §11). Each direction is allowed by itself.
//
//	out  Tn ──exchange──▶ grant, Rn ──jwt-bearer──▶ the partner's T0
//	in   the partner's grant ──jwt-bearer──▶ T0, R0 with `grant`
type Partner struct {
	// Issuer is its `iss`, byte for byte. Required.
	Issuer string

	// Resources are its APIs for which grants are issued; nil: none is.
	Resources []string
	// Clients are the workloads that may ask for grants, and the client_id of each
	// at the partner.
	Clients map[identity.Agent]string
	// HideActors says no more of who acts than the workload that presents the
	// grant; otherwise the partner learns all actors.
	HideActors bool
	// ShareReceipt tells the partner the hash of the receipt before the grant.
	ShareReceipt bool

	// Accepts says that its grants begin chains here.
	Accepts bool
	// JWKSURL is where its keys are, for Accepts; "": by discovery.
	JWKSURL string
	// HTTP fetches them; nil: a plain client.
	HTTP *http.Client
}

// PartnerConfig lets persons' authority pass between organisations. All is
// required.
type PartnerConfig struct {
	Partners []Partner
	// Used remembers which grants were redeemed.
	Used registry.Proofs
	// Subjects is a secret of this deployment, at least 32 bytes, under which each
	// partner knows a person by another reference.
	Subjects []byte
}

const (
	// grantLife is the longest life of a grant that is issued here.
	grantLife = 120 * time.Second
	// foreignGrantLife is the longest life of a grant that is accepted.
	foreignGrantLife = 5 * time.Minute
)

// partners is a PartnerConfig, ready.
type partners struct {
	PartnerConfig
	known    map[string]Partner
	verifier map[string]*workloadjwt.Verifier // of those whose grants are accepted
}

func newPartners(cfg Config) (*partners, error) {
	if cfg.Partners == nil {
		return nil, nil //nolint:nilnil // there are none
	}
	p := &partners{PartnerConfig: *cfg.Partners, known: map[string]Partner{}, verifier: map[string]*workloadjwt.Verifier{}}
	if p.Used == nil || len(p.Subjects) < registry.SecretBytes {
		return nil, errors.New("partners: a store of used grants and a secret are required")
	}
	for _, one := range p.Partners {
		if _, twice := p.known[one.Issuer]; twice || one.Issuer == cfg.Issuer {
			return nil, fmt.Errorf("partner %s is this service, or stands twice", one.Issuer)
		}
		if _, err := checkBase(one.Issuer); err != nil {
			return nil, fmt.Errorf("partner: %w", err)
		}
		if (len(one.Resources) > 0) != (len(one.Clients) > 0) {
			return nil, fmt.Errorf("partner %s: grants need both resources and clients", one.Issuer)
		}
		p.known[one.Issuer] = one
		if !one.Accepts {
			continue
		}
		v, err := workloadjwt.New(workloadjwt.Config{
			Name: "partner", Issuers: []workloadjwt.Issuer{{URL: one.Issuer, JWKSURL: one.JWKSURL}}, Audience: cfg.Issuer,
			Algorithms: assertionAlgorithms, MaxLife: foreignGrantLife, HTTP: one.HTTP, Now: cfg.Now, Logger: cfg.Logger,
		})
		if err != nil {
			return nil, fmt.Errorf("partner %s: %w", one.Issuer, err)
		}
		p.verifier[one.Issuer] = v
	}
	return p, nil
}

// issues and accepts say which grants exist here at all.
func (p *partners) issues() bool {
	return p != nil && slices.ContainsFunc(p.Partners, func(o Partner) bool { return len(o.Resources) > 0 })
}

func (p *partners) accepts() bool { return p != nil && len(p.verifier) > 0 }

// trusts reports whether grants of an issuer are accepted: it is then what vouches
// for the persons that it names.
func (p *partners) trusts(issuer string) bool { return p != nil && p.verifier[issuer] != nil }

// The refusals of partners' grants.
const (
	CodeGrantMalformed   Code = "grant_malformed"   // no JWT of a grant's form, or of a claim
	CodeGrantIssuer      Code = "grant_issuer"      // not a partner whose grants are accepted
	CodeGrantSignature   Code = "grant_signature"   // its algorithm, key or signature
	CodeGrantAudience    Code = "grant_audience"    // not for this service alone
	CodeGrantTimes       Code = "grant_times"       // too old, too long, or of the future
	CodeGrantClient      Code = "grant_client"      // made out to another client
	CodeGrantActors      Code = "grant_actors"      // its actors are not a partner's
	CodeGrantUnbound     Code = "grant_unbound"     // it names no key
	CodeGrantKey         Code = "grant_key"         // the key that it names is not proven
	CodeGrantReplayed    Code = "grant_replayed"    // redeemed before
	CodeGrantWithdrawn   Code = "grant_withdrawn"   // person or client was revoked after it was issued
	CodeGrantUnavailable Code = "grant_unavailable" // the partner's keys could not be had
)

const sayGrantInvalid = "The grant is not acceptable."

var partnerAnswers = []Answer{
	{CodeGrantMalformed, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantIssuer, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantSignature, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantAudience, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantTimes, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantClient, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantActors, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantUnbound, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantKey, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantReplayed, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantWithdrawn, http.StatusBadRequest, errInvalidGrant, sayGrantInvalid},
	{CodeGrantUnavailable, http.StatusServiceUnavailable, errUnavailable, sayUnavailable},
}

// grantCodes are what a failed verification is here.
var grantCodes = map[identity.AssertionCode]Code{
	identity.AssertionMalformed: CodeGrantMalformed, identity.AssertionClaims: CodeGrantMalformed,
	identity.AssertionIssuer: CodeGrantIssuer, identity.AssertionAlgorithm: CodeGrantSignature,
	identity.AssertionAudience: CodeGrantAudience, identity.AssertionTimes: CodeGrantTimes,
	identity.AssertionKey: CodeGrantSignature, identity.AssertionSignature: CodeGrantSignature,
	identity.AssertionUnavailable: CodeGrantUnavailable,
}

func refuseGrant(err error) error {
	if refused, ok := errors.AsType[*identity.AssertionError](err); ok {
		if code, known := grantCodes[refused.Code]; known {
			return refuse(code, "grant: %w", err)
		}
	}
	return refuse(CodeGrantMalformed, "grant: %w", err)
}
