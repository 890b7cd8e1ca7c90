package oidc_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/oidc"
)

func ExampleVerifier_Verify() {
	app := identity.MustParseAgent("spiffe://acme.example/helpdesk")
	verifier, err := oidc.New(oidc.Config{Issuers: []oidc.Issuer{{
		Issuer:  "https://id.acme.example",
		Clients: map[string]identity.Agent{"helpdesk-web": app},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The caller was authenticated as app by its certificate; the token is what
	// it sent as subject_token.
	_, err = verifier.Verify(context.Background(), "eyJhbGciOiJub25lIn0.e30.", app)
	var refused *oidc.Error
	if errors.As(err, &refused) {
		fmt.Println(refused.Code)
	}
	// Output: id_token_signature
}
