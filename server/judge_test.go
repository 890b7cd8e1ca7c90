package server

import (
	"bytes"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
)

// bundleOf is the evidence of a period of a data directory; "" is the open one.
func bundleOf(t *testing.T, dir, period string) []byte {
	t.Helper()
	a, err := OpenPeriod(t.Context(), dir, period)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	var b bytes.Buffer
	if err := a.Export(t.Context(), &b, Selection{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// trustOf is what a deployment gives out to whoever verifies it.
func trustOf(t *testing.T, dir, issuer string) evidence.Trust {
	t.Helper()
	trust, err := Trust(dir, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// policyOf is trust as a policy file holds it.
func policyOf(t *testing.T, trust evidence.Trust) evidence.Policy {
	t.Helper()
	var text bytes.Buffer
	if err := evidence.WritePolicy(&text, trust); err != nil {
		t.Fatal(err)
	}
	policy, err := evidence.ParsePolicy(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// judge exports the log of a data directory and verifies it offline, under the
// policy that the deployment gives out.
func judge(t *testing.T, dir, issuer string) evidence.Report {
	t.Helper()
	return evidence.Verify(bundleOf(t, dir, ""), policyOf(t, trustOf(t, dir, issuer)))
}
