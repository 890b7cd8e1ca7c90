package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// corpusEnv names a directory that collects every bundle which the tests of
// this package judge, with its policy file and the report: the corpus on which
// the verifier in js must agree (.ci/verifier).
const corpusEnv = "LINEAL_CORPUS"

// sampled thins out the bundles of tests that change every byte.
const sampled = 11

var flips atomic.Int64

// judged is Verify, and keeps what it saw where a corpus is collected.
func judged(t testing.TB, b []byte, p Policy) Report {
	t.Helper()
	r := Verify(b, p)
	dir := os.Getenv(corpusEnv)
	if dir == "" || len(p.logs) == 0 { // the zero policy has no text
		return r
	}
	if strings.HasPrefix(t.Name(), "TestL4") && strings.Contains(t.Name(), "Byte") && flips.Add(1)%sampled != 1 {
		return r
	}
	text := policyOf(p)
	sum := sha256.Sum256(append([]byte(text+"\x00"), b...))
	base := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+"-"+hex.EncodeToString(sum[:6]))
	report, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for ext, data := range map[string][]byte{".zip": b, ".policy": []byte(text), ".json": report} {
		if err := os.WriteFile(base+ext, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// policyOf writes a parsed policy as text again.
func policyOf(p Policy) string {
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	for _, k := range p.logs {
		line("log", k.String())
	}
	for _, name := range slices.Sorted(maps.Keys(p.witnesses)) {
		line("witness", name, p.witnesses[name].String())
	}
	for _, name := range slices.Sorted(maps.Keys(p.groups)) {
		line(append([]string{"group", name, strconv.Itoa(p.groups[name].need)}, p.groups[name].members...)...)
	}
	line("quorum", p.quorum)
	line(linealLine)
	for _, k := range p.manifests {
		line("manifest", k.String())
	}
	for _, i := range p.issuers {
		line("issuer", i.URL, i.Thumbprint)
	}
	for _, d := range p.require {
		line("require", string(d))
	}
	return b.String()
}

// TestCorpusPolicies: the text that goes into the corpus is the policy that
// judged.
func TestCorpusPolicies(t *testing.T) {
	w := newWorld(t)
	trust := w.trust()
	trust.Witnesses = []Key{witnessKey(t, "w1.example"), witnessKey(t, "w2.example")}
	trust.Require = []Dimension{Chain, Sequence}
	p := mustPolicy(t, trust)
	again, err := ParsePolicy([]byte(policyOf(p)))
	if err != nil {
		t.Fatal(err)
	}
	c := w.contents()
	c.Last = cosign(t, "w1.example", c.Last, 1803979000)
	a, errA := json.Marshal(Verify(bundle(t, c), p).Findings())
	b, errB := json.Marshal(Verify(bundle(t, c), again).Findings())
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("%s\n%s", a, b)
	}
}
