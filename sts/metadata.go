package sts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// Metadata is the authorization server metadata (RFC 8414 §2). It lists what
// exists and nothing else.
type Metadata struct {
	Issuer                 string            `json:"issuer"`
	JWKSURI                string            `json:"jwks_uri"`
	TokenEndpoint          string            `json:"token_endpoint"`
	RevocationEndpoint     string            `json:"revocation_endpoint"`
	IntrospectionEndpoint  string            `json:"introspection_endpoint"`
	MTLSEndpointAliases    map[string]string `json:"mtls_endpoint_aliases,omitempty"`
	ResponseTypes          []string          `json:"response_types_supported"` // required, even if empty
	GrantTypes             []string          `json:"grant_types_supported"`
	TokenEndpointAuth      []string          `json:"token_endpoint_auth_methods_supported"`
	RevocationAuth         []string          `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionAuth      []string          `json:"introspection_endpoint_auth_methods_supported"`
	Scopes                 []string          `json:"scopes_supported"`
	DetailTypes            []string          `json:"authorization_details_types_supported"`
	CertificateBoundTokens bool              `json:"tls_client_certificate_bound_access_tokens"`
	DPoPAlgorithms         []string          `json:"dpop_signing_alg_values_supported,omitempty"`
}

func writeMetadata(cfg Config) ([]byte, error) {
	auth := []string{string(identity.MethodSPIFFEX509)} // RFC 8414 §2: else client_secret_basic would be meant
	m := Metadata{
		Issuer: cfg.Issuer, JWKSURI: cfg.Issuer + "/jwks", TokenEndpoint: cfg.Issuer + "/token",
		RevocationEndpoint: cfg.Issuer + "/revoke", IntrospectionEndpoint: cfg.Issuer + "/introspect",
		ResponseTypes: []string{}, GrantTypes: []string{grantTokenExchange},
		TokenEndpointAuth: auth, RevocationAuth: auth, IntrospectionAuth: auth,
		Scopes: verbs(), DetailTypes: []string{scope.Type}, CertificateBoundTokens: true,
	}
	if cfg.Proofs != nil {
		m.DPoPAlgorithms = token.ProofAlgorithms()
	}
	if cfg.MTLS != "" {
		m.MTLSEndpointAliases = map[string]string{
			"token_endpoint": cfg.MTLS + "/token", "revocation_endpoint": cfg.MTLS + "/revoke",
			"introspection_endpoint": cfg.MTLS + "/introspect",
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing metadata: %w", err)
	}
	return b, nil
}

// verbs are the scope values that exist.
func verbs() []string {
	var all []string
	for _, a := range scope.Actions() {
		if v, ok := scope.Verb(a); ok {
			all = append(all, v)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// serveDocument serves a public document.
func (s *Service) serveDocument(w http.ResponseWriter, r *http.Request, body []byte) {
	if !allowRead(w, r) {
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	writeJSON(w, http.StatusOK, body)
}

func allowRead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	return false
}

// writeJSON writes a whole answer. That the peer went away concerns nobody.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
