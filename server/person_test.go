package server

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/devidp"
)

const appRedirect = "http://127.0.0.1/callback"

// provider is where the person of a test signs in, for the application "app".
type provider struct{ *devidp.Provider }

func newProvider(t *testing.T) provider {
	t.Helper()
	p, err := devidp.New(devidp.Config{Clients: []devidp.Client{{ID: "app", RedirectURIs: []string{appRedirect}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return provider{p}
}

// trustedBy has persons of the provider sign in at the deployment's application,
// which may do what the details say.
func (p provider) trustedBy(cfg *config.Config, details string) {
	cfg.Tokens.PersonIssuers = []string{p.Issuer()}
	app := &cfg.Agents[0]
	app.Authority, app.Service = details, true
	app.OIDCClients = []config.OIDCClient{{Issuer: p.Issuer(), ClientID: "app"}}
}

// login is a person's ID token.
func (p provider) login(t *testing.T) string {
	t.Helper()
	account := devidp.DefaultAccounts()[0]
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	login, err := devidp.Login(t.Context(), &http.Client{Transport: transport}, devidp.LoginConfig{
		Issuer: p.Issuer(), ClientID: "app", RedirectURI: appRedirect, Username: account.Username, Password: account.Password,
	})
	if err != nil {
		t.Fatal(err)
	}
	return login.IDToken
}

// mayChat are authorization_details: the model "small" at an audience.
func mayChat(audience string) string {
	return fmt.Sprintf(`[{"type":"urn:lineal:call:v1","locations":[%q],"actions":["llm:chat"],"names":["small"]}]`, audience)
}
