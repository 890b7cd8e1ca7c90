package evidence

import (
	"strings"
	"testing"
)

// TestL3Propose: what a bundle says of its log's key is printed under a
// manifest key of the policy, for a family that it trusts, and believed by no
// verification.
func TestL3Propose(t *testing.T) {
	w := newWorld(t)
	key := testSigner(t, origin).Key()
	c := w.contents()
	c.LogKey = key
	b := bundle(t, c)

	if line, err := Propose(b, w.policy()); err != nil || line != "" {
		t.Errorf("for a known log: %q, %v", line, err)
	}
	trust := w.trust()
	trust.Logs = []Key{testSigner(t, family+"/0").Key()} // the period before
	before := mustPolicy(t, trust)
	line, err := Propose(b, before)
	if err != nil || line != "log "+key.String() {
		t.Fatalf("for the next period: %q, %v", line, err)
	}
	expect(t, b, before, 1, Origin, Fail, "no log of the policy")
	text := strings.Replace(policyText(t, trust), "quorum", line+"\nquorum", 1)
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if r := judged(t, b, p); r.ExitCode() != 0 {
		t.Errorf("with the line added: %s", r.Result())
	}

	other, err := NewSigner(origin, testKey("other"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Contents, *Trust){
		"another manifest key": func(_ *Contents, x *Trust) { x.Manifests = []Key{testSigner(t, "other.example/m").Key()} },
		"another family":       func(_ *Contents, x *Trust) { x.Logs = []Key{testSigner(t, "other.example/std/0").Key()} },
		"a key that signed nothing": func(c *Contents, _ *Trust) {
			c.LogKey = other.Key()
		},
		"no key":                       func(c *Contents, _ *Trust) { c.LogKey = Key{} },
		"the key of the period before": func(_ *Contents, x *Trust) { x.Logs = []Key{mustKey(t, family+"/0", origin)} },
	} {
		c, trust := w.contents(), w.trust()
		c.LogKey, trust.Logs = key, before.logs
		change(&c, &trust)
		if line, err := Propose(bundle(t, c), mustPolicy(t, trust)); err == nil {
			t.Errorf("%s: proposed %q", name, line)
		}
	}
	flipped := append([]byte(nil), b...)
	flipped[len(flipped)/2] ^= 1
	if _, err := Propose(flipped, before); err == nil {
		t.Error("proposed from a changed bundle")
	}
}

// mustKey is the key of one name under another.
func mustKey(t *testing.T, name, of string) Key {
	t.Helper()
	k, err := NewKey(name, testSigner(t, of).Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}
