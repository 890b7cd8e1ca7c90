package sts

import (
	"encoding/json"
	"fmt"
	"maps"
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

	// Of JWTs that authenticate clients.
	AssertionAlgorithms     []string `json:"token_endpoint_auth_signing_alg_values_supported,omitempty"`
	RevocationAlgorithms    []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
	IntrospectionAlgorithms []string `json:"introspection_endpoint_auth_signing_alg_values_supported,omitempty"`

	// Of direct logins.
	AuthorizationEndpoint string   `json:"authorization_endpoint,omitempty"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported,omitempty"`
	ResponseModes         []string `json:"response_modes_supported,omitempty"`
	NamesIssuer           bool     `json:"authorization_response_iss_parameter_supported,omitempty"`
	ClientDocuments       bool     `json:"client_id_metadata_document_supported,omitempty"`

	// Of other organisations (draft-ietf-oauth-identity-assertion-authz-grant-03).
	ChainingTypes []string `json:"identity_chaining_requested_token_types_supported,omitempty"`
	GrantProfiles []string `json:"authorization_grant_profiles_supported,omitempty"`
}

// openIDMetadata is what OpenID Connect Discovery §3 requires beside. Some
// clients ask in this form alone; no ID token is issued, so that there is no
// algorithm.
type openIDMetadata struct {
	Metadata
	SubjectTypes      []string `json:"subject_types_supported"`
	IDTokenAlgorithms []string `json:"id_token_signing_alg_values_supported"`
}

// profileIDJAG names the grants that jwt-bearer takes.
const profileIDJAG = "urn:ietf:params:oauth:grant-profile:id-jag"

// addLogin lists what direct logins have.
func (m *Metadata) addLogin(cfg Config) {
	m.AuthorizationEndpoint = cfg.Issuer + "/authorize"
	m.ChallengeMethods, m.ResponseTypes, m.ResponseModes = []string{"S256"}, []string{"code"}, []string{"query"}
	m.GrantTypes = append(slices.Sorted(maps.Keys(loginRules)), m.GrantTypes...)
	m.TokenEndpointAuth = append(slices.Clone(m.TokenEndpointAuth), "none")
	if cfg.Login.Assertions != nil {
		m.addAssertion(identity.MethodPrivateKeyJWT)
	}
	m.RevocationAuth = m.TokenEndpointAuth // of refresh tokens
	m.NamesIssuer, m.ClientDocuments = true, cfg.Login.Documents != nil
}

// addAssertion lists a method that presents a JWT at the token endpoint, and the
// algorithms of such JWTs, which are the same for all.
func (m *Metadata) addAssertion(method identity.Method) {
	if slices.Contains(m.TokenEndpointAuth, string(method)) {
		return
	}
	m.TokenEndpointAuth = append(slices.Clone(m.TokenEndpointAuth), string(method))
	m.AssertionAlgorithms = nil
	for _, a := range assertionAlgorithms {
		m.AssertionAlgorithms = append(m.AssertionAlgorithms, string(a))
	}
}

// addPlatforms lists the methods of JWTs that platforms issue. To a client those
// of RFC 7523 are private_key_jwt, whoever holds the key.
func (m *Metadata) addPlatforms(types []string) {
	for _, t := range types {
		if t == identity.AssertionSPIFFE {
			m.addAssertion(identity.MethodSPIFFEJWT)
		} else {
			m.addAssertion(identity.MethodPrivateKeyJWT)
		}
	}
}

// writeMetadata writes the document in both forms.
func writeMetadata(cfg Config, partners *partners) (oauth, openID []byte, err error) {
	auth := []string{string(identity.MethodSPIFFEX509)} // RFC 8414 §2: else client_secret_basic would be meant
	m := Metadata{
		Issuer: cfg.Issuer, JWKSURI: cfg.Issuer + "/jwks", TokenEndpoint: cfg.Issuer + "/token",
		RevocationEndpoint: cfg.Issuer + "/revoke", IntrospectionEndpoint: cfg.Issuer + "/introspect",
		ResponseTypes: []string{}, GrantTypes: []string{grantTokenExchange, grantService},
		TokenEndpointAuth: auth, RevocationAuth: auth, IntrospectionAuth: auth,
		Scopes: verbs(), DetailTypes: []string{scope.Type}, CertificateBoundTokens: true,
	}
	if partners.issues() {
		m.ChainingTypes = []string{typeIDJAG}
	}
	if partners.accepts() {
		m.GrantTypes, m.GrantProfiles = append(m.GrantTypes, grantJWTBearer), []string{profileIDJAG}
	}
	if cfg.Login != nil {
		m.addLogin(cfg)
	}
	if cfg.Assertions != nil {
		m.addPlatforms(cfg.Assertions.Types)
		m.RevocationAuth = m.TokenEndpointAuth
		m.IntrospectionAlgorithms = m.AssertionAlgorithms
		m.IntrospectionAuth = slices.DeleteFunc(slices.Clone(m.TokenEndpointAuth), func(s string) bool { return s == "none" })
	}
	m.RevocationAlgorithms = m.AssertionAlgorithms
	if cfg.Proofs != nil {
		m.DPoPAlgorithms = token.ProofAlgorithms()
	}
	if cfg.MTLS != "" {
		m.MTLSEndpointAliases = map[string]string{
			"token_endpoint": cfg.MTLS + "/token", "revocation_endpoint": cfg.MTLS + "/revoke",
			"introspection_endpoint": cfg.MTLS + "/introspect",
		}
	}
	if oauth, err = json.Marshal(m); err == nil {
		openID, err = json.Marshal(openIDMetadata{m, []string{"public"}, []string{}})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("writing metadata: %w", err)
	}
	return oauth, openID, nil
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
