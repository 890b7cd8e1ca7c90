package sts

import (
	"context"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// grantJWTBearer redeems a partner's grant (RFC 7523 §2.1).
const grantJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// grantInRules are the rules of a partner's grant, in the order of tokens.md §7:
// they ask all that an exchange asks, and the grant stands in the place of the
// subject token. The life of the result is ours: the only place where one grows.
var grantInRules = []func(*exchange, context.Context) error{
	(*exchange).authenticate,     // 1
	(*exchange).trustClient,      // 1, 2
	(*exchange).checkBearerForm,  // 3, 4, 5
	(*exchange).verifyGrant,      // 6
	(*exchange).knowForeigner,    // 6
	(*exchange).findGrantTarget,  // 9
	(*exchange).readGrantedScope, // 10
	(*exchange).checkScope,       // 11
	(*exchange).limitLife,        // 12
	(*exchange).bindGrantKey,     // 14
	(*exchange).buildHop,
	(*exchange).sign,
	(*exchange).useGrant, // once, when nothing else can refuse
	(*exchange).keep,     // 16
	(*exchange).adopt,
}

// foreignGrant is a partner's grant, verified.
type foreignGrant struct {
	claims workloadjwt.Claims
	more   foreignClaims
	actors []delegation.Actor
	begun  delegation.PartnerGrant
}

// foreignClaims are those of a grant beside the registered ones.
type foreignClaims struct {
	ClientID    string           `json:"client_id"`
	ID          string           `json:"jti"`
	Resource    string           `json:"resource"`
	Scope       string           `json:"scope"`
	Details     strictjson.Value `json:"authorization_details"`
	Act         strictjson.Value `json:"act"`
	ReceiptHash string           `json:"rcpt_hash"`
	Key         struct {
		Certificate string `json:"x5t#S256"`
		Thumbprint  string `json:"jkt"`
	} `json:"cnf"`
}

// checkBearerForm is rules 3 to 5: the assertion, and nothing that an exchange or
// a login would bring.
func (x *exchange) checkBearerForm(context.Context) error {
	if err := x.form.checkParameters(); err != nil {
		return err
	}
	for _, name := range slices.Concat(forbidden, []string{
		"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "code", "refresh_token",
	}) {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	if x.form.get("assertion") == "" {
		return refuse(CodeParameterInvalid, "no assertion")
	}
	return nil
}

// verifyGrant is rule 6: signed by a partner whose grants are accepted, for this
// service alone, made out to W, and to a key.
func (x *exchange) verifyGrant(ctx context.Context) error {
	raw := x.form.get("assertion")
	if jws, err := workloadjwt.Parse(raw); err == nil {
		x.subject.hash = jws.Hash()
	}
	v, err := x.s.partners.verifierOf(raw)
	if err != nil {
		return err
	}
	jws, c, err := v.Verify(ctx, raw, token.TypeGrant, x.now)
	if err != nil {
		return refuseGrant(err)
	}
	g := &foreignGrant{claims: c}
	if err := c.Decode(&g.more); err != nil {
		return refuseGrant(err)
	}
	switch {
	case g.more.ID == "" || len(g.more.ID) > maxGrantText || g.more.Resource == "" || len(g.more.Resource) > maxGrantText:
		return refuse(CodeGrantMalformed, "jti or resource is missing or too long")
	case g.more.ClientID != x.workload.Agent.String():
		return refuse(CodeGrantClient, "made out to %.200q, not to %s", g.more.ClientID, x.workload.Agent)
	case (g.more.Key.Certificate == "") == (g.more.Key.Thumbprint == ""):
		return refuse(CodeGrantUnbound, "cnf does not name exactly one key")
	case g.more.ReceiptHash != "" && !isSecret(g.more.ReceiptHash): // a SHA-256 has the same form
		return refuse(CodeGrantMalformed, "rcpt_hash is no hash")
	}
	if !g.more.Act.IsZero() {
		if g.actors, err = token.ReadActors(g.more.Act); err != nil {
			return refuse(CodeGrantActors, "act: %w", err)
		}
	}
	if !foreign(x.s.cfg.Issuer, g.actors) {
		return refuse(CodeGrantActors, "it speaks of actors of ours")
	}
	g.begun = delegation.PartnerGrant{Issuer: c.Issuer, Subject: c.Subject, ID: g.more.ID, Hash: jws.Hash(), ReceiptHash: g.more.ReceiptHash}
	x.in = g
	return nil
}

// maxGrantText bounds a partner's texts, which records hold.
const maxGrantText = 512

// verifierOf finds whose keys may verify a grant, by the issuer that it claims.
func (p *partners) verifierOf(raw string) (*workloadjwt.Verifier, error) {
	jws, err := workloadjwt.Parse(raw)
	if err != nil {
		return nil, refuseGrant(err)
	}
	c, err := jws.Claims()
	if err != nil {
		return nil, refuseGrant(err)
	}
	if p.verifier[c.Issuer] == nil {
		return nil, refuse(CodeGrantIssuer, "%.200q is no partner whose grants are accepted", c.Issuer)
	}
	return p.verifier[c.Issuer], nil
}

// knowForeigner finds the person of a grant by issuer and subject (threat C10),
// and asks whether person and client still take part.
func (x *exchange) knowForeigner(ctx context.Context) error {
	c := x.in.claims
	ref, err := x.s.cfg.Persons.Reference(ctx, c.Issuer, c.Subject)
	if err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	if x.subject.person, err = identity.ParsePerson(x.s.cfg.Issuer, ref); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	if err := x.s.trustPerson(ctx, ref); err != nil {
		return err
	}
	kind, err := x.s.revoked.check(ctx, func(s *token.RevocationSet) token.RevocationKind {
		return s.MatchParties(ref, x.workload.Agent.String(), c.IssuedAt)
	})
	switch {
	case err != nil:
		return refuse(Code(token.CodeRevocationStale), "%w", err)
	case kind != "":
		return refuse(CodeGrantWithdrawn, "the %s was revoked since the grant", kind)
	}
	if x.subject.txn, err = x.s.cfg.NewID(); err != nil {
		return refuse(CodeSigningUnavailable, "making txn: %w", err)
	}
	return nil
}

// findGrantTarget is rule 9. The grant says which API it is for; the request may
// repeat it.
func (x *exchange) findGrantTarget(ctx context.Context) (err error) {
	resource := x.in.more.Resource
	if sent := x.form.targets(); len(sent) > 1 || len(sent) == 1 && sent[0] != resource {
		return refuse(CodeTargetInvalid, "a grant for %.200q, asked for %.200q", resource, sent)
	}
	x.target, err = x.s.trustTarget(ctx, resource, x.client)
	return err
}

// readGrantedScope is rule 10: what the grant holds or, where W asks for less,
// that; in either case within what W may ever hold.
func (x *exchange) readGrantedScope(context.Context) (err error) {
	if x.in.more.Details.IsZero() {
		return refuse(CodeDetailsMissing, "the grant has no authorization_details")
	}
	if x.granted, err = scope.ParseValue(x.in.more.Details, true); err != nil {
		return refuse(CodeDetailsMalformed, "of the grant: %w", err)
	}
	if s := x.in.more.Scope; s != "" {
		if err := scope.CheckScope(s, x.granted); err != nil {
			return refuse(CodeScopeMismatch, "of the grant: %w", err)
		}
	}
	x.asSent = true
	return x.takeLess()
}

// bindGrantKey is rule 14: the new token is bound to the key of the grant, which
// this request proves.
func (x *exchange) bindGrantKey(ctx context.Context) error {
	if err := x.bindKey(ctx); err != nil {
		return err
	}
	key := x.in.more.Key
	if x.bound.IsZero() || x.bound != (delegation.Confirmation{CertThumbprint: key.Certificate, KeyThumbprint: key.Thumbprint}) {
		return refuse(CodeGrantKey, "the key of the grant is not the one that is proven")
	}
	return nil
}

// useGrant lets a grant begin one chain, among all replicas and restarts.
func (x *exchange) useGrant(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, x.s.cfg.RecordTimeout)
	defer cancel()
	c := x.in.claims
	first, err := x.s.partners.Used.Use(ctx, c.Issuer, x.in.more.ID, c.Expiry.Add(workloadjwt.Leeway+time.Second))
	switch {
	case err != nil:
		return refuse(CodeProofUnavailable, "%w", err)
	case !first:
		return refuse(CodeGrantReplayed, "%.200q of %s was redeemed", x.in.more.ID, c.Issuer)
	}
	return nil
}

// partnerRecord is what a record says of the grant that began a chain.
func (g *foreignGrant) record() *record.PartnerGrant {
	out := &record.PartnerGrant{Issuer: g.begun.Issuer, ID: g.begun.ID, Hash: g.begun.Hash, ReceiptHash: g.begun.ReceiptHash}
	for _, a := range g.actors {
		out.Actors = append(out.Actors, record.Party{Issuer: a.Issuer, Subject: a.Subject})
	}
	return out
}
