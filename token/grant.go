package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// TypeGrant is `typ` of a grant (draft-ietf-oauth-identity-assertion-authz-grant-03).
const TypeGrant = "oauth-id-jag+jwt"

// Grant is what a token service says to that of another organisation: this
// person, through these actors, may have this of your API, by this client of
// yours (tokens.md §11). It is no token: no reader of tokens takes it.
type Grant struct {
	Issuer   string // `iss`
	Audience string // `aud`: the partner's issuer, alone
	Subject  string // `sub`: the person as this partner knows one
	ClientID string // the presenter as the partner has it registered
	Resource string // the partner's API

	Actors  []delegation.Actor // `act`, the presenter first
	Details scope.Grant        // as a root has them
	Bound   delegation.Confirmation

	ID, Txn           string
	IssuedAt, Expires time.Time // whole seconds
	// ReceiptHash is of the hop before, "" where the partner is not told.
	ReceiptHash string
}

// SignGrant signs a grant. One that is bound to no key, or permits nothing, is
// an error.
func (i *Issuer) SignGrant(g Grant) (Signed, error) {
	s, err := i.signGrant(g)
	if err != nil {
		return Signed{}, fmt.Errorf("signing grant: %w", err)
	}
	return s, nil
}

func (i *Issuer) signGrant(g Grant) (Signed, error) {
	switch {
	case g.Issuer != i.name:
		return Signed{}, fmt.Errorf("issuer %q, not %q", g.Issuer, i.name)
	case g.Audience == "" || g.Audience == g.Issuer:
		return Signed{}, fmt.Errorf("audience %q is no partner", g.Audience)
	case g.Bound.IsZero() || g.Details.IsZero() || len(g.Actors) == 0:
		return Signed{}, errors.New("no key, no details or no actor")
	case g.Subject == "" || g.ClientID == "" || g.Resource == "" || g.ID == "" || g.Txn == "":
		return Signed{}, errors.New("a claim is empty")
	case !g.Expires.After(g.IssuedAt):
		return Signed{}, errors.New("it ends at or before its issue")
	}
	signer, err := i.signerAt(g.IssuedAt)
	if err != nil {
		return Signed{}, err
	}
	var m members
	m.text("iss", g.Issuer)
	m.text("aud", g.Audience)
	m.text("sub", g.Subject)
	m.text("client_id", g.ClientID)
	m.object("act", actMembers(g.Actors))
	m.text("resource", g.Resource)
	m.text("scope", g.Details.Scope())
	m.value("authorization_details", g.Details.Value())
	m.confirmation(g.Bound)
	m.text("jti", g.ID)
	m.time("iat", g.IssuedAt)
	m.time("exp", g.Expires)
	m.text("txn", g.Txn)
	m.text("rcpt_hash", g.ReceiptHash)
	payload, err := m.encode()
	if err != nil {
		return Signed{}, err
	}
	if n := sealedLen(signer, TypeGrant, len(payload)); n > MaxBytes {
		return Signed{}, fmt.Errorf("%w: grant of %d bytes", ErrTooLarge, n)
	}
	return signed(signer, TypeGrant, payload, false)
}

// ReadActors reads `act` of a foreign token whose signature was checked,
// outermost first. Profiles of other makes are taken for agents.
func ReadActors(act strictjson.Value) ([]delegation.Actor, error) {
	r := reader{where: "act"}
	var actors []delegation.Actor
	for {
		if len(actors) == maxForeignActors {
			return nil, fmt.Errorf("more than %d actors", maxForeignActors)
		}
		if err := strictjson.KnownOpen(act, "iss", "sub", "sub_profile", "act"); err != nil {
			return nil, err
		}
		a := delegation.Actor{Profile: delegation.ProfileAgent}
		a.Issuer, a.Subject = r.text(act, "iss", name), r.text(act, "sub", name)
		if p, _ := act.Get("sub_profile"); p.Equal(strictjson.String(delegation.ProfileService)) {
			a.Profile = delegation.ProfileService
		}
		if r.err != nil {
			return nil, r.err
		}
		actors = append(actors, a)
		inner, more := act.Get("act")
		if !more {
			return actors, nil
		}
		act = inner
	}
}

// maxForeignActors leaves room for our own above a partner's.
const maxForeignActors = maxActors - delegation.MaxHops
