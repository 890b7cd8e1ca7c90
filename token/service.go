package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// ServiceToken is an access token by which a workload shows who it is at its
// issuer's own endpoints, where it has no certificate to show (tokens.md §9). It
// delegates nothing: it has no person, no `act` and no scope, its audience is
// its issuer, and no reader of delegation tokens accepts it, nor this one those.
type ServiceToken struct {
	Issuer            string         // `iss` and `aud`
	Client            identity.Agent // `sub` and `client_id`
	ID                string         // `jti`
	Bound             delegation.Confirmation
	IssuedAt, Expires time.Time // whole seconds
	KeyID             string    // `kid`; ignored when it is signed
}

var serviceNames = []string{"iss", "aud", "sub", "client_id", "cnf", "jti", "iat", "exp"}

// SignService signs a service token. Like all that an Issuer signs it is read
// back by the reader's own code first. One that is bound to no key is an error.
func (i *Issuer) SignService(t ServiceToken) (Signed, error) {
	s, err := i.signService(t)
	if err != nil {
		return Signed{}, fmt.Errorf("signing service token: %w", err)
	}
	return s, nil
}

func (i *Issuer) signService(t ServiceToken) (Signed, error) {
	if t.Issuer != i.name {
		return Signed{}, fmt.Errorf("issuer %q, not %q", t.Issuer, i.name)
	}
	signer, err := i.signerAt(t.IssuedAt)
	if err != nil {
		return Signed{}, err
	}
	var m members
	m.text("iss", t.Issuer)
	m.text("aud", t.Issuer)
	m.text("sub", t.Client.String())
	m.text("client_id", t.Client.String())
	m.confirmation(t.Bound)
	m.text("jti", t.ID)
	m.time("iat", t.IssuedAt)
	m.time("exp", t.Expires)
	payload, err := m.encode()
	if err != nil {
		return Signed{}, err
	}
	if err := readBack(payload, func(v strictjson.Value) error { _, err := readService(v); return err }); err != nil {
		return Signed{}, err
	}
	return signed(signer, typeToken, payload, false)
}

func readService(v strictjson.Value) (ServiceToken, error) {
	r := reader{where: "service token"}
	r.object(v, "claims", serviceNames...)
	t := ServiceToken{
		Issuer: r.text(v, "iss", name), ID: r.text(v, "jti", uuidV7), Bound: r.confirmation(v),
		IssuedAt: r.time(v, "iat"), Expires: r.time(v, "exp"),
	}
	audience, sub, client := r.text(v, "aud", name), r.text(v, "sub", name), r.text(v, "client_id", name)
	switch {
	case r.err != nil:
		return ServiceToken{}, r.err
	case audience != t.Issuer:
		return ServiceToken{}, fmt.Errorf("reading service token: aud %q is not its issuer", audience)
	case sub != client:
		return ServiceToken{}, errors.New("reading service token: sub is not client_id")
	case t.Bound.IsZero():
		return ServiceToken{}, errors.New("reading service token: bound to no key")
	case !t.Expires.After(t.IssuedAt):
		return ServiceToken{}, errors.New("reading service token: ends at or before its issue")
	}
	agent, err := identity.ParseAgent(sub)
	if err != nil {
		return ServiceToken{}, fmt.Errorf("reading service token: sub: %w", err)
	}
	t.Client = agent
	return t, nil
}

// VerifyService verifies a service token: form, signature, times, and the key it
// is bound to against the connection's certificate or the proof, of which only
// Workload and Proof are read in want. Whether it was revoked, and the proof's
// first use, are the caller's to ask. Every error is an [*Error].
func (v *Verifier) VerifyService(ctx context.Context, raw string, want Want) (ServiceToken, error) {
	c, err := split(raw)
	if err != nil {
		return ServiceToken{}, err
	}
	h, err := readHeader(c.header, typeToken)
	if err != nil {
		return ServiceToken{}, err
	}
	claims, err := strictjson.Parse(c.payload, strictjson.Limits{MaxBytes: MaxBytes})
	if err != nil {
		return ServiceToken{}, refuse(CodeTokenMalformed, "reading payload: %w", err)
	}
	iss, _ := claims.Get("iss")
	issuer, _ := iss.Text()
	source, ok := v.issuers[issuer]
	if !ok {
		return ServiceToken{}, refuse(CodeIssuerUnknown, "issuer %q is not configured", issuer)
	}
	key, err := checkSigned(ctx, source, h, c)
	if err != nil {
		return ServiceToken{}, err
	}
	t, err := readService(claims)
	if err != nil {
		return ServiceToken{}, refuse(CodeTokenMalformed, "%w", err)
	}
	if !key.signedAt(t.IssuedAt) {
		return ServiceToken{}, refuse(CodeKeyUnknown, "key %q was not in use at iat", key.KeyID)
	}
	t.KeyID = h.kid
	return t, v.checkService(t, raw, want)
}

// checkService is steps 3 and 4 for a service token, by the functions of the
// others.
func (v *Verifier) checkService(t ServiceToken, raw string, want Want) error {
	hop := delegation.Hop{
		Audience: t.Issuer, Bound: t.Bound, IssuedAt: t.IssuedAt, Expires: t.Expires,
		Actors: []delegation.Actor{{Party: identity.Party{Issuer: t.Issuer, Subject: t.Client.String()}}},
	}
	now := v.now()
	if err := v.checkCall(&hop, Want{Audience: t.Issuer}, now); err != nil {
		return err
	}
	return v.checkBinding(&hop, Want{Workload: want.Workload, Proof: want.Proof, Binding: BindingRequired}, raw, now)
}

// MatchParties returns the kind under which a person, by the reference, or an
// agent is revoked for what began at a time, "" if neither is.
func (s *RevocationSet) MatchParties(person, agent string, began time.Time) RevocationKind {
	if m, ok := s.person[person]; ok && !began.After(m.before) {
		return RevokedPerson
	}
	if m, ok := s.agent[agent]; ok && !began.After(m.before) {
		return RevokedAgent
	}
	return ""
}

// MatchService is Match for a service token.
func (s *RevocationSet) MatchService(t ServiceToken) RevocationKind {
	switch m, ok := s.agent[t.Client.String()]; {
	case has(s.hop, t.ID):
		return RevokedHop
	case ok && !t.IssuedAt.After(m.before):
		return RevokedAgent
	case has(s.cert, t.Bound.CertThumbprint), has(s.cert, t.Bound.KeyThumbprint):
		return RevokedCert
	case has(s.key, t.KeyID):
		return RevokedKey
	}
	return ""
}
