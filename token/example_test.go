package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// A root token, bound to the application's certificate, passes on that
// application's connection and on no other.
func Example() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := token.NewES256("", key)
	if err != nil {
		log.Fatal(err)
	}
	signed, now := issueRoot(signer)

	public, err := token.PublicKeyOf(signer)
	if err != nil {
		log.Fatal(err)
	}
	keys, err := token.NewStaticKeys(public)
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(token.Config{
		Issuers:     []token.TrustedIssuer{{Name: "https://sts.test", Keys: keys}},
		Revocations: token.NoRevocations{},
		Now:         func() time.Time { return now },
	})
	if err != nil {
		log.Fatal(err)
	}

	app := &identity.Workload{
		Agent: identity.MustParseAgent("spiffe://acme/app"), Thumbprint: "hxFcBR4L6I7j2NExxnhpzUNTivEtvPKH2SiEjEZjp0g",
	}
	want := token.Want{Audience: "https://orchestrator.test", Workload: app}
	verified, err := verifier.Verify(context.Background(), string(signed.Raw), want)
	fmt.Println(verified.Chain.Person(), err)

	want.Workload = nil // the token alone is worth nothing
	_, err = verifier.Verify(context.Background(), string(signed.Raw), want)
	var refused *token.Error
	fmt.Println(errors.As(err, &refused), refused.Code)
	fmt.Println(signed.Raw)
	// Output:
	// https://sts.test#q5QmPzR0vN2cYx8LkT3wBA <nil>
	// true binding_missing
	// [token redacted]
}

func issueRoot(signer token.Signer) (token.Signed, time.Time) {
	issuer, err := token.NewIssuer("https://sts.test", signer)
	if err != nil {
		log.Fatal(err)
	}
	person, err := identity.ParsePerson(issuer.Name(), "q5QmPzR0vN2cYx8LkT3wBA")
	if err != nil {
		log.Fatal(err)
	}
	details, err := scope.Parse([]byte(`[{"type":"urn:lineal:call:v1","locations":["https://orchestrator.test"],
		"actions":["a2a:send"],"names":["orchestrator"]}]`), true)
	if err != nil {
		log.Fatal(err)
	}
	now := time.Unix(1795348800, 0)
	app := identity.Party{Issuer: issuer.Name(), Subject: "spiffe://acme/app"}
	hop := delegation.Hop{
		Audience: "https://orchestrator.test", Person: person, Profile: delegation.ProfileUser, ClientID: app.Subject,
		Actors:  []delegation.Actor{{Party: app, Profile: delegation.ProfileService}},
		MayAct:  identity.Party{Issuer: issuer.Name(), Subject: "spiffe://acme/orchestrator"},
		Details: details, Bound: delegation.Confirmation{CertThumbprint: "hxFcBR4L6I7j2NExxnhpzUNTivEtvPKH2SiEjEZjp0g"},
		ID: "01a20320-a5e8-7000-8000-000000000001", MaxDepth: delegation.DefaultMaxDepth, IssuedAt: now, Expires: now.Add(5 * time.Minute),
	}
	if err := delegation.CheckRoot(hop); err != nil {
		log.Fatal(err)
	}
	signed, err := issuer.SignToken(delegation.Leaf{Issuer: issuer.Name(), Txn: "01a20320-a200-7000-8000-000000000000", Hop: hop}, nil)
	if err != nil {
		log.Fatal(err)
	}
	return signed, now
}
