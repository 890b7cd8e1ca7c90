package evidence

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestL3ForgedCosignature signs in a witness's name and key id with another key:
// a checkpoint that carries such a line is refused, even if others cosigned it.
func TestL3ForgedCosignature(t *testing.T) {
	w := newWorld(t)
	trust := w.trust()
	trust.Witnesses = []Key{witnessKey(t, "w1.example")}
	p := mustPolicy(t, trust)
	c := w.contents()
	note, err := parseNote(c.Last)
	if err != nil {
		t.Fatal(err)
	}
	line := func(signer string, at uint64) string {
		sig := ed25519.Sign(testKey(signer), fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, note.text))
		raw := binary.BigEndian.AppendUint32(nil, witnessKey(t, "w1.example").id)
		raw = binary.BigEndian.AppendUint64(raw, at)
		return "— w1.example " + base64.StdEncoding.EncodeToString(append(raw, sig...)) + "\n"
	}
	plain := c.Last
	c.Last = append(bytes.Clone(plain), line("w1.example", 1803979000)...)
	if r := judged(t, bundle(t, c), p); r.ExitCode() != 0 || r.Finding(Witnesses).Status != Pass {
		t.Fatalf("twin:\n%s", text(t, r))
	}
	good := c.Last
	c.Last = append(bytes.Clone(plain), line("stranger", 1803979000)...)
	expect(t, bundle(t, c), p, 1, Witnesses, Fail, "does not verify")
	c.Last = append(bytes.Clone(good), line("stranger", 1803979000)...)
	expect(t, bundle(t, c), p, 1, Witnesses, Fail, "does not verify")
	c.Last = append(bytes.Clone(plain), line("w1.example", 1<<63)...)
	expect(t, bundle(t, c), p, 1, Witnesses, Fail, "impossible time")
}

// TestL3WitnessGroups holds one bundle to quorums of groups in groups.
func TestL3WitnessGroups(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	head := "log " + testSigner(t, origin).Key().String() + "\n"
	for i, name := range []string{"a", "b", "c", "d"} {
		if i < 3 {
			c.Last = cosign(t, name, c.Last, uint64(1803979000+i))
		}
		head += "witness " + name + " " + witnessKey(t, name).String() + "\n"
	}
	tail := "\n=== lineal\nmanifest " + testSigner(t, manifestID).Key().String() + "\n"
	for groups, status := range map[string]Status{
		"group x 2 a d\ngroup y all b c\ngroup z any x y\nquorum z": Pass,
		"group x 2 a d\ngroup y all b c\ngroup z all x y\nquorum z": NotProven,
		"quorum a": Pass,
		"quorum d": NotProven,
	} {
		p, err := ParsePolicy([]byte(head + groups + tail))
		if err != nil {
			t.Fatal(err)
		}
		if r := judged(t, bundle(t, c), p); r.Finding(Witnesses).Status != status {
			t.Errorf("%s:\n%s", groups, text(t, r))
		}
	}
}

// TestL3DuplicateRecord puts one record into the log twice: the tree holds it,
// the writer's counting does not.
func TestL3DuplicateRecord(t *testing.T) {
	w := newWorld(t)
	w.rebuild(append(append([][]byte(nil), w.leaves...), w.leaves[8]))
	b := bundle(t, w.contents())
	expect(t, b, w.policy(), 1, Sequence, Fail, "have one record id")
	if got := judged(t, b, w.policy()).Finding(Inclusion).Status; got != Pass {
		t.Errorf("inclusion is %s", got)
	}
}

// TestRulesInBundle gives the rules as the archive that a gateway loads.
func TestRulesInBundle(t *testing.T) {
	policy := "permit (principal, action, resource);\n"
	manifest := `{"name":"x","files":[{"path":"policies/a.cedar","sha256":"` + digest([]byte(policy)) + `"}]}`
	archive := func(files ...[2]string) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, f := range files {
			if err := tw.WriteHeader(&tar.Header{Name: f[0], Size: int64(len(f[1])), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := tw.Write([]byte(f[1])); err != nil {
				t.Fatal(err)
			}
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	m, rule := [2]string{"manifest.json", manifest}, [2]string{"policies/a.cedar", policy}
	for name, c := range map[string]struct {
		bytes  []byte
		status Status
	}{
		"whole":        {archive(m, [2]string{"manifest.dsse.json", "sig"}, rule), Pass},
		"another rule": {archive(m, [2]string{"policies/a.cedar", strings.ToUpper(policy)}), Fail},
		"a rule less":  {archive(m), Fail},
		"a rule more":  {archive(m, rule, [2]string{"policies/b.cedar", policy}), Fail},
		"a file twice": {archive(m, rule, rule), Fail},
		"no archive":   {[]byte(policy), Fail},
	} {
		w := newWorld(t)
		w.decide(func(d *record.Decision) { d.Policy.BundleDigest = digest([]byte(manifest)) })
		contents := w.contents()
		contents.Policies = append(contents.Policies, PolicyBundle{digest([]byte(manifest)), c.bytes})
		if r := judged(t, bundle(t, contents), w.policy()); r.Finding(Policies).Status != c.status {
			t.Errorf("%s:\n%s", name, text(t, r))
		}
	}
}
