package gateway

import (
	"context"
	"errors"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

// PartnerTokens gets tokens of another organisation for calls that were decided
// here. It is safe for concurrent use.
type PartnerTokens interface {
	// Token gets a token for this call and no wider. The error is no answer about
	// the caller: it is answered as credential_unavailable.
	Token(ctx context.Context, c PartnerCall) (PartnerToken, error)
}

// PartnerCall is a call that goes to another organisation.
type PartnerCall struct {
	// Token is the caller's, verified; it is exchanged, and never sent on.
	Token    token.Raw
	Verified token.Verified
	// Action and Name are the call's, as scope knows it. Discovery needs no detail of
	// its own.
	Action, Name string
	Discovery    bool
}

// PartnerToken is what the partner gave. The agent gets no answer that holds it.
type PartnerToken struct {
	Raw      token.Raw
	Redeemed record.Redeemed
}

var errNoPartner = errors.New("the route leads to no partner")

// asPartner puts the partner's token on an outgoing request.
func (c *call) partnerToken(ctx context.Context) (token.Raw, error) {
	if c.route.Partner == nil {
		return "", errNoPartner
	}
	t, err := c.route.Partner.Token(ctx, PartnerCall{
		Token: token.Raw(c.raw), Verified: c.verified, Action: c.request.Action, Name: c.request.Name, Discovery: c.request.Discovery,
	})
	if err != nil {
		return "", err
	}
	if c.outcome != nil {
		c.outcome.redeemed = &t.Redeemed
	}
	return t.Raw, nil
}
