package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/token"
)

// Broker gets the upstream's own token for a call (gateway.md §7). It is safe for
// concurrent use; package gateway/broker is the one.
type Broker interface {
	// Token is the token that the upstream gets, in place of the caller's. An error
	// is a *Refusal, of ours or of the upstream's side: never one that has the
	// caller log in.
	Token(ctx context.Context, s Subject) (token.Raw, error)
	// Forget says that the upstream refused the token for s.
	Forget(s Subject)
}

// Subject is the caller for whom an upstream's token is got.
type Subject struct {
	// Token is the caller's, verified. It may be shown to the issuer of the
	// upstream's tokens, to nobody else.
	Token token.Raw
	// ID is its jti, and Expires its end.
	ID      string
	Expires time.Time
	// Policy is the digest of the rules that let the call through.
	Policy string
}

func (c *call) subject() Subject {
	leaf := c.verified.Chain.Leaf()
	return Subject{Token: token.Raw(c.raw), ID: leaf.ID, Expires: leaf.Expires, Policy: c.decision.Version.Digest}
}

// credentials sets what the upstream gets from the gateway itself.
func (c *call) credentials(ctx context.Context, out *http.Request) error {
	if c.route.Broker != nil {
		own, err := c.route.Broker.Token(ctx, c.subject())
		if err != nil {
			return err
		}
		out.Header.Set("Authorization", "Bearer "+string(own))
	}
	if c.route.Credential == nil {
		return nil
	}
	return c.route.Credential(out)
}

// noCredential is the refusal of a call that could not be sent for want of the
// gateway's own credential: never one that has the caller log in.
func noCredential(err error) *Refusal {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return &Refusal{Code: CodeCredentialUnavailable, Err: err}
}
