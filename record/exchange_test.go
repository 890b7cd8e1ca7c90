package record_test

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
		s.Checkpoint = record.CheckpointBody("ledger.a/std/2027-03", 41872, [32]byte{9})
	}
	return s
}

// TestExchangeGolden: the bytes of a statement, of a receipt, and of a receipt as
// they were before receipts named a checkpoint: all three are in logs and open for
// ever. With -update a golden file is written once, and never over an existing one.
func TestExchangeGolden(t *testing.T) {
	signer, pub := exchangeKey(t, 1)
	before := statement(record.RoleCallee)
	before.Checkpoint = ""
	for name, want := range map[string]record.Countersigned{
		"statement": statement(record.RoleCaller), "receipt": statement(record.RoleCallee), "receipt-no-checkpoint": before,
	} {
		envelope, err := record.SignExchange(want, signer)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("exchange", name+".json")
		if _, err := os.Stat(filepath.Join("testdata", file)); *update && err != nil {
			if err := os.WriteFile(filepath.Join("testdata", file), envelope, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept := golden(t, file)
		if diff := cmp.Diff(string(kept), string(envelope)); diff != "" {
			t.Errorf("%s: bytes differ from the golden file:\n%s", name, diff)
		}
		got, err := record.OpenExchange(kept, func(string) (ed25519.PublicKey, bool) { return pub, true })
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
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

// TestReceiptNamesOneCheckpoint: what a receipt names is a checkpoint of its own
// log in its one spelling; a statement names none.
func TestReceiptNamesOneCheckpoint(t *testing.T) {
	signer, _ := exchangeKey(t, 1)
	root := [32]byte{9}
	for name, body := range map[string]string{
		"of the period": record.CheckpointBody("ledger.a/std/2027-03", 7, root), "of the family": record.CheckpointBody("ledger.a/std", 7, root), "none": "",
	} {
		s := statement(record.RoleCallee)
		s.Checkpoint = body
		if _, err := record.SignExchange(s, signer); err != nil {
			t.Errorf("twin %s: %v", name, err)
		}
	}
	good := record.CheckpointBody("ledger.a/std/2027-03", 7, root)
	for name, body := range map[string]string{
		"of another family":     record.CheckpointBody("ledger.b/std/2027-03", 7, root),
		"of a longer name":      record.CheckpointBody("ledger.a/std2/2027-03", 7, root),
		"a leading zero":        strings.Replace(good, "\n7\n", "\n07\n", 1),
		"a negative size":       strings.Replace(good, "\n7\n", "\n-7\n", 1),
		"no last line end":      strings.TrimSuffix(good, "\n"),
		"a fourth line":         good + "more\n",
		"a signed note":         good + "\n— ledger.a/std/2027-03 AAAA\n",
		"a short root":          "ledger.a/std/2027-03\n7\nAAAA\n",
		"the root in base64url": strings.NewReplacer("+", "-", "/", "_").Replace(record.CheckpointBody("ledger.a/std/2027-03", 7, [32]byte{0xfb, 0xff, 0xff})),
	} {
		s := statement(record.RoleCallee)
		s.Checkpoint = body
		if _, err := record.SignExchange(s, signer); err == nil {
			t.Errorf("%s: signed", name)
		}
		if _, _, _, err := record.ParseCheckpointBody(body); (err == nil) != (name == "of another family" || name == "of a longer name") {
			t.Errorf("%s: read with %v", name, err)
		}
	}
	s := statement(record.RoleCaller)
	s.Checkpoint = good
	if _, err := record.SignExchange(s, signer); err == nil {
		t.Error("a statement with a checkpoint is signed")
	}
	if origin, size, got, err := record.ParseCheckpointBody(good); err != nil || origin != "ledger.a/std/2027-03" || size != 7 || got != root {
		t.Errorf("%s %d %x %v", origin, size, got, err)
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
