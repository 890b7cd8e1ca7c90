package sts

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// The way of a login (RFC 6749 §4.1, RFC 7636, RFC 9207, tokens.md §8):
//
//	GET  /authorize  client, redirect, PKCE, resource ──▶ provider
//	GET  /callback   provider's code ─▶ person ─▶ client's document ─▶ the page that asks
//	POST /consent    yes ──▶ code ──▶ client
//
// One browser goes all of it: each step is bound to a cookie and used once.

const (
	maxQuery = 16 << 10
	maxState = 1024
	// cookieName: set by this host alone, over TLS, for all paths (RFC 6265bis).
	cookieName = "__Host-lineal-login"
)

// What the keys in the store are for.
const (
	purposeBrowser = "browser"
	purposeState   = "login state"
	purposeConsent = "consent"
	purposeCode    = "code"
	purposeFamily  = "family"
	purposeRefresh = "refresh token"
)

// visit is one request of a browser in a login. It is an exchange as far as it
// is recorded like one.
type visit struct {
	*exchange
	w     http.ResponseWriter
	asked authorization
	// way: the redirect URI is the client's, so that answers may go there.
	way bool
}

// serveLogin gives each visit its reference, and answers its refusal.
func (s *Service) serveLogin(w http.ResponseWriter, r *http.Request, method string, step func(*visit, context.Context) error) {
	pageHeaders(w.Header(), "")
	if s.cfg.Login == nil {
		http.NotFound(w, r)
		return
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	v := &visit{w: w, exchange: &exchange{s: s, r: r, now: s.cfg.Now(), form: form{hash: hashBody([]byte(r.URL.RawQuery)), values: url.Values{}}}}
	var err error
	if v.id, err = s.cfg.NewID(); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "no record id", slog.String("cause", err.Error()))
		v.showRefusal(table[CodeSigningUnavailable])
		return
	}
	w.Header().Set("Lineal-Request-Id", v.id)
	if err := step(v, r.Context()); err != nil {
		v.refuse(r.Context(), err)
	}
}

// refuse is the end of a visit that leads nowhere: record, then answer, at the
// client if that is the way, else on a page. Nothing that a stranger sends can
// make this service redirect to an address of his.
func (v *visit) refuse(ctx context.Context, err error) {
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		refusal = &Refusal{Code: CodeRegistryUnavailable, Err: err}
	}
	if err := v.recordRefusal(ctx, refusal); err != nil {
		v.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("request_id", v.id), slog.String("cause", err.Error()))
	}
	v.s.cfg.Logger.WarnContext(ctx, "login refused", append(v.attrs(), slog.String("reason", string(refusal.Code)),
		slog.String("login_client", v.asked.Client[:min(len(v.asked.Client), 200)]), slog.String("cause", refusal.Err.Error()))...)
	a := refusal.answer()
	if !v.way {
		v.showRefusal(a)
		return
	}
	v.goBack(url.Values{"error": {a.OAuthError}, "error_description": {a.Description}})
}

// goBack sends the browser to the client, with `state` and `iss` (RFC 9207).
func (v *visit) goBack(answer url.Values) {
	if v.asked.State != "" {
		answer.Set("state", v.asked.State)
	}
	answer.Set("iss", v.s.cfg.Issuer)
	to, sep := v.asked.Redirect, "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	v.w.Header().Set("Location", to+sep+answer.Encode())
	v.w.WriteHeader(http.StatusSeeOther)
}

// authorize is GET {issuer}/authorize.
func (v *visit) authorize(ctx context.Context) error {
	if err := v.readQuery(); err != nil {
		return err
	}
	client, known, err := v.readClient(ctx)
	if err != nil {
		return err
	}
	if err := v.readAsked(); err != nil {
		return err
	}
	if err := v.s.trustProvider(ctx, v.s.cfg.Login.Provider.Issuer()); err != nil {
		return err
	}
	target, err := v.s.trustTarget(ctx, v.asked.Resource, client.agent)
	if err != nil {
		return err
	}
	if known { // of others it is asked once they are known
		if _, err := decideDetails(v.asked, client.agent, target); err != nil {
			return err
		}
	} else if target.Default.IsZero() {
		return refuse(CodeTargetDenied, "%s gives nothing to clients that are not registered", target.URI)
	}
	return v.toProvider(ctx)
}

// readQuery reads the query, each parameter once and not empty.
func (v *visit) readQuery() error {
	raw := v.r.URL.RawQuery
	if len(raw) > maxQuery {
		return refuse(CodeRequestTooLarge, "a query of %d bytes", len(raw))
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return refuse(CodeRequestMalformed, "reading the query: %w", err)
	}
	v.form.values = values
	return nil
}

// readClient finds client and redirect URI. Until both are known to belong
// together nothing is sent back there.
func (v *visit) readClient(ctx context.Context) (loginClient, bool, error) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(v.form.values[name]) != 1 || v.form.get(name) == "" {
			return loginClient{}, false, refuse(CodeParameterInvalid, "%s occurs %d times or is empty", name, len(v.form.values[name]))
		}
	}
	v.asked.Client, v.asked.Redirect = v.form.get("client_id"), v.form.get("redirect_uri")
	client, known, err := v.s.registered(ctx, v.asked.Client)
	if err != nil {
		return loginClient{}, false, err
	}
	if known {
		return client, true, v.findWay(client)
	}
	if err := registry.CheckRedirect(v.asked.Redirect); err != nil {
		return loginClient{}, false, refuse(CodeRedirectInvalid, "redirect URI %.200q: %w", v.asked.Redirect, err)
	}
	return loginClient{}, false, nil
}

// findWay checks the redirect URI against the client's (threat X13).
func (v *visit) findWay(client loginClient) error {
	if !client.Redirects(v.asked.Redirect) {
		return refuse(CodeRedirectInvalid, "redirect URI %.200q is not one of %s", v.asked.Redirect, client.ID)
	}
	v.way = true
	v.client, v.workload = client.agent, identity.Workload{Agent: client.ID, Method: identity.MethodNone}
	return nil
}

// findRegisteredWay is findWay where that needs no document.
func (v *visit) findRegisteredWay(ctx context.Context) error {
	client, known, err := v.s.registered(ctx, v.asked.Client)
	if err != nil || !known {
		return err
	}
	return v.findWay(client)
}

// readAsked reads the rest of the request.
func (v *visit) readAsked() error {
	if state := v.form.get("state"); len(state) <= maxState && len(v.form.values["state"]) == 1 {
		v.asked.State = state // first of all, so that each refusal has it
	}
	if err := v.form.checkParameters(); err != nil {
		return err
	}
	get := v.form.get
	switch targets := v.form.targets(); {
	case len(get("state")) > maxState:
		return refuse(CodeParameterInvalid, "a state of %d bytes", len(get("state")))
	case get("request") != "" || get("request_uri") != "":
		return refuse(CodeRequestObject, "a request object")
	case get("response_type") != "code" || get("response_mode") != "" && get("response_mode") != "query":
		return refuse(CodeResponseUnsupported, "response_type %.100q, response_mode %.100q", get("response_type"), get("response_mode"))
	case get("code_challenge_method") != "S256" || !isSecret(get("code_challenge")): // absent would be plain (RFC 7636 §4.3)
		return refuse(CodeChallengeInvalid, "code_challenge of %d bytes, method %.100q", len(get("code_challenge")), get("code_challenge_method"))
	case get("dpop_jkt") != "" && !isSecret(get("dpop_jkt")):
		return refuse(CodeParameterInvalid, "dpop_jkt is no thumbprint")
	case len(targets) != 1:
		return refuse(CodeTargetInvalid, "%d targets named", len(targets))
	default:
		v.asked.Resource = targets[0]
	}
	for _, name := range forbidden {
		if get(name) != "" {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	v.asked.Challenge, v.asked.Key, v.asked.Scope, v.asked.Hash = get("code_challenge"), get("dpop_jkt"), get("scope"), v.form.hash
	if sent := get("authorization_details"); sent != "" {
		if _, err := scope.Parse([]byte(sent), true); err != nil {
			return refuse(CodeDetailsMalformed, "%w", err)
		}
		v.asked.Details = json.RawMessage(sent)
	}
	return nil
}

// toProvider keeps the login for this browser and sends it to the provider.
func (v *visit) toProvider(ctx context.Context) error {
	browser, err := v.browser()
	if err != nil {
		return err
	}
	state, err := newSecret()
	if err != nil {
		return err
	}
	to, err := v.s.cfg.Login.Provider.Start(ctx, state, derive(browser, state, "nonce"), derive(browser, state, "verifier"))
	if err != nil {
		return err
	}
	if err := v.begin(ctx, purposeState, state, browser); err != nil {
		return err
	}
	http.SetCookie(v.w, &http.Cookie{
		Name: cookieName, Value: browser, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	v.w.Header().Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}

// begin keeps the login for the browser's next visit.
func (v *visit) begin(ctx context.Context, purpose, secret, browser string) error {
	body, err := json.Marshal(v.asked)
	if err != nil {
		return refuse(CodeRegistryUnavailable, "keeping the login: %w", err)
	}
	if len(body) > registry.MaxLoginBody {
		return refuse(CodeRequestTooLarge, "a login of %d bytes", len(body))
	}
	err = v.s.cfg.Login.Store.Begin(ctx, registry.LoginStep{
		Key: registry.KeyOf(purpose, secret), Browser: registry.KeyOf(purposeBrowser, browser),
		Expires: v.now.Add(loginTime), Body: body,
	})
	if err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	return nil
}

// take takes the login that began at another visit of this browser.
func (v *visit) take(ctx context.Context, purpose, secret string, granted bool) error {
	browser, ok := v.cookie()
	if !ok || !isSecret(secret) {
		return refuse(CodeLoginState, "no cookie of a login, or no secret")
	}
	step, known, err := registry.Found(v.s.cfg.Login.Store.Take(ctx, registry.KeyOf(purpose, secret), registry.KeyOf(purposeBrowser, browser)))
	switch {
	case err != nil:
		return refuse(CodeRegistryUnavailable, "%w", err)
	case !known:
		return refuse(CodeLoginState, "no such login under way in this browser")
	}
	if v.asked, err = authorizationFrom(step.Body, granted); err != nil {
		return err
	}
	v.form = form{hash: v.asked.Hash, values: url.Values{"resource": {v.asked.Resource}}}
	if len(v.asked.Details) > 0 {
		v.form.values.Set("authorization_details", string(v.asked.Details))
	}
	return nil
}

// browser is the secret of this browser, a new one if it has none.
func (v *visit) browser() (string, error) {
	if have, ok := v.cookie(); ok {
		return have, nil
	}
	return newSecret()
}

func (v *visit) cookie() (string, bool) {
	sent := v.r.CookiesNamed(cookieName)
	if len(sent) != 1 || !isSecret(sent[0].Value) {
		return "", false
	}
	return sent[0].Value, true
}

// callback is GET {issuer}/callback, where the provider sends the browser.
func (v *visit) callback(ctx context.Context) error {
	if err := v.readQuery(); err != nil {
		return err
	}
	q := v.form.values
	for _, name := range []string{"state", "code", "iss", "error"} {
		if len(q[name]) > 1 {
			return refuse(CodeParameterInvalid, "%s occurs %d times", name, len(q[name]))
		}
	}
	v.form.values = url.Values{}
	if err := v.take(ctx, purposeState, q.Get("state"), false); err != nil {
		return err
	}
	if err := v.findRegisteredWay(ctx); err != nil {
		return err
	}
	if e := q.Get("error"); e != "" || q.Get("code") == "" {
		return refuse(CodeLoginRefused, "the provider answered %.100q", e)
	}
	browser, _ := v.cookie()
	login, err := v.s.cfg.Login.Provider.Finish(ctx, q.Get("code"), q.Get("iss"),
		derive(browser, q.Get("state"), "nonce"), derive(browser, q.Get("state"), "verifier"))
	if err != nil {
		return err
	}
	if err := v.welcome(ctx, login); err != nil {
		return err
	}
	return v.ask(ctx, browser)
}

// welcome makes a person of a login.
func (v *visit) welcome(ctx context.Context, login Login) (err error) {
	if login.Issuer != v.s.cfg.Login.Provider.Issuer() || login.Subject == "" || login.Hash == "" || login.AuthTime.IsZero() {
		return refuse(CodeIDTokenClaims, "a login of another provider, or without subject, hash or time")
	}
	if err := v.s.trustProvider(ctx, login.Issuer); err != nil {
		return err
	}
	if v.asked.Person, err = v.s.cfg.Persons.Reference(ctx, login.Issuer, login.Subject); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	v.asked.Login = saveLogin(login, v.now)
	return v.setSubject(ctx, v.asked)
}

// setSubject is the person of a login, who takes part today.
func (x *exchange) setSubject(ctx context.Context, a authorization) (err error) {
	if x.subject.person, err = identity.ParsePerson(x.s.cfg.Issuer, a.Person); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	x.subject.login = a.Login.login()
	return x.s.trustLogin(ctx, a.Login.Issuer, a.Person)
}

// ask shows the page. Now that a person has logged in, the client's document
// may be fetched.
func (v *visit) ask(ctx context.Context, browser string) error {
	client, target, err := v.whoAsks(ctx)
	if err != nil {
		return err
	}
	granted, err := decideDetails(v.asked, client.agent, target)
	if err != nil {
		return err
	}
	if v.asked.Details, err = granted.MarshalJSON(); err != nil {
		return refuse(CodeDetailsMalformed, "%w", err)
	}
	if v.asked.Txn, err = v.s.cfg.NewID(); err != nil {
		return refuse(CodeSigningUnavailable, "making txn: %w", err)
	}
	secret, err := newSecret()
	if err != nil {
		return err
	}
	if err := v.begin(ctx, purposeConsent, secret, browser); err != nil {
		return err
	}
	v.showConsent(client, target, granted, secret)
	return nil
}

// whoAsks finds the client and its target as they are now.
func (v *visit) whoAsks(ctx context.Context) (loginClient, registry.Audience, error) {
	target, err := v.s.trustAudience(ctx, v.asked.Resource, CodeTargetUnknown)
	if err != nil {
		return loginClient{}, registry.Audience{}, err
	}
	client, err := v.s.loginClient(ctx, v.asked.Client, target)
	if err != nil {
		return loginClient{}, registry.Audience{}, err
	}
	if err := v.findWay(client); err != nil {
		return loginClient{}, registry.Audience{}, err
	}
	target, err = v.s.trustTarget(ctx, v.asked.Resource, client.agent)
	return client, target, err
}

// consent is POST {issuer}/consent: the person's answer.
func (v *visit) consent(ctx context.Context) error {
	// A page of another origin has neither the cookie nor the secret; this is said
	// by the browser itself (threat O8).
	if err := http.NewCrossOriginProtection().Check(v.r); err != nil {
		return refuse(CodeConsentForged, "%w", err)
	}
	f := readForm(v.w, v.r)
	if err := f.checkParameters(); err != nil {
		return err
	}
	if err := v.take(ctx, purposeConsent, f.get("id"), true); err != nil {
		return err
	}
	if err := v.findRegisteredWay(ctx); err != nil {
		return err
	}
	client, target, err := v.whoAsks(ctx)
	if err != nil {
		return err
	}
	if err := v.setSubject(ctx, v.asked); err != nil {
		return err
	}
	// What was shown must still be the client's to get.
	shown, err := scope.Parse(v.asked.Details, true)
	if err != nil {
		return refuse(CodeDetailsMalformed, "%w", err)
	}
	if err := scope.Within(client.agent.Authority, shown); err != nil {
		return refuse(CodeAuthorityExceeded, "authority of %s at %s: %w", client.ID, target.URI, err)
	}
	if f.get("decision") != "allow" {
		return refuse(CodeConsentDenied, "decision %.20q", f.get("decision"))
	}
	code, err := v.newCode(ctx)
	if err != nil {
		return err
	}
	v.s.cfg.Logger.InfoContext(ctx, "login granted", append(v.attrs(), slog.String("login_client", v.asked.Client))...)
	v.goBack(url.Values{"code": {code}})
	return nil
}

// newCode keeps a code for what was granted.
func (v *visit) newCode(ctx context.Context) (string, error) {
	code, err := newSecret()
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(v.asked)
	if err != nil {
		return "", refuse(CodeRegistryUnavailable, "keeping the code: %w", err)
	}
	err = v.s.cfg.Login.Store.PutCode(ctx, registry.Code{
		Key: registry.KeyOf(purposeCode, code), Family: registry.KeyOf(purposeFamily, familyOf(code)),
		Expires: v.now.Truncate(time.Second).Add(codeTime), Body: body,
	})
	if err != nil {
		return "", refuse(CodeRegistryUnavailable, "%w", err)
	}
	return code, nil
}
