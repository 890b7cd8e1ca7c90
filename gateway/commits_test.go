package gateway_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// disclosures are what was handed over beside the records, by name.
func (w *world) disclosures() map[string]record.Disclosure {
	out := map[string]record.Disclosure{}
	w.recorder.set(func(r *recorder) {
		for _, d := range r.disclosed {
			out[d.Name()] = d
		}
	})
	return out
}

// plainReader names no argument as an atom, so that no record holds one.
func plainReader(t *testing.T) gateway.Protocol {
	t.Helper()
	reader, err := mcp.New(mcp.Config{Tools: []mcp.Tool{{Name: "find", InputSchema: []byte(findSchema)}}})
	must(t, err)
	return reader
}

// TestL4CommitmentsOfACall: the record holds salted commitments to the call that
// was sent and to what policy read of it, and the values go beside it.
func TestL4CommitmentsOfACall(t *testing.T) {
	const args = `{"customer":"CANARY-1","limit":7,"filter":{"path":"/a"}}`
	w := newWorld(t, func(cfg *gateway.Config) { // customer is an atom elsewhere
		cfg.Routes = cfg.Routes[:1]
		cfg.Routes[0].Protocol = plainReader(t)
	})
	d := w.wantPass(w.send(mcpCall(w.token(mint{}), "find", args)))
	shown := w.disclosures()
	want := []string{"/args/customer", "/args/filter/path", "/args/limit", record.NameAddress, record.NameCall}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(shown))); diff != "" {
		t.Fatal(diff)
	}
	var digests []string
	for _, v := range shown {
		digests = append(digests, v.Digest())
	}
	slices.Sort(digests)
	if diff := cmp.Diff(digests, d.SD); diff != "" {
		t.Errorf("sd is not the disclosures: %s", diff)
	}
	sent := w.up.requests()[0].header.Get("Lineal-Call-Digest")
	if got, err := record.CheckCall(d.Request.CallCommit, shown[record.NameCall]); err != nil || got != sent || sent == "" {
		t.Errorf("call_commit opens to %q (%v), the upstream got %q", got, err, sent)
	}
	if d.Policy.InputDigest == "" || string(shown["/args/limit"].Value().AppendJSON(nil)) != "7" {
		t.Errorf("input digest %q, limit %s", d.Policy.InputDigest, shown["/args/limit"].Value().AppendJSON(nil))
	}
	if len(w.recorder.all()) == 0 || strings.Contains(d.Request.CallCommit, sent) {
		t.Error("the plain call digest is in the record")
	}
	w.wantSilence(args)

	// The same call again: nothing tells that it is the same.
	w.recorder.reset()
	again := w.wantPass(w.send(mcpCall(w.token(mint{}), "find", args)))
	if again.Request.CallCommit == d.Request.CallCommit || again.Policy.InputDigest == d.Policy.InputDigest {
		t.Error("two equal calls have equal commitments")
	}
	for _, digest := range again.SD {
		if slices.Contains(d.SD, digest) {
			t.Error("two equal values have equal digests")
		}
	}

	// A refusal commits to the same; one that was never read commits to nothing.
	w.recorder.reset()
	refused := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", `{"customer":"CANARY-2","region":"secret"}`)), 200, gateway.CodePolicyDenied, "policy_denied")
	if shown := w.disclosures(); len(refused.SD) != 4 || refused.Policy.InputDigest == "" || shown["/args/region"].Salt() == "" {
		t.Errorf("a refusal commits to %v", slices.Collect(maps.Keys(shown)))
	}
	w.recorder.reset()
	a := mcpCall(w.token(mint{}), "find", args)
	a.header.Set("Mcp-Name", "copy")
	unread := w.wantRefusal(w.send(a), 400, gateway.CodeHeaderMismatch, "header_mismatch")
	if len(unread.SD) != 0 || unread.Request.CallCommit != "" || unread.Policy.InputDigest != "" || len(w.disclosures()) != 0 {
		t.Errorf("a call that was not read commits to %+v", unread.Request)
	}
}

// TestCommitmentsOfAnOpenEngine: an engine that is given everything has each
// argument disclosed; a record that does not fit goes without.
func TestCommitmentsOfAnOpenEngine(t *testing.T) {
	w := newWorld(t, withRules(permitAll))
	d := w.wantPass(w.send(mcpCall(w.token(mint{}), "find", `{"customer":"C-1","filter":{"path":"/a"}}`)))
	want := []string{"/args/customer", "/args/filter", record.NameAddress, "/mcp/version", record.NameCall}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(w.disclosures()))); diff != "" || len(d.SD) != len(want) {
		t.Error(diff)
	}

	long := newWorld(t, withRules(func(policy.Input) policy.Decision {
		return policy.Decision{Effect: policy.Permit, Rules: []string{strings.Repeat("x", record.MaxText+1)}}
	}))
	refused := long.wantRefusal(long.send(mcpCall(long.token(mint{}), "find", someone)), 200, gateway.CodeLimitExceeded, "limit_exceeded")
	if len(refused.SD) != 0 || len(long.disclosures()) != 0 {
		t.Errorf("a reduced record names %d disclosures, and %d are kept", len(refused.SD), len(long.disclosures()))
	}
}

// TestL8QueuedRefusalKeepsItsDisclosures: a permit that could not be recorded is
// refused, and the values stay with the record that says so.
func TestL8QueuedRefusalKeepsItsDisclosures(t *testing.T) {
	w := newWorld(t)
	w.recorder.set(func(r *recorder) { r.fail = errors.New("disk full") })
	d := w.wantRefusal(w.send(mcpCall(w.token(mint{}), "find", someone)), 503, gateway.CodeLedgerUnavailable, "ledger_unavailable")
	if shown := w.disclosures(); len(d.SD) != len(shown) || len(shown) == 0 {
		t.Errorf("%d named, %d kept", len(d.SD), len(shown))
	}
}

// TestShadowInTheRecord: what rules on trial say otherwise is recorded and
// changes nothing, an error of theirs neither; what they say alike is not.
func TestShadowInTheRecord(t *testing.T) {
	trial := policy.Version{Digest: record.Hash([]byte("trial")), Serial: 9, Engine: "test/1", Reader: "1"}
	for _, c := range []struct {
		name   string
		shadow policy.Decision
		want   *record.Shadow
	}{
		{"alike", policy.Decision{Effect: policy.Permit, Rules: []string{"all"}}, nil},
		{"another effect", policy.Decision{Rules: []string{"shut"}}, &record.Shadow{Effect: record.Deny, Rules: []string{"shut"}}},
		{"another rule", policy.Decision{Effect: policy.Permit, Rules: []string{"some"}}, &record.Shadow{Effect: record.Permit, Rules: []string{"some"}}},
		{"an error", policy.Decision{Errors: []string{"bad: type error"}}, &record.Shadow{Effect: record.Deny, Errors: []string{"bad: type error"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.shadow.Version = trial
			w := newWorld(t, withRules(func(in policy.Input) policy.Decision {
				d := permitAll(in)
				d.Shadow = &c.shadow
				return d
			}))
			d := w.wantPass(w.send(mcpCall(w.token(mint{}), "find", someone)))
			if c.want != nil {
				c.want.BundleDigest, c.want.Serial = trial.Digest, trial.Serial
			}
			if diff := cmp.Diff(c.want, d.Policy.Shadow, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestA7UnavailablePolicy: an engine that cannot be asked denies, and says that
// a retry can help; whatever else it says.
func TestA7UnavailablePolicy(t *testing.T) {
	w := newWorld(t, withRules(func(policy.Input) policy.Decision {
		return policy.Decision{Effect: policy.Permit, Rules: []string{"all"}, Errors: []string{"decision_point_timeout"}, Unavailable: true}
	}))
	got := w.send(mcpCall(w.token(mint{}), "find", someone))
	d := w.wantRefusal(got, 503, gateway.CodePolicyUnavailable, "policy_unavailable")
	if d.Verdict.Policy != record.Denied || d.Verdict.Scope != record.Permitted || !cmp.Equal(d.Verdict.Unavailable, []string{"policy"}) || got.header.Get("Retry-After") == "" {
		t.Errorf("recorded as %+v, answered %v", d.Verdict, got.header)
	}
	if len(w.up.requests()) != 0 {
		t.Error("the call went on")
	}
}
