package sts

import (
	"context"
	"errors"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

// assertionTime is the longest life of an assertion that a client makes itself.
const assertionTime = 5 * time.Minute

var assertionAlgorithms = []workloadjwt.Algorithm{workloadjwt.RS256, workloadjwt.ES256, workloadjwt.ES384}

// authenticateClient is rules 1 and 2 for the client of a direct login: known
// today, with this redirect URI, and proven as it registered. A certificate on
// the connection must be the client's own, however it authenticates: the token
// will be bound to it.
func (x *exchange) authenticateClient(ctx context.Context) error {
	target, err := x.s.trustAudience(ctx, x.grant.Resource, CodeTargetUnknown)
	if err != nil {
		return err
	}
	client, err := x.s.loginClient(ctx, x.grant.Client, target)
	if err != nil {
		return err
	}
	if !client.Redirects(x.grant.Redirect) {
		return refuse(CodeRedirectInvalid, "redirect URI %.200q is no longer one of %s", x.grant.Redirect, client.ID)
	}
	if x.workload, err = x.connected(client); err != nil {
		return err
	}
	sent := len(x.form.values["client_assertion"])+len(x.form.values["client_assertion_type"]) > 0
	switch {
	case len(x.r.Header["Authorization"]) > 0 || x.form.get("client_secret") != "":
		return refuse(CodeClientMismatch, "a client secret, or an Authorization header")
	case sent != (client.Auth == identity.MethodPrivateKeyJWT):
		return refuse(CodeClientMismatch, "%s authenticates by %s, assertion sent: %t", client.ID, client.Auth, sent)
	case client.Auth == identity.MethodPrivateKeyJWT:
		if err := x.useAssertion(ctx, client); err != nil {
			return err
		}
	case client.Auth == identity.MethodSPIFFEX509 && x.workload.Thumbprint == "":
		return refuse(CodeClientUnauthenticated, "%s authenticates by certificate", client.ID)
	}
	x.client = client.agent
	return nil
}

// connected is the client as the connection proves it, or as it claims to be.
func (x *exchange) connected(client loginClient) (identity.Workload, error) {
	w, err := x.s.cfg.Source.Identify(x.r, x.now)
	switch {
	case errors.Is(err, identity.ErrNoCredential):
		return identity.Workload{Agent: client.ID, Method: identity.MethodNone}, nil
	case err != nil:
		return identity.Workload{}, refuse(CodeClientUnauthenticated, "identifying the client: %w", err)
	case w.Agent != client.ID:
		return identity.Workload{}, refuse(CodeClientMismatch, "client_id %s, the certificate is of %s", client.ID, w.Agent)
	}
	return w, nil
}

// useAssertion is private_key_jwt (RFC 7523 §3, draft-ietf-oauth-rfc7523bis-11):
// signed by the client, for this issuer alone, used once among all replicas
// (threat I6).
func (x *exchange) useAssertion(ctx context.Context, client loginClient) error {
	if x.s.cfg.Login.Assertions == nil || x.form.get("client_assertion_type") != identity.AssertionJWT {
		return refuse(CodeAssertionInvalid, "client_assertion_type %.100q", x.form.get("client_assertion_type"))
	}
	jws, c, err := x.readAssertion(client)
	if err != nil {
		return refuse(CodeAssertionInvalid, "%w", err)
	}
	id, err := c.Text("jti")
	if err != nil {
		return refuse(CodeAssertionInvalid, "%w", err)
	}
	keys, err := x.s.keysOf(ctx, client)
	if err != nil {
		return refuse(CodeAssertionInvalid, "keys of %s: %w", client.ID, err)
	}
	found, err := workloadjwt.KeysIn(keys, jws.KeyID(), jws.Algorithm())
	if err == nil {
		err = jws.VerifySignature(found...)
	}
	if err != nil {
		return refuse(CodeAssertionInvalid, "%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, x.s.cfg.RecordTimeout)
	defer cancel()
	first, err := x.s.cfg.Login.Assertions.Use(ctx, client.ID.String(), id, c.Expiry.Add(workloadjwt.Leeway+time.Second))
	switch {
	case err != nil:
		return refuse(CodeProofUnavailable, "%w", err)
	case !first:
		return refuse(CodeAssertionReplayed, "assertion %.100q was used", id)
	}
	x.workload.Method, x.workload.Credential = identity.MethodPrivateKeyJWT, jws.Hash()
	return nil
}

// readAssertion checks all of an assertion that needs no key.
func (x *exchange) readAssertion(client loginClient) (workloadjwt.JWS, workloadjwt.Claims, error) {
	jws, err := workloadjwt.Parse(x.form.get("client_assertion"))
	if err != nil {
		return jws, workloadjwt.Claims{}, err
	}
	c, err := jws.Claims()
	if err != nil {
		return jws, c, err
	}
	if c.Issuer != client.ID.String() || c.Subject != c.Issuer {
		return jws, c, refuse(CodeAssertionInvalid, "iss %.200q and sub %.200q are not both the client", c.Issuer, c.Subject)
	}
	for _, err := range []error{
		jws.CheckHeader(assertionAlgorithms, "JWT", "client-authentication+jwt"),
		c.CheckAudience(x.s.cfg.Issuer), c.CheckTimes(x.now), c.CheckLife(assertionTime),
	} {
		if err != nil {
			return jws, c, err
		}
	}
	return jws, c, nil
}
