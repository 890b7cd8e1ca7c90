package sts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// typeIDJAG is the token type of a grant for a partner
// (draft-ietf-oauth-identity-assertion-authz-grant-03).
const typeIDJAG = "urn:ietf:params:oauth:token-type:id-jag"

// grantOutRules are the rules of an exchange for a grant: those of tokens.md §7,
// where the target is a partner. The grant is a hop like any other, and nobody
// may act after it here.
var grantOutRules = []func(*exchange, context.Context) error{
	(*exchange).authenticate,     // 1
	(*exchange).trustClient,      // 1, 2
	(*exchange).checkForm,        // 3
	(*exchange).checkGrantTypes,  // 4, 5
	(*exchange).verifySubject,    // 6, 7
	(*exchange).checkActor,       // 8
	(*exchange).findPartner,      // 9
	(*exchange).readDetails,      // 10
	(*exchange).checkGrantScope,  // 10: of the partner's API alone
	(*exchange).checkScope,       // 11
	(*exchange).limitLife,        // 12
	(*exchange).checkDepth,       // 13
	(*exchange).bindKey,          // 14
	(*exchange).buildHop,         //
	(*exchange).signPartnerGrant, //
	(*exchange).keep,             // 16
}

// outgoing is a grant under way to a partner.
type outgoing struct {
	partner  Partner
	resource string
	client   string
}

// wantsGrant reports whether an exchange asks for a grant.
func (x *exchange) wantsGrant() bool {
	return x.s.partners.issues() && x.form.get("requested_token_type") == typeIDJAG
}

// checkGrantTypes is rules 4 and 5. A grant continues a chain: it is had for a
// delegation token alone.
func (x *exchange) checkGrantTypes(context.Context) error {
	for _, name := range forbidden {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	if x.form.get("subject_token") == "" {
		return refuse(CodeParameterInvalid, "no subject_token")
	}
	if typ := x.form.get("subject_token_type"); typ != typeAccessToken {
		return refuse(CodeTypeUnsupported, "subject_token_type %.200q for a grant", typ)
	}
	return nil
}

// findPartner is rule 9: `audience` is the partner's issuer, `resource` one API
// of it, and W a client that the partner knows.
func (x *exchange) findPartner(context.Context) error {
	audience, resource := x.form.values["audience"], x.form.values["resource"]
	if len(audience) != 1 || len(resource) != 1 {
		return refuse(CodeTargetInvalid, "%d audiences, %d resources", len(audience), len(resource))
	}
	p, known := x.s.partners.known[audience[0]]
	if !known || !slices.Contains(p.Resources, resource[0]) {
		return refuse(CodeTargetUnknown, "%.200q is no partner with an API %.200q", audience[0], resource[0])
	}
	client := p.Clients[x.workload.Agent]
	if client == "" {
		return refuse(CodeTargetDenied, "%s is no client of %s", x.workload.Agent, p.Issuer)
	}
	x.out = &outgoing{partner: p, resource: resource[0], client: client}
	x.target = registry.Audience{URI: p.Issuer, Enabled: true, Lifetime: grantLife}
	return nil
}

// checkGrantScope keeps what a partner learns to what is asked of its API.
func (x *exchange) checkGrantScope(context.Context) error {
	for i, d := range x.granted.Details() {
		if !slices.Equal(d.Locations(), []string{x.out.resource}) {
			return refuse(CodeDetailsWidened, "detail %d is not of %s alone", i, x.out.resource)
		}
	}
	return nil
}

// signPartnerGrant signs the grant and, as the hop's receipt, what it is a part
// of here.
func (x *exchange) signPartnerGrant(ctx context.Context) error {
	if err := x.s.cfg.Keys.Refresh(ctx); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	details, err := asRoot(x.granted)
	if err != nil {
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	closed := x.subject.closed
	previous := closed.ReceiptHash(closed.Len() - 1)
	g := token.Grant{
		Issuer: x.s.cfg.Issuer, Audience: x.out.partner.Issuer, Subject: x.s.partners.subject(x.out.partner, x.hop.Person.Ref()),
		ClientID: x.out.client, Resource: x.out.resource, Actors: x.hop.Actors, Details: details, Bound: x.bound,
		ID: x.hop.ID, Txn: x.subject.txn, IssuedAt: x.issuedAt, Expires: x.expires,
	}
	if x.out.partner.HideActors {
		g.Actors = g.Actors[:1]
	}
	if x.out.partner.ShareReceipt {
		g.ReceiptHash = previous
	}
	x.issued.txn = x.subject.txn
	if x.issued.token, err = x.s.issuer.SignGrant(g); err != nil {
		if errors.Is(err, token.ErrTooLarge) {
			return refuse(CodeTokenTooLarge, "%w", err)
		}
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	return x.signHopReceipt(delegation.Receipt{
		Issuer: x.s.cfg.Issuer, Txn: x.subject.txn, Hop: x.hop, TokenHash: x.issued.token.Hash,
		ParentHash: closed.LeafHash(), ReceiptHash: previous,
	})
}

// subject is the reference by which a partner knows a person: the same each time,
// and none that it could compare with another partner.
func (p *partners) subject(partner Partner, ref string) string {
	m := hmac.New(sha256.New, p.Subjects)
	_, _ = m.Write([]byte(partner.Issuer + "\x00" + ref))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:16])
}

// asRoot is a grant without its witnesses: the partner has no hop before it.
func asRoot(g scope.Grant) (scope.Grant, error) {
	items := g.Value().Items()
	out := make([]strictjson.Value, len(items))
	for i, d := range items {
		var kept []strictjson.Member
		for _, m := range d.Members() {
			if m.Name != "from" {
				kept = append(kept, m)
			}
		}
		out[i] = strictjson.Object(kept...)
	}
	return scope.ParseValue(strictjson.Array(out...), true)
}

// parties of a foreign `act` belong to other namespaces than ours.
func foreign(own string, actors []delegation.Actor) bool {
	return !slices.ContainsFunc(actors, func(a delegation.Actor) bool { return a.Issuer == own })
}

// self is W as an actor.
func (x *exchange) self() delegation.Actor {
	return delegation.Actor{
		Party: identity.Party{Issuer: x.s.cfg.Issuer, Subject: x.workload.Agent.String()}, Profile: x.client.Profile,
	}
}
