package sts_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// A token that carries `act` is exchanged without an actor token: the result
// nests both actors, and ends once the agent or the person is disabled.
func TestX1DelegationIsNotDropped(t *testing.T) {
	w := newWorld(t)
	hop1 := w.hop(agent(1), w.root(), audience(2))
	w.recorder.take()
	got := w.post(w.as(agent(2)), hopForm(hop1, toolURI), nil)
	w.accepted(got)
	act := claims(t, got.Token)["act"].(map[string]any)
	inner := act["act"].(map[string]any)
	root := inner["act"].(map[string]any)
	if act["sub"] != agent(2).String() || inner["sub"] != agent(1).String() || root["sub"] != app.String() {
		t.Errorf("act %v", act)
	}
	undo := w.directory.edit(func(e *registry.Entries) { e.Agents[1].Enabled = false }) // a1, an earlier actor
	w.refused(w.post(w.as(agent(2)), hopForm(hop1, toolURI), nil), 400, "invalid_request", sts.CodeAgentDisabled)
	undo()
	ref := claims(t, hop1)["sub"].(string)
	if err := w.persons.SetEnabled(t.Context(), ref, false); err != nil {
		t.Fatal(err)
	}
	w.refused(w.post(w.as(agent(2)), hopForm(hop1, toolURI), nil), 400, "invalid_request", sts.CodePersonDisabled)
	if err := w.persons.SetEnabled(t.Context(), ref, true); err != nil {
		t.Fatal(err)
	}
	w.accepted(w.post(w.as(agent(2)), hopForm(hop1, toolURI), nil))
}

func detail(from, location, action, name, rest string) string {
	return `{"type":"urn:lineal:call:v1","locations":["` + location + `"],"actions":["` + action + `"],"names":["` + name + `"]` + rest + from + `}`
}

func TestX2WiderScope(t *testing.T) {
	w := newWorld(t)
	send := func(name, from string) string { return detail(from, audience(2), "a2a:send", name, "") }
	tool := func(name, from string) string { return detail(from, toolURI, "mcp:tools/call", name, `,"args":"open"`) }

	// The root: within the application's authority.
	for name, tt := range map[string]struct {
		details, scope, oauthError string
		reason                     sts.Code
	}{
		"another tool":     {"[" + tool("drop", "") + "]", "", "invalid_authorization_details", sts.CodeAuthorityExceeded},
		"another location": {"[" + detail("", "https://evil.test", "a2a:send", "a2", "") + "]", "", "invalid_authorization_details", sts.CodeAuthorityExceeded},
		"unknown type":     {`[{"type":"openid"}]`, "", "invalid_authorization_details", sts.CodeDetailsMalformed},
		"no array":         {`{}`, "", "invalid_authorization_details", sts.CodeDetailsMalformed},
		"empty array":      {`[]`, "", "invalid_authorization_details", sts.CodeDetailsMalformed},
		"from at the root": {"[" + send("a2", `,"from":0`) + "]", "", "invalid_authorization_details", sts.CodeDetailsMalformed},
		"more scope":       {"[" + send("a2", "") + "]", "a2a:send mcp:call", "invalid_scope", sts.CodeScopeMismatch},
		"less scope":       {"[" + send("a2", "") + "," + tool("find", "") + "]", "a2a:send", "invalid_scope", sts.CodeScopeMismatch},
		"unknown scope":    {"[" + send("a2", "") + "]", "admin", "invalid_scope", sts.CodeScopeMismatch},
	} {
		t.Run("root/"+name, func(t *testing.T) {
			form := w.rootForm()
			form.Set("authorization_details", tt.details)
			if tt.scope != "" {
				form.Set("scope", tt.scope)
			}
			w.refused(w.post(w.as(app), form, nil), 400, tt.oauthError, tt.reason)
		})
	}
	form := w.rootForm()
	form.Set("authorization_details", "["+send("a2", "")+","+tool("find", "")+"]")
	form.Set("scope", "mcp:call a2a:send")
	got := w.post(w.as(app), form, nil)
	w.accepted(got)

	// The next hop: within the subject token, for any client and target.
	for name, tt := range map[string]struct {
		details string
		reason  sts.Code
	}{
		"a tool the parent lacks (C2)": {"[" + tool("sum", `,"from":1`) + "]", sts.CodeDetailsWidened},
		"an agent the parent lacks":    {"[" + send("a3", `,"from":0`) + "]", sts.CodeDetailsWidened},
		"from another detail":          {"[" + send("a2", `,"from":1`) + "]", sts.CodeDetailsWidened},
		"from nowhere":                 {"[" + send("a2", `,"from":7`) + "]", sts.CodeDetailsWidened},
		"no from":                      {"[" + send("a2", "") + "]", sts.CodeDetailsMalformed},
	} {
		t.Run("hop/"+name, func(t *testing.T) {
			for _, target := range []string{audience(2), toolURI} {
				form := hopForm(got.Token, target)
				form.Set("authorization_details", tt.details)
				w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_authorization_details", tt.reason)
			}
		})
	}
	form = hopForm(got.Token, audience(2))
	form.Set("authorization_details", "["+tool("find", `,"from":1`)+"]")
	form.Set("scope", "a2a:send mcp:call")
	w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_scope", sts.CodeScopeMismatch)
	form.Set("scope", "mcp:call")
	w.accepted(w.post(w.as(agent(1)), form, nil))

	// An agent of small authority may not pass on what it received.
	defer w.directory.edit(func(e *registry.Entries) { e.Agents[1].Authority = parse(t, "["+send("a2", "")+"]", true) })()
	form.Del("scope")
	w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_authorization_details", sts.CodeAuthorityExceeded)
	form.Set("authorization_details", "["+send("a2", `,"from":0`)+"]")
	w.accepted(w.post(w.as(agent(1)), form, nil))
}

// Each parameter empty, doubled, removed and in the query; no other grant runs.
func TestX3ParameterMatrix(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	w.recorder.take()
	for flow, full := range map[string]func() (url.Values, identity.Agent){
		"id_token": w.fullRootForm,
		"access_token": func() (url.Values, identity.Agent) {
			form := hopForm(root, audience(2))
			form.Set("scope", "a2a:send mcp:call")
			form.Set("requested_token_type", accessToken)
			form.Set("client_id", agent(1).String())
			return form, agent(1)
		},
	} {
		form, client := full()
		w.accepted(w.post(w.as(client), form, nil))
		missing := map[string]struct {
			oauthError string
			reason     sts.Code
		}{
			"grant_type":            {"invalid_request", sts.CodeParameterInvalid},
			"subject_token":         {"invalid_request", sts.CodeParameterInvalid},
			"subject_token_type":    {"invalid_request", sts.CodeParameterInvalid},
			"resource":              {"invalid_target", sts.CodeTargetInvalid},
			"authorization_details": {"invalid_authorization_details", sts.CodeDetailsMissing},
		}
		for name := range form {
			t.Run(flow+"/"+name+"/empty", func(t *testing.T) {
				form, client := full()
				form.Set(name, "")
				w.refused(w.post(w.as(client), form, nil), 400, "invalid_request", sts.CodeParameterInvalid)
			})
			t.Run(flow+"/"+name+"/doubled", func(t *testing.T) {
				form, client := full()
				form.Add(name, form.Get(name))
				got := w.post(w.as(client), form, nil)
				if name == "resource" { // may repeat, and names one audience still
					w.accepted(got)
					return
				}
				w.refused(got, 400, "invalid_request", sts.CodeParameterInvalid)
			})
			t.Run(flow+"/"+name+"/doubled, second empty", func(t *testing.T) {
				form, client := full()
				form.Add(name, "")
				w.refused(w.post(w.as(client), form, nil), 400, "invalid_request", sts.CodeParameterInvalid)
			})
			t.Run(flow+"/"+name+"/removed", func(t *testing.T) {
				form, client := full()
				form.Del(name)
				got := w.post(w.as(client), form, nil)
				if want, ok := missing[name]; ok {
					w.refused(got, 400, want.oauthError, want.reason)
					return
				}
				w.accepted(got)
			})
			t.Run(flow+"/"+name+"/in the query", func(t *testing.T) {
				form, client := full()
				query := url.Values{name: {form.Get(name)}}
				form.Del(name)
				got := w.post(w.as(client), form, func(r *http.Request) { r.URL.RawQuery = query.Encode() })
				w.refused(got, 400, "invalid_request", sts.CodeRequestMalformed)
			})
		}
		for _, grant := range []string{
			"authorization_code", "refresh_token", "password",
			"urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:device_code", "TOKEN-EXCHANGE",
		} {
			t.Run(flow+"/grant "+grant, func(t *testing.T) {
				form, client := full()
				form.Set("grant_type", grant)
				w.refused(w.post(w.as(client), form, nil), 400, "unsupported_grant_type", sts.CodeGrantUnsupported)
			})
		}
	}
}

func (w *world) fullRootForm() (url.Values, identity.Agent) {
	form := w.rootForm()
	form.Set("scope", "a2a:send mcp:call")
	form.Set("requested_token_type", accessToken)
	form.Set("client_id", app.String())
	return form, app
}

func TestX3Types(t *testing.T) {
	w := newWorld(t)
	for name, value := range map[string]string{
		"subject_token_type":   "urn:ietf:params:oauth:token-type:jwt",
		"requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
	} {
		form := w.rootForm()
		form.Set(name, value)
		w.refused(w.post(w.as(app), form, nil), 400, "invalid_request", sts.CodeTypeUnsupported)
	}
	for _, typ := range []string{
		"urn:ietf:params:oauth:token-type:refresh_token", "urn:ietf:params:oauth:token-type:saml2", "access_token", strings.ToUpper(accessToken),
	} {
		for _, name := range []string{"subject_token_type", "requested_token_type"} {
			form := w.rootForm()
			form.Set(name, typ)
			w.refused(w.post(w.as(app), form, nil), 400, "invalid_request", sts.CodeTypeUnsupported)
		}
	}
	// An access token is no ID token, and the reverse.
	form := hopForm(w.root(), audience(2))
	w.recorder.take()
	form.Set("subject_token_type", idToken)
	w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_request", sts.CodeIDTokenMalformed)
	form = w.rootForm()
	form.Set("subject_token_type", accessToken)
	w.refused(w.post(w.as(app), form, nil), 400, "invalid_request", sts.Code(token.CodeTokenType))
}

// What is no form is refused, whatever it would say.
func TestX3Form(t *testing.T) {
	w := newWorld(t)
	form := w.rootForm().Encode()
	for name, tt := range map[string]struct {
		body   string
		edit   func(*http.Request)
		reason sts.Code
	}{
		"JSON":            {`{"grant_type":"x"}`, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, sts.CodeRequestMalformed},
		"no content type": {form, func(r *http.Request) { r.Header.Del("Content-Type") }, sts.CodeRequestMalformed},
		"multipart":       {form, func(r *http.Request) { r.Header.Set("Content-Type", "multipart/form-data; boundary=x") }, sts.CodeRequestMalformed},
		"two types":       {form, func(r *http.Request) { r.Header.Add("Content-Type", "text/plain") }, sts.CodeRequestMalformed},
		"compressed":      {form, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, sts.CodeRequestMalformed},
		"GET":             {form, func(r *http.Request) { r.Method = http.MethodGet }, sts.CodeRequestMalformed},
		"PUT":             {form, func(r *http.Request) { r.Method = http.MethodPut }, sts.CodeRequestMalformed},
		"empty query":     {form, func(r *http.Request) { r.URL.ForceQuery = true }, sts.CodeRequestMalformed},
		"bad escape":      {form + "&x=%zz", nil, sts.CodeRequestMalformed},
		"semicolon":       {form + ";x=1", nil, sts.CodeRequestMalformed},
		"no name":         {form + "&=1", nil, sts.CodeParameterInvalid},
		"NUL":             {form + "&x=%00", nil, sts.CodeParameterInvalid},
		"bad UTF-8":       {form + "&x=%ff", nil, sts.CodeParameterInvalid},
		"many parameters": {form + many(), nil, sts.CodeRequestMalformed},
		"N1: 10 MiB":      {form + "&x=" + strings.Repeat("a", 10<<20), nil, sts.CodeRequestTooLarge},
		"empty":           {"", nil, sts.CodeParameterInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(w.postBody(w.client(app, devca.Profile{}), tt.body, tt.edit), 400, "invalid_request", tt.reason)
		})
	}
	w.accepted(w.postBody(w.as(app), form+"&unknown=ignored", func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	}))
}

func many() string {
	var b strings.Builder
	for range 100 {
		b.WriteString("&p" + strings.Repeat("q", b.Len()/3) + "=1")
		if b.Len() > 20_000 {
			break
		}
	}
	for i := range 70 {
		b.WriteString("&x" + string(rune('A'+i%26)) + strings.Repeat("y", i/26) + "=1")
	}
	return b.String()
}

// N1: a subject token of nothing but dots, or larger than any token.
func TestN1HostileSubjectTokens(t *testing.T) {
	w := newWorld(t)
	for _, typ := range []string{accessToken, idToken} {
		for name, raw := range map[string]string{
			"dots": strings.Repeat(".", 60_000), "long": strings.Repeat("a", 60_000), "line break": "a.b\n.c", "one part": "abc",
		} {
			t.Run(name, func(t *testing.T) {
				form := w.rootForm()
				form.Set("subject_token", raw)
				form.Set("subject_token_type", typ)
				got := w.post(w.as(app), form, nil)
				w.refused(got, 400, "invalid_request", sts.Code(map[string]token.Code{accessToken: token.CodeTokenMalformed, idToken: "id_token_malformed"}[typ]))
			})
		}
	}
}

func TestX3ForbiddenParameters(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{
		"requested_subject", "requested_issuer", "subject_issuer", "requested_actor", "connector_id", "claims", "may_act", "act", "cnf",
	} {
		form := w.rootForm()
		form.Set(name, "x")
		w.refused(w.post(w.as(app), form, nil), 400, "invalid_request", sts.CodeParameterForbidden)
	}
}

// Rule 1: who is on the connection, and nothing that says otherwise.
func TestClientAuthentication(t *testing.T) {
	w := newWorld(t)
	set := func(name, value string) func() (url.Values, func(*http.Request)) {
		return func() (url.Values, func(*http.Request)) {
			form := w.rootForm()
			form.Set(name, value)
			return form, nil
		}
	}
	header := func(name, value string) func() (url.Values, func(*http.Request)) {
		return func() (url.Values, func(*http.Request)) {
			return w.rootForm(), func(r *http.Request) { r.Header.Set(name, value) }
		}
	}
	plain := func() (url.Values, func(*http.Request)) { return w.rootForm(), nil }
	stranger := identity.MustParseAgent("spiffe://acme.test/stranger")
	for name, tt := range map[string]struct {
		client  identity.Agent
		request func() (url.Values, func(*http.Request))
		reason  sts.Code
	}{
		"no certificate":            {identity.Agent{}, plain, sts.CodeClientUnauthenticated},
		"client_id instead":         {identity.Agent{}, set("client_id", app.String()), sts.CodeClientUnauthenticated},
		"not registered":            {stranger, plain, sts.CodeClientUnknown},
		"client_id of another":      {app, set("client_id", agent(1).String()), sts.CodeClientMismatch},
		"client_id in capitals":     {app, set("client_id", strings.ToUpper(app.String())), sts.CodeClientMismatch},
		"a secret as well":          {app, set("client_secret", "x"), sts.CodeClientMismatch},
		"an assertion as well":      {app, set("client_assertion", "x.y.z"), sts.CodeClientMismatch},
		"an assertion type as well": {app, set("client_assertion_type", "urn:x"), sts.CodeClientMismatch},
		"Basic as well":             {app, header("Authorization", "Basic YTpi"), sts.CodeClientMismatch},
		"Bearer as well":            {app, header("Authorization", "Bearer a"), sts.CodeClientMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			form, edit := tt.request()
			got := w.post(w.client(tt.client, devca.Profile{}), form, edit)
			w.refused(got, 401, "invalid_client", tt.reason)
		})
	}
	form, _ := w.fullRootForm()
	w.accepted(w.post(w.as(app), form, nil))
	// A proof that nothing verifies is refused, not dropped.
	got := w.post(w.as(app), w.rootForm(), func(r *http.Request) { r.Header.Set("DPoP", "x.y.z") })
	w.refused(got, 400, "invalid_dpop_proof", sts.CodeProofUnsupported)
}

// TestI7CertificateInAHeader: a certificate in a header is no certificate, and
// changes nothing beside one on the connection.
func TestI7CertificateInAHeader(t *testing.T) {
	w := newWorld(t)
	cred, err := w.ca.Issue(app, devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	der := ":" + base64.StdEncoding.EncodeToString(cred.Leaf().Raw) + ":" // RFC 9440
	for name, value := range map[string]string{
		"Client-Cert": der, "X-Forwarded-Client-Cert": "URI=" + app.String(), "X-SPIFFE-ID": app.String(),
		"X-SSL-Client-Cert": url.QueryEscape(string(cred.CertificatePEM())), "Client_Cert": der,
	} {
		edit := func(r *http.Request) { r.Header[name] = []string{value} }
		w.refused(w.post(w.as(identity.Agent{}), w.rootForm(), edit), 401, "invalid_client", sts.CodeClientUnauthenticated)
		if got := w.accepted(w.post(w.as(app), w.rootForm(), edit)); got.Actor != app.String() {
			t.Errorf("%s: the actor is %s", name, got.Actor)
		}
		w.refused(w.post(w.as(agent(1)), w.rootForm(), edit), 400, "invalid_request", sts.CodeIDTokenAudience)
	}
}

// flows are the ways to a token: what X4 asks of each.
func (w *world) flows() map[string]func() answer {
	root := w.root()
	hop := w.hop(agent(1), root, audience(2))
	w.recorder.take()
	return map[string]func() answer{
		exchangeGrant + " " + idToken: func() answer { return w.post(w.as(app), w.rootForm(), nil) },
		exchangeGrant + " " + accessToken: func() answer {
			return w.post(w.as(agent(2)), hopForm(hop, audience(3)), nil)
		},
		serviceFlow: func() answer {
			return w.post(w.as(agent(2)), url.Values{"grant_type": {"client_credentials"}}, nil)
		},
		grantFlow: func() answer { return w.post(w.partner.client, bearerForm(w.partner.grant(nil)), nil) },
		exchangeGrant + " for a grant": func() answer {
			return w.post(w.as(agent(2)), w.partner.grantForm(hop), nil)
		},
	}
}

// grantFlow is of a6 for the tool, in the name of a partner's person.
const grantFlow = bearerGrant + " of a partner"

// serviceFlow is of a2 alone: no person, provider or target takes part.
const serviceFlow = "client_credentials for itself"

// X4: each party disabled or removed, in each grant that is advertised.
func TestX4DisabledParties(t *testing.T) {
	w, _ := newPartnerWorld(t)
	flows := w.flows()
	for _, grant := range w.metadata().GrantTypes { // X4b: a grant without a row here fails
		covered := false
		for name := range flows {
			covered = covered || strings.HasPrefix(name, grant+" ")
		}
		if !covered {
			t.Errorf("grant %s has no flow in this matrix", grant)
		}
	}
	agentAt := func(n int, f func(*registry.Agent)) func(*registry.Entries) {
		return func(e *registry.Entries) { f(&e.Agents[n]) }
	}
	disable := func(a *registry.Agent) { a.Enabled = false }
	audienceAt := func(n int) func(*registry.Entries) {
		return func(e *registry.Entries) { e.Audiences[n].Enabled = false }
	}
	type want struct {
		oauthError string
		reason     sts.Code
	}
	root, next, out := exchangeGrant+" "+idToken, exchangeGrant+" "+accessToken, exchangeGrant+" for a grant"
	for name, tt := range map[string]struct {
		edit func(*registry.Entries)
		want map[string]want
	}{
		"provider disabled": {func(e *registry.Entries) { e.Issuers[0].Enabled = false }, map[string]want{
			root: {"invalid_request", sts.CodeProviderDisabled}, next: {"invalid_request", sts.CodeProviderDisabled},
			out: {"invalid_request", sts.CodeProviderDisabled},
		}},
		"application disabled": {agentAt(0, disable), map[string]want{
			root: {"unauthorized_client", sts.CodeClientDisabled}, next: {"invalid_request", sts.CodeAgentDisabled},
			out: {"invalid_request", sts.CodeAgentDisabled},
		}},
		"partner's client disabled":    {agentAt(6, disable), map[string]want{grantFlow: {"unauthorized_client", sts.CodeClientDisabled}}},
		"target of the grant disabled": {audienceAt(0), map[string]want{grantFlow: {"invalid_target", sts.CodeTargetUnknown}}},
		"target is not for the partner's client": {func(e *registry.Entries) { e.Audiences[0].Callers = []identity.Agent{agent(7)} }, map[string]want{
			grantFlow: {"invalid_target", sts.CodeTargetDenied},
		}},
		"application lost its OIDC client": {agentAt(0, func(a *registry.Agent) { a.OIDCClients = nil }), map[string]want{
			root: {"invalid_request", sts.CodeIDTokenAudience},
		}},
		"acting agent disabled": {agentAt(2, disable), map[string]want{
			next: {"unauthorized_client", sts.CodeClientDisabled}, serviceFlow: {"unauthorized_client", sts.CodeClientDisabled},
			out: {"unauthorized_client", sts.CodeClientDisabled},
		}},
		"earlier agent disabled":      {agentAt(1, disable), map[string]want{root: {"invalid_target", sts.CodeTargetUnknown}, next: {"invalid_request", sts.CodeAgentDisabled}, out: {"invalid_request", sts.CodeAgentDisabled}}},
		"agent to act next disabled":  {agentAt(3, disable), map[string]want{next: {"invalid_target", sts.CodeTargetUnknown}}},
		"target of the root disabled": {audienceAt(1), map[string]want{root: {"invalid_target", sts.CodeTargetUnknown}}},
		"target of the hop disabled":  {audienceAt(3), map[string]want{next: {"invalid_target", sts.CodeTargetUnknown}}},
		"subject's audience disabled": {audienceAt(2), map[string]want{
			next: {"invalid_request", sts.CodeAudienceNotServed}, out: {"invalid_request", sts.CodeAudienceNotServed},
		}},
		"subject's audience has a new agent": {func(e *registry.Entries) { e.Audiences[2].Serves = agent(5) }, map[string]want{
			out: {"invalid_request", sts.CodeAudienceNotServed}, next: {"invalid_request", sts.CodeAudienceNotServed}, serviceFlow: {"unauthorized_client", sts.CodeClientNoReceiver},
		}},
		"target is not for the client": {func(e *registry.Entries) {
			e.Audiences[1].Callers, e.Audiences[3].Callers = []identity.Agent{agent(7)}, []identity.Agent{agent(7)}
		}, map[string]want{root: {"invalid_target", sts.CodeTargetDenied}, next: {"invalid_target", sts.CodeTargetDenied}}},
	} {
		for flow, request := range flows {
			t.Run(name+"/"+flow, func(t *testing.T) {
				undo := w.directory.edit(tt.edit)
				defer undo()
				if want, ok := tt.want[flow]; ok {
					w.refused(request(), 400, want.oauthError, want.reason)
				} else {
					w.accepted(request()) // the party takes no part in this flow
				}
			})
		}
	}
	for flow, request := range flows {
		t.Run("person disabled/"+flow, func(t *testing.T) {
			ref, err := w.persons.Reference(t.Context(), w.provider.url, "alice")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.persons.SetEnabled(t.Context(), ref, false); err != nil {
				t.Fatal(err)
			}
			if flow == serviceFlow || flow == grantFlow { // of nobody, and of a partner's person
				w.accepted(request())
			} else {
				w.refused(request(), 400, "invalid_request", sts.CodePersonDisabled)
			}
			if err := w.persons.SetEnabled(t.Context(), ref, true); err != nil {
				t.Fatal(err)
			}
			w.accepted(request())
		})
	}
}

// X5: no answer holds a refresh token, and none is taken.
func TestX5NoRefreshToken(t *testing.T) {
	w := newWorld(t)
	a := w.post(w.as(app), w.rootForm(), nil)
	w.accepted(a)
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.Token}}
	w.refused(w.post(w.as(app), form, nil), 400, "unsupported_grant_type", sts.CodeGrantUnsupported)
}

func TestX6AbsentIsNotAny(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct {
		resource, audience []string
		reason             sts.Code // "": passes
	}{
		"none":              {nil, nil, sts.CodeTargetInvalid},
		"unknown":           {[]string{"https://unknown.test"}, nil, sts.CodeTargetUnknown},
		"with a slash":      {[]string{audience(1) + "/"}, nil, sts.CodeTargetUnknown},
		"in capitals":       {[]string{strings.ToUpper(audience(1))}, nil, sts.CodeTargetUnknown},
		"two resources":     {[]string{audience(1), audience(2)}, nil, sts.CodeTargetInvalid},
		"resource, another": {[]string{audience(1)}, []string{audience(2)}, sts.CodeTargetInvalid},
		"the issuer":        {[]string{w.issuer}, nil, sts.CodeTargetUnknown},
		"star":              {[]string{"*"}, nil, sts.CodeTargetUnknown},
		"known":             {[]string{audience(1)}, nil, ""},
		"by audience":       {nil, []string{audience(1)}, ""},
		"both the same":     {[]string{audience(1)}, []string{audience(1), audience(1)}, ""},
		"served by nobody":  {[]string{toolURI}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			form := w.rootForm()
			form["resource"], form["audience"] = tt.resource, tt.audience
			got := w.post(w.as(app), form, nil)
			if tt.reason != "" {
				w.refused(got, 400, "invalid_target", tt.reason)
				return
			}
			asked := append(tt.resource, tt.audience...)[0]
			if i := w.accepted(got); i.Audience != asked || claims(t, got.Token)["aud"] != asked {
				t.Errorf("aud %v, asked %s", claims(t, got.Token)["aud"], asked)
			}
		})
	}
}

func TestX7ForeignTokens(t *testing.T) {
	w := newWorld(t)
	login := func(edit func(map[string]any)) url.Values {
		form := w.rootForm()
		form.Set("subject_token", w.provider.login(w.now(), edit))
		return form
	}
	for name, tt := range map[string]struct {
		edit   func(map[string]any)
		reason sts.Code
	}{
		"another application's client": {func(c map[string]any) { c["aud"] = "other" }, sts.CodeIDTokenAudience},
		"unknown client":               {func(c map[string]any) { c["aud"] = "x" }, sts.CodeIDTokenAudience},
		"two aud, no azp":              {func(c map[string]any) { c["aud"] = []string{"app", "other"} }, sts.CodeIDTokenAudience},
		"two aud, azp another":         {func(c map[string]any) { c["aud"], c["azp"] = []string{"app", "other"}, "other" }, sts.CodeIDTokenAudience},
		"over an hour old":             {func(c map[string]any) { c["iat"] = w.now().Add(-61 * time.Minute).Unix() }, sts.CodeIDTokenTimes},
		"expired":                      {func(c map[string]any) { c["exp"] = w.now().Add(-time.Minute).Unix() }, sts.CodeIDTokenTimes},
		"another issuer":               {func(c map[string]any) { c["iss"] = "https://idp.evil" }, sts.CodeIDTokenIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(w.post(w.as(app), login(tt.edit), nil), 400, "invalid_request", tt.reason)
		})
	}
	w.accepted(w.post(w.as(app), login(func(c map[string]any) { c["aud"], c["azp"] = []string{"app", "other"}, "app" }), nil))
	// Another application, with a token of its own client, and with alice's for `app`.
	w.refused(w.post(w.as(agent(1)), login(nil), nil), 400, "invalid_request", sts.CodeIDTokenAudience)

	// A stolen subject token, presented by another workload.
	root := w.root()
	w.recorder.take()
	for _, thief := range []identity.Agent{app, agent(2), agent(8)} {
		w.refused(w.post(w.as(thief), hopForm(root, audience(3)), nil), 400, "invalid_request", sts.CodeNotMayAct)
	}
	w.accepted(w.post(w.as(agent(1)), hopForm(root, audience(3)), nil))
	// Another agent's actor token, or any.
	form := hopForm(root, audience(3))
	form.Set("actor_token", root)
	form.Set("actor_token_type", accessToken)
	w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_request", sts.CodeActorTokenInvalid)
	form.Del("actor_token")
	w.refused(w.post(w.as(agent(1)), form, nil), 400, "invalid_request", sts.CodeActorTokenInvalid)
}

// F2: what was minted can be exchanged by the one it names, and only by it; a
// token for the issuer, or for an audience that nobody serves, by nobody.
func TestF2MintThenExchange(t *testing.T) {
	w := newWorld(t)
	put := func(tok, receipt token.Signed, h delegation.Hop) string {
		txn := claims(t, string(tok.Raw))["txn"].(string)
		d := registry.Delegation{Txn: txn, ID: h.ID, Audience: h.Audience, Receipt: string(receipt.Raw), Expires: h.Expires}
		if err := w.issued.Put(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		return string(tok.Raw)
	}
	w.accepted(w.post(w.as(agent(1)), hopForm(put(w.mint(func(*delegation.Hop) {})), audience(2)), nil))
	for name, tt := range map[string]struct {
		edit   func(*delegation.Hop)
		reason sts.Code
	}{
		"aud another agent's":          {func(h *delegation.Hop) { h.Audience = audience(2) }, sts.CodeAudienceNotServed},
		"aud the issuer":               {func(h *delegation.Hop) { h.Audience = w.issuer }, sts.CodeAudienceNotServed},
		"aud served by nobody":         {func(h *delegation.Hop) { h.Audience = toolURI }, sts.CodeAudienceNotServed},
		"X8: may_act of another space": {func(h *delegation.Hop) { h.MayAct.Issuer = "https://other.test" }, sts.CodeNotMayAct},
		"no may_act":                   {func(h *delegation.Hop) { h.MayAct = identity.Party{} }, sts.CodeNotMayAct},
		"actor not registered": {func(h *delegation.Hop) {
			h.ClientID = "spiffe://acme.test/x"
			h.Actors[0].Subject = h.ClientID
		}, sts.CodeAgentDisabled},
		"person without a name": {func(h *delegation.Hop) {
			h.Person, _ = identity.ParsePerson(w.issuer, "AAAAAAAAAAAAAAAAAAAAAA")
		}, sts.CodePersonDisabled},
		"C3: ended": {func(h *delegation.Hop) {
			h.IssuedAt = h.IssuedAt.Add(-400 * time.Second)
			h.Expires = h.IssuedAt.Add(300 * time.Second)
		}, "token_expired"},
		"C3: in the future":    {func(h *delegation.Hop) { h.IssuedAt = h.IssuedAt.Add(90 * time.Second) }, "token_expired"},
		"C3: four seconds yet": {func(h *delegation.Hop) { h.Expires = h.IssuedAt.Add(4 * time.Second) }, sts.CodeLifetimeExhausted},
		"C4: at its ceiling":   {func(h *delegation.Hop) { h.MaxDepth = 0 }, sts.CodeDepthExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(w.post(w.as(agent(1)), hopForm(put(w.mint(tt.edit)), audience(2)), nil), 400, "invalid_request", tt.reason)
		})
	}
	// Signed by our key, but in no tree: never issued.
	tok, _, _ := w.mint(func(*delegation.Hop) {})
	w.refused(w.post(w.as(agent(1)), hopForm(string(tok.Raw), audience(2)), nil), 400, "invalid_request", sts.CodeTokenUnknown)
	// In the tree with another token's receipt.
	tok, _, h := w.mint(func(*delegation.Hop) {})
	_, other, _ := w.mint(func(*delegation.Hop) {})
	w.refused(w.post(w.as(agent(1)), hopForm(put(tok, other, h), audience(2)), nil), 400, "invalid_request", "chain_leaf")
}

// X8: a subject token that is unsigned, or signed by nobody known.
func TestX8UnsignedSubjectToken(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	w.recorder.take()
	parts := strings.Split(root, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	rehead := func(header string) string { return b64([]byte(header)) + "." + parts[1] + "." + parts[2] }
	reclaim := func(edit func(map[string]any)) string {
		c := claims(t, root)
		edit(c)
		payload, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return parts[0] + "." + b64(payload) + "." + parts[2]
	}
	kid := w.signer.KeyID()
	for name, tt := range map[string]struct {
		raw    string
		reason token.Code
	}{
		"no signature":      {parts[0] + "." + parts[1] + ".", token.CodeSignatureInvalid},
		"alg none":          {rehead(`{"alg":"none","kid":"` + kid + `","typ":"at+jwt"}`), token.CodeTokenMalformed},
		"alg HS256":         {rehead(`{"alg":"HS256","kid":"` + kid + `","typ":"at+jwt"}`), token.CodeTokenMalformed},
		"unknown key":       {rehead(`{"alg":"ES256","kid":"x","typ":"at+jwt"}`), token.CodeKeyUnknown},
		"with jwk":          {rehead(`{"alg":"ES256","kid":"` + kid + `","typ":"at+jwt","jwk":{}}`), token.CodeTokenMalformed},
		"other tenant":      {reclaim(func(c map[string]any) { c["iss"] = "https://other.test" }), token.CodeIssuerUnknown},
		"other person":      {reclaim(func(c map[string]any) { c["sub"] = "AAAAAAAAAAAAAAAAAAAAAA" }), token.CodeSignatureInvalid},
		"may_act, no iss":   {reclaim(func(c map[string]any) { delete(c["may_act"].(map[string]any), "iss") }), token.CodeSignatureInvalid},
		"padding (P9)":      {root + "=", token.CodeTokenMalformed},
		"duplicate in JSON": {parts[0] + "." + b64([]byte(`{"iss":"a","iss":"b"}`)) + "." + parts[2], token.CodeTokenMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w.refused(w.post(w.as(agent(1)), hopForm(tt.raw, audience(2)), nil), 400, "invalid_request", sts.Code(tt.reason))
		})
	}
	w.accepted(w.post(w.as(agent(1)), hopForm(root, audience(2)), nil))
}

// X10: upstream claims that name parties change nothing.
func TestX10ClaimInjection(t *testing.T) {
	w := newWorld(t)
	form := w.rootForm()
	form.Set("subject_token", w.provider.login(w.now(), func(c map[string]any) {
		c["act"], c["may_act"] = map[string]any{"sub": "evil"}, map[string]any{"sub": "evil"}
		c["client_id"], c["scope"], c["cnf"] = "evil", "admin", map[string]any{"jkt": "evil"}
		c["authorization_details"] = []any{map[string]any{"type": "evil"}}
		c["name"], c["email"], c["sub"] = `Alice "evil" </script>`, "evil@test", `al"ice`
	}))
	got := w.post(w.as(app), form, nil)
	w.accepted(got)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(got.Token, ".")[1])
	if err != nil || strings.Contains(string(payload), "evil") || strings.Contains(string(payload), "alice") || strings.Contains(string(payload), `al\"ice`) {
		t.Errorf("payload %s, %v", payload, err)
	}
}

// C8a: a receipt is no token, in any role.
func TestC8ReceiptIsNoToken(t *testing.T) {
	w := newWorld(t)
	hop := w.hop(agent(1), w.root(), audience(2))
	w.recorder.take()
	receipt := w.inspect(hop).Receipts[0]
	w.refused(w.post(w.as(agent(1)), hopForm(receipt, audience(2)), nil), 400, "invalid_request", sts.Code(token.CodeTokenType))
	form := w.rootForm()
	form.Set("subject_token", receipt)
	w.refused(w.post(w.as(app), form, nil), 400, "invalid_request", sts.CodeIDTokenMalformed)
	form = hopForm(hop, audience(3))
	form.Set("actor_token", receipt)
	form.Set("actor_token_type", accessToken)
	w.refused(w.post(w.as(agent(2)), form, nil), 400, "invalid_request", sts.CodeActorTokenInvalid)
	form = hopForm(hop, audience(3))
	form.Set("client_assertion", receipt)
	w.refused(w.post(w.as(agent(2)), form, nil), 401, "invalid_client", sts.CodeClientMismatch)
	w.accepted(w.post(w.as(agent(2)), hopForm(hop, audience(3)), nil))
}

// C3, rule 12: the end of a token is that of what it stands on.
func TestC3LifeIsTheLeastOfAll(t *testing.T) {
	w := newWorld(t)
	life := func(a answer) time.Duration {
		w.accepted(a)
		c := claims(t, a.Token)
		return time.Duration(c["exp"].(float64)-c["iat"].(float64)) * time.Second
	}
	within := func(name string, got, want time.Duration) {
		t.Helper()
		if got > want || got < want-3*time.Second {
			t.Errorf("%s: life %s, want about %s", name, got, want)
		}
	}
	within("default", life(w.post(w.as(app), w.rootForm(), nil)), 300*time.Second)
	form := w.rootForm()
	form.Set("subject_token", w.provider.login(w.now(), func(c map[string]any) { c["exp"] = w.now().Add(100 * time.Second).Unix() }))
	within("ID token", life(w.post(w.as(app), form, nil)), 100*time.Second)
	within("certificate", life(w.post(w.client(app, devca.Profile{TTL: 60 * time.Second}), w.rootForm(), nil)), 60*time.Second)
	got := w.post(w.client(app, devca.Profile{TTL: 3 * time.Second}), w.rootForm(), nil)
	w.refused(got, 400, "invalid_request", sts.CodeLifetimeExhausted)

	undo := w.directory.edit(func(e *registry.Entries) { e.Audiences[1].Lifetime = 30 * time.Second })
	within("audience", life(w.post(w.as(app), w.rootForm(), nil)), 30*time.Second)
	undo()
	defer w.directory.edit(func(e *registry.Entries) { e.Agents[0].RootLifetime = 50 * time.Minute })()
	long := w.post(w.as(app), w.rootForm(), nil)
	within("long root", life(long), 50*time.Minute)
	within("hop of a long root", life(w.post(w.as(agent(1)), hopForm(long.Token, audience(2)), nil)), 300*time.Second)
	w.offset.Store(int64(48 * time.Minute))
	within("parent", life(w.post(w.as(agent(1)), hopForm(long.Token, audience(2)), nil)), 120*time.Second)
	w.offset.Store(int64(50*time.Minute - 4*time.Second))
	w.refused(w.post(w.as(agent(1)), hopForm(long.Token, audience(2)), nil), 400, "invalid_request", sts.CodeLifetimeExhausted)
	w.offset.Store(int64(51 * time.Minute))
	w.refused(w.post(w.as(agent(1)), hopForm(long.Token, audience(2)), nil), 400, "invalid_request", sts.Code(token.CodeTokenExpired))
}

// Rule 16: without ledger or registry there is no token, and no silence.
func TestL8NothingIsIssuedUnrecorded(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	w.recorder.take()
	requests := map[string]func() answer{
		"root": func() answer { return w.post(w.as(app), w.rootForm(), nil) },
		"hop":  func() answer { return w.post(w.as(agent(1)), hopForm(root, audience(2)), nil) },
	}
	for name, request := range requests {
		w.recorder.down.Store(true)
		got := request()
		if got.Status != 503 || got.Error != "temporarily_unavailable" || got.Token != "" || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s without ledger: %+v", name, got)
		}
		// A refusal stands, recorded or not.
		if got := w.post(w.client(identity.Agent{}, devca.Profile{}), w.rootForm(), nil); got.Status != 401 || got.Error != "invalid_client" {
			t.Errorf("refusal without ledger: %+v", got)
		}
		w.recorder.down.Store(false)
		if recs := w.recorder.take(); len(recs) != 0 {
			t.Errorf("%d records", len(recs))
		}
		w.directory.down.Store(true)
		w.refused(request(), 503, "temporarily_unavailable", sts.CodeRegistryUnavailable)
		w.directory.down.Store(false)
		w.accepted(request())
	}
	if err := w.issued.Close(); err != nil {
		t.Fatal(err)
	}
	for name, request := range requests {
		code := sts.CodeRegistryUnavailable
		if name != "root" { // whether the subject token is revoked is asked first
			code = sts.Code(token.CodeRevocationStale)
		}
		w.refused(request(), 503, "temporarily_unavailable", code)
	}
	if err := w.persons.Close(); err != nil {
		t.Fatal(err)
	}
	w.refused(requests["root"](), 503, "temporarily_unavailable", sts.CodeRegistryUnavailable)
}

// A9: the caller learns the same of a token that is unknown, stolen, or whose
// person is disabled; the record knows better.
func TestA9RefusalIsNoOracle(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	tok, _, _ := w.mint(func(*delegation.Hop) {})
	var texts []string
	say := func(a answer) { texts = append(texts, a.Error+": "+a.Description) }
	say(w.post(w.as(agent(2)), hopForm(root, audience(3)), nil))
	say(w.post(w.as(agent(1)), hopForm(string(tok.Raw), audience(3)), nil))
	say(w.post(w.as(agent(1)), hopForm(root+"A", audience(3)), nil))
	undo := w.directory.edit(func(e *registry.Entries) { e.Issuers[0].Enabled = false })
	say(w.post(w.as(agent(1)), hopForm(root, audience(3)), nil))
	undo()
	for _, s := range texts {
		if s != texts[0] || strings.Contains(s, "alice") || strings.Contains(s, "spiffe") {
			t.Errorf("refusals differ: %q", texts)
			break
		}
	}
	reasons := map[string]bool{}
	for _, r := range w.recorder.take() {
		if r.Issuance.Result == record.Refused {
			reasons[r.Issuance.Reason] = true
		}
	}
	if len(reasons) != 4 {
		t.Errorf("recorded reasons %v", reasons)
	}
}

// What a refusal records: who, for whom, what was asked; of a stranger only
// the hash of his request.
func TestRefusalRecords(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	w.recorder.take()
	form := hopForm(root, "https://unknown.test")
	w.post(w.as(agent(1)), form, nil)
	i := *w.recorder.take()[0].Issuance
	parent := w.inspect(root).Leaf.Hash
	if i.Actor != agent(1).String() || i.Person.Ref == "" || i.Person.Issuer != w.provider.url || i.ParentHash != parent ||
		i.Audience != "https://unknown.test" || i.Requested.Len() != 2 || i.RequestHash != digest(form.Encode()) || i.Txn == "" {
		t.Errorf("record %+v", i)
	}
	if g, err := i.Requested.Grant(false); err != nil || scope.Subsumes(parse(t, everything(), true), g) != nil {
		t.Errorf("requested %v, %v", g, err)
	}
	w.post(w.client(identity.Agent{}, devca.Profile{}), form, nil)
	i = *w.recorder.take()[0].Issuance
	if i.Actor != "" || i.Audience != "" || i.Requested.Len() != 0 || i.RequestHash != digest(form.Encode()) || i.ClientAuth != "none" {
		t.Errorf("record of a stranger %+v", i)
	}
	// A request too large for a record is recorded with digests only.
	form.Set("authorization_details", `[{"x":"`+strings.Repeat("a", 50_000)+`"}]`)
	got := w.post(w.as(agent(1)), form, nil)
	w.refused(got, 400, "invalid_target", sts.CodeTargetUnknown)
}

func TestUnboundTokens(t *testing.T) {
	w := newWorld(t)
	src := identity.SourceFunc(func(*http.Request, time.Time) (identity.Workload, error) {
		return identity.Workload{Agent: app, Method: identity.MethodWorkloadJWT, Source: "k8s"}, nil // no certificate
	})
	w.service = w.serviceWith(src)
	w.refused(w.post(w.as(app), w.rootForm(), nil), 400, "invalid_request", sts.CodeProofMissing)
	defer w.directory.edit(func(e *registry.Entries) {
		e.Audiences[1].AllowUnbound = true
		e.Agents[0].RootLifetime = time.Hour
	})()
	got := w.post(w.as(app), w.rootForm(), nil)
	w.accepted(got)
	if c := claims(t, got.Token); c["cnf"] != nil || c["exp"].(float64)-c["iat"].(float64) != 120 {
		t.Errorf("cnf %v, life %v", c["cnf"], c["exp"].(float64)-c["iat"].(float64))
	}
}
