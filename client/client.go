// Package client gives an agent a pool of tokens and an http.RoundTripper that uses it.
//
//	incoming call ──▶ Receive ──▶ context ──▶ agent's code ──▶ Transport ──▶ token for this audience ──▶ outgoing call
//
// An agent wraps its server's handler with [Client.Receive], which puts the
// delegation that arrived with the call into the request's context, and gives
// its SDKs an HTTP client over [Client.Transport], which exchanges that
// delegation (RFC 8693) for a narrower token for each audience it calls. Tokens
// are kept, and fetched anew in the background before they end, so that in a
// steady state no call waits for an exchange, and a token service that is away
// for a while is noticed by no call whose token lasts.
//
// The agent says what each call needs with [WithDetails], or once per audience
// in [Config.Calls]; which of the parent's details a new one narrows is found
// by the client. Asking for more than the parent holds fails here already; the
// token service and every verifier check it again.
//
// A token never outlives its use by another identity: it is bound to the
// certificate of this workload, and dropped when that certificate rotates.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// Config configures a Client.
type Config struct {
	// TokenURL is the token endpoint of the token service. Required.
	TokenURL string
	// HTTP sends to the token service over mTLS with the workload's own
	// certificate, if it has one. Required. It follows no redirect: what it sends is for the
	// token service alone.
	HTTP *http.Client
	// Verifier checks incoming delegations before they are used. If nil,
	// Receive refuses every call that carries one.
	Verifier *token.Verifier
	// Audience is the agent's own resource identifier, the `aud` of incoming
	// delegations. Required for Receive.
	Audience string
	// Thumbprint names the certificate in use (`x5t#S256`), so that tokens are
	// dropped when it rotates; if nil, one certificate is assumed.
	Thumbprint func() string
	// Proof is the key of DPoP proofs (RFC 9449); if nil, none are made. With one,
	// a proof goes with each token request, and with each call whose token the
	// token service bound to the key. It may bind the token to the workload's
	// certificate all the same.
	Proof *token.ProofKey
	// Assertion gives the JWT of this workload's platform, by which it
	// authenticates where it has no certificate, see [AssertionFile]; if nil, the
	// certificate of HTTP is all it shows. It is asked at each token request. The
	// token service holds each JWT to the first key that came with it, so that
	// Proof must last as long as the JWT.
	Assertion func(context.Context) (Assertion, error)
	// Calls say what to ask for where the context does not.
	Calls []Call
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger; if nil, nothing is logged.
	Logger *slog.Logger
	// PoolSize bounds the tokens kept; if zero, 1,024.
	PoolSize int
}

// Call is what a call to one audience needs.
type Call struct {
	// Audience is the resource identifier: the URL prefix of the calls.
	Audience string
	// Details is the authorization_details array to ask for, without `from`.
	Details []byte
}

// Token is a delegation token in the hands of its holder.
type Token struct {
	// Raw is the compact token, a live credential; it prints redacted.
	Raw token.Raw
	// Audience is where it may be presented.
	Audience string
	// Details is the authority as granted.
	Details scope.Grant
	Scope   string
	Expires time.Time
	// DPoP says that it is bound to the key of Config.Proof and presented with a
	// proof.
	DPoP bool
}

// Client exchanges, keeps and attaches tokens. It is safe for concurrent use.
type Client struct {
	cfg    Config
	pool   *pool
	nonces *nonces
}

// ErrDelegationEnded says that the delegation a call relies on is over, or
// that there is none: the person must start again.
var ErrDelegationEnded = errors.New("the delegation has ended")

// ErrUnavailable says that no token could be had because the token service
// does not answer, or cannot. The same call may succeed later.
var ErrUnavailable = errors.New("the token service is not available")

// New checks the configuration and builds a Client.
func New(cfg Config) (*Client, error) {
	if cfg.TokenURL == "" || cfg.HTTP == nil {
		return nil, errors.New("client: token URL and HTTP client are required")
	}
	if cfg.Assertion != nil && cfg.Proof == nil && cfg.Thumbprint == nil {
		return nil, errAssertionUnproven
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Thumbprint == nil {
		cfg.Thumbprint = func() string { return "" }
	}
	if cfg.PoolSize == 0 {
		cfg.PoolSize = 1024
	}
	hc := *cfg.HTTP
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // threat F9
	cfg.HTTP = &hc
	return &Client{cfg: cfg, pool: newPool(cfg.PoolSize, cfg.Now, cfg.Logger), nonces: &nonces{}}, nil
}

// Close ends the exchanges under way and waits for them. Calls that need
// another token fail from then on. A client that is used as long as its program
// needs no Close.
func (c *Client) Close() { c.pool.flight.close() }

// Stats says what the pool did so far, for metrics.
func (c *Client) Stats() Stats { return c.pool.read() }

// contextKey is the key of a delegation in a context.
type contextKey int

const (
	keyDelegation contextKey = iota
	keyDetails
	keyServed
)

// Delegation is the authority that arrived with a call: the parent of what
// this agent may ask for.
type Delegation struct {
	raw      token.Raw
	grant    scope.Grant
	expires  time.Time
	verified token.Verified
	parent   string // the call being served, as its Lineal-Request-Id said
	direct   string // audience of a token that is presented as it is; "" otherwise
	dpop     bool   // of such a token
	login    bool   // raw is a person's ID token, and every exchange gives a root
}

// String says what the delegation is for, never the token.
func (d *Delegation) String() string {
	if d == nil {
		return "no delegation"
	}
	return "delegation until " + d.expires.UTC().Format(time.RFC3339)
}

// Format prints String for every verb: fmt would print an unexported token as
// it is.
func (d *Delegation) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(d.String())) }

// LogValue is String.
func (d *Delegation) LogValue() slog.Value { return slog.StringValue(d.String()) }

// Verified is the verified chain of the delegation; it is the zero value for
// a token this client got itself.
func (d *Delegation) Verified() token.Verified { return d.verified }

// Parent is the id of the call being served, which a call under d names as
// `Lineal-Parent`; "" if it is not known.
func (d *Delegation) Parent() string { return d.parent }

// FromContext returns the delegation of the call being served, or nil.
func FromContext(ctx context.Context) *Delegation {
	d, _ := ctx.Value(keyDelegation).(*Delegation)
	return d
}

// WithToken returns a context whose calls to t's audience present t itself,
// and whose other calls have no authority. It is for the application that
// holds the root.
func WithToken(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, keyDelegation, &Delegation{raw: t.Raw, grant: t.Details, expires: t.Expires, direct: t.Audience, dpop: t.DPoP})
}

// Login is the authority of a person who signed in at this application, until
// ends: under it, calls present roots for their audiences, which are pooled like
// other tokens. What is asked for is not narrowed here; the token service holds
// it to what person and application may have. idToken was issued to an OpenID
// client of this workload.
func Login(idToken token.Raw, ends time.Time) *Delegation {
	return &Delegation{raw: idToken, expires: ends, login: true}
}

// WithDelegation returns ctx with the delegation of another context: for SDKs
// that start their work outside of the request's context.
func WithDelegation(ctx context.Context, d *Delegation) context.Context {
	return context.WithValue(ctx, keyDelegation, d)
}

// WithDetails returns a context whose calls ask for exactly these
// authorization_details, written without `from`.
func WithDetails(ctx context.Context, details []byte) context.Context {
	return context.WithValue(ctx, keyDetails, details)
}

// Receive wraps an agent's handler: the delegation that the gateway handed
// over is verified and put into the request's context. A call without one goes
// on without authority; a call with one that does not verify is refused,
// because it was meant to have it.
//
// [ServedFrom] tells the handler who calls and for whom.
//
// The gateway has checked who presented the delegation; Receive cannot. The
// listener must take calls from the gateway alone.
func (c *Client) Receive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := r.Header.Values("Lineal-Delegation")
		r.Header.Del("Lineal-Delegation")
		if len(raw) == 0 {
			next.ServeHTTP(w, r)
			return
		}
		err := errTwoDelegations
		var d *Delegation
		if len(raw) == 1 {
			d, err = c.Accept(r.Context(), raw[0], r.Header.Get("Lineal-Request-Id"))
		}
		if err != nil {
			c.cfg.Logger.WarnContext(r.Context(), "delegation refused", slog.String("cause", err.Error()))
			http.Error(w, "the delegation of this call does not verify", http.StatusForbidden)
			return
		}
		ctx := WithDelegation(r.Context(), d)
		if caller, err := identity.ParseAgent(d.verified.Chain.Leaf().ClientID); err == nil {
			ctx = context.WithValue(ctx, keyServed, servedOf(d.parent, caller, d.verified))
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Accept verifies a delegation that arrived by another way than HTTP headers.
// parent is the id of the call that brought it, "" if unknown.
func (c *Client) Accept(ctx context.Context, raw, parent string) (*Delegation, error) {
	if c.cfg.Verifier == nil || c.cfg.Audience == "" {
		return nil, errors.New("client: no verifier or no audience is configured")
	}
	v, err := c.cfg.Verifier.Verify(ctx, raw, token.Want{Audience: c.cfg.Audience, Binding: token.BindingUnchecked})
	if err != nil {
		return nil, err
	}
	leaf := v.Chain.Leaf()
	return &Delegation{raw: token.Raw(raw), grant: leaf.Details, expires: leaf.Expires, verified: v, parent: parent}, nil
}

var (
	errTwoDelegations = errors.New("more than one delegation")
	errNoProofKey     = errors.New("the token is bound to a key that this client does not have")
)

// Transport returns a RoundTripper that attaches to each request the token
// for its audience. next sends it, over mTLS with the workload's certificate.
//
// A certificate that rotates between the exchange and the request makes the
// gateway refuse the token's binding once. Such a request was not forwarded and
// is sent again, once, with a new token, if its body can be had again
// ([http.Request].GetBody). The same holds for a gateway that demands a DPoP
// nonce of its own: the request is sent again with the nonce.
func (c *Client) Transport(next http.RoundTripper) http.RoundTripper {
	return &transport{c: c, next: next}
}

type transport struct {
	c    *Client
	next http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, retry, err := t.once(r, r.Body)
	if err != nil || !retry {
		return resp, err
	}
	var body io.ReadCloser
	if r.GetBody != nil {
		if body, err = r.GetBody(); err != nil {
			return resp, nil // the refusal is the answer
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	_ = resp.Body.Close()
	resp, _, err = t.once(r, body)
	return resp, err
}

// once sends r with the token for its audience. It closes body in every case,
// as an http.RoundTripper must. retry says that a new token may pass.
func (t *transport) once(r *http.Request, body io.ReadCloser) (resp *http.Response, retry bool, err error) {
	d := FromContext(r.Context())
	tok, err := t.c.tokenFor(r.Context(), d, r.URL)
	if err != nil {
		if body != nil {
			_ = body.Close()
		}
		return nil, false, fmt.Errorf("calling %s: %w", r.URL.Redacted(), err)
	}
	out := r.Clone(r.Context()) // a RoundTripper must not change its request
	out.Body = body
	if err := t.c.present(out, tok); err != nil {
		if body != nil {
			_ = body.Close()
		}
		return nil, false, fmt.Errorf("calling %s: %w", r.URL.Redacted(), err)
	}
	for _, name := range Reserved() {
		out.Header.Del(name)
	}
	if d.parent != "" {
		out.Header.Set("Lineal-Parent", d.parent)
	}
	resp, err = t.next.RoundTrip(out)
	if err != nil {
		return resp, false, err
	}
	fresh := tok.DPoP && t.c.nonces.keep(r.URL, resp.Header)
	if resp.StatusCode != http.StatusUnauthorized {
		return resp, false, nil
	}
	replayable := r.GetBody != nil || r.Body == nil || r.Body == http.NoBody
	if fresh && demandsNonce(resp.Header) { // the token is as good as before
		return resp, replayable, nil
	}
	again := t.c.Refused(tok.Raw, resp.Header)
	return resp, replayable && d.direct == "" && again, nil
}

// ErrNeedsProof says that a token is bound to the key of DPoP proofs, one for each
// request, which only [Client.Transport] makes.
var ErrNeedsProof = errors.New("the token needs a DPoP proof for each request")

// Bearer returns the token that a call to target presents under the delegation of
// ctx, for SDKs that carry a token by other means than an HTTP client: see
// packages mcpauth and a2aauth. ErrNeedsProof for one that is not enough by
// itself.
func (c *Client) Bearer(ctx context.Context, target *url.URL) (Token, error) {
	t, err := c.tokenFor(ctx, FromContext(ctx), target)
	if err == nil && t.DPoP {
		return Token{}, ErrNeedsProof
	}
	return t, err
}

// Reserved are the headers beside Authorization that carry authority: a program
// that sets one loses it.
func Reserved() []string {
	return []string{"X-Api-Key", "Lineal-Token", "Lineal-Delegation", "Lineal-Parent"}
}

// Refused says that a call with this token was answered with status 401 and
// these headers: the token is forgotten. again is whether the same call may pass
// with another one; it was not forwarded then.
func (c *Client) Refused(raw token.Raw, answer http.Header) (again bool) {
	c.pool.drop(raw)
	return answer.Get("Lineal-Code") == codeProofInvalid
}

// codeProofInvalid is the gateway's code for a token whose binding does not
// hold on its connection (gateway.md §2).
const codeProofInvalid = string(gateway.CodeProofInvalid)

// tokenFor finds or gets the token for a URL. A path with dot segments is
// under no audience: what a server makes of it is not what was compared.
func (c *Client) tokenFor(ctx context.Context, d *Delegation, u *url.URL) (Token, error) {
	if d == nil {
		return Token{}, fmt.Errorf("%w: the context carries none", ErrDelegationEnded)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return Token{}, errors.New("the path is not canonical")
		}
	}
	url := u.Scheme + "://" + u.Host + u.Path
	if d.direct != "" {
		if !under(url, d.direct) {
			return Token{}, fmt.Errorf("the token in hand is for %s", d.direct)
		}
		if !c.cfg.Now().Before(d.expires) {
			return Token{}, ErrDelegationEnded
		}
		return Token{Raw: d.raw, Audience: d.direct, Details: d.grant, Expires: d.expires, DPoP: d.dpop}, nil
	}
	call, ok := c.callFor(url)
	if !ok {
		return Token{}, errors.New("no audience is configured for this URL")
	}
	if details, ok := ctx.Value(keyDetails).([]byte); ok {
		call.Details = details
	}
	return c.Exchange(ctx, d, call)
}

// callFor is the configured call with the longest audience that the URL is
// under.
func (c *Client) callFor(url string) (found Call, ok bool) {
	for _, call := range c.cfg.Calls {
		if under(url, call.Audience) && len(call.Audience) > len(found.Audience) {
			found, ok = call, true
		}
	}
	return found, ok
}

// under reports whether url is audience or a path below it, by whole segments.
func under(url, audience string) bool {
	rest, ok := strings.CutPrefix(url, audience)
	return ok && (rest == "" || rest[0] == '/')
}

// Exchange returns a token for one audience under a delegation, from the pool
// or by a token exchange. Concurrent calls for the same token share one
// exchange.
func (c *Client) Exchange(ctx context.Context, d *Delegation, call Call) (Token, error) {
	if !c.cfg.Now().Before(d.expires) {
		return Token{}, ErrDelegationEnded
	}
	key := poolKey{parent: d.raw, audience: call.Audience, details: string(call.Details), certificate: c.cfg.Thumbprint()}
	return c.pool.get(ctx, key, d.expires, func(ctx context.Context) (Token, error) {
		if d.login {
			return c.Root(ctx, string(d.raw), call)
		}
		details, err := Narrow(d.grant, call.Details)
		if err != nil {
			return Token{}, err
		}
		return c.exchange(ctx, form{
			subject: string(d.raw), subjectType: typeAccessToken, audience: call.Audience, details: details,
		})
	})
}

// Root exchanges a person's ID token for the root of a chain: the first
// delegation, from the person through this application to the agent that
// serves the audience.
func (c *Client) Root(ctx context.Context, idToken string, call Call) (Token, error) {
	return c.exchange(ctx, form{subject: idToken, subjectType: typeIDToken, audience: call.Audience, details: call.Details})
}
