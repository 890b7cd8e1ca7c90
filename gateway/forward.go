package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// answerHeaders may pass from an upstream to the caller (gateway.md §1); all
// others, Set-Cookie among them, are dropped.
var answerHeaders = []string{
	"Content-Type", "Content-Language", "Cache-Control", "Etag", "Last-Modified", "Retry-After", "Vary",
	"Mcp-Protocol-Version", "A2a-Version", "A2a-Extensions", "X-Request-Id", "Request-Id",
	"Openai-Version", "Openai-Processing-Ms", "Anthropic-Ratelimit-Requests-Remaining", "X-Should-Retry",
}

// forward is step 7: send what was judged, stream what comes back, and leave
// the outcome. It runs only after the decision record is durable.
func (c *call) forward() error {
	c.outcome = &outcome{status: record.StatusNotForwarded}
	defer c.recordOutcome()
	if err := c.bindChosen(); err != nil {
		c.outcome.reason = asRefusal(err).RecordReason()
		return err
	}

	// The caller's disconnect reaches the upstream through the context; the
	// wait for response headers has a bound of its own, the stream has none.
	ctx, cancel := context.WithCancelCause(c.r.Context())
	defer cancel(nil)
	defer c.watch(cancel).stop()
	return c.endedBy(ctx, c.send(ctx, cancel))
}

// send sends the call, and the answer back.
func (c *call) send(ctx context.Context, cancel context.CancelCauseFunc) error {
	p := new(progress)
	out, err := c.outgoing(httptrace.WithClientTrace(ctx, p.trace()))
	if err != nil {
		return c.failed(record.StatusNotForwarded, noCredential(err))
	}
	timer := time.AfterFunc(c.timeout(), func() { cancel(errHeaderTimeout) })
	defer timer.Stop()
	c.outcome.forwarded, c.outcome.status = true, record.StatusUnknown
	resp, err := c.transport().RoundTrip(out)
	if !c.callback {
		timer.Stop() // no answer but a client's has a bound as a whole
	}
	if err != nil {
		return c.transportFailure(ctx, p, err)
	}
	defer func() { _ = resp.Body.Close() }()
	c.outcome.code = resp.StatusCode
	c.takeReceipt(ctx, resp.Header)
	if refusal := c.checkAnswer(resp); refusal != nil {
		return c.failed(record.StatusCalleeError, refusal)
	}
	c.passHeaders(resp.Header)
	resp.Body = c.secrets.scan(resp.Body)
	if c.request.Answer != nil {
		return c.readAnswer(ctx, resp)
	}
	if c.request.Observe != nil {
		return c.observe(ctx, resp, c.request.Observe(&exchange{c: c}, resp.StatusCode, resp.Header))
	}
	return c.stream(resp)
}

var errHeaderTimeout = errors.New("the upstream sent no response headers in time")

// progress is how far a request came. Its methods run on the transport's
// goroutines.
type progress struct{ connecting, wrote atomic.Bool }

func (p *progress) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:      func(string) { p.connecting.Store(true) },
		WroteHeaders: func() { p.wrote.Store(true) },
	}
}

// nothingSent reports whether the upstream saw nothing of the request. A
// transport that says nothing about itself may have sent it.
func (p *progress) nothingSent() bool { return p.connecting.Load() && !p.wrote.Load() }

// failed marks the outcome with the refusal that the caller gets.
func (c *call) failed(status record.Status, r *Refusal) error {
	c.outcome.status, c.outcome.reason = status, string(r.Code)
	return r
}

// transportFailure tells what may be repeated from what may have run: only a
// call of which nothing was sent is unreachable, and retryable.
func (c *call) transportFailure(ctx context.Context, p *progress, err error) error {
	nothing := p.nothingSent()
	c.outcome.forwarded = !nothing
	switch {
	case c.r.Context().Err() != nil:
		return c.cut(record.StatusAborted, err)
	case nothing:
		return c.failed(record.StatusNotForwarded, &Refusal{Code: CodeUpstreamUnreachable, Err: err})
	case errors.Is(context.Cause(ctx), errHeaderTimeout):
		return c.failed(record.StatusTimeout, &Refusal{Code: CodeUpstreamTimeout, Err: errHeaderTimeout})
	default:
		return c.failed(record.StatusUnknown, &Refusal{Code: CodeUpstreamInvalid, Err: err})
	}
}

// outgoing builds the request to the upstream from the judged call alone:
// none of the caller's headers pass unless the protocol named them.
func (c *call) outgoing(ctx context.Context) (*http.Request, error) {
	if c.request.Callback != "" {
		return c.delivery(ctx)
	}
	u := *c.route.Upstream
	u.Path = strings.TrimSuffix(u.Path, "/") + c.request.Suffix
	u.RawQuery = c.request.Query
	out, err := http.NewRequestWithContext(c.served(ctx), c.request.Method, u.String(), bytes.NewReader(c.request.Body))
	if err != nil {
		return nil, err
	}
	if c.request.Body == nil {
		out.Body, out.ContentLength = http.NoBody, 0
	}
	for name, values := range c.request.Header {
		out.Header[name] = values
	}
	out.Header.Set("Lineal-Request-Id", c.id)
	out.Header.Set("Lineal-Call-Digest", c.digest())
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "lineal-gateway")
	}
	if c.trace != "" {
		out.Header.Set("Traceparent", c.trace)
	}
	if c.route.Credential != nil || c.route.Broker != nil {
		if err := c.credentials(ctx, out); err != nil {
			return nil, err
		}
		c.secrets = credentialOf(out.Header, c.request.Header)
	}
	if c.route.Partner != nil {
		raw, err := c.partnerToken(ctx)
		if err != nil {
			return nil, err
		}
		out.Header.Set("Authorization", "Bearer "+string(raw))
		c.secrets = credentialOf(out.Header, c.request.Header)
		if err := c.state(ctx, out.Header); err != nil {
			return nil, err
		}
	}
	// The one exception to "no caller's token goes on" (threat F1): the agent
	// that the token itself names gets it, to exchange and not to present.
	if may := c.verified.Chain.Leaf().MayAct; !c.route.Delegate.IsZero() && may.Subject == c.route.Delegate.String() && may.Issuer == c.verified.Chain.Issuer() {
		out.Header.Set("Lineal-Delegation", c.raw)
	}
	return out, nil
}

// checkAnswer keeps the far side's failures apart from the caller's: an
// upstream that refuses our credential is a 502, never a 401 (gateway.md §2).
func (c *call) checkAnswer(resp *http.Response) *Refusal {
	switch code := resp.StatusCode; {
	case c.secrets.inHeader(resp.Header):
		return &Refusal{Code: CodeInternal, Err: errLeak}
	case c.route.PassDenials && (code == http.StatusUnauthorized || code == http.StatusForbidden):
		return nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden && resp.Header.Get("WWW-Authenticate") != "",
		code == http.StatusProxyAuthRequired:
		if c.route.Broker != nil {
			c.route.Broker.Forget(c.subject())
		}
		return Refuse(CodeUpstreamCredential, "upstream answered %d", code)
	case code == http.StatusForbidden:
		return Refuse(CodeUpstreamRefused, "upstream answered %d", code)
	case code == http.StatusNotModified && c.conditional():
		return nil
	case code >= 300 && code < 400: // threat F9
		return Refuse(CodeUpstreamInvalid, "upstream answered a redirect (%d)", code)
	case code < 200:
		return Refuse(CodeUpstreamInvalid, "upstream answered %d", code)
	case resp.Header.Get("Content-Encoding") != "", resp.Uncompressed: // we asked for none (threat N2)
		return Refuse(CodeUpstreamInvalid, "upstream answered with content encoding %q", resp.Header.Get("Content-Encoding"))
	}
	return nil
}

// conditional reports whether 304 is an answer to what was asked.
func (c *call) conditional() bool {
	return c.request.Header.Get("If-None-Match") != "" || c.request.Header.Get("If-Modified-Since") != ""
}

// passHeaders takes over what may pass.
func (c *call) passHeaders(from http.Header) {
	h := c.w.Header()
	pass := func(name string) {
		if v := from[name]; len(v) > 0 {
			h[name] = v
		}
	}
	for _, name := range answerHeaders {
		pass(name)
	}
	for _, name := range c.request.Pass {
		pass(name)
	}
	if c.route.PassDenials {
		pass("Www-Authenticate")
	}
	if isEventStream(from) {
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no")
	}
}

func isEventStream(h http.Header) bool {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(media), "text/event-stream")
}

// done is the end of a call whose answer went out whole.
func (c *call) done(status int) error {
	c.outcome.status = record.StatusCompleted
	if status >= 400 {
		c.outcome.status = record.StatusCalleeError
	}
	return nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// stream copies the body untouched, flushing after each read of a body whose
// length is not known beforehand. An answer of known length is released with its
// first bytes, so that one which cannot begin is refused whole.
func (c *call) stream(resp *http.Response) error {
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	flush := func() error { return nil }
	if resp.ContentLength < 0 {
		flush = http.NewResponseController(c.w).Flush
		c.release(resp)
		if err := flush(); err != nil {
			return c.cut(record.StatusAborted, err)
		}
	}
	for {
		n, err := resp.Body.Read(*buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return c.broken(err)
		}
		c.release(resp)
		if n > 0 {
			c.outcome.bytes += int64(n)
			if _, werr := c.w.Write((*buf)[:n]); werr != nil {
				return c.cut(record.StatusAborted, werr)
			}
			if ferr := flush(); ferr != nil {
				return c.cut(record.StatusAborted, ferr)
			}
		}
		if err != nil {
			return c.finish(resp)
		}
	}
}

// release lets the head of the answer go, once.
func (c *call) release(resp *http.Response) {
	if c.released {
		return
	}
	if resp.ContentLength > 0 && resp.StatusCode != http.StatusNotModified {
		c.w.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	c.released = true
	c.w.WriteHeader(resp.StatusCode)
}

// broken ends an answer that could not be read to its end.
func (c *call) broken(err error) error {
	var refusal *Refusal
	switch {
	case c.r.Context().Err() != nil:
		return c.cut(record.StatusAborted, err)
	case errors.As(err, &refusal):
		c.forgetHeaders()
		return c.failed(record.StatusCalleeError, refusal)
	case c.released:
		return c.cut(record.StatusCalleeError, err)
	default:
		return c.unread(err)
	}
}

// finish passes the trailers that the protocol has (threat S9) and is the end of
// a stream. A gRPC call that failed says so there.
func (c *call) finish(resp *http.Response) error {
	for _, name := range c.request.Trailers {
		if v := resp.Trailer[name]; len(v) == 1 {
			c.w.Header()[http.TrailerPrefix+name] = v
		}
	}
	if s := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status"); len(c.request.Trailers) > 0 && s != "0" {
		c.outcome.status, c.outcome.reason = record.StatusCalleeError, "grpc_status"
		return nil
	}
	return c.done(resp.StatusCode)
}

// cut ends a stream that has begun: the answer is aborted, never completed.
func (c *call) cut(status record.Status, err error) error {
	c.outcome.status, c.outcome.reason = status, string(CodeUpstreamInvalid)
	if status == record.StatusAborted {
		c.outcome.reason = "caller_gone"
	}
	return &Refusal{Code: CodeUpstreamInvalid, Err: err}
}

// forgetHeaders takes back what passHeaders took over, for an answer of ours.
func (c *call) forgetHeaders() {
	for _, name := range answerHeaders {
		c.w.Header().Del(name)
	}
	for _, name := range c.request.Pass {
		c.w.Header().Del(name)
	}
	c.w.Header().Del("Www-Authenticate")
	c.w.Header().Del("Content-Length")
}

// shows is the list question for one entry: some detail of every hop covers
// it, and policy's list set permits it (scope-and-policy.md §4.5).
func (c *call) shows(action string, res policy.Resource) bool {
	for k := range c.verified.Chain.Len() {
		if !c.verified.Chain.Hop(k).Details.Covers(c.route.audience, action, res.Name) {
			return false
		}
	}
	lister, ok := c.g.cfg.Policy.(policy.Lister)
	if !ok {
		return true // what is shown is still decided when it is called
	}
	in := c.input
	res.Service = c.route.Name
	in.Resource, in.Call.Action, in.Call.Name = res, action, res.Name
	return lister.Listed(c.r.Context(), in)
}
