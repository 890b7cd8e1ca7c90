package evidence

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func testTrust(t testing.TB) Trust {
	t.Helper()
	return Trust{
		Logs:      []Key{testSigner(t, "log.example/1").Key()},
		Witnesses: []Key{witnessKey(t, "w1.example"), witnessKey(t, "w2.example")},
		Manifests: []Key{testSigner(t, "m.example/manifest").Key()},
		Issuers:   []Issuer{{"https://sts.example", digest([]byte("key"))}},
		Require:   []Dimension{Chain},
	}
}

func policyText(t testing.TB, trust Trust) string {
	t.Helper()
	var b bytes.Buffer
	if err := WritePolicy(&b, trust); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWritePolicyReadsBack(t *testing.T) {
	p, err := ParsePolicy([]byte(policyText(t, testTrust(t))))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.logs) != 1 || len(p.witnesses) != 2 || len(p.manifests) != 1 || len(p.issuers) != 1 || len(p.require) != 1 {
		t.Fatalf("%+v", p)
	}
	if p.satisfied(p.quorum, map[string]bool{"witness-1": true}) {
		t.Error("one of two witnesses makes the quorum")
	}
	if !p.satisfied(p.quorum, map[string]bool{"witness-1": true, "witness-2": true}) {
		t.Error("both witnesses do not make the quorum")
	}
	if err := WritePolicy(&bytes.Buffer{}, Trust{Logs: testTrust(t).Logs}); err == nil {
		t.Error("a policy without manifest key is written")
	}
}

// TestPolicyGroups is the two-level example of C2SP tlog-policy.
func TestPolicyGroups(t *testing.T) {
	var b strings.Builder
	b.WriteString("# an example\n\nlog " + testSigner(t, "log.example/1").Key().String() + " https://log.example\n")
	for _, w := range []string{"X1", "X2", "X3", "Y1", "Y2"} {
		b.WriteString("witness\t" + w + "  " + witnessKey(t, w+".example").String() + "\n")
	}
	b.WriteString("group X 2 X1 X2 X3\ngroup Y any Y1 Y2\ngroup both all X Y\nquorum both\n=== lineal\n  # ours\nmanifest " +
		testSigner(t, "m.example").Key().String())
	p, err := ParsePolicy([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	for cosigned, want := range map[string]bool{
		"X1 X2 Y1": true, "X1 X3 Y2": true, "X1 X2 X3": false, "X1 Y1 Y2": false, "": false,
	} {
		set := map[string]bool{}
		for _, w := range strings.Fields(cosigned) {
			set[w] = true
		}
		if got := p.satisfied(p.quorum, set); got != want {
			t.Errorf("%q: %v", cosigned, got)
		}
	}
}

func TestPolicyRefusals(t *testing.T) {
	log := "log " + testSigner(t, "log.example/1").Key().String() + "\n"
	wit := "witness w " + witnessKey(t, "w.example").String() + "\n"
	man := "manifest " + testSigner(t, "m.example").Key().String() + "\n"
	good := log + wit + "quorum w\n=== lineal\n" + man + "require chain\n"
	if _, err := ParsePolicy([]byte(good)); err != nil {
		t.Fatalf("twin: %v", err)
	}
	for name, c := range map[string]struct {
		text string
		line int
	}{
		"no log":               {strings.Replace(good, log, "", 1), 0},
		"log twice":            {log + good, 2},
		"no quorum":            {strings.Replace(good, "quorum w\n", "", 1), 0},
		"two quorums":          {strings.Replace(good, "quorum w\n", "quorum w\nquorum none\n", 1), 4},
		"quorum undefined":     {strings.Replace(good, "quorum w", "quorum x", 1), 3},
		"witness twice":        {strings.Replace(good, wit, wit+strings.Replace(wit, " w ", " v ", 1), 1), 3},
		"witness name twice":   {strings.Replace(good, wit, wit+wit, 1), 3},
		"witness with log key": {strings.Replace(good, wit, "witness w "+testSigner(t, "log.example/1").Key().String()+"\n", 1), 2},
		"group of undefined":   {strings.Replace(good, "quorum w", "group g all w x\nquorum g", 1), 3},
		"member twice":         {strings.Replace(good, "quorum w", "group g 1 w w\nquorum g", 1), 3},
		"member of two groups": {strings.Replace(good, "quorum w", "group g 1 w\ngroup h 1 w\nquorum h", 1), 4},
		"threshold too high":   {strings.Replace(good, "quorum w", "group g 2 w\nquorum g", 1), 3},
		"threshold zero":       {strings.Replace(good, "quorum w", "group g 0 w\nquorum g", 1), 3},
		"group called none":    {strings.Replace(good, "quorum w", "group none any w\nquorum none", 1), 3},
		"no section":           {strings.Replace(good, "=== lineal\n", "", 1), 4},
		"no manifest":          {strings.Replace(good, man, "", 1), 0},
		"unknown word":         {good + "trust me\n", 7},
		"unknown dimension":    {good + "require luck\n", 7},
		"bad thumbprint":       {good + "issuer https://sts.example abc\n", 7},
		"log in our section":   {good + log, 7},
		"carriage return":      {strings.Replace(good, "quorum w\n", "quorum w\r\n", 1), 3},
		"bad vkey":             {strings.Replace(good, "log.example/1+", "log.example/2+", 1), 1},
	} {
		_, err := ParsePolicy([]byte(c.text))
		var pe *PolicyError
		if !errors.As(err, &pe) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if pe.Line != c.line {
			t.Errorf("%s: line %d, want %d (%v)", name, pe.Line, c.line, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(policyText(f, testTrust(f)))
	f.Add("log a\nquorum none\n=== lineal\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy([]byte(text))
		if err == nil && (len(p.logs) == 0 || len(p.manifests) == 0 || p.quorum == "") {
			t.Fatal("an incomplete policy is accepted")
		}
	})
}

func FuzzParseNote(f *testing.F) {
	f.Add([]byte(specNote))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNote(b)
		if err == nil && (len(n.sigs) == 0 || !strings.HasSuffix(n.text, "\n")) {
			t.Fatal("a note without signature or text is accepted")
		}
		_, _ = parseCheckpoint(b)
		if p, err := parseProof(b); err == nil {
			if q, err := parseProof(p.bytes()); err != nil || q.index != p.index {
				t.Fatalf("proof does not come back: %v", err)
			}
		}
		_, _ = parseConsistency(b)
	})
}
