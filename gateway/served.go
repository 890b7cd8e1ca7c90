package gateway

import (
	"context"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/token"
)

// Served is a call that was let through, as the context of the request to the
// upstream holds it: for a [Route.Transport] that is the callee itself.
type Served struct {
	// ID is the call's, the Lineal-Request-Id.
	ID string
	// Caller is the agent that calls, Proven whether its connection or a DPoP
	// proof showed so. It is not where the route allows unbound tokens.
	Caller identity.Agent
	Proven bool
	// Verified is the token's chain.
	Verified token.Verified
}

type servedKey struct{}

// ServedFrom is the call that a request to the upstream belongs to.
func ServedFrom(ctx context.Context) (Served, bool) {
	s, ok := ctx.Value(servedKey{}).(Served)
	return s, ok
}

// served puts the call into the context of the request to the upstream.
func (c *call) served(ctx context.Context) context.Context {
	return context.WithValue(ctx, servedKey{}, Served{ID: c.id, Caller: c.claimed, Proven: c.bound, Verified: c.verified})
}
