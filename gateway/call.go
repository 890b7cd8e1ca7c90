package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/policy"
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

	route  *Route
	suffix string
	body   []byte // as received

	workload *identity.Workload // proven on the connection; nil if nothing was
	claimed  identity.Agent     // the actor a correctly signed token names, proven or not
	raw      string             // the caller's token, never sent on but to Delegate
	verified token.Verified
	bound    bool // the token's binding was checked and held
	request  Request

	scopeAsked, policyAsked bool
	details                 []int // per hop the permitting detail, or noDetail
	decision                policy.Decision
	input                   policy.Input

	recorded bool      // the decision record is durable
	recordID string    // of the decision record
	released bool      // the first byte of an answer is out
	outcome  *outcome  // what followed; nil until forward
	started  time.Time // of the forwarding
}

type step func(*call) error

// serve runs the steps and turns the first error into the one refusal.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, steps ...step) {
	if g.servePublic(w, r) {
		return
	}
	c := &call{g: g, w: w, r: r, id: g.cfg.NewID(), now: g.cfg.Now()}
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
	if parent := c.r.Header.Get("Lineal-Parent"); isUUID(parent) {
		c.parent = parent
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
		return &Refusal{Code: CodeProofInvalid, Reason: string(token.CodeBindingMismatch), Err: err}
	}
	c.workload = &w
	return nil
}

// verify is step 2: the token, its whole chain, its binding to what step 1
// proved, its times.
func (c *call) verify() (err error) {
	if c.raw, err = callersToken(c.r, c.route.APIKeyToken); err != nil {
		return err
	}
	want := token.Want{Audience: c.route.audience, Workload: c.workload, Binding: token.BindingRequired}
	if c.route.AllowUnbound {
		want.Binding = token.BindingOptional
	}
	c.verified, err = c.g.cfg.Verifier.Verify(c.r.Context(), c.raw, want)
	if err != nil {
		var t *token.Error
		if errors.As(err, &t) && t.Claimed != "" {
			c.claimed, _ = identity.ParseAgent(t.Claimed)
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
	c.request, err = c.route.Protocol.Read(c.r, c.suffix, c.body)
	if err != nil {
		return err
	}
	c.request.Resource.Service = c.route.Name
	return nil
}

func (c *call) readBody() error {
	if c.body != nil || c.r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, c.route.MaxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return &Refusal{Code: CodeRequestUnreadable, Err: err}
	}
	c.body = body
	return nil
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
		detail, err := c.ask(chain.Hop(k).Details, asked)
		c.details = append(c.details, detail)
		if err != nil && refused == nil {
			refused = fmt.Errorf("hop %d: %w", k, err)
		}
	}
	if refused != nil {
		return &Refusal{Code: c.scopeCode(), Reason: "scope_exceeded", Err: refused}
	}
	return nil
}

// noDetail is the index of a hop none of whose details permits the call.
const noDetail = -1

// ask puts the call to one hop and returns the permitting detail. Discovery
// needs only some detail at the location (scope-and-policy.md §2.5).
func (c *call) ask(grant scope.Grant, asked scope.Call) (detail int, err error) {
	if !c.request.Discovery {
		v := grant.Permits(asked)
		if !v.Permitted() {
			return noDetail, errors.New(describeFailure(v))
		}
		return v.Detail, nil
	}
	for i, d := range grant.Details() {
		if slices.Contains(d.Locations(), asked.Location) {
			return i, nil
		}
	}
	return noDetail, errors.New("no detail at this location")
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
		Call: c.request.call(c.route.audience), Now: c.now, ArgsOpen: open, Address: peerAddress(c.r),
	}
	c.decision = c.g.cfg.Policy.Decide(c.r.Context(), c.input)
}

// caller is the agent policy sees: the proven one, or for an unbound token
// the one it was issued to.
func (c *call) caller() identity.Agent {
	if c.workload != nil {
		return c.workload.Agent
	}
	return c.claimed
}

// refuse is the one end of every call that does not go on: record, then
// answer. A refusal whose record cannot be made durable still stands: it
// exercises no authority.
func (c *call) refuse(err error) {
	refusal := asRefusal(err)
	if c.scopeAsked && !c.verified.Chain.IsZero() {
		c.askPolicy()
	}
	level := slog.LevelInfo
	if refusal.Answer().Status >= 500 {
		level = slog.LevelWarn
	}
	if !c.recorded {
		if recErr := c.recordRefusal(refusal); recErr != nil {
			c.g.log.ErrorContext(c.r.Context(), "refusal not recorded", slog.String("request_id", c.id), slog.String("cause", recErr.Error()))
		}
	}
	c.g.log.Log(c.r.Context(), level, "call refused",
		slog.String("request_id", c.id), slog.String("code", string(refusal.Code)),
		slog.String("reason", refusal.RecordReason()), slog.String("cause", refusal.Error()))
	if c.released {
		panic(http.ErrAbortHandler) // the answer has begun: cut it, never append to it
	}
	c.answer(refusal)
}

// answer writes the refusal in the protocol's shape.
func (c *call) answer(refusal *Refusal) {
	a := refusal.Answer()
	h := c.w.Header()
	h.Set("Lineal-Code", string(a.Code))
	h.Set("Cache-Control", "no-store")
	if a.Challenge != "" {
		h.Set("WWW-Authenticate", c.challenge(a))
	}
	if a.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	f := Refused{Answer: a, RequestID: c.id, Data: refusal.Data, DocURL: c.g.cfg.PublicURL + "/errors#" + string(a.Code)}
	if c.route == nil {
		writePlainRefusal(c.w, f)
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
	if p == http.ErrAbortHandler {
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

func describeFailure(v scope.Verdict) string {
	if len(v.Failures) == 0 {
		return "no detail"
	}
	best := v.Failures[0]
	for _, f := range v.Failures { // the detail that came furthest tells most
		if len(f.Path) > 0 && f.Path[0] == '/' {
			best = f
			break
		}
	}
	return fmt.Sprintf("detail %d refuses at %s (%s)", best.Detail, best.Path, best.Op)
}

func peerAddress(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || (!dash && (c < '0' || c > '9') && (c < 'a' || c > 'f')) {
			return false
		}
	}
	return true
}
