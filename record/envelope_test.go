package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

func testKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("lineal-example/gw-eu-1"))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signed(t testing.TB, file string) []byte {
	t.Helper()
	payload, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(testKey())
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := Sign(payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func accept(envelope []byte, pub ed25519.PublicKey) error {
	e, err := Open(envelope)
	if err != nil {
		return err
	}
	return e.Verify(pub)
}

// L4: no byte of a leaf can change unnoticed: each bit flipped, each byte
// dropped, doubled, or a line break put before it.
func TestL4EveryEnvelopeByteIsHeld(t *testing.T) {
	envelope, pub := signed(t, "erasure.json"), testKey().Public().(ed25519.PublicKey)
	if err := accept(envelope, pub); err != nil {
		t.Fatalf("twin refused: %v", err)
	}
	for i := range envelope {
		edits := map[string][]byte{
			"dropped": append(bytes.Clone(envelope[:i]), envelope[i+1:]...),
			"doubled": append(append(bytes.Clone(envelope[:i]), envelope[i]), envelope[i:]...),
			"broken":  append(append(bytes.Clone(envelope[:i]), '\n'), envelope[i:]...),
			"cut":     envelope[:i],
		}
		for bit := range 8 {
			changed := bytes.Clone(envelope)
			changed[i] ^= 1 << bit
			edits[fmt.Sprint("bit ", bit)] = changed
		}
		for name, changed := range edits {
			if accept(changed, pub) == nil {
				t.Errorf("byte %d %s: accepted", i, name)
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	envelope := signed(t, "erasure.json")
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	build := func(change func(e *dsse.Envelope)) []byte {
		c := e
		c.Signatures = append([]dsse.Signature(nil), e.Signatures...)
		change(&c)
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := jcs.Transform(raw)
		if err != nil {
			t.Fatal(err)
		}
		return canonical
	}
	// The twin: our bytes are the RFC 8785 form of what the library reads.
	if !bytes.Equal(build(func(*dsse.Envelope) {}), envelope) {
		t.Fatalf("envelope is not the canonical DSSE envelope: %s", envelope)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte{'x'}, MaxPayload+1)
	for name, bad := range map[string][]byte{
		"empty":          nil,
		"not canonical":  bytes.Replace(envelope, []byte(`,"payloadType"`), []byte(`, "payloadType"`), 1),
		"member order":   []byte(strings.Replace(string(envelope), `{"keyid"`, `{"a":"","keyid"`, 1)),
		"no signature":   build(func(e *dsse.Envelope) { e.Signatures = []dsse.Signature{} }),
		"two signatures": build(func(e *dsse.Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }),
		"payload type":   build(func(e *dsse.Envelope) { e.PayloadType = "application/vnd.in-toto+json" }),
		"base64url":      build(func(e *dsse.Envelope) { e.Payload = base64.URLEncoding.EncodeToString([]byte{0xfb, 0xff, 0xff}) }),
		"unpadded":       build(func(e *dsse.Envelope) { e.Payload = base64.RawStdEncoding.EncodeToString(append(payload, 'x')) }),
		"empty keyid":    build(func(e *dsse.Envelope) { e.Signatures[0].KeyID = "" }),
		"short sig":      build(func(e *dsse.Envelope) { e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(sig[:63]) }),
		"large payload":  build(func(e *dsse.Envelope) { e.Payload = base64.StdEncoding.EncodeToString(long) }),
		"large leaf":     bytes.Repeat([]byte{'x'}, MaxLeaf+1),
	} {
		if _, err := Open(bad); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	key := testKey()
	pub := key.Public().(ed25519.PublicKey)
	e, err := Open(signed(t, "erasure.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Verify(pub); err != nil {
		t.Fatalf("twin refused: %v", err)
	}
	other := ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)
	renamed := e
	renamed.KeyID = KeyID(other)
	bare := e
	bare.Sig = ed25519.Sign(key, e.Payload) // not the pre-authentication encoding
	wrongType := e
	wrongType.Sig = ed25519.Sign(key, dsse.PAE("application/vnd.lineal.policy.v1+json", e.Payload))
	for name, c := range map[string]struct {
		e   Envelope
		key ed25519.PublicKey
	}{
		"other key":          {e, other},
		"other key, renamed": {renamed, other},
		"no key":             {e, nil},
		"payload signed":     {bare, pub},
		"other payload type": {wrongType, pub},
		"zero":               {Envelope{}, pub},
	} {
		if err := c.e.Verify(c.key); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := e.Record(); err != nil || r.Erasure == nil {
		t.Errorf("twin refused: %v", err)
	}
	if _, err := renamed.Record(); err == nil {
		t.Error("a record of another key than its envelope's passes")
	}
}

type brokenSigner struct {
	Signer
	sig []byte
	err error
}

func (s brokenSigner) Sign([]byte) ([]byte, error) { return s.sig, s.err }

func TestSignRefuses(t *testing.T) {
	payload, err := os.ReadFile("testdata/erasure.json")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(testKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(payload, signer); err != nil {
		t.Fatalf("twin refused: %v", err)
	}
	other, err := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("key store is away")
	if _, err := Sign(payload, other); err == nil {
		t.Error("signed by another key than gw.keyid")
	}
	if _, err := Sign(payload, brokenSigner{signer, nil, failed}); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := Sign(payload, brokenSigner{signer, make([]byte, 63), nil}); err == nil {
		t.Error("signed with 63 bytes")
	}
	var limit *LimitError
	if _, err := Sign(make([]byte, MaxPayload+1), signer); !errors.As(err, &limit) {
		t.Errorf("got %v", err)
	}
	mixed := append(bytes.Clone(testKey()[:32]), other.(privateKey).key[32:]...)
	for name, key := range map[string]ed25519.PrivateKey{"empty": nil, "short": testKey()[:63], "two halves of two keys": mixed} {
		if _, err := NewSigner(key); err == nil {
			t.Errorf("%s key accepted", name)
		}
	}
}

// O4: however a signer is printed, the key stays inside.
func TestO4SignerIsRedacted(t *testing.T) {
	signer, err := NewSigner(testKey())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).LogAttrs(t.Context(), slog.LevelInfo, "m", slog.Any("signer", signer))
	js, err := json.Marshal(map[string]any{"signer": signer})
	if err != nil {
		t.Fatal(err)
	}
	outputs := []string{log.String(), string(js)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		outputs = append(outputs, fmt.Sprintf(verb, signer), fmt.Sprintf(verb, []Signer{signer}))
	}
	seed := testKey().Seed()
	for _, out := range outputs {
		for _, secret := range []string{
			fmt.Sprintf("%x", seed), base64.StdEncoding.EncodeToString(seed), base64.RawURLEncoding.EncodeToString(seed),
			fmt.Sprint(seed)[1:20], fmt.Sprintf("%#v", seed)[7:30], string(seed),
		} {
			if strings.Contains(out, secret) {
				t.Errorf("the key is in %q", out)
			}
		}
		if !strings.Contains(out, signer.KeyID()) {
			t.Errorf("the key's id is not in %q", out)
		}
	}
}

func FuzzOpen(f *testing.F) {
	pub := testKey().Public().(ed25519.PublicKey)
	for _, file := range []string{"erasure.json", "decision-permit.json"} {
		f.Add(signed(f, file))
	}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		e, err := Open(envelope)
		if err != nil {
			return
		}
		if !bytes.Equal(e.encode(), envelope) {
			t.Fatalf("opened, but written again as %q", e.encode())
		}
		if e.Verify(pub) == nil {
			if _, err := e.Record(); err != nil {
				t.Fatalf("signed by us, but no record: %v", err)
			}
		}
	})
}
