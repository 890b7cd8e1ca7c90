package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

const wellKnown = "/.well-known/oauth-protected-resource"

// resourceMetadata is the RFC 9728 document of one route. It is public: a
// client that has no token yet reads it to learn where to get one.
type resourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	Scopes               []string `json:"scopes_supported"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	DetailTypes          []string `json:"authorization_details_types_supported"`
	CertificateBound     bool     `json:"tls_client_certificate_bound_access_tokens"`
	DPoPAlgorithms       []string `json:"dpop_signing_alg_values_supported,omitempty"`
	DPoPRequired         bool     `json:"dpop_bound_access_tokens_required,omitempty"`
}

// servePublic answers the well-known documents, in path-inserted and suffixed
// form (E3). It reports whether it did.
func (g *Gateway) servePublic(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/.well-known/") || !g.servesHost(r.Host) {
		return false
	}
	if !strings.Contains(r.URL.Path, wellKnown) {
		return g.publish(w, r)
	}
	prefix, inserted := strings.CutPrefix(r.URL.Path, wellKnown)
	if !inserted {
		prefix = strings.TrimSuffix(r.URL.Path, wellKnown)
	}
	for _, route := range g.routes {
		if route.Prefix != prefix && (prefix != "" || len(g.routes) != 1) {
			continue
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=300")
		doc := resourceMetadata{
			Resource: route.audience, AuthorizationServers: []string{g.cfg.Issuer}, Scopes: route.scopes, BearerMethods: []string{"header"},
			DetailTypes: []string{"urn:lineal:call:v1"}, CertificateBound: !route.AllowUnbound && !route.RequireDPoP,
			DPoPRequired: route.RequireDPoP,
		}
		if g.cfg.Proofs != nil {
			doc.DPoPAlgorithms = token.ProofAlgorithms()
		}
		_ = json.NewEncoder(w).Encode(doc)
		return true
	}
	return false
}

// publish answers a document that a route's protocol publishes.
func (g *Gateway) publish(w http.ResponseWriter, r *http.Request) bool {
	route, suffix, err := g.admit(r)
	if err != nil {
		return false // the ordinary way refuses it
	}
	p, ok := route.Protocol.(Publisher)
	return ok && p.Publish(w, r, suffix)
}

// challenge is a WWW-Authenticate value (RFC 6750 §3, RFC 9728 §5.1). Its scope
// is what a client is to ask for: before a call is read, all of the route's.
func (c *call) challenge(scheme string, a Answer) string {
	var params []string
	add := func(name, value string) { params = append(params, name+`="`+value+`"`) }
	if c.route != nil {
		add("resource_metadata", strings.TrimSuffix(c.g.cfg.PublicURL, "/")+wellKnown+c.route.resource)
	}
	if a.Challenge != "-" {
		add("error", a.Challenge)
		add("error_description", a.Sentence)
	}
	if c.route != nil {
		asked := c.route.scopes
		if a.Code == CodeInsufficientScope {
			asked = c.wholeScope()
		}
		add("scope", strings.Join(asked, " "))
	}
	return scheme + " " + strings.Join(params, ", ")
}

// scopesOf are the scope values that imply the actions, sorted.
func scopesOf(actions []string) []string {
	scopes := []string{}
	for _, a := range actions {
		if verb, ok := scope.Verb(a); ok {
			scopes = append(scopes, verb)
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// wholeScope is what an insufficient_scope challenge asks for: all scopes at
// once, those that the token has and the one that the action implies.
func (c *call) wholeScope() []string {
	verbs := c.verified.Chain.Leaf().Details.Verbs()
	if verb, ok := scope.Verb(c.request.Action); ok && !slices.Contains(verbs, verb) {
		verbs = append(slices.Clone(verbs), verb)
	}
	slices.Sort(verbs)
	return verbs
}

// WriteJSONRPCError writes the JSON-RPC error that MCP and A2A share. An id of
// the zero value is left out.
func WriteJSONRPCError(w http.ResponseWriter, status int, id strictjson.Value, f Refused) {
	data := map[string]any{
		"code": f.Code, "request_id": f.RequestID, "retryable": f.Retryable, "hop": f.Hop(), "doc_url": f.DocURL,
	}
	for k, v := range f.Data {
		data[k] = v
	}
	body := map[string]any{"jsonrpc": "2.0", "error": map[string]any{"code": f.JSONRPC, "message": f.Message(), "data": data}}
	if !id.IsZero() {
		body["id"] = id
	}
	WriteJSON(w, status, "application/json", body)
}

// WriteJSON writes v as the whole answer.
func WriteJSON(w http.ResponseWriter, status int, media string, v any) {
	out, err := json.Marshal(v)
	if err != nil { // only our own values come here
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = w.Write(append(out, '\n'))
}

// WriteProblem is a refusal as RFC 9457 has it: on HTTP routes, and where no
// route, so no protocol, is known.
func WriteProblem(w http.ResponseWriter, f Refused) {
	WriteJSON(w, f.Status, "application/problem+json", map[string]any{
		"type": f.DocURL, "title": f.Sentence, "status": f.Status,
		"code": f.Code, "request_id": f.RequestID, "retryable": f.Retryable, "hop": f.Hop(),
	})
}
