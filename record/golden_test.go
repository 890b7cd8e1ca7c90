package record_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// exampleKey is the key of the examples in the ledger's design.
func exampleKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("lineal-example/gw-eu-1"))
	return ed25519.NewKeyFromSeed(seed[:])
}

func exampleSigner(t testing.TB) record.Signer {
	t.Helper()
	s, err := record.NewSigner(exampleKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parseGolden(t testing.TB, name string) record.Record {
	t.Helper()
	r, err := record.Parse(golden(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The two examples of the design: their bytes, hashes, signature and leaf hash
// are published there, so that any implementation can be held to them.
func TestDesignExamples(t *testing.T) {
	signer := exampleSigner(t)
	if got, want := signer.KeyID(), "CXpZFbMNLV_khwJj-qa793ieD_4RqQ6xN7plBr2UzN4"; got != want {
		t.Fatalf("keyid %s, want %s", got, want)
	}
	permit, deny := golden(t, "decision-permit.json"), golden(t, "decision-deny.json")
	for _, c := range []struct {
		name    string
		payload []byte
		hash    string
	}{
		{"permit", permit, "L87YOwoh2nKgrECoAiogapYde31f-OqDJtIQ8-fiEmc"},
		{"deny", deny, "lKb2eAwbJnlMM_W5SXfyP3H7gFTM8ouyHE2yPImU2cs"},
	} {
		r, err := record.Parse(c.payload)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		d, err := record.NewDraft(r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		linked, hash, err := d.Link(r.Writer.Seq, r.Writer.Prev)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if hash != c.hash || !bytes.Equal(linked, c.payload) {
			t.Errorf("%s: record_hash %s, want %s, same bytes %t", c.name, hash, c.hash, bytes.Equal(linked, c.payload))
		}
	}
	envelope, err := record.Sign(permit, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf := sha256.Sum256(append([]byte{0}, envelope...)) // RFC 6962 §2.1
	if got, want := base64.RawURLEncoding.EncodeToString(leaf[:]), "8F3ybtyZP3aPoYHzRDMURQllFSkXQSpvGxMG5mJQDCo"; got != want {
		t.Errorf("leaf hash %s, want %s", got, want)
	}
}
