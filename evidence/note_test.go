package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	xnote "golang.org/x/mod/sumdb/note"
)

// testKey derives a key from its name, so that every run has the same bytes.
func testKey(name string) ed25519.PrivateKey {
	h := LeafHash([]byte("evidence test key " + name))
	return ed25519.NewKeyFromSeed(h[:])
}

func testSigner(t testing.TB, name string) Signer {
	t.Helper()
	s, err := NewSigner(name, testKey(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func witnessKey(t testing.TB, name string) Key {
	t.Helper()
	k, err := NewWitnessKey(name, testKey(name).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// cosign is what a witness adds to a checkpoint.
func cosign(t testing.TB, name string, cp []byte, at uint64) []byte {
	t.Helper()
	n, err := parseNote(cp)
	if err != nil {
		t.Fatal(err)
	}
	k := witnessKey(t, name)
	sig := ed25519.Sign(testKey(name), fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, n.text))
	raw := binary.BigEndian.AppendUint32(nil, k.id)
	raw = binary.BigEndian.AppendUint64(raw, at)
	return append(cp[:len(cp):len(cp)], "— "+name+" "+base64.StdEncoding.EncodeToString(append(raw, sig...))+"\n"...)
}

// The example of C2SP signed-note v1.0.0.
const (
	specVKey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
	specNote = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)

func TestNoteSpecExample(t *testing.T) {
	k, err := ParseKey(specVKey)
	if err != nil {
		t.Fatal(err)
	}
	if k.String() != specVKey || k.Name() != "example.com/foo" {
		t.Fatalf("vkey comes back as %q", k)
	}
	n, err := parseNote([]byte(specNote))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := n.signedBy(k); !ok || err != nil {
		t.Fatalf("signature of the specification: %v, %v", ok, err)
	}
}

// TestL3NoteChanged changes each byte of a signed note: none of them may still
// be signed. So no byte of a note with one signature is without a meaning.
func TestL3NoteChanged(t *testing.T) {
	k, err := ParseKey(specVKey)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(specNote) {
		for bit := range 8 {
			b := []byte(specNote)
			b[i] ^= 1 << bit
			n, err := parseNote(b)
			if err != nil {
				continue
			}
			if ok, err := n.signedBy(k); ok && err == nil {
				t.Fatalf("byte %d, bit %d changed, and still signed", i, bit)
			}
		}
	}
}

func TestNoteAgreesWithXMod(t *testing.T) {
	s := testSigner(t, "ledger.example/std/1")
	ours, err := s.sign("ledger.example/std/1\n3\nAAAA\n")
	if err != nil {
		t.Fatal(err)
	}
	v, err := xnote.NewVerifier(s.Key().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := xnote.Open(ours, xnote.VerifierList(v)); err != nil {
		t.Fatalf("x/mod refuses our note: %v", err)
	}
}

func TestNoteMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"empty":           "",
		"no signature":    "text\n\n",
		"no blank line":   "text\n— a AAAAAAA=\n",
		"no newline":      strings.TrimSuffix(specNote, "\n"),
		"carriage return": strings.Replace(specNote, "\n", "\r\n", 1),
		"control":         "a\x01b" + specNote,
		"hyphen":          strings.Replace(specNote, "—", "-", 1),
		"no name":         "text\n\n—  AAAAAAA=\n",
		"plus in name":    "text\n\n— a+b AAAAAAA=\n",
		"short signature": "text\n\n— a AAAAAA==\n",
		"spare bits":      strings.Replace(specNote, "aQM=", "aQN=", 1),
		"bad utf-8":       "\xff" + specNote,
	} {
		if _, err := parseNote([]byte(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := parseNote([]byte(specNote)); err != nil {
		t.Errorf("twin: %v", err)
	}
}

func TestKeyMalformed(t *testing.T) {
	for name, vkey := range map[string]string{
		"empty":         "",
		"no plus":       "example.com/foo",
		"other id":      strings.Replace(specVKey, "530d903a", "530d903b", 1),
		"upper-case id": strings.Replace(specVKey, "530d903a", "530D903A", 1),
		"other name":    strings.Replace(specVKey, "foo", "bar", 1),
		"other type":    "example.com/foo+530d903a+Aukyers" + specVKey[40:],
		"short key":     "example.com/foo+530d903a+Aeky",
	} {
		if _, err := ParseKey(vkey); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCosignature(t *testing.T) {
	cp, err := testSigner(t, "log.example/1").sign("log.example/1\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	if err != nil {
		t.Fatal(err)
	}
	good := cosign(t, "witness.example", cp, 1803978131)
	n, err := parseNote(good)
	if err != nil {
		t.Fatal(err)
	}
	at, ok, err := n.cosignedBy(witnessKey(t, "witness.example"))
	if !ok || err != nil || at.Unix() != 1803978131 {
		t.Fatalf("cosignature: %v %v %v", at, ok, err)
	}
	if ok, err := n.signedBy(witnessKey(t, "witness.example")); ok || err == nil {
		t.Fatal("a cosignature passes as a signature")
	}
	if _, ok, _ := n.cosignedBy(witnessKey(t, "other.example")); ok {
		t.Fatal("another witness's cosignature is found")
	}
	for i := len(cp); i < len(good); i++ {
		b := append([]byte(nil), good...)
		b[i] ^= 1
		if n, err := parseNote(b); err == nil {
			if _, ok, err := n.cosignedBy(witnessKey(t, "witness.example")); ok && err == nil {
				t.Fatalf("byte %d changed, and still cosigned", i)
			}
		}
	}
}

func TestSignerHidesKey(t *testing.T) {
	s := testSigner(t, "m.example/manifest")
	seed := fmt.Sprintf("%v", []byte(testKey("m.example/manifest")))[1:40]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, s); got != "signer "+s.Key().String() || strings.Contains(got, seed) {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestProofText(t *testing.T) {
	p := tlogProof{index: 7, hashes: []Hash{{1}, {2}}, checkpoint: []byte(specNote)}
	got, err := parseProof(p.bytes())
	if err != nil || got.index != 7 || len(got.hashes) != 2 || got.hashes[1] != (Hash{2}) || string(got.checkpoint) != specNote {
		t.Fatalf("round trip: %+v, %v", got, err)
	}
	text := string(p.bytes())
	if _, err := parseProof([]byte(strings.Replace(text, "\nindex", "\nextra AAAA\nindex", 1))); err != nil {
		t.Errorf("with extra: %v", err)
	}
	for name, bad := range map[string]string{
		"header":        strings.Replace(text, "v1", "v2", 1),
		"leading zero":  strings.Replace(text, "index 7", "index 07", 1),
		"plus":          strings.Replace(text, "index 7", "index +7", 1),
		"negative":      strings.Replace(text, "index 7", "index -7", 1),
		"short hash":    strings.Replace(text, "AQAA", "", 1),
		"no checkpoint": strings.SplitN(text, "\n\n", 2)[0],
		"bad extra":     strings.Replace(text, "\nindex", "\nextra A\nindex", 1),
	} {
		if _, err := parseProof([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
