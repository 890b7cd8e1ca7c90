package gateway

import (
	"bytes"
	"net/http"
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// Verdict is the answer to a proxy that asks about a call which it will send on
// by itself.
type Verdict struct {
	Allowed bool
	// Set and Remove are what the proxy changes of the request's headers, if it
	// is allowed: the caller's credential goes, the upstream's comes.
	Set    http.Header
	Remove []string
	// Status, Header and Body are the refusal, in the protocol's shape. Status is
	// never below 400: a proxy could take that for leave.
	Status int
	Header http.Header
	Body   []byte
}

// withheld are headers of a caller that reach no upstream. A proxy sends all
// others on, which is less than the gateway's own forwarding does.
var withheld = []string{
	"Authorization", "Baggage", "Dpop", "Lineal-Call-Digest", "Lineal-Delegation", "Lineal-Exchange", "Lineal-Parent", "Lineal-Request-Id", "Lineal-Token",
	"X-Api-Key", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
}

// Through is how a route may be asked about by a proxy.
type Through int

// The zero value is not at all.
const (
	NotThrough Through = iota
	// ThroughWhole: with the whole body, which is judged.
	ThroughWhole
	// ThroughUnseen: the body is not judged, whether the proxy shows it or not, and
	// the record says so. The route's Protocol must be BodyBlind.
	ThroughUnseen
)

// Authorize decides and records a call that a proxy sends on: the same steps but
// the last. r is the call as the proxy received it, with the caller's certificate
// in r.TLS; a body that was not shown whole reads as [ErrBodyPartial]. through says
// which routes may be asked about.
//
// What the call does further is out of sight: the record does not say that the
// callee is who the route says, and the outcome is unknown.
func (g *Gateway) Authorize(r *http.Request, through func(route string) Through) Verdict {
	out := &refusedAnswer{header: http.Header{}}
	c := &call{g: g, w: out, r: r, id: g.cfg.NewID(), now: g.cfg.Now(), proxied: true}
	var v Verdict
	c.run(
		func(c *call) error {
			how := through(c.route.Name)
			if how == NotThrough {
				return Refuse(CodeRouteUnknown, "route %q is not served through a proxy", c.route.Name)
			}
			c.unseen = how == ThroughUnseen
			return nil
		},
		(*call).identify, (*call).verify, (*call).read, (*call).asSent, (*call).permit, (*call).decide, (*call).record,
		func(c *call) (err error) {
			v, err = c.allow()
			return err
		},
	)
	if v.Allowed {
		return v
	}
	status := out.status
	if status < 400 {
		status = max(answerOf(Code(out.header.Get("Lineal-Code"))).Status, http.StatusBadRequest)
	}
	return Verdict{Status: status, Header: out.header, Body: out.body.Bytes()}
}

// asSent: the proxy sends the bytes that came, so it is these that the digest is
// of. What only the gateway itself could do to an answer refuses the call.
func (c *call) asSent() error {
	if c.request.Answer != nil || c.request.Observe != nil || len(c.request.Handles) > 0 || c.request.Discovery || !c.route.Delegate.IsZero() {
		return Refuse(CodeOperationUnknown, "a call whose answer the gateway must see")
	}
	if c.request.Body != nil && !c.unseen {
		c.request.Body = c.body
	}
	return nil
}

// allow is the end of a call that the proxy sends on.
func (c *call) allow() (Verdict, error) {
	c.outcome = &outcome{status: record.StatusNotForwarded}
	defer c.recordOutcome()
	out := &http.Request{Method: c.request.Method, URL: c.route.Upstream, Header: http.Header{}}
	if err := c.credentials(c.r.Context(), out); err != nil {
		return Verdict{}, c.failed(record.StatusNotForwarded, noCredential(err))
	}
	out.Header.Set("Lineal-Request-Id", c.id)
	if !c.unseen { // else it would be of another call
		out.Header.Set("Lineal-Call-Digest", c.digest())
	}
	c.outcome.status, c.outcome.forwarded = record.StatusUnknown, true
	remove := slices.DeleteFunc(slices.Clone(withheld), func(name string) bool { return out.Header[name] != nil })
	return Verdict{Allowed: true, Set: out.Header, Remove: remove}, nil
}

// refusedAnswer takes the refusal as a protocol writes it.
type refusedAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *refusedAnswer) Header() http.Header         { return a.header }
func (a *refusedAnswer) WriteHeader(status int)      { a.status = status }
func (a *refusedAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }
