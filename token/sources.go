package token

import (
	"context"
	"time"

	"github.com/lineal-auth/lineal/delegation"
)

// ChainSource gives the receipts of a chain that a token names by hash only. It
// is safe for concurrent use.
//
// Chain returns the compact receipts R0 … Rn of the closed chain whose last
// token has this jti, root first. issuer is a configured name, never one that
// only a token claims. The verifier trusts no answer: it accepts it only closed
// over the token at hand. Any error refuses the call as `chain_unavailable`.
type ChainSource interface {
	Chain(ctx context.Context, issuer, jti string) (receipts []string, err error)
}

// RevocationKind is what a revocation names (tokens.md §10).
type RevocationKind string

// The kinds of revocation.
const (
	RevokedHop    RevocationKind = "hop"
	RevokedTxn    RevocationKind = "txn"
	RevokedPerson RevocationKind = "person"
	RevokedAgent  RevocationKind = "agent"
	RevokedKey    RevocationKind = "key"
	RevokedCert   RevocationKind = "cert"
)

// Presented is everything of a presented chain that a revocation can name.
type Presented struct {
	Chain delegation.Chain
	// KeyIDs are the `kid` of R0 … Rn−1 and, last, of the leaf, all of the
	// chain's one issuer.
	KeyIDs []string
	// MaxStaleness is how old the knowledge of revocations may be for this
	// audience; 0 stands for [DefaultMaxStaleness].
	MaxStaleness time.Duration
	// Cleared, if not nil, is where a [RevocationSet] keeps that it found nothing
	// of exactly this chain and these keys. It spares a look at every hop until
	// the set has a new entry.
	Cleared *Cleared
}

// DefaultMaxStaleness is `max_staleness` of an audience that sets none.
const DefaultMaxStaleness = 15 * time.Second

// Standing is the answer of a RevocationSource.
type Standing struct {
	Revoked RevocationKind // what was revoked, "" if nothing
	Age     time.Duration  // how old this knowledge is
}

// RevocationSource knows what was revoked. It is asked at every call, answers
// from memory and is safe for concurrent use.
//
// Check returns an error, and thereby refuses the call as `revocation_stale`,
// whenever it does not know, also because its knowledge is older than
// MaxStaleness; Age is then set as far as it is known. What is known to be
// revoked is no error, however old the knowledge.
type RevocationSource interface {
	Check(ctx context.Context, p Presented) (Standing, error)
}

// NoRevocations is the explicit choice to verify without revocation: for an
// offline audit of a chain long ended, or a process that has no feed by design.
type NoRevocations struct{}

// Check answers that nothing is revoked.
func (NoRevocations) Check(context.Context, Presented) (Standing, error) { return Standing{}, nil }
