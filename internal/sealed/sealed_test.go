package sealed_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/sealed"
)

func pair(t testing.TB) (*sealed.Sealer, sealed.Opener, *ecdh.PrivateKey) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sealed.NewSealer(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return s, sealed.NewOpener(key), key
}

// TestSealed: what was sealed opens with its key, its digest and its own wrapped
// data key, and with nothing else.
func TestSealed(t *testing.T) {
	s, o, key := pair(t)
	plain := []byte("CANARY orders")
	box, wrapped, err := s.Seal("d1", plain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.Open("d1", box, wrapped); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened %q, %v", got, err)
	}
	box2, wrapped2, err := s.Seal("d1", plain)
	if err != nil || bytes.Equal(box, box2) || bytes.Equal(wrapped, wrapped2) || bytes.Contains(append(box, wrapped...), plain) {
		t.Fatalf("two of one value are alike, or in clear: %v", err)
	}
	other, stranger, _ := pair(t)
	later, err := sealed.NewSealer(key.PublicKey()) // another run of the same deployment
	if err != nil {
		t.Fatal(err)
	}
	box3, wrapped3, err := later.Seal("d1", plain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.Open("d1", box3, wrapped3); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("of another run: %q, %v", got, err)
	}
	foreign, foreignKey, err := other.Seal("d1", plain)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another digest":     func() ([]byte, error) { return o.Open("d2", box, wrapped) },
		"another data key":   func() ([]byte, error) { return o.Open("d1", box, wrapped2) },
		"another private":    func() ([]byte, error) { return stranger.Open("d1", box, wrapped) },
		"for another":        func() ([]byte, error) { return o.Open("d1", foreign, foreignKey) },
		"no data key":        func() ([]byte, error) { return o.Open("d1", box, nil) },
		"short":              func() ([]byte, error) { return o.Open("d1", box[:10], wrapped) },
		"no key":             func() ([]byte, error) { return sealed.Opener{}.Open("d1", box, wrapped) },
		"a flipped bit":      func() ([]byte, error) { return o.Open("d1", flipped(box), wrapped) },
		"a flipped data key": func() ([]byte, error) { return o.Open("d1", box, flipped(wrapped)) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s: opens as %q", name, got)
		}
	}
}

func flipped(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1] ^= 1
	return b
}

// TestO4OpenerRedacts: a key never prints.
func TestO4OpenerRedacts(t *testing.T) {
	_, o, key := pair(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, o); got != "[redacted]" || strings.Contains(got, string(key.Bytes())) {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	s, _, _ := pair(b)
	plain := bytes.Repeat([]byte("x"), 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Seal("digest", plain); err != nil {
			b.Fatal(err)
		}
	}
}
