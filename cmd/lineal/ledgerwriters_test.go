package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestL6WritersOfARealLog changes the keys of the demo's writers and verifies its
// log after each change; the bundles join the corpus on which both verifiers must
// agree (.ci/verifier).
func TestL6WritersOfARealLog(t *testing.T) {
	x := &exporting{t: t, data: demoDir(t)}
	x.policy = filepath.Join(x.data, "trust.policy")
	began := time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	writers := func(args ...string) string {
		t.Helper()
		code, out, errs := lineal(t, append([]string{"ledger", "writers", "--data", x.data}, args...)...)
		if code != exitOK {
			t.Fatalf("%v: exit %d: %s", args, code, errs)
		}
		return out
	}
	var keys []struct{ Writer, KeyID string }
	if err := json.Unmarshal([]byte(writers("-o", "json")), &keys); err != nil {
		t.Fatal(err)
	}
	first := map[string]string{}
	for _, k := range keys {
		first[k.Writer] = k.KeyID
	}
	for _, step := range []struct {
		args   []string
		exit   int
		status string
		says   string
	}{
		{[]string{"rotate", "gateway"}, 0, "PASS", "4 keys, 1 ended"},
		{[]string{"rotate", "tokens"}, 0, "PASS", "5 keys, 2 ended"},
		{[]string{"retire", "tokens", "--gone"}, 0, "PASS", "5 keys, 3 ended"},
		{[]string{"revoke", "gateway", "--since", time.Now().UTC().Format(time.RFC3339), "--cause", "lost"}, 0, "PASS", "6 keys, 4 ended"},
		{[]string{"revoke", "tokens", "--key", first["tokens"], "--since", began, "--cause", "stolen"}, 2, "NOT PROVEN", ""},
		{[]string{"revoke", "gateway", "--key", first["gateway"], "--since", began, "--cause", "stolen"}, 2, "NOT PROVEN", ""},
	} {
		writers(step.args...)
		e := x.export()
		if e.code != step.exit || e.status("writer-keys") != step.status || !strings.Contains(e.summary("writer-keys"), step.says) || e.status("sequence") != "PASS" {
			t.Errorf("after %v: exit %d, %+v", step.args, e.code, e.Findings)
		}
	}
	if out := writers(); strings.Count(out, " revoked ") != 3 || strings.Count(out, " retired ") != 1 {
		t.Errorf("the keys are\n%s", out)
	}

	// The key of a gateway apart is made in a file that is new.
	out := filepath.Join(t.TempDir(), "gateway.key")
	if code, _, errs := lineal(t, "ledger", "writers", "rotate", "gateway-9", "--data", x.data, "--out", out); code != exitFailed || !strings.Contains(errs, "no such writer") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if code, _, errs := lineal(t, "ledger", "writers", "rotate", "gateway", "--data", x.data, "--out", out); code != exitFailed || !strings.Contains(errs, "is there already") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
