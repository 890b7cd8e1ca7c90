// Package registry holds the few facts that change: who is registered, whose reference is whose, what was issued, which id is whose.
//
//	configuration ──▶ Directory   agents, audiences, person issuers      who may take part at all
//	                  Clients     at which persons log in directly
//	operators     ──▶ Catalog     what they add to the configuration; [Live] joins the two
//	                  Persons     (issuer, subject) ──▶ random reference  apart from everything else
//	token service ──▶ Issued      the tree of delegations, their receipts
//	                  Revocations what was revoked, numbered without a gap
//	                  Logins      logins under way, codes, refresh tokens
//	both          ──▶ Proofs      what may be used once
//	gateway       ──▶ Bindings    ids of tasks, contexts, responses ──▶ their principal
//
// Each is an interface here and a driver below storage. Two promises hold for
// every driver: what a write accepted is durable when it returns, and an error
// is never an answer. [ErrNotFound] is an answer; anything else means that the
// registry could not say, and the caller must refuse.
//
// [Persons] is the one place where a reference meets the name behind it. It
// has a database of its own, so that access, backup and erasure can differ
// from those of the tokens and the ledger (ledger.md §11).
//
// The package decides nothing: whether a disabled agent is refused is up to
// the token service and the gateway, which read the fact here.
package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

var (
	// ErrNotFound says that the registry holds no such entry. It is an answer,
	// unlike every other error.
	ErrNotFound = errors.New("not registered")
	// ErrExists says that another entry stands there already.
	ErrExists = errors.New("registered already")
)

// Agent is a registered workload. A workload that proves an identity which is
// not registered may do nothing.
type Agent struct {
	// URI is the identity that a source proves (tokens.md §9).
	URI identity.Agent
	// Name is for people; no decision reads it.
	Name string
	// Profile is delegation.ProfileAgent or delegation.ProfileService.
	Profile string
	// Enabled says whether the agent takes part. The zero value does not.
	Enabled bool
	// Authority is all that this agent may ever hold, for whomever it acts.
	// The zero value is nothing.
	Authority scope.Grant
	// OIDCClients are the clients under which this application logs persons in.
	// An ID token for any other client starts nothing.
	OIDCClients []OIDCClient
	// RootLifetime is the longest life of a root that this application starts,
	// if it is bound to a key; zero: the token service's. At most one hour.
	RootLifetime time.Duration
}

// OIDCClient is a client registration at an OpenID provider.
type OIDCClient struct {
	Issuer   string // the provider, byte-equal to `iss`
	ClientID string // `aud`, or `azp`, of its ID tokens
}

// HasClient reports whether id at issuer is one of the agent's OIDC clients.
func (a Agent) HasClient(issuer, id string) bool {
	return slices.Contains(a.OIDCClients, OIDCClient{Issuer: issuer, ClientID: id})
}

// Audience is a receiver of delegation tokens, `aud`.
type Audience struct {
	// URI is the resource identifier (RFC 8707 §2), compared byte for byte.
	URI string
	// Enabled says whether tokens may be issued for it. The zero value does not.
	Enabled bool
	// Serves is the one agent behind the audience, which may go on from it; zero
	// where nobody may.
	Serves identity.Agent
	// Verifiers are the workloads that verify tokens for it, gateways.
	Verifiers []identity.Agent
	// Callers are the agents that may ask for tokens for it. Nil: each agent
	// whose Authority names URI as a location.
	Callers []identity.Agent
	// MaxDepth is `del_max_depth` of a chain that starts here, 0 to 7; nil:
	// delegation.DefaultMaxDepth.
	MaxDepth *int
	// Lifetime is the longest life of a token for it; zero: the token service's.
	Lifetime time.Duration
	// AllowUnbound permits tokens that are bound to no key. They live at most
	// two minutes.
	AllowUnbound bool
	// RequireDPoP has every token for it bound by DPoP (RFC 9728
	// `dpop_bound_access_tokens_required`), also where the client has a
	// certificate: for a receiver that no client certificate reaches.
	RequireDPoP bool
	// Default is what a person who logs in at a client directly grants it here
	// where the client asks for nothing in particular, and all that a client may
	// get which is known by its metadata document alone. The zero value: none.
	Default scope.Grant
	// MaxStaleness is the age of the revocation feed above which the audience
	// refuses; zero: 15 s.
	MaxStaleness time.Duration
}

// Depth is MaxDepth, or its default.
func (a Audience) Depth() int {
	if a.MaxDepth == nil {
		return delegation.DefaultMaxDepth
	}
	return *a.MaxDepth
}

// Reads reports whether w serves or verifies the audience.
func (a Audience) Reads(w identity.Agent) bool {
	return !w.IsZero() && (a.Serves == w || slices.Contains(a.Verifiers, w))
}

// MayCall reports whether w may ask for a token for a.
func (a Audience) MayCall(w Agent) bool {
	if a.Callers != nil {
		return slices.Contains(a.Callers, w.URI)
	}
	return w.Authority.CoversLocation(a.URI)
}

// PersonIssuer is an OpenID provider whose logins are accepted.
type PersonIssuer struct {
	Issuer  string // byte-equal to `iss`
	Enabled bool   // the zero value is not
}

// Directory answers who is registered. Answers are as of the call, so that a
// party which was disabled is seen at its next request; a caller must not keep
// them. It is safe for concurrent use.
type Directory interface {
	// Agent returns the agent, or ErrNotFound.
	Agent(ctx context.Context, uri identity.Agent) (Agent, error)
	// Audience returns the audience, or ErrNotFound.
	Audience(ctx context.Context, uri string) (Audience, error)
	// PersonIssuer returns the provider, or ErrNotFound.
	PersonIssuer(ctx context.Context, issuer string) (PersonIssuer, error)
	// Receives reports whether w serves or verifies any audience.
	Receives(ctx context.Context, w identity.Agent) (bool, error)
}

// Found turns the result of a Directory into (value, known, error), for
// callers that answer "unknown" and "could not say" differently.
func Found[T any](v T, err error) (T, bool, error) {
	var zero T
	switch {
	case err == nil:
		return v, true, nil
	case errors.Is(err, ErrNotFound):
		return zero, false, nil
	default:
		return zero, false, fmt.Errorf("asking the registry: %w", err)
	}
}
