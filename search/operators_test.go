package search

import (
	"os"
	"slices"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestOperatorsRecordsAreFound: who changed an agent's authority, or revoked
// it, is found by the agent, by the operator and by the reason.
func TestOperatorsRecordsAreFound(t *testing.T) {
	x := New(Config{})
	for i, file := range []string{"registry", "registry-refused", "revocation", "query"} {
		payload, err := os.ReadFile("../record/testdata/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		r.ID = r.ID[:35] + string("0123"[i])
		if payload, err = r.Canonical(); err != nil {
			t.Fatal(err)
		}
		if err := x.Add(int64(i), payload); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		f    Filter
		want []int64
	}{
		"kind":           {Filter{Kind: record.KindRegistry}, []int64{0, 1}},
		"agent":          {Filter{Agent: "spiffe://example/pay"}, []int64{0, 2}},
		"by":             {Filter{Agent: "spiffe://example/ops/dana"}, []int64{0}},
		"reason":         {Filter{Reason: "identity_missing"}, []int64{1}},
		"of a call":      {Filter{Agent: "spiffe://example/pay", Effect: record.Permit}, nil},
		"another's":      {Filter{Agent: "spiffe://example/other"}, nil},
		"kind and agent": {Filter{Kind: record.KindRevocation, Agent: "spiffe://example/pay"}, []int64{2}},
	} {
		var got []int64
		for _, e := range x.Records(c.f) {
			got = append(got, e.Index)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
