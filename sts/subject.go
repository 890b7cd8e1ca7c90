package sts

import (
	"context"
	"errors"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// subject is the verified subject token: for whom W asks, and by which chain.
type subject struct {
	person  identity.Person
	txn     string
	expires time.Time
	login   delegation.Login // at the root, also of a chain
	// hash is H(subject token) of an access token. It is known before the token
	// is verified; nothing but the record of a refusal reads it then.
	hash string

	// Of an access token: its chain as presented, closed by its own receipt, and
	// the receipts R0…Rn, compact, and the `kid` of R0…Rn−1 and of the token.
	chain, closed    delegation.Chain
	receipts, keyIDs []string
}

// isRoot reports whether the exchange starts a chain.
func (s subject) isRoot() bool { return s.chain.IsZero() }

// verifySubject is rules 6 and 7.
func (x *exchange) verifySubject(ctx context.Context) error {
	if x.form.get("subject_token_type") == typeIDToken {
		return x.verifyLogin(ctx)
	}
	return x.verifyDelegation(ctx)
}

// verifyLogin takes an ID token (tokens.md §8). The person is known by issuer
// and subject, never by email.
func (x *exchange) verifyLogin(ctx context.Context) error {
	if x.s.cfg.Logins == nil {
		return refuse(CodeIDTokenIssuer, "no OpenID provider is configured")
	}
	login, err := x.s.cfg.Logins.Verify(ctx, x.form.get("subject_token"), x.workload.Agent)
	if err != nil {
		var refused *Refusal
		if errors.As(err, &refused) {
			return refused
		}
		return refuse(CodeIDTokenMalformed, "verifying ID token: %w", err)
	}
	if login.Expires.IsZero() || login.Issuer == "" || login.Subject == "" || login.Hash == "" {
		return refuse(CodeIDTokenClaims, "a login without issuer, subject, hash or end")
	}
	if err := x.s.trustProvider(ctx, login.Issuer); err != nil {
		return err
	}
	if !x.client.HasClient(login.Issuer, login.ClientID) { // rule 7, threat X7
		return refuse(CodeIDTokenAudience, "client %q of %s is not registered for %s", login.ClientID, login.Issuer, x.client.URI)
	}
	ref, err := x.s.cfg.Persons.Reference(ctx, login.Issuer, login.Subject)
	if err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	if x.subject.person, err = identity.ParsePerson(x.s.cfg.Issuer, ref); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	x.subject.login = delegation.Login{
		Issuer: login.Issuer, Hash: login.Hash, AuthTime: login.AuthTime, ACR: login.ACR, AMR: login.AMR,
	}
	x.subject.expires = login.Expires
	if err := x.s.trustPerson(ctx, ref); err != nil {
		return err
	}
	if x.subject.txn, err = x.s.cfg.NewID(); err != nil {
		return refuse(CodeSigningUnavailable, "making txn: %w", err)
	}
	return nil
}

// verifyDelegation takes a delegation token. Its audience and binding are not
// checked: it was presented to W, not to us, and on another connection. What
// stands in for them is that W is the one it names to act next.
func (x *exchange) verifyDelegation(ctx context.Context) error {
	raw := x.form.get("subject_token")
	if hash, err := token.HashOf(raw); err == nil {
		x.subject.hash = hash
	}
	verified, err := x.s.verifier.Verify(ctx, raw, token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked})
	if err != nil {
		return refuseToken(err)
	}
	x.subject.person, x.subject.txn = verified.Chain.Person(), verified.Chain.Txn()
	x.subject.chain, x.subject.login = verified.Chain, verified.Chain.Login()
	x.subject.keyIDs = verified.KeyIDs
	x.subject.expires = verified.Leaf.Hop.Expires
	if err := x.closeChain(ctx, verified); err != nil {
		return err
	}
	if err := x.s.trustPerson(ctx, x.subject.person.Ref()); err != nil {
		return err
	}
	if err := x.s.trustActors(ctx, verified.Chain); err != nil {
		return err
	}
	return x.checkMayAct(ctx, verified.Leaf.Hop)
}

// closeChain finds the token's own receipt, which no token carries, and
// verifies the chain with it. A token that is not in the tree was not issued
// by this service, whatever signed it.
func (x *exchange) closeChain(ctx context.Context, verified token.Verified) error {
	own, known, err := registry.Found(x.s.cfg.Issued.Get(ctx, verified.Leaf.Hop.ID))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case !known:
		return refuse(CodeTokenUnknown, "%s is not in the tree of issued delegations", verified.Leaf.Hop.ID)
	}
	receipts := append(append(make([]string, 0, len(verified.Receipts)+1), verified.Receipts...), own.Receipt)
	closed, err := x.s.verifier.VerifyClosed(ctx, receipts, verified.Leaf.Hash)
	if err != nil {
		return refuseToken(err)
	}
	x.subject.closed, x.subject.receipts, x.subject.login = closed.Chain, closed.Receipts, closed.Chain.Login()
	return nil
}

// checkMayAct is rule 7 for an access token: W is whom it names, and serves
// its audience still (threats X7, F2).
func (x *exchange) checkMayAct(ctx context.Context, parent delegation.Hop) error {
	if parent.MayAct.IsZero() || !x.own(parent.MayAct) {
		return refuse(CodeNotMayAct, "the token lets %q act, not %s", parent.MayAct.Subject, x.workload.Agent)
	}
	a, err := x.s.trustAudience(ctx, parent.Audience, CodeAudienceNotServed)
	if err != nil {
		return err
	}
	if a.Serves != x.workload.Agent {
		return refuse(CodeAudienceNotServed, "%s is served by %q today", parent.Audience, a.Serves)
	}
	return nil
}

// refuseToken keeps the code of package token.
func refuseToken(err error) error {
	var refused *token.Error
	if errors.As(err, &refused) {
		return refuse(Code(refused.Code), "subject token: %w", refused.Err)
	}
	return refuse(CodeRegistryUnavailable, "subject token: %w", err)
}
