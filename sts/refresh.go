package sts

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

// readRefreshToken finds the family of a refresh token. One that was replaced
// is used by somebody who should not have it, or whose successor somebody else
// has: the family ends (RFC 9700 §4.14.2).
func (x *exchange) readRefreshToken(ctx context.Context) error {
	id, secret, ok := splitRefreshToken(x.form.get("refresh_token"))
	if !ok {
		return refuse(CodeRefreshInvalid, "a refresh token of %d bytes", len(x.form.get("refresh_token")))
	}
	f, err := x.s.cfg.Login.Store.Family(ctx, registry.KeyOf(purposeFamily, id))
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return refuse(CodeRefreshInvalid, "an unknown refresh token, or one that has ended")
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	a, err := authorizationFrom(f.Body, true)
	if err != nil {
		return err
	}
	x.grant = &grant{authorization: a, family: f, id: id}
	if registry.KeyOf(purposeRefresh, secret) != f.Current {
		return x.endFamily(ctx)
	}
	if x.subject.txn, err = x.s.cfg.NewID(); err != nil { // a new chain
		return refuse(CodeSigningUnavailable, "making txn: %w", err)
	}
	return x.checkGrant()
}

// endFamily ends the family whose token was used a second time.
func (x *exchange) endFamily(ctx context.Context) error {
	if err := x.s.cfg.Login.Store.EndFamily(ctx, x.grant.family.Key); err != nil {
		return refuse(CodeRegistryUnavailable, "ending a family of refresh tokens: %w", err)
	}
	return refuse(CodeRefreshReused, "a refresh token was used again")
}

// recheckGrant asks again, now that the refresh tokens of a code are kept: a
// revocation that ended all that it found before they were there is in the list
// by now.
func (x *exchange) recheckGrant(ctx context.Context) error {
	err := x.checkGrantStands(ctx)
	if err != nil && codeOf(err) == CodeGrantRevoked {
		if undone := x.s.cfg.Login.Store.EndFamily(ctx, x.grant.family.Key); undone != nil {
			return refuse(CodeRegistryUnavailable, "ending a family of refresh tokens: %w", undone)
		}
	}
	return err
}

func splitRefreshToken(s string) (id, secret string, ok bool) {
	id, secret, ok = strings.Cut(s, ".")
	return id, secret, ok && isSecret(id) && isSecret(secret)
}

// rotateAndKeep is rule 16 for a refresh: of any number of requests with one
// token, one gets past the rotation. If the record cannot be made, the rotation
// is taken back, so that an outage of the ledger logs nobody out: nobody has
// seen the new token.
func (x *exchange) rotateAndKeep(ctx context.Context) (err error) {
	if x.grant.next, err = newSecret(); err != nil {
		return err
	}
	store, f := x.s.cfg.Login.Store, x.grant.family
	next := registry.KeyOf(purposeRefresh, x.grant.next)
	rotated, err := store.Rotate(ctx, f.Key, f.Current, next)
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case !rotated:
		return x.endFamily(ctx)
	}
	if err := x.keep(ctx); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.s.cfg.RecordTimeout)
		defer cancel()
		if _, undone := store.Rotate(undo, f.Key, next, f.Current); undone != nil {
			x.s.cfg.Logger.ErrorContext(ctx, "rotation not taken back", slog.String("cause", undone.Error()))
		}
		return err
	}
	return nil
}

func isRefreshToken(s string) bool {
	_, _, ok := splitRefreshToken(s)
	return ok
}

// revokeFamily is RFC 7009 for a refresh token: the client that has it ends its
// family. Of one that is not there is nothing to tell (§2.2).
func (x *exchange) revokeFamily(ctx context.Context) error {
	if err := x.form.checkParameters(); err != nil {
		return err
	}
	id, _, _ := splitRefreshToken(x.form.get("token"))
	client, err := x.clientID()
	if err != nil {
		return err
	}
	f, known, err := registry.Found(x.s.cfg.Login.Store.Family(ctx, registry.KeyOf(purposeFamily, id)))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case !known:
		return nil
	case f.Client != client:
		return refuse(CodeTokenNotOwn, "a refresh token of %s", f.Client)
	}
	a, err := authorizationFrom(f.Body, true)
	if err != nil {
		return err
	}
	x.grant = &grant{authorization: a, family: f, id: id}
	if err := x.authenticateClient(ctx); err != nil {
		return err
	}
	if err := x.s.cfg.Login.Store.EndFamily(ctx, f.Key); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	return nil
}

// endFamilies ends the refresh tokens of a person or client that is revoked:
// they would outlive the entry, and begin anew what it ended.
func (s *Service) endFamilies(ctx context.Context, e token.Revocation) error {
	var owner registry.FamilyOwner
	switch {
	case s.cfg.Login == nil:
		return nil
	case e.Kind == token.RevokedPerson:
		owner.Person = e.Value
	case e.Kind == token.RevokedAgent:
		owner.Client = e.Value
	default:
		return nil
	}
	if err := s.cfg.Login.Store.EndFamilies(ctx, owner, e.Before); err != nil {
		return refuse(CodeRegistryUnavailable, "ending refresh tokens: %w", err)
	}
	return nil
}
