package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// call is one request on its way through the seven steps. Each step reads what
// the earlier ones found and adds its own.
type call struct {
	g      *Gateway
	w      http.ResponseWriter
	r      *http.Request
	id     string // call_id, Lineal-Request-Id
	now    time.Time
	parent string // Lineal-Parent, a hint
	trace  string // traceparent, a hint (gateway.md §8)

	route    *Route
	suffix   string
	proxied  bool   // a proxy sends it on, and the gateway sees no more of it
	unseen   bool   // and its body is not judged
	body     []byte // as received
	bodyRead bool   // body was asked for, once
	bodyErr  error

	workload *identity.Workload // proven on the connection; nil if nothing was
	badProof bool               // the connection's credential, or the DPoP proof, is not acceptable
	claimed  identity.Agent     // the actor a correctly signed token names, proven or not
	raw      string             // the caller's token, never sent on but to Delegate
	dpop     bool               // it came under the scheme DPoP
	proof    *token.Proof       // the proof that came with it, verified; nil if none did
	verified token.Verified
	bound    bool // the token's binding was checked and held
	callback bool // the upstream calls, in the name of a client that asked for it
	request  Request
	chosen   []Handle // ids of the client's own choice that nobody has yet

	scopeAsked, policyAsked bool
	details                 []int            // per hop the permitting detail, or noDetail
	exceeded                *record.Exceeded // where the first hop that refuses ends; nil if none does
	decision                policy.Decision
	input                   policy.Input

	crossing *crossing // between organisations; nil if it is not
	commits  *commits  // to the content of the call; nil until a record is made
	recorded bool      // the decision record is durable, or queued for a refusal
	recordID string    // of the decision record
	released bool      // the first byte of an answer is out
	outcome  *outcome  // what followed; nil until forward
	secrets  secrets   // what was added to the request as the gateway's credential
}

type step func(*call) error

// decideTimeout bounds a decision, where the decision point is a remote one.
const decideTimeout = 2 * time.Second

var errSlowBody = errors.New("the body did not arrive in time")

// serve runs the steps and turns the first error into the one refusal.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, steps ...step) {
	if g.servePublic(w, r) {
		return
	}
	c := &call{g: g, w: w, r: r, id: g.cfg.NewID(), now: g.cfg.Now()}
	c.run(steps...)
}

func (c *call) run(steps ...step) {
	defer c.recover()
	if err := c.begin(); err != nil {
		c.refuse(err)
		return
	}
	for _, next := range steps {
		if err := next(c); err != nil {
			c.refuse(err)
			return
		}
	}
}

// begin applies the listener's rules, which need no identity.
func (c *call) begin() (err error) {
	c.w.Header().Set("Lineal-Request-Id", c.id)
	if parent := c.r.Header.Values("Lineal-Parent"); len(parent) == 1 && isUUIDv7(parent[0]) {
		c.parent = parent[0]
	}
	if trace := c.r.Header.Values("Traceparent"); len(trace) == 1 && isTraceparent(trace[0]) {
		c.trace = trace[0]
	}
	c.route, c.suffix, err = c.g.admit(c.r)
	return err
}

// identify is step 1: who is on this connection. Nothing proven is no error
// yet; whether the token needs a proof is the token's own rule.
func (c *call) identify() error {
	w, err := c.g.cfg.Source.Identify(c.r, c.now)
	switch {
	case errors.Is(err, identity.ErrNoCredential):
		return nil
	case err != nil:
		c.badProof = true
		return &Refusal{Code: CodeProofInvalid, Reason: string(token.CodeBindingMismatch), Err: err}
	}
	c.workload = &w
	return nil
}

// verify is step 2: the token, its whole chain, its binding to what step 1
// proved, its times.
func (c *call) verify() (err error) {
	if r, ok := c.route.Protocol.(Receiver); ok && r.Receives(c.suffix) {
		return c.verifyCallback(r)
	}
	if c.raw, c.dpop, err = c.g.callersToken(c.r, c.route.APIKeyToken); err != nil {
		return err
	}
	if err = c.readProof(); err != nil {
		return err
	}
	want := token.Want{Audience: c.route.audience, Workload: c.workload, Proof: c.proof, Binding: token.BindingRequired, MaxStaleness: c.route.MaxStaleness}
	if c.route.AllowUnbound {
		want.Binding = token.BindingOptional
	}
	c.verified, err = c.g.cfg.Verifier.Verify(c.r.Context(), c.raw, want)
	if err != nil {
		var t *token.Error
		if errors.As(err, &t) {
			c.claimed, _ = identity.ParseAgent(t.Claimed)
			c.badProof = slices.Contains(token.ProofCodes(), t.Code)
		}
		return err
	}
	c.claimed, _ = identity.ParseAgent(c.verified.Chain.Leaf().ClientID)
	c.bound = !c.verified.Unbound
	return nil
}

// read is step 3: the request as scope and policy speak of it, and the bytes
// to send on.
func (c *call) read() (err error) {
	if err = c.readBody(); err != nil {
		return err
	}
	if err = c.openStatement(); err != nil {
		return err
	}
	if c.request, err = c.readRequest(); err != nil {
		return err
	}
	c.request.Resource.Service = c.route.Name
	if err = c.checkHandles(); err != nil {
		return err
	}
	if c.request.Parent != "" {
		c.parent = c.request.Parent
	}
	if c.passesTokenOn() {
		return Refuse(CodeInternal, "the request carries the caller's own token towards the upstream")
	}
	return nil
}

func (c *call) readRequest() (Request, error) {
	if !c.unseen {
		return c.route.Protocol.Read(c.r, c.suffix, c.body, c.from())
	}
	p, ok := c.route.Protocol.(BodyBlind)
	if !ok {
		return Request{}, Refuse(CodeRequestUnreadable, "a call of this protocol is its body, which is not shown")
	}
	return p.ReadUnseen(c.r, c.suffix)
}

// from is who calls, for ids that are bound to it.
func (c *call) from() Caller {
	return Caller{
		Person: c.verified.Chain.Person().String(), Agent: c.caller().String(), Route: c.route.audience,
		Standing: Standing{token: c.raw, call: c.id},
	}
}

// passesTokenOn reports whether the caller's token stands in what would be
// sent on, an argument for example (threat F1). The alphabet of a token needs
// no escape in JSON, so that the re-serialised body holds it as it is.
func (c *call) passesTokenOn() bool {
	if bytes.Contains(c.request.Body, []byte(c.raw)) {
		return true
	}
	for _, values := range c.request.Header {
		for _, v := range values {
			if strings.Contains(v, c.raw) {
				return true
			}
		}
	}
	return strings.Contains(c.request.Suffix+"?"+c.request.Query, c.raw)
}

// readBody reads the body once, within its bounds of size and time.
func (c *call) readBody() error {
	if !c.bodyRead {
		c.bodyRead = true
		c.body, c.bodyErr = c.receive()
		if c.unseen && (c.bodyErr == nil || errors.Is(c.bodyErr, ErrBodyPartial)) {
			c.body, c.bodyErr = nil, nil // the same whatever the proxy showed
		}
	}
	return c.bodyErr
}

func (c *call) receive() ([]byte, error) {
	// The deadline is set when it has passed, so that no clock is read (N3).
	conn := http.NewResponseController(c.w)
	late := time.AfterFunc(c.g.cfg.BodyTimeout, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	var body bytes.Buffer
	if n := c.r.ContentLength; n > 0 { // so that it is not copied as it grows; a claim alone takes no more than this
		body.Grow(int(min(n, 64<<10)) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, c.route.MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case !late.Stop():
		c.w.Header().Set("Connection", "close")
		return nil, &Refusal{Code: CodeRequestUnreadable, Status: http.StatusRequestTimeout, Err: errSlowBody}
	case errors.As(err, &tooLarge):
		return nil, err
	case err != nil:
		return nil, &Refusal{Code: CodeRequestUnreadable, Err: err}
	}
	return body.Bytes(), nil
}

// permit is step 4: what the person's chain allows. Every hop is asked, so
// that a fault in narrowing cannot widen authority.
func (c *call) permit() error {
	c.scopeAsked = true
	chain, asked := c.verified.Chain, c.request.call(c.route.audience)
	if err := asked.Doc.Err(); err != nil {
		return &Refusal{Code: CodeRequestUnreadable, Err: err}
	}
	var refused error
	for k := range chain.Len() {
		detail, exceeds := c.ask(chain.Hop(k).Details, asked)
		c.details = append(c.details, detail)
		if exceeds != nil && refused == nil {
			refused, c.exceeded = fmt.Errorf("hop %d: %w", k, exceeds), exceeds.record(k)
		}
	}
	if refused != nil {
		return &Refusal{Code: c.scopeCode(), Reason: "scope_exceeded", Err: refused}
	}
	return c.permitParts()
}

// permitParts asks the same of each part of the call. One that is not permitted
// refuses the whole.
func (c *call) permitParts() error {
	for _, p := range c.request.Parts {
		asked := scope.Call{Location: c.route.audience, Action: p.Action, Name: p.Name, Doc: p.Doc}
		for k := range c.verified.Chain.Len() {
			if v := c.verified.Chain.Hop(k).Details.Permits(asked); !v.Permitted() {
				exceeds := furthest(v)
				c.exceeded = exceeds.record(k)
				return &Refusal{Code: CodePolicyDenied, Reason: "scope_exceeded", Err: fmt.Errorf("hop %d: %s: %w", k, p.Action, exceeds)}
			}
		}
	}
	return nil
}

// noDetail is the index of a hop none of whose details permits the call.
const noDetail = -1

// ask puts the call to one hop and returns the permitting detail, or where its
// grant ends. Discovery needs only some detail at the location
// (scope-and-policy.md §2.5).
func (c *call) ask(grant scope.Grant, asked scope.Call) (detail int, _ *exceeds) {
	if c.request.Discovery {
		if at := c.covering(grant); len(at) > 0 {
			return at[0], nil
		}
		return noDetail, furthest(scope.Verdict{})
	}
	v := grant.Permits(asked)
	if !v.Permitted() {
		return noDetail, furthest(v)
	}
	return v.Detail, nil
}

// covering are the details of a grant that have the call's location and,
// unless it is a discovery, its action and name, whatever they say of its
// content.
func (c *call) covering(grant scope.Grant) (at []int) {
	for i, d := range grant.Details() {
		if slices.Contains(d.Locations(), c.route.audience) && (c.request.Discovery ||
			slices.Contains(d.Actions(), c.request.Action) && slices.Contains(d.Names(), c.request.Name)) {
			at = append(at, i)
		}
	}
	return at
}

// scopeCode tells the two refusals of scope apart (gateway.md §2, rules b and
// c): where only the leaf lacks the verb of the action, the caller may ask for
// a wider token; everywhere else no token would help.
func (c *call) scopeCode() Code {
	last := len(c.details) - 1
	verb, ok := scope.Verb(c.request.Action)
	if !ok || last == 0 || slices.Contains(c.verified.Chain.Leaf().Details.Verbs(), verb) {
		return CodePolicyDenied
	}
	for _, detail := range c.details[:last] {
		if detail == noDetail {
			return CodePolicyDenied
		}
	}
	return CodeInsufficientScope
}

// decide is step 5: what the organisation allows. It is asked also where
// scope refused, so that the record names both answers; the refusal of scope
// comes first.
func (c *call) decide() error {
	c.askPolicy()
	if c.decision.Unavailable {
		return Refuse(CodePolicyUnavailable, "policy: %v", c.decision.Errors)
	}
	if c.decision.Effect != policy.Permit {
		return Refuse(CodePolicyDenied, "policy: rules %v, errors %v", c.decision.Rules, c.decision.Errors)
	}
	return nil
}

// askPolicy asks once per call.
func (c *call) askPolicy() {
	if c.policyAsked {
		return
	}
	c.policyAsked = true
	leaf := c.verified.Chain.Leaf().Details
	open := false
	if n := len(c.details); n > 0 && c.details[n-1] != noDetail {
		open = leaf.Details()[c.details[n-1]].Args() == scope.ArgsOpen
	}
	c.input = policy.Input{
		Chain: c.verified.Chain, Caller: c.caller(), Resource: c.request.Resource,
		Call: c.request.call(c.route.audience), ArgsOpen: open, Address: peerAddress(c.r),
		Now: c.g.cfg.Now().UTC().Truncate(time.Millisecond), // as the record states it
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), decideTimeout) // threat A7
	defer cancel()
	c.decision = c.put(ctx, c.input)
	for _, p := range c.request.Parts {
		if c.decision.Effect != policy.Permit {
			return
		}
		in := c.input
		in.Resource, in.Call = p.Resource, scope.Call{Location: c.route.audience, Action: p.Action, Name: p.Name, Doc: p.Doc}
		in.Resource.Service = c.route.Name
		c.decision = c.put(ctx, in) // the record names the rules of the last, or of the one that refuses
	}
}

// put puts one question to policy.
func (c *call) put(ctx context.Context, in policy.Input) policy.Decision {
	d := c.g.cfg.Policy.Decide(ctx, in)
	if len(d.Errors) > 0 || d.Unavailable {
		d.Effect = policy.Deny // whatever the engine says beside an error
	}
	return d
}

// caller is the agent policy sees: the proven one, or for an unbound token
// the one it was issued to.
func (c *call) caller() identity.Agent {
	if c.workload != nil && !c.callback {
		return c.workload.Agent
	}
	return c.claimed
}

// refuse is the one end of every call that does not go on: record, then
// answer. A refusal whose record cannot be made durable still stands: it
// exercises no authority.
func (c *call) refuse(err error) {
	refusal := asRefusal(err)
	if c.scopeAsked {
		c.askPolicy()
	}
	if !c.recorded {
		if err := c.recordRefusal(refusal); err != nil {
			c.g.log.ErrorContext(c.r.Context(), "refusal not recorded", slog.String("request_id", c.id), slog.String("cause", err.Error()))
		}
	}
	c.logRefusal(refusal)
	if c.released {
		panic(http.ErrAbortHandler) // the answer has begun: cut it, never append to it
	}
	c.answer(refusal)
}

func (c *call) logRefusal(refusal *Refusal) {
	level := slog.LevelInfo
	if refusal.Answer().Status >= 500 {
		level = slog.LevelWarn
	}
	c.g.log.LogAttrs(c.r.Context(), level, "call refused",
		slog.String("request_id", c.id), slog.String("code", string(refusal.Code)),
		slog.String("reason", refusal.RecordReason()), slog.String("cause", refusal.Error()))
}

// answer writes the refusal in the protocol's shape.
func (c *call) answer(refusal *Refusal) {
	a := refusal.Answer()
	h := c.w.Header()
	h.Set("Lineal-Code", string(a.Code))
	h.Set("Cache-Control", "no-store")
	if a.Status == http.StatusMethodNotAllowed {
		h.Set("Allow", http.MethodPost)
		if c.route == nil { // CONNECT, TRACE: what follows on this connection is not for us (threat S7)
			h.Set("Connection", "close")
		}
	}
	if a.Challenge != "" {
		h["Www-Authenticate"] = c.challenges(refusal, a)
	}
	if a.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	f := Refused{Answer: a, RequestID: c.id, Data: refusal.Data, DocURL: c.g.cfg.PublicURL + "/errors#" + string(a.Code), Result: refusal.Result}
	if c.route == nil {
		WriteProblem(c.w, f)
		return
	}
	_ = c.readBody() // for the request's own id; a body that cannot be read has none
	c.route.Protocol.WriteRefusal(c.w, c.r, c.body, f)
}

// recover answers a panic like any refusal and keeps serving (threat O7).
func (c *call) recover() {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	c.g.log.ErrorContext(c.r.Context(), "panic", slog.String("request_id", c.id),
		slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	c.refuse(Refuse(CodeInternal, "panic"))
}

// context for what must outlive the caller's connection, such as records.
func (c *call) detached() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(c.r.Context()), c.g.cfg.RecordTimeout)
}

func peerAddress(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// isUUIDv7 is the form that records have for ids: a hint of another form would
// make the whole record invalid, and a refusal would go unrecorded (threat L8).
func isUUIDv7(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.Version() == 7 && id.Variant() == uuid.RFC4122 && id.String() == s
}
