package sts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// The grants of a direct login (RFC 6749 §4.1.3, §6).
const (
	grantCode    = "authorization_code"
	grantRefresh = "refresh_token"
)

// loginRules are the rules of the grants of a direct login, in their order.
// They ask everything that the rules of an exchange ask; a person's grant is
// what stands in the place of the subject token.
//
// Nothing is fetched for a client before its code or refresh token is found,
// and a demand for a nonce comes before a code is used up.
var loginRules = map[string][]func(*exchange, context.Context) error{
	grantCode: {
		(*exchange).checkGrantForm,
		(*exchange).redeemCode,
		(*exchange).authenticateClient, // 1, 2
		(*exchange).trustGrantor,       // 6
		(*exchange).trustGrantTarget,   // 9
		(*exchange).readGrantDetails,   // 10
		(*exchange).checkScope,         // 11
		(*exchange).limitLife,          // 12
		(*exchange).bindKey,            // 14
		(*exchange).buildHop,
		(*exchange).sign,
		(*exchange).beginFamily,
		(*exchange).keep, // 16
		(*exchange).adopt,
	},
	grantRefresh: {
		(*exchange).checkGrantForm,
		(*exchange).readRefreshToken,
		(*exchange).authenticateClient,
		(*exchange).trustGrantor,
		(*exchange).trustGrantTarget,
		(*exchange).readGrantDetails,
		(*exchange).checkScope,
		(*exchange).limitLife,
		(*exchange).bindKey,
		(*exchange).buildHop,
		(*exchange).sign,
		(*exchange).rotateAndKeep,
		(*exchange).adopt,
	},
}

// grant is what a person granted a client at a login, as it is asked for now.
type grant struct {
	authorization
	family registry.Family
	id     string // of the family, in its refresh tokens
	next   string // the secret of the next refresh token
}

// checkGrantForm checks the form, and a DPoP proof as far as that does not use
// it up.
func (x *exchange) checkGrantForm(context.Context) error {
	if err := x.form.checkParameters(); err != nil {
		return err
	}
	for _, name := range forbidden {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	if len(x.form.targets()) != 1 {
		return refuse(CodeTargetInvalid, "%d targets named", len(x.form.targets()))
	}
	return x.readProof()
}

// redeemCode uses up the code, whatever comes of it, and checks that it is this
// client's, for this redirect URI, verifier, resource and key (threat X13).
func (x *exchange) redeemCode(ctx context.Context) error {
	for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
		if x.form.get(name) == "" {
			return refuse(CodeParameterInvalid, "no %s", name)
		}
	}
	code := x.form.get("code")
	if !isSecret(code) {
		return refuse(CodeCodeInvalid, "a code of %d bytes", len(code))
	}
	kept, uses, err := x.s.cfg.Login.Store.Redeem(ctx, registry.KeyOf(purposeCode, code))
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return refuse(CodeCodeInvalid, "an unknown code, or one that has ended")
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	a, err := authorizationFrom(kept.Body, true)
	if err != nil {
		return err
	}
	x.grant = &grant{authorization: a, id: familyOf(code)}
	if uses > 1 {
		return x.endChain(ctx, uses)
	}
	x.grant.family = registry.Family{
		Key: kept.Family, Code: kept.Key, Person: a.Person, Client: a.Client,
		Begun: x.now, Expires: x.now.Truncate(time.Second).Add(x.s.cfg.Login.Refresh),
	}
	x.subject.txn = a.Txn
	sum := sha256.Sum256([]byte(x.form.get("code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	switch {
	case a.Redirect != x.form.get("redirect_uri"):
		return refuse(CodeGrantMismatch, "the code was asked for at another redirect URI than %.200q", x.form.get("redirect_uri"))
	case !isVerifier(x.form.get("code_verifier")) || subtle.ConstantTimeCompare([]byte(challenge), []byte(a.Challenge)) != 1:
		return refuse(CodeVerifierMismatch, "a verifier of %d bytes", len(x.form.get("code_verifier")))
	}
	return x.checkGrant()
}

// isVerifier accepts a code_verifier (RFC 7636 §4.1).
func isVerifier(s string) bool {
	return len(s) >= 43 && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._~", c)
	})
}

// endChain ends what a code that is used again has begun: its refresh tokens
// have ended by now, and here the chain of its first use (RFC 6749 §4.1.2). It
// is done once: who has a code may try it for ever.
func (x *exchange) endChain(ctx context.Context, uses int) error {
	if uses > 2 {
		return refuse(CodeCodeReused, "a code was used for the %dth time", uses)
	}
	_, err := x.s.Revoke(ctx, Revocation{
		Kind: token.RevokedTxn, Value: x.grant.Txn, Cause: "authorization code used again", By: x.s.cfg.Issuer,
	})
	if err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "the chain of a reused code was not revoked", slog.String("cause", err.Error()))
	}
	return refuse(CodeCodeReused, "a code was used again")
}

// checkGrant checks what binds codes and refresh tokens alike: the client, the
// resource, and the key if there is one.
func (x *exchange) checkGrant() error {
	a := x.grant
	switch id, err := x.clientID(); {
	case err != nil:
		return err
	case id != a.Client:
		return refuse(CodeGrantMismatch, "granted to %s, not to %.200q", a.Client, id)
	case x.form.targets()[0] != a.Resource:
		return refuse(CodeTargetInvalid, "granted for %s, not for %.200q", a.Resource, x.form.targets()[0])
	case a.Key != "" && (x.proof == nil || x.proof.KeyThumbprint() != a.Key):
		return refuse(CodeGrantMismatch, "granted to a key that this request does not prove")
	}
	return nil
}

// clientID is `client_id`, or, where an assertion stands for it, the subject of
// that, which is not verified yet.
func (x *exchange) clientID() (string, error) {
	if id := x.form.get("client_id"); id != "" {
		return id, nil
	}
	if a := x.form.get("client_assertion"); a != "" {
		jws, err := workloadjwt.Parse(a)
		if err != nil {
			return "", refuse(CodeAssertionInvalid, "%w", err)
		}
		c, err := jws.Claims()
		if err != nil {
			return "", refuse(CodeAssertionInvalid, "%w", err)
		}
		return c.Subject, nil
	}
	return "", refuse(CodeClientUnauthenticated, "no client_id")
}

// trustGrantor is rule 6: provider and person, today.
func (x *exchange) trustGrantor(ctx context.Context) error {
	x.subject.expires = x.grant.family.Expires
	if err := x.setSubject(ctx, x.grant.authorization); err != nil {
		return err
	}
	return x.checkGrantStands(ctx)
}

// checkGrantStands refuses what a person or client that was revoked since the
// login left behind: a code that nobody had used yet (threat C9).
func (x *exchange) checkGrantStands(ctx context.Context) error {
	a := x.grant.authorization
	kind, err := x.s.revoked.check(ctx, func(s *token.RevocationSet) token.RevocationKind {
		return s.MatchParties(a.Person, a.Client, time.Unix(a.Login.At, 0))
	})
	switch {
	case err != nil:
		return refuse(Code(token.CodeRevocationStale), "%w", err)
	case kind != "":
		return refuse(CodeGrantRevoked, "the %s was revoked since the login", kind)
	}
	return nil
}

// trustGrantTarget is rule 9.
func (x *exchange) trustGrantTarget(ctx context.Context) (err error) {
	x.target, err = x.s.trustTarget(ctx, x.grant.Resource, x.client)
	return err
}

// readGrantDetails is rule 10: what the person granted, or, where the client
// asks for less, that; in either case within what it may hold today.
func (x *exchange) readGrantDetails(context.Context) (err error) {
	if x.granted, err = scope.Parse(x.grant.Details, true); err != nil {
		return refuse(CodeDetailsMalformed, "%w", err)
	}
	return x.takeLess()
}

// takeLess narrows what was granted to what the client asks for, if it asks, and
// holds that to what the client may ever hold.
func (x *exchange) takeLess() error {
	if sent := x.form.get("authorization_details"); sent != "" {
		less, err := scope.Parse([]byte(sent), true)
		if err != nil {
			return refuse(CodeDetailsMalformed, "%w", err)
		}
		if err := scope.Within(x.granted, less); err != nil {
			return refuse(CodeDetailsWidened, "%w", err)
		}
		x.granted = less
	}
	if err := scope.Within(x.client.Authority, x.granted); err != nil {
		return refuse(CodeAuthorityExceeded, "authority of %s: %w", x.client.URI, err)
	}
	return nil
}

// beginFamily keeps the first refresh token, before anything is given away. Its
// use is bound to the key that the token is bound to, if the client has no
// other proof of itself (RFC 9449 §5).
func (x *exchange) beginFamily(ctx context.Context) (err error) {
	if x.grant.next, err = newSecret(); err != nil {
		return err
	}
	if x.workload.Method == identity.MethodNone && x.bound.KeyThumbprint != "" {
		x.grant.Key = x.bound.KeyThumbprint
	}
	f := x.grant.family
	f.Current = registry.KeyOf(purposeRefresh, x.grant.next)
	if f.Body, err = json.Marshal(x.grant.authorization); err != nil {
		return refuse(CodeRegistryUnavailable, "keeping the grant: %w", err)
	}
	switch err := x.s.cfg.Login.Store.BeginFamily(ctx, f); {
	case errors.Is(err, registry.ErrExists):
		return refuse(CodeCodeReused, "the code was used again meanwhile")
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	return nil
}

// familyOf names the family that a code begins. Knowing the name lets nobody
// refresh anything.
func familyOf(code string) string {
	sum := sha256.Sum256([]byte("family of refresh tokens\x00" + code))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// refreshToken is the next refresh token, "" for an exchange.
func (x *exchange) refreshToken() string {
	if x.grant == nil {
		return ""
	}
	return x.grant.id + "." + x.grant.next
}

// issuedType is `issued_token_type`, which an exchange alone answers (RFC 8693
// §2.2.1).
func (x *exchange) issuedType() string {
	if x.grant != nil || x.service.ID != "" || x.in != nil {
		return ""
	}
	if x.out != nil {
		return typeIDJAG
	}
	return typeAccessToken
}
