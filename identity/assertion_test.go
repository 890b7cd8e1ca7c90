package identity_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/identity"
)

// assertions is a source that knows one assertion.
type assertions struct {
	knows  string
	answer identity.Workload
	err    error
}

func (a assertions) Authenticate(_ context.Context, _, assertion string, _ time.Time) (identity.Workload, error) {
	if assertion != a.knows {
		return identity.Workload{}, fmt.Errorf("wrapped: %w", identity.ErrNoCredential)
	}
	return a.answer, a.err
}

// The source that knows an assertion decides: a refusal is not overruled by a
// later one, and what none knows is refused.
func TestFirstAssertions(t *testing.T) {
	agent := identity.MustParseAgent("spiffe://a.test/w")
	refused := &identity.AssertionError{Code: identity.AssertionAudience, Source: "x", Err: errors.New("no")}
	all := identity.FirstAssertions(
		assertions{knows: "good", answer: identity.Workload{Agent: agent}},
		assertions{knows: "bad", answer: identity.Workload{Agent: agent}, err: refused},
		assertions{knows: "bad", answer: identity.Workload{Agent: agent}},
		assertions{knows: "last", answer: identity.Workload{Agent: agent, Source: "last"}},
	)
	for assertion, want := range map[string]identity.AssertionCode{
		"good": "", "last": "", "bad": identity.AssertionAudience, "none": identity.AssertionIssuer, "": identity.AssertionIssuer,
	} {
		w, err := all.Authenticate(t.Context(), identity.AssertionJWT, assertion, time.Unix(0, 0))
		var got *identity.AssertionError
		switch {
		case want == "" && (err != nil || w.Agent != agent):
			t.Errorf("%q: %v", assertion, err)
		case want != "" && (!errors.As(err, &got) || got.Code != want || w != identity.Workload{}):
			t.Errorf("%q: %+v, %v, want %s", assertion, w, err, want)
		}
	}
	if _, err := identity.FirstAssertions().Authenticate(t.Context(), "", "", time.Time{}); err == nil {
		t.Error("no source accepts")
	}
	if got := refused.Error(); got != "assertion_audience: source x: no" {
		t.Error(got)
	}
}
