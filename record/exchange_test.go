package record_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

func exchangeKey(t testing.TB, n byte) (record.Signer, ed25519.PublicKey) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
	s, err := record.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, key.Public().(ed25519.PublicKey)
}

func statement(role record.ExchangeRole) record.Countersigned {
	salt := [32]byte{7}
	s := record.Countersigned{
		Version: 1, Role: role, ID: "AAAAAAAAAAAAAAAAAAAAAA", BodyCommit: record.Commit(salt, []byte("body")),
		RecordHash: record.Hash([]byte("record")), Log: "ledger.a/std", MergeBy: "2027-03-02T09:16:07.318Z",
	}
	if role == record.RoleCaller {
		s.Salt = record.SaltText(salt)
	} else {
		s.Effect = record.Permit
	}
	return s
}

// TestL4ExchangeIsSignedWhole: what was signed opens under its key, and nothing
// that differs in a byte, or is under another key.
func TestL4ExchangeIsSignedWhole(t *testing.T) {
	signer, pub := exchangeKey(t, 1)
	_, other := exchangeKey(t, 2)
	under := func(k ed25519.PublicKey) func(string) (ed25519.PublicKey, bool) {
		return func(string) (ed25519.PublicKey, bool) { return k, true }
	}
	for _, role := range []record.ExchangeRole{record.RoleCaller, record.RoleCallee} {
		want := statement(role)
		envelope, err := record.SignExchange(want, signer)
		if err != nil {
			t.Fatal(err)
		}
		got, err := record.OpenExchange(envelope, under(pub))
		if err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
		if role == record.RoleCaller && (!got.Commits([]byte("body")) || got.Commits([]byte("else"))) {
			t.Error("the commitment is to something else")
		}
		if _, err := record.OpenExchange(envelope, under(other)); err == nil {
			t.Error("opened under another key")
		}
		if _, err := record.OpenExchange(envelope, func(string) (ed25519.PublicKey, bool) { return nil, false }); err == nil {
			t.Error("opened under no key")
		}
		for i := range envelope {
			changed := bytes.Clone(envelope)
			changed[i] ^= 1
			if _, err := record.OpenExchange(changed, under(pub)); err == nil {
				t.Fatalf("byte %d changed: opened", i)
			}
		}
	}
	for name, spoil := range map[string]func(*record.Countersigned){
		"no version":          func(s *record.Countersigned) { s.Version = 0 },
		"no role":             func(s *record.Countersigned) { s.Role = "" },
		"short id":            func(s *record.Countersigned) { s.ID = "AA" },
		"no salt":             func(s *record.Countersigned) { s.Salt = "" },
		"effect in statement": func(s *record.Countersigned) { s.Effect = record.Permit },
		"no record":           func(s *record.Countersigned) { s.RecordHash = "" },
		"no log":              func(s *record.Countersigned) { s.Log = "" },
		"no time":             func(s *record.Countersigned) { s.MergeBy = "soon" },
	} {
		s := statement(record.RoleCaller)
		spoil(&s)
		if _, err := record.SignExchange(s, signer); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func FuzzOpenExchange(f *testing.F) {
	signer, pub := exchangeKey(f, 1)
	for _, role := range []record.ExchangeRole{record.RoleCaller, record.RoleCallee} {
		envelope, err := record.SignExchange(statement(role), signer)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(envelope)
	}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		s, err := record.OpenExchange(envelope, func(string) (ed25519.PublicKey, bool) { return pub, true })
		if err != nil {
			return
		}
		again, err := record.SignExchange(s, signer)
		if err != nil || !bytes.Equal(again, envelope) {
			t.Fatalf("%s is not what %+v gives: %v", envelope, s, err)
		}
	})
}
