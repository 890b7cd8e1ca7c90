package cedar

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/policy"
)

// numbered is a set whose two policies carry the serial in their ids.
func numbered(t testing.TB, serial int64) BundleInput {
	in := withPolicies(t, fmt.Sprintf(`
		@id("a-%[1]d") permit(principal, action in Action::"use", resource);
		@id("b-%[1]d") permit(principal, action in Action::"write", resource);`, serial))
	in.Serial = serial
	return in
}

// TestA6OneVersionPerCall swaps while calls are decided: every decision is of
// one bundle, rules and version alike.
func TestA6OneVersionPerCall(t *testing.T) {
	const last = 12
	archives := make([][]byte, last+1)
	digests := map[int64]string{}
	for s := int64(1); s <= last; s++ {
		archives[s] = mustBuild(t, numbered(t, s))
		e, err := Load(archives[s], publicKey(), 0)
		if err != nil {
			t.Fatal(err)
		}
		digests[s] = e.Version().Digest
	}
	live, err := NewLive(archives[1], publicKey(), 1)
	if err != nil {
		t.Fatal(err)
	}
	in := payCall(t, `{"amount":1,"currency":"EUR","note":null}`)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				d := live.Decide(t.Context(), in)
				s := d.Version.Serial
				want := []string{fmt.Sprintf("a-%d", s), fmt.Sprintf("b-%d", s)}
				if d.Effect != policy.Permit || d.Version.Digest != digests[s] || !cmp.Equal(want, d.Rules) || !live.Listed(t.Context(), in) {
					t.Errorf("serial %d: %+v", s, d)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for s := int64(2); s <= last; s++ {
		if err := live.Swap(archives[s]); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
	if got := live.Engine().Version().Serial; got != last {
		t.Errorf("serial %d is in force, want %d", got, last)
	}
}

// TestSwapKeepsTheLastGood: whatever is wrong with a bundle, the one in force
// goes on deciding.
func TestSwapKeepsTheLastGood(t *testing.T) {
	good := mustBuild(t, numbered(t, 5))
	live, err := NewLive(good, publicKey(), 0)
	if err != nil {
		t.Fatal(err)
	}
	in := payCall(t, `{"amount":1,"currency":"EUR","note":null}`)
	want := live.Decide(t.Context(), in)
	never := numbered(t, 6)
	never.Policies["n.cedar"] = `@id("n") permit(principal, action in Action::"use", resource) when { false };`
	same := numbered(t, 5)
	same.Name = "other"
	for _, tc := range []struct {
		name    string
		archive []byte
		want    Code
	}{
		{"lower serial", mustBuild(t, numbered(t, 4)), CodeSerial},
		{"same serial, other content", mustBuild(t, same), CodeSerial},
		{"never matches", uncheckedBundle(t, never), CodeNever},
		{"cut", good[:len(good)/2], CodeMalformed},
	} {
		if err := live.Swap(tc.archive); codeOf(err) != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
		if diff := cmp.Diff(want, live.Decide(t.Context(), in), answered); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", tc.name, diff)
		}
	}
	if err := live.Swap(good); err != nil {
		t.Errorf("the very bundle in force: %v", err)
	}
	if err := live.Swap(mustBuild(t, numbered(t, 6))); err != nil {
		t.Errorf("a higher serial: %v", err)
	}
	if got := live.Decide(t.Context(), in).Version.Serial; got != 6 {
		t.Errorf("serial %d decides, want 6", got)
	}
}

// TestShadowChangesNothing: the set on trial is asked and has no say.
func TestShadowChangesNothing(t *testing.T) {
	live, err := NewLive(mustBuild(t, numbered(t, 5)), publicKey(), 0)
	if err != nil {
		t.Fatal(err)
	}
	in := payCall(t, `{"amount":1,"currency":"EUR","note":null}`)
	want := live.Decide(t.Context(), in)
	trial := withPolicies(t, `@id("shut") forbid(principal, action, resource);`)
	if err := live.SetShadow(mustBuild(t, trial)); err != nil {
		t.Fatal(err)
	}
	got := live.Decide(t.Context(), in)
	if got.Shadow == nil || got.Shadow.Effect != policy.Deny || !cmp.Equal([]string{"shut"}, got.Shadow.Rules) {
		t.Fatalf("shadow %+v", got.Shadow)
	}
	got.Shadow = nil
	if diff := cmp.Diff(want, got, answered); diff != "" {
		t.Errorf("with a shadow (-want +got):\n%s", diff)
	}
	if !live.Listed(t.Context(), in) {
		t.Error("the shadow hides")
	}
	if err := live.SetShadow([]byte("x")); err == nil || live.Decide(t.Context(), in).Shadow == nil {
		t.Error("a broken trial is taken, or ends the one that runs")
	}
	if err := live.SetShadow(nil); err != nil || live.Decide(t.Context(), in).Shadow != nil {
		t.Error("the trial does not end")
	}
}
