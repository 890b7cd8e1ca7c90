package gateway_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// TestP4ForwardsWhatWasJudged: the upstream gets a re-serialisation of the
// judged tree, whose digest goes with it.
func TestP4ForwardsWhatWasJudged(t *testing.T) {
	w := newWorld(t)
	a := mcpCall(w.token(mint{}), "find", ` { "customer" : "\u0043-1" , "limit": 1.0e0 } `)
	w.wantPass(w.send(a))
	got := w.up.requests()[0]
	sent, err := strictjson.Parse([]byte(a.body), strictjson.Limits{})
	must(t, err)
	received, err := strictjson.Parse(got.body, strictjson.Limits{})
	must(t, err)
	if !sent.Equal(received) || string(received.AppendJSON(nil)) != string(got.body) {
		t.Errorf("sent %s\nreceived %s", a.body, got.body)
	}
	if strings.Contains(string(got.body), `\u`) || !strings.Contains(string(got.body), `"limit":1.0e0`) {
		t.Errorf("not the one form of the judged tree: %s", got.body)
	}
	var digested []byte
	for _, part := range []string{"mcp:tools/call", w.url + "/mcp/orders", "find", http.MethodPost, "", string(got.body)} {
		digested = binary.BigEndian.AppendUint64(digested, uint64(len(part)))
		digested = append(digested, part...)
	}
	if diff := cmp.Diff(sha(digested), got.header.Get("Lineal-Call-Digest")); diff != "" {
		t.Error(diff)
	}
	if got.path != "/mcp" || got.query != "" || got.method != http.MethodPost {
		t.Errorf("%s %s?%s", got.method, got.path, got.query)
	}
}

// TestF4OutboundHeaders: the upstream gets an allow-list, and nothing of the
// caller's that the protocol did not read.
func TestF4OutboundHeaders(t *testing.T) {
	w := newWorld(t)
	a := mcpCall(w.token(mint{}), "find", someone)
	for _, name := range []string{"Cookie", "Traceparent", "Baggage", "Lineal-Call-Digest", "Lineal-Delegation", "Lineal-Exchange", "Mcp-Session-Id", "Last-Event-Id", "Idempotency-Key", "Mcp-Param-X", "Te", "Accept-Language"} {
		a.header.Set(name, "trailers")
	}
	got := w.send(a)
	w.wantPass(got)
	want := map[string]bool{
		"Accept": true, "Accept-Encoding": true, "Content-Length": true, "Content-Type": true, "Lineal-Call-Digest": true, "Lineal-Request-Id": true,
		"Mcp-Method": true, "Mcp-Name": true, "Mcp-Protocol-Version": true, "User-Agent": true,
	}
	seen := w.up.requests()[0].header
	for name := range seen {
		if !want[name] {
			t.Errorf("header %s: %q reached the upstream", name, seen.Get(name))
		}
		delete(want, name)
	}
	delete(want, "Accept-Encoding") // the transport's
	for name := range want {
		t.Errorf("header %s is missing", name)
	}
	if seen.Get("Lineal-Call-Digest") == "trailers" || seen.Get("Lineal-Request-Id") != got.header.Get("Lineal-Request-Id") {
		t.Errorf("own headers: %q", seen)
	}
}

// TestF8S9AnswerHeaders: answers pass an allow-list too, trailers never.
func TestF8S9AnswerHeaders(t *testing.T) {
	w := newWorld(t)
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Trailer", "Lineal-Code, X-Late")
		for _, name := range []string{"Set-Cookie", "Lineal-Code", "Lineal-Request-Id", "WWW-Authenticate", "Mcp-Session-Id", "Location", "Server", "Alt-Svc", "Connection-X"} {
			h.Set(name, "x")
		}
		h.Set("ETag", `"e"`)
		h.Set("Mcp-Protocol-Version", modern)
		echoResult(rw, r)
		h.Set("Lineal-Code", "late")
		h.Set("X-Late", "late")
	})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(mint{}), "find", someone)))
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.ReadAll(resp.Body)
	must(t, err)
	want := map[string]bool{"Content-Type": true, "Etag": true, "Mcp-Protocol-Version": true, "Lineal-Request-Id": true, "Date": true, "Content-Length": true}
	for name, values := range resp.Header {
		if !want[name] || values[0] == "x" {
			t.Errorf("header %s: %q reached the caller", name, values)
		}
	}
	if resp.Header.Get("Etag") != `"e"` || len(resp.Trailer) != 0 {
		t.Errorf("headers %v, trailers %v", resp.Header, resp.Trailer)
	}
}

// TestF1O4Canaries: the caller's token and the upstream's credential stay where
// they belong, in every route, passing and refused.
func TestF1O4Canaries(t *testing.T) {
	w := newWorld(t)
	tokens := map[string]string{
		"/mcp/orders": w.token(mint{}), "/a2a/peer": w.token(mint{audience: w.url + "/a2a/peer", actors: []identity.Agent{app, orch}, mayAct: research}),
		"/openai/v1": w.token(mint{audience: w.url + "/openai/v1"}),
	}
	handed := a2aCall(tokens["/a2a/peer"], hello)
	handed.as = orch
	asks := []ask{
		mcpCall(tokens["/mcp/orders"], "find", someone), mcpCall(tokens["/mcp/orders"], "erase", someone), mcpCall(tokens["/a2a/peer"], "find", someone),
		handed, llmCall(tokens["/openai/v1"], chat), llmCall(tokens["/openai/v1"], `{"model":"large","messages":[]}`), llmCall(tokens["/openai/v1"], `{`),
	}
	expired := mcpCall(w.token(mint{issued: time.Now().Add(-time.Hour)}), "find", someone)
	tokens["expired"] = expired.token
	asks = append(asks, expired)
	own := mcpCall(tokens["/mcp/orders"], "find", someone)
	own.header.Set("Lineal-Token", own.token)
	asks = append(asks, own)
	var answers strings.Builder
	for _, a := range asks {
		got := w.send(a)
		_, _ = fmt.Fprint(&answers, got.header, string(got.body))
	}
	if n := len(w.decisions()); n != len(asks) {
		t.Errorf("%d decisions of %d calls", n, len(asks))
	}
	handedOver := 0
	for _, r := range w.up.requests() {
		for name, values := range r.header {
			for route, tok := range tokens {
				if !strings.Contains(strings.Join(values, " "), tok) {
					continue
				}
				if name == "Lineal-Delegation" && route == "/a2a/peer" && r.path == "/a2a" {
					handedOver++
					continue
				}
				t.Errorf("the token for %s reached %s in %s", route, r.path, name)
			}
		}
		for route, tok := range tokens {
			if strings.Contains(string(r.body), tok) {
				t.Errorf("the token for %s reached %s in the body", route, r.path)
			}
		}
		if got := r.header.Get("Authorization"); (r.path == "/v1/chat/completions") != (got == "Bearer "+upstreamSecret) {
			t.Errorf("%s got Authorization %q", r.path, got)
		}
	}
	if handedOver != 1 {
		t.Errorf("the delegation was handed over %d times, want 1", handedOver)
	}
	records := fmt.Sprintf("%+v", w.recorder.all())
	for route, tok := range tokens {
		for _, part := range append(strings.Split(tok, "."), tok) {
			if part == strings.Split(tok, ".")[0] {
				continue // the header of every token
			}
			for where, text := range map[string]string{"log": w.log.String(), "record": records, "answer": answers.String()} {
				if strings.Contains(text, part) {
					t.Errorf("the token for %s is in the %s", route, where)
				}
			}
		}
	}
	for where, text := range map[string]string{"log": w.log.String(), "record": records, "answer": answers.String()} {
		if strings.Contains(text, upstreamSecret) {
			t.Errorf("the upstream's credential is in the %s", where)
		}
	}
	if !strings.Contains(w.log.String(), "policy_denied") {
		t.Error("the log that was searched is empty")
	}
}

// TestF1Delegate: the delegation goes to the agent that the token names, over
// its route, and to nobody else.
func TestF1Delegate(t *testing.T) {
	for _, c := range []struct {
		name   string
		mayAct identity.Agent
		want   bool
	}{{"named", research, true}, {"another is named", orch, false}, {"nobody is named", identity.Agent{}, false}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			tok := w.token(mint{audience: w.url + "/a2a/peer", mayAct: c.mayAct})
			w.wantPass(w.send(a2aCall(tok, hello)))
			if got := w.up.requests()[0].header.Get("Lineal-Delegation"); (got == tok) != c.want || (got != "") != c.want {
				t.Errorf("handed over: %v", got != "")
			}
		})
	}
}

// TestF1TokenInTheCall: a caller that puts its own token into an argument or a
// header does not hand it to the upstream.
func TestF1TokenInTheCall(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	escaped := strings.Replace(tok, "e", `\u0065`, 1)
	for name, a := range map[string]ask{
		"argument":         mcpCall(tok, "find", `{"customer":"`+tok+`"}`),
		"argument, inside": mcpCall(tok, "find", `{"customer":"Bearer `+tok+`!"}`),
		"argument, masked": mcpCall(tok, "find", `{"customer":"`+escaped+`"}`),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.wantRefusal(w.send(a), 500, gateway.CodeInternal, "internal")
		})
	}
	t.Run("A2A-Extensions", func(t *testing.T) {
		w := w.in(t)
		tok := w.token(mint{audience: w.url + "/a2a/peer"})
		a := a2aCall(tok, hello)
		a.header.Set("A2a-Extensions", tok)
		w.wantRefusal(w.send(a), 500, gateway.CodeInternal, "internal")
	})
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	w.recorder.reset()
	w.wantPass(w.send(mcpCall(tok, "find", `{"customer":"eyJ"}`)))
}

// TestF9UpstreamAnswers: what the far side says about itself is not the caller's
// fault, and never a 401 (rule d).
func TestF9UpstreamAnswers(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		status  int
		code    gateway.Code
		outcome record.Status
	}{
		{"401", status(401), 502, gateway.CodeUpstreamCredential, record.StatusCalleeError},
		{"407", status(407), 502, gateway.CodeUpstreamCredential, record.StatusCalleeError},
		{"403 with a challenge", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
			rw.WriteHeader(403)
		}, 502, gateway.CodeUpstreamCredential, record.StatusCalleeError},
		{"403", status(403), 200, gateway.CodeUpstreamRefused, record.StatusCalleeError},
		{"301", redirect(301), 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"302", redirect(302), 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"307", redirect(307), 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"308", redirect(308), 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"304", status(304), 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"encoded", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(rw, "x")
		}, 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"broken before the answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, gateway.CodeUpstreamInvalid, record.StatusUnknown},
		{"500", status(500), 500, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"404", status(404), 404, gateway.CodeUpstreamRefused, record.StatusCalleeError},
		{"404 with another's error", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(404)
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":8,"error":{"code":1,"message":"x"}}`)
		}, 404, gateway.CodeUpstreamRefused, record.StatusCalleeError},
		{"404 with its own error", func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(404)
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"x"}}`)
		}, 404, "", record.StatusCalleeError},
		{"200, no JSON", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "x") }, 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"200, another's answer", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":8,"result":{}}`)
		}, 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"200, both answer and error", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":{},"error":{}}`)
		}, 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"200, input required where it is not", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, `{"jsonrpc":"2.0","id":7,"result":{"resulttype":"input_required"}}`)
		}, 502, gateway.CodeUpstreamInvalid, record.StatusCalleeError},
		{"200", echoResult, 200, "", record.StatusCompleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.up.answers(c.answer)
			got := w.send(mcpCall(w.token(mint{}), "find", someone))
			if got.status != c.status || got.header.Get("Lineal-Code") != string(c.code) {
				t.Errorf("answer %d %q, want %d %q: %s", got.status, got.header.Get("Lineal-Code"), c.status, c.code, got.body)
			}
			if got.header.Get("WWW-Authenticate") != "" || got.header.Get("Location") != "" {
				t.Errorf("headers %v", got.header)
			}
			d := w.oneDecision() // the permit stands: what follows is the outcome's
			if d.Verdict.Effect != record.Permit {
				t.Errorf("verdict %+v", d.Verdict)
			}
			o := w.outcomeNow()
			if o.Status != c.outcome || o.Reason != string(c.code) || !o.Forwarded {
				t.Errorf("outcome %+v", o)
			}
			if c.code != "" {
				if r := got.rpc(t); string(r.ID) != "7" || !strings.Contains(string(r.Error.Data), `"hop":"upstream"`) {
					t.Errorf("refusal %s", got.body)
				}
			}
			if n := len(w.up.requests()); n != 1 {
				t.Errorf("the upstream saw %d requests, want 1", n)
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
}

func redirect(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/elsewhere", code) }
}

// TestUpstreamUnreachable: nothing was sent, so that the call may be repeated.
func TestUpstreamUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed := l.Addr().String()
	must(t, l.Close())
	w := newWorld(t, func(cfg *gateway.Config) {
		cfg.Routes[0].Upstream = &url.URL{Scheme: "https", Host: closed, Path: "/mcp"}
	})
	got := w.send(mcpCall(w.token(mint{}), "find", someone))
	if got.status != 502 || got.header.Get("Lineal-Code") != "upstream_unreachable" || !strings.Contains(string(got.body), `"retryable":true`) {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	if o := w.outcomeNow(); o.Status != record.StatusNotForwarded || o.Forwarded || o.Reason != "upstream_unreachable" {
		t.Errorf("outcome %+v", o)
	}
	w.decisions()
}

// TestF1UpstreamPeer: the route's peer is a SPIFFE ID; whoever else answers at
// its address sees nothing.
func TestF1UpstreamPeer(t *testing.T) {
	w := newWorld(t)
	w2 := newWorld(t, func(cfg *gateway.Config) {
		cfg.Routes = w.routes()
		cfg.Routes[1].Transport = shared.sources[gatewayA].HTTPClient(stranger).Transport
	})
	tok := w2.token(mint{audience: w2.url + "/a2a/peer", mayAct: research})
	got := w2.send(a2aCall(tok, hello))
	if got.header.Get("Lineal-Code") != "upstream_unreachable" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	if len(w.up.requests()) != 0 {
		t.Error("the wrong peer saw the call")
	}
}

// TestHeaderTimeout: the wait for response headers is bounded; the call may
// have run.
func TestHeaderTimeout(t *testing.T) {
	seen, gone := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(cfg *gateway.Config) {
		route := &cfg.Routes[0]
		next := route.Transport
		route.HeaderTimeout = 50 * time.Millisecond
		route.Transport = roundTripFunc(func(r *http.Request) (*http.Response, error) {
			// However slow the machine is, the call was sent when the time is over.
			ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
			defer context.AfterFunc(r.Context(), func() {
				<-seen
				cancel()
			})()
			return next.RoundTrip(r.WithContext(ctx))
		})
	})
	w.up.answers(func(_ http.ResponseWriter, r *http.Request) {
		close(seen)
		<-r.Context().Done()
		close(gone)
	})
	got := w.send(mcpCall(w.token(mint{}), "find", someone))
	if got.status != 504 || got.header.Get("Lineal-Code") != "upstream_timeout" || !strings.Contains(string(got.body), `"retryable":false`) {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	if o := w.outcomeNow(); o.Status != record.StatusTimeout || o.Reason != "upstream_timeout" || !o.Forwarded {
		t.Errorf("outcome %+v", o)
	}
	within(t, gone, "the upstream was not told")
	w.decisions()
}

func within(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(wait):
		t.Fatal(what)
	}
}

// note is an event with a number.
const note = `data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":%d}}`

// TestStreamPassesUnbuffered: the header timeout does not end a stream, and events
// pass one by one, unbuffered.
func TestStreamPassesUnbuffered(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) { cfg.Routes[0].HeaderTimeout = time.Second })
	next := make(chan struct{})
	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		rw.Header().Set("Cache-Control", "public, max-age=60")
		for i := range 3 {
			_, _ = fmt.Fprintf(rw, note+"\n\n", i)
			_ = http.NewResponseController(rw).Flush()
			<-next
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(mint{}), "find", someone)))
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers %v", resp.Header)
	}
	in := bufio.NewReader(resp.Body)
	for i := range 3 { // each event is here before the next is written
		line, err := in.ReadString('\n')
		if want := fmt.Sprintf(note+"\n", i); err != nil || line != want {
			t.Fatalf("event %q, %v", line, err)
		}
		_, err = in.ReadString('\n')
		must(t, err)
		if i == 1 {
			time.Sleep(1200 * time.Millisecond) // longer than the header timeout
		}
		next <- struct{}{}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream did not end: %v", err)
	}
	if o := w.outcomeNow(); o.Status != record.StatusCompleted || o.Bytes != 3*int64(len(fmt.Sprintf(note, 0)+"\n\n")) {
		t.Errorf("outcome %+v", o)
	}
	w.decisions()
}

// TestClientDisconnect reaches the upstream; the outcome says aborted.
func TestClientDisconnect(t *testing.T) {
	for _, begun := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream begun %v", begun), func(t *testing.T) {
			w := newWorld(t)
			there, gone := make(chan struct{}), make(chan struct{})
			w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
				if begun {
					rw.Header().Set("Content-Type", "text/event-stream")
					_, _ = fmt.Fprintf(rw, note+"\n\n", 0)
					_ = http.NewResponseController(rw).Flush()
				}
				close(there)
				<-r.Context().Done()
				close(gone)
			})
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(mint{}), "find", someone)))
				if err == nil {
					_, _ = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
				}
			}()
			within(t, there, "the upstream was not called")
			cancel()
			within(t, ended, "the client hangs")
			within(t, gone, "the upstream was not told")
			if o := w.outcomeNow(); o.Status != record.StatusAborted || o.Reason != "caller_gone" || !o.Forwarded {
				t.Errorf("outcome %+v", o)
			}
			w.oneDecision()
		})
	}
}

// TestUpstreamBreaksOff: an answer that ends early is cut, never completed.
func TestUpstreamBreaksOff(t *testing.T) {
	w := newWorld(t)
	w.up.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprintf(rw, note+"\n\n", 1)
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	resp, err := w.client(research).Do(w.request(ctx, mcpCall(w.token(mint{}), "find", someone)))
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a broken answer looks whole: %d bytes", len(body))
	}
	if o := w.outcomeNow(); o.Status != record.StatusCalleeError || o.Reason != "upstream_invalid" {
		t.Errorf("outcome %+v", o)
	}
	w.oneDecision()
}

// TestN1BodyTooLarge: the bound is met before the body is parsed.
func TestN1BodyTooLarge(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) { cfg.Routes[0].MaxBody = 2000 })
	tok := w.token(mint{})
	w.wantRefusal(w.send(mcpCall(tok, "find", `{"customer":"`+strings.Repeat("x", 2000)+`"}`)), 413, gateway.CodeRequestTooLarge, "request_too_large")
	w.recorder.reset()
	w.wantPass(w.send(mcpCall(tok, "find", `{"customer":"`+strings.Repeat("x", 1000)+`"}`)))
	w.recorder.reset() // deep, and many names
	deep := `{"customer":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`
	w.wantRefusal(w.send(mcpCall(tok, "find", deep)), 400, gateway.CodeRequestUnreadable, "request_unreadable")
}

// TestN3SlowBody: a body that does not come ends the call, also where the
// token was refused already.
func TestN3SlowBody(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) { cfg.BodyTimeout = 100 * time.Millisecond })
	tok := w.token(mint{})
	for name, c := range map[string]struct {
		token, reason string
		status        int
	}{"good token": {tok, "request_unreadable", 408}, "no token": {"", "token_missing", 401}} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			request := w.rawCall(c.token, "POST /mcp/orders", "")
			got, closed := w.raw(request[:len(request)-10])
			if got.status != c.status || !closed {
				t.Errorf("status %d, closed %v", got.status, closed)
			}
			if d := w.oneDecision(); d.Verdict.Reason != c.reason {
				t.Errorf("reason %q", d.Verdict.Reason)
			}
		})
	}
	w.recorder.reset()
	w.wantPass(w.send(mcpCall(tok, "find", someone)))
}

// TestL1LedgerOut: no call without a record, and an answer in time; the
// refusal itself is queued.
func TestL1LedgerOut(t *testing.T) {
	for name, set := range map[string]func(*recorder){
		"fails": func(r *recorder) { r.fail = errors.New("disk full") },
		"hangs": func(r *recorder) { r.hang = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tok := w.token(mint{})
			w.recorder.set(set)
			for _, a := range []ask{mcpCall(tok, "find", someone), llmCall(w.token(mint{audience: w.url + "/openai/v1"}), chat)} {
				w.recorder.reset()
				got := w.send(a)
				d := w.wantRefusal(got, 503, gateway.CodeLedgerUnavailable, "ledger_unavailable")
				if d.Verdict.Scope != record.Permitted || d.Verdict.Policy != record.Permitted || cmp.Diff([]string{"ledger"}, d.Verdict.Unavailable) != "" {
					t.Errorf("verdict %+v", d.Verdict)
				}
			}
			w.recorder.reset() // a refusal for another reason stands, and is queued
			w.wantRefusal(w.send(mcpCall(tok, "erase", someone)), 200, gateway.CodePolicyDenied, "policy_denied")
			if n := len(w.up.requests()); n != 0 {
				t.Errorf("the upstream saw %d requests", n)
			}
			w.recorder.set(func(r *recorder) { r.fail, r.hang = nil, false; r.records = nil })
			w.wantPass(w.send(mcpCall(tok, "find", someone)))
		})
	}
	t.Run("queue is full too", func(t *testing.T) {
		w := newWorld(t)
		w.recorder.set(func(r *recorder) { r.hang, r.full = true, true })
		got := w.send(mcpCall(w.token(mint{}), "find", someone))
		if got.status != 503 || !strings.Contains(w.log.String(), "refusal not recorded") {
			t.Errorf("answer %d; log %s", got.status, w.log.String())
		}
	})
}

// TestLimitExceeded: a call whose record would not fit is refused, and leaves
// a record of digests.
func TestLimitExceeded(t *testing.T) {
	w := newWorld(t)
	got := w.send(mcpCall(w.token(mint{}), "find", `{"customer":"`+strings.Repeat("x", 3000)+`"}`))
	d := w.wantRefusal(got, 200, gateway.CodeLimitExceeded, "limit_exceeded")
	if len(d.Request.Needed) != 0 || len(d.Chain) != 3 || d.Person.Ref == "" {
		t.Errorf("reduced record %+v", d)
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// panics is a protocol whose reader fails on some bodies.
type panics struct{ gateway.Protocol }

func (p panics) Read(r *http.Request, suffix string, body []byte, from gateway.Caller) (gateway.Request, error) {
	if strings.Contains(string(body), "boom") {
		var none *gateway.Request
		return *none, nil
	}
	return p.Protocol.Read(r, suffix, body, from)
}

// TestO7Panic: a panic refuses, is recorded, and the gateway keeps serving.
func TestO7Panic(t *testing.T) {
	t.Run("reader", func(t *testing.T) {
		w := newWorld(t, func(cfg *gateway.Config) { cfg.Routes[0].Protocol = panics{cfg.Routes[0].Protocol} })
		tok := w.token(mint{})
		got := w.send(mcpCall(tok, "find", `{"customer":"boom"}`))
		w.wantRefusal(got, 500, gateway.CodeInternal, "internal")
		if strings.Contains(string(got.body), "nil pointer") || string(got.rpc(t).ID) != "7" {
			t.Errorf("answer %s", got.body)
		}
		if !strings.Contains(w.log.String(), "nil pointer") {
			t.Error("the log does not say what happened")
		}
		w.recorder.reset()
		w.wantPass(w.send(mcpCall(tok, "find", someone)))
	})
	t.Run("policy", func(t *testing.T) {
		w := newWorld(t, withRules(func(in policy.Input) policy.Decision {
			if in.Call.Name == "copy" {
				panic("boom")
			}
			return permitAll(in)
		}))
		tok := w.token(mint{})
		d := w.wantRefusal(w.send(mcpCall(tok, "copy", `{}`)), 500, gateway.CodeInternal, "internal")
		if d.Verdict.Policy != record.Denied || d.Policy.BundleDigest != rulesVersion.Digest {
			t.Errorf("verdict %+v, policy %+v", d.Verdict, d.Policy)
		}
		w.recorder.reset()
		w.wantPass(w.send(mcpCall(tok, "find", someone)))
	})
	t.Run("transport", func(t *testing.T) {
		w := newWorld(t, func(cfg *gateway.Config) {
			cfg.Routes[0].Transport = roundTripFunc(func(*http.Request) (*http.Response, error) { panic("boom") })
		})
		got := w.send(mcpCall(w.token(mint{}), "find", someone))
		if d := w.oneDecision(); got.status != 500 || d.Verdict.Effect != record.Permit {
			t.Errorf("answer %d, verdict %+v", got.status, d.Verdict)
		}
		if o := w.outcomeNow(); o.Status != record.StatusUnknown || !o.Forwarded {
			t.Errorf("outcome %+v", o)
		}
	})
	t.Run("rewriter", func(t *testing.T) {
		w := newWorld(t, func(cfg *gateway.Config) {
			cfg.Policy = rules{decide: permitAll, listed: func(policy.Input) bool { panic("boom") }}
		})
		w.up.answers(toolsAnswer(`[{"name":"find","inputSchema":` + findSchema + `}]`))
		got := w.send(listAsk(w.token(mint{})))
		w.oneDecision()
		if o := w.outcomeNow(); got.status != 500 || o.Status != record.StatusUnknown {
			t.Errorf("answer %d, outcome %+v", got.status, o)
		}
	})
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestUnknownTransportMayHaveSent: a transport that does not say how far it
// came is not taken to have sent nothing.
func TestUnknownTransportMayHaveSent(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) {
		cfg.Routes[0].Transport = roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, errors.New("lost") })
	})
	got := w.send(mcpCall(w.token(mint{}), "find", someone))
	if got.header.Get("Lineal-Code") != "upstream_invalid" || strings.Contains(string(got.body), `"retryable":true`) {
		t.Errorf("answer %s", got.body)
	}
	if o := w.outcomeNow(); o.Status != record.StatusUnknown || !o.Forwarded {
		t.Errorf("outcome %+v", o)
	}
}

// TestCredentialUnavailable: without the upstream's credential nothing is sent.
func TestCredentialUnavailable(t *testing.T) {
	w := newWorld(t, func(cfg *gateway.Config) {
		cfg.Routes[2].Credential = func(*http.Request) error { return errors.New("vault is sealed") }
	})
	got := w.send(llmCall(w.token(mint{audience: w.url + "/openai/v1"}), chat))
	if got.status != 503 || got.header.Get("Lineal-Code") != "credential_unavailable" || strings.Contains(string(got.body), "vault") {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	if o := w.outcomeNow(); o.Status != record.StatusNotForwarded || o.Forwarded || o.Reason != "credential_unavailable" {
		t.Errorf("outcome %+v", o)
	}
	if len(w.up.requests()) != 0 || len(w.decisions()) != 1 {
		t.Error("something was sent, or not recorded once")
	}
}

// TestC9Revoked: a revoked chain, and a feed that is too old.
func TestC9Revoked(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	w.wantPass(w.send(mcpCall(tok, "find", someone)))
	w.recorder.reset()
	w.revoked.set("person", nil)
	w.wantRefusal(w.send(mcpCall(tok, "find", someone)), 401, gateway.CodeTokenInvalid, "revoked_person")
	w.recorder.reset()
	w.revoked.set("", errors.New("the feed stopped"))
	d := w.wantRefusal(w.send(mcpCall(tok, "find", someone)), 503, gateway.CodeRevocationStale, "revocation_stale")
	if cmp.Diff([]string{"revocations"}, d.Verdict.Unavailable) != "" {
		t.Errorf("verdict %+v", d.Verdict)
	}
}

// TestA2PolicyErrorDenies: an answer with errors never permits.
func TestA2PolicyErrorDenies(t *testing.T) {
	w := newWorld(t, withRules(func(policy.Input) policy.Decision {
		return policy.Decision{Effect: policy.Permit, Errors: []string{"rule: failed"}}
	}))
	d := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", someone)), 200, gateway.CodePolicyDenied, "policy_denied")
	if d.Verdict.Policy != record.Denied || cmp.Diff([]string{"rule: failed"}, d.Policy.Errors) != "" {
		t.Errorf("verdict %+v, policy %+v", d.Verdict, d.Policy)
	}
}

// TestL8OneRecordEach counts over many calls at once, refused and permitted.
func TestL8OneRecordEach(t *testing.T) {
	w := newWorld(t)
	tok := w.token(mint{})
	asks := []ask{
		mcpCall(tok, "find", someone), mcpCall(tok, "erase", someone), mcpCall("x", "find", someone),
		{as: research, method: "GET", path: "/none"},
		llmCall(tok, chat), mcpCall(tok, "find", `{}`), a2aCall(tok, hello),
		{as: research, method: "GET", path: "/mcp/orders", token: tok},
	}
	const each = 8
	ids := make(chan string, each*len(asks))
	errs := make(chan error, each)
	for range each {
		go func() {
			for _, a := range asks {
				ctx, cancel := context.WithTimeout(context.Background(), wait)
				resp, err := w.client(a.as).Do(w.request(ctx, a))
				if err != nil {
					cancel()
					errs <- err
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				cancel()
				ids <- resp.Header.Get("Lineal-Request-Id")
			}
			errs <- nil
		}()
	}
	for range each {
		must(t, <-errs)
	}
	close(ids)
	recorded := map[string]int{}
	for _, d := range w.decisions() {
		recorded[d.CallID]++
	}
	calls := 0
	for id := range ids {
		calls++
		if recorded[id] != 1 {
			t.Errorf("call %q has %d decisions", id, recorded[id])
		}
	}
	if calls != each*len(asks) || len(recorded) != calls {
		t.Errorf("%d calls, %d recorded", calls, len(recorded))
	}
	if got := len(w.outcomes()); got != each {
		t.Errorf("%d outcomes of %d forwarded calls", got, each)
	}
}

// TestWait returns when outcomes are queued.
func TestWait(t *testing.T) {
	w := newWorld(t)
	w.recorder.set(func(r *recorder) { r.full = false })
	w.wantPass(w.send(mcpCall(w.token(mint{}), "find", someone)))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	must(t, w.gw.Wait(ctx))
	if len(w.outcomes()) != 1 {
		t.Error("the outcome was not queued")
	}
}

func listAsk(tok string) ask {
	return ask{as: research, method: http.MethodPost, path: "/mcp/orders", token: tok, header: modernHeader("tools/list", ""), body: modernBody("tools/list", "")}
}
