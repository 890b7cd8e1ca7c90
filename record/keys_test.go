package record_test

import (
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestKeyChangeRefuses: what a key record of an issuer and of a writer may not
// say. Each case changes one member of a sound record.
func TestKeyChangeRefuses(t *testing.T) {
	all := samples(t)
	point := all["key-issuer"].KeyChange.PublicKey
	for name, c := range map[string]struct {
		of     string
		change func(k *record.KeyChange)
	}{
		"an issuer's key without kid":         {"key-issuer", func(k *record.KeyChange) { k.TokenKeyID = "" }},
		"a writer's key with a kid":           {"key", func(k *record.KeyChange) { k.TokenKeyID = "x" }},
		"a writer's key on P-256":             {"key-issuer", func(k *record.KeyChange) { k.Role, k.TokenKeyID, k.From = record.RoleTokenService, "", "" }},
		"a writer's key from a time on":       {"key", func(k *record.KeyChange) { k.Op, k.Since, k.From = record.KeyAdd, "", k.Since }},
		"an end from a time on":               {"key-issuer", func(k *record.KeyChange) { k.Op = record.KeyRetire }},
		"a point that is not on the curve":    {"key-issuer", func(k *record.KeyChange) { k.PublicKey = strings.Replace(point, "BH_", "BH-", 1) }},
		"a compressed point":                  {"key-issuer", func(k *record.KeyChange) { k.PublicKey = "A" + point[1:44] }},
		"a line break in the key":             {"key-issuer", func(k *record.KeyChange) { k.PublicKey = point[:40] + "\n" + point[40:] }},
		"the keyid of another":                {"key-issuer", func(k *record.KeyChange) { k.KeyID = all["key"].KeyChange.KeyID }},
		"a role that is none":                 {"key", func(k *record.KeyChange) { k.Role = "owner" }},
		"suspect since, without a revocation": {"key-issuer", func(k *record.KeyChange) { k.Since = k.From }},
		"a cause, without a revocation":       {"key", func(k *record.KeyChange) { k.Op, k.Since, k.Cause = record.KeyRetire, "", "stolen" }},
		"a cause that is a story":             {"key", func(k *record.KeyChange) { k.Cause = "Bob lost it" }},
		"an operator that is no text":         {"key", func(k *record.KeyChange) { k.By = "\xff" }},
	} {
		r := all[c.of]
		if err := r.Validate(); err != nil {
			t.Fatalf("%s: %v", c.of, err)
		}
		k := *r.KeyChange
		c.change(&k)
		r.KeyChange = &k
		if err := r.Validate(); err == nil {
			t.Errorf("%s passed", name)
		}
	}
	r := all["key"]
	r.Writer.Role = record.RoleIssuer
	if err := r.Validate(); err == nil {
		t.Error("an issuer's key wrote a record")
	}
}

// TestLinkAs: a draft that is linked for another key is the draft that was made for
// that key.
func TestLinkAs(t *testing.T) {
	for name, r := range samples(t) {
		other := r
		other.Writer.KeyID = record.Hash([]byte("another key"))
		d, err := record.NewDraft(r)
		if err != nil {
			t.Fatal(name, err)
		}
		made, err := record.NewDraft(other)
		if err != nil {
			t.Fatal(name, err)
		}
		prev := record.Hash([]byte("before"))
		got, hash, err := d.LinkAs(other.Writer.KeyID, 7, prev)
		want, wantHash, errWant := made.Link(7, prev)
		if err != nil || errWant != nil || string(got) != string(want) || hash != wantHash {
			t.Errorf("%s: %v %v\n%s\n%s", name, err, errWant, got, want)
		}
		again, _, err := d.LinkAs("", 7, prev) // the draft itself has not changed
		own, _, errOwn := d.Link(7, prev)
		if err != nil || errOwn != nil || string(again) != string(own) || string(own) == string(got) {
			t.Errorf("%s: %v %v\n%s\n%s", name, err, errOwn, again, own)
		}
		for _, bad := range []string{"x", strings.Repeat("=", 43), strings.Repeat(`"`, 43)} {
			if _, _, err := d.LinkAs(bad, 7, prev); err == nil {
				t.Errorf("%s: linked for the key %q", name, bad)
			}
		}
	}
}
