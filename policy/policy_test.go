package policy_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/lineal-auth/lineal/policy"
)

// TestResourceID: names of two services never meet, but for models, which are
// known by name alone.
func TestResourceID(t *testing.T) {
	for _, tc := range []struct {
		r    policy.Resource
		want string
	}{
		{policy.Resource{Kind: policy.KindService, Service: "pay"}, "pay"},
		{policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "transfer"}, "pay/transfer"},
		{policy.Resource{Kind: policy.KindDocument, Service: "docs", Name: "file:///a/b"}, "docs/file:///a/b"},
		{policy.Resource{Kind: policy.KindModel, Service: "llm", Name: "eu/large"}, "eu/large"},
	} {
		if got := tc.r.ID(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.r, got, tc.want)
		}
	}
}

// TestZeroIsDeny: what nobody set never permits.
func TestZeroIsDeny(t *testing.T) {
	if d := (policy.Decision{}); d.Effect != policy.Deny || d.Effect.String() != "deny" {
		t.Errorf("the zero decision is %v", d.Effect)
	}
	if policy.Permit.String() != "permit" || policy.Effect(7).String() != "deny" {
		t.Error("an effect is not called by its name")
	}
}

// TestNarrowedOfNoChain: a question without a chain is answered, not crashed on.
func TestNarrowedOfNoChain(t *testing.T) {
	if (policy.Input{}).Narrowed() {
		t.Error("no chain is narrowed")
	}
}

// officeOnly is a Decider by hand: it permits reading a service called "wiki".
type officeOnly struct{}

func (officeOnly) Decide(_ context.Context, in policy.Input) policy.Decision {
	if in.Call.Action == "http:GET" && in.Resource.Service == "wiki" {
		return policy.Decision{Effect: policy.Permit, Rules: []string{"wiki"}}
	}
	return policy.Decision{}
}

// The engine is open: whatever answers the question is one.
func ExampleDecider() {
	var d policy.Decider = officeOnly{}
	in := policy.Input{Resource: policy.Resource{Kind: policy.KindOperation, Service: "wiki", Name: "pages.get"}}
	in.Call.Action = "http:GET"
	fmt.Println(d.Decide(context.Background(), in).Effect)
	in.Call.Action = "http:DELETE"
	fmt.Println(d.Decide(context.Background(), in).Effect)
	// Output:
	// permit
	// deny
}
