package gateway_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

const someone = `{"customer":"C-1"}`

// TestStepsAreAllNeeded sends for each step of ServeHTTP a request that this
// step alone refuses: without its line the request would pass, or not be
// answered as it must.
func TestStepsAreAllNeeded(t *testing.T) {
	good := func(w *world) ask { return mcpCall(w.token(mint{}), "find", someone) }

	t.Run("all agree", func(t *testing.T) {
		w := newWorld(t)
		d := w.wantPass(w.send(good(w)))
		want := record.Verdict{
			Effect: record.Permit, Scope: record.Permitted, Policy: record.Permitted, Reason: record.ReasonAllowed,
			Details: []int64{0, 0, 0}, Allowed: []int64{0}, RevocationAgeMS: 218,
		}
		if diff := cmp.Diff(want, d.Verdict); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(record.Caller{
			Claimed: research.String(), Proven: research.String(), Proof: record.ProofMatch, Auth: record.AuthMTLS,
			CredHash: shared.sources[research].Current().Thumbprint,
		}, d.Caller); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"/args/customer=C-1", "mcp:tools/call find"}, d.Request.Needed); diff != "" {
			t.Error(diff)
		}
		if len(d.Chain) != 3 || d.Person.Ref == "" || d.Person.Presence != record.PresenceInteractive {
			t.Errorf("person %+v, %d hops", d.Person, len(d.Chain))
		}
		if o := w.outcomeNow(); o.Status != record.StatusCompleted || !o.Forwarded || *o.Code != 200 || o.CallID != d.CallID {
			t.Errorf("outcome %+v", o)
		}
	})

	t.Run("identify", func(t *testing.T) {
		w := newWorld(t, func(cfg *gateway.Config) { cfg.Routes[0].AllowUnbound = true })
		// A token without a key passes for whoever holds it where the route
		// allows that; only step 1 knows that this one is held by a stranger.
		tok := w.token(mint{unbound: true})
		a := mcpCall(tok, "find", someone)
		a.as = stranger
		w.wantRefusal(w.send(a), 401, gateway.CodeProofInvalid, "binding_mismatch")
		w.recorder.reset()
		a.as = identity.Agent{}
		if d := w.wantPass(w.send(a)); d.Caller.Proof != record.ProofAbsent || d.Caller.Auth != record.AuthNone || d.Caller.Claimed != research.String() {
			t.Errorf("an unbound token is recorded as %+v", d.Caller)
		}
		w.recorder.reset()
		a.as = research
		if d := w.wantPass(w.send(a)); d.Caller.Proof != record.ProofAbsent || d.Caller.Proven != research.String() {
			t.Errorf("an unbound token is recorded as %+v", d.Caller)
		}
	})

	t.Run("verify", func(t *testing.T) {
		w := newWorld(t)
		a := good(w)
		a.token = w.token(mint{audience: w.url + "/a2a/peer"})
		w.wantRefusal(w.send(a), 401, gateway.CodeTokenInvalid, "audience_mismatch")
	})

	t.Run("read", func(t *testing.T) {
		w := newWorld(t)
		a := good(w)
		a.header.Set("Mcp-Name", "copy")
		w.wantRefusal(w.send(a), 400, gateway.CodeHeaderMismatch, "header_mismatch")
	})

	t.Run("permit", func(t *testing.T) {
		w := newWorld(t)
		// Policy permits `find` to everybody; this chain gave it up at its root.
		a := good(w)
		a.token = w.token(mint{grants: [][]detail{{w.mcpDetail("copy")}}})
		d := w.wantRefusal(w.send(a), 200, gateway.CodePolicyDenied, "scope_exceeded")
		if d.Verdict.Scope != record.Denied || d.Verdict.Policy != record.Permitted {
			t.Errorf("scope says %s, policy %s", d.Verdict.Scope, d.Verdict.Policy)
		}
		if diff := cmp.Diff([]int64{-1, -1, -1}, d.Verdict.Details); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("decide", func(t *testing.T) {
		w := newWorld(t)
		a := mcpCall(w.token(mint{}), "find", `{"customer":"C-1","region":"secret"}`)
		d := w.wantRefusal(w.send(a), 200, gateway.CodePolicyDenied, "policy_denied")
		if d.Verdict.Scope != record.Permitted || d.Verdict.Policy != record.Denied {
			t.Errorf("scope says %s, policy %s", d.Verdict.Scope, d.Verdict.Policy)
		}
	})

	t.Run("record", func(t *testing.T) {
		w := newWorld(t)
		w.recorder.set(func(r *recorder) { r.fail = errors.New("disk full") })
		got := w.send(good(w))
		w.wantRefusal(got, 503, gateway.CodeLedgerUnavailable, "ledger_unavailable")
		if got.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		if n := len(w.up.requests()); n != 0 {
			t.Errorf("the upstream saw %d requests without a record", n)
		}
	})

	t.Run("forward", func(t *testing.T) {
		w := newWorld(t)
		got := w.send(good(w))
		w.wantPass(got)
		if n := len(w.up.requests()); n != 1 {
			t.Fatalf("the upstream saw %d requests, want 1", n)
		}
		if got := string(got.body); got != `{"jsonrpc":"2.0","id":7,"result":{}}` {
			t.Errorf("answer %s", got)
		}
	})
}

// TestA4ScopeAndPolicyBothDecide: neither widens the other, at any hop.
func TestA4ScopeAndPolicyBothDecide(t *testing.T) {
	w := newWorld(t)
	narrow := w.mcpDetail("find").where(map[string]any{"/args/customer": map[string]any{"op": "one_of", "values": []string{"C-1"}}})
	for _, c := range []struct {
		name    string
		grants  [][]detail
		args    string
		details []int64
		passes  bool
	}{
		{"the leaf narrowed, inside", [][]detail{w.everything(), w.everything(), {narrow}}, someone, []int64{0, 0, 0}, true},
		{"the leaf narrowed, outside", [][]detail{w.everything(), w.everything(), {narrow}}, `{"customer":"C-2"}`, []int64{0, 0, -1}, false},
		{"the root is narrow", [][]detail{{narrow}}, `{"customer":"C-2"}`, []int64{-1, -1, -1}, false},
		{"given up in the middle", [][]detail{w.everything(), {narrow}}, `{"customer":"C-2"}`, []int64{0, -1, -1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			got := w.send(mcpCall(w.token(mint{grants: c.grants}), "find", c.args))
			if c.passes {
				w.wantPass(got)
				return
			}
			d := w.wantRefusal(got, 200, gateway.CodePolicyDenied, "scope_exceeded")
			if diff := cmp.Diff(c.details, d.Verdict.Details); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestInsufficientScope: where the chain before the leaf would permit, the
// caller may ask for more, and is told which scope.
func TestInsufficientScope(t *testing.T) {
	w := newWorld(t)
	leaf := w.a2aDetail()
	leaf["from"] = 1
	tok := w.token(mint{grants: [][]detail{w.everything(), w.everything(), {leaf}}})
	got := w.send(mcpCall(tok, "find", someone))
	w.wantRefusal(got, 403, gateway.CodeInsufficientScope, "scope_exceeded")
	want := `Bearer resource_metadata="` + w.url + `/.well-known/oauth-protected-resource/mcp/orders", ` +
		`error="insufficient_scope", error_description="The delegation token has too little scope.", scope="a2a:send mcp:call"`
	if diff := cmp.Diff(want, got.header.Get("WWW-Authenticate")); diff != "" {
		t.Error(diff)
	}
	if verb, ok := scope.Verb(scope.MCPToolsCall); !ok || verb != "mcp:call" {
		t.Fatal("the verb of the challenge is not scope's")
	}

	w.recorder.reset() // the parent lacks it too: no token would help
	w.wantRefusal(w.send(mcpCall(w.token(mint{grants: [][]detail{{w.a2aDetail()}}}), "find", someone)), 200, gateway.CodePolicyDenied, "scope_exceeded")
	w.recorder.reset() // the leaf has the verb, for another tool
	tok = w.token(mint{grants: [][]detail{w.everything(), w.everything(), {w.mcpDetail("copy")}}})
	w.wantRefusal(w.send(mcpCall(tok, "find", someone)), 200, gateway.CodePolicyDenied, "scope_exceeded")
}

// TestDiscoveryNeedsSomeDetailHere: a list needs a detail at the location, and
// every hop is asked.
func TestDiscoveryNeedsSomeDetailHere(t *testing.T) {
	w := newWorld(t)
	w.up.answers(toolsAnswer(`[]`))
	list := func(grants ...[]detail) answer {
		w.recorder.reset()
		return w.send(ask{
			as: research, method: http.MethodPost, path: "/mcp/orders", token: w.token(mint{grants: grants}),
			header: modernHeader("tools/list", ""), body: modernBody("tools/list", ""),
		})
	}
	w.wantPass(list(w.everything()))
	elsewhere := w.a2aDetail()
	elsewhere["from"] = 1
	w.wantRefusal(list(w.everything(), w.everything(), []detail{elsewhere}), 200, gateway.CodePolicyDenied, "scope_exceeded")
	w.wantRefusal(list([]detail{w.a2aDetail()}), 200, gateway.CodePolicyDenied, "scope_exceeded")
}

// toolsAnswer answers tools/list with these tools.
func toolsAnswer(tools string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		var m struct {
			ID json.RawMessage `json:"id"`
		}
		_ = json.NewDecoder(r.Body).Decode(&m)
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write([]byte(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,"result":{"tools":` + tools + `}}`))
	}
}
