//go:build cgo

package pkcs11_test

import (
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	lib "github.com/miekg/pkcs11"

	"github.com/lineal-auth/lineal/token"
	"github.com/lineal-auth/lineal/token/pkcs11"
)

const modulePath = "/usr/lib/softhsm/libsofthsm2.so"

// softHSM makes a token with a key of each kind and returns the URI of one.
func softHSM(t *testing.T) func(object string) string {
	t.Helper()
	if _, err := os.Stat(modulePath); err != nil {
		if os.Getenv("LINEAL_REQUIRE_SOFTHSM") != "" {
			t.Fatal(err)
		}
		t.Skip("no SoftHSM2 here: ", err)
	}
	dir := t.TempDir()
	conf, pin := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "pin")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(conf, "directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	write(pin, "123456\n")
	t.Setenv("SOFTHSM2_CONF", conf)
	m := lib.New(modulePath)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.Initialize())
	slots, err := m.GetSlotList(true)
	must(err)
	must(m.InitToken(slots[0], "so-pin", "lineal"))
	slots, err = m.GetSlotList(true)
	must(err)
	s, err := m.OpenSession(slots[0], lib.CKF_SERIAL_SESSION|lib.CKF_RW_SESSION)
	must(err)
	must(m.Login(s, lib.CKU_SO, "so-pin"))
	must(m.InitPIN(s, "123456"))
	must(m.Logout(s))
	must(m.Login(s, lib.CKU_USER, "123456"))
	for i, k := range []struct {
		name      string
		mechanism uint
		params    string
	}{
		{"es256", lib.CKM_EC_KEY_PAIR_GEN, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"},
		{"eddsa", 0x1055, "\x13\x0cedwards25519"},
		{"p384", lib.CKM_EC_KEY_PAIR_GEN, "\x06\x05\x2b\x81\x04\x00\x22"},
	} {
		common := []*lib.Attribute{
			lib.NewAttribute(lib.CKA_TOKEN, true), lib.NewAttribute(lib.CKA_LABEL, k.name), lib.NewAttribute(lib.CKA_ID, []byte{byte(i + 1)}),
		}
		public := append([]*lib.Attribute{lib.NewAttribute(lib.CKA_VERIFY, true), lib.NewAttribute(lib.CKA_EC_PARAMS, []byte(k.params))}, common...)
		private := append([]*lib.Attribute{
			lib.NewAttribute(lib.CKA_SIGN, true), lib.NewAttribute(lib.CKA_PRIVATE, true), lib.NewAttribute(lib.CKA_SENSITIVE, true),
		}, common...)
		if _, _, err := m.GenerateKeyPair(s, []*lib.Mechanism{lib.NewMechanism(k.mechanism, nil)}, public, private); err != nil {
			t.Fatal(k.name, err)
		}
	}
	must(m.CloseSession(s))
	must(m.Finalize())
	m.Destroy()
	return func(object string) string {
		return "pkcs11:token=lineal;object=" + object + "?module-path=" + modulePath + "&pin-source=file:" + pin
	}
}

// TestSoftHSM: keys of a token of another make sign tokens that verify, several at
// a time, beside each other, and again after they were closed.
func TestSoftHSM(t *testing.T) {
	uriOf := softHSM(t)
	for range 2 {
		var keys []*pkcs11.Key
		for object, alg := range map[string]token.Algorithm{"es256": token.ES256, "eddsa": token.EdDSA} {
			k, err := pkcs11.Open(uriOf(object))
			if err != nil {
				t.Fatalf("%s: %v", object, err)
			}
			keys = append(keys, k)
			s, err := token.NewSigner("", k)
			if err != nil || s.Algorithm() != alg {
				t.Fatalf("%s: %v", object, err)
			}
			issuer, err := token.NewIssuer("https://sts.test", s)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					if _, err := issuer.SignRevocations(token.RevocationBatch{IssuedAt: time.Unix(1795348800, 0)}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for _, k := range keys {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSoftHSMRefuses: what is not one key that signs for us is an error at the start.
func TestSoftHSMRefuses(t *testing.T) {
	uriOf := softHSM(t)
	k, err := pkcs11.Open(uriOf("es256")) // the twin
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("a SHA-384 digest was signed")
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte("wrong!"), 0o600); err != nil {
		t.Fatal(err)
	}
	right := uriOf("es256")
	for name, text := range map[string]string{
		"another curve":  uriOf("p384"),
		"no such key":    uriOf("nothing"),
		"no such token":  strings.Replace(right, "token=lineal", "token=other", 1),
		"no such module": strings.Replace(right, modulePath, "/nonexistent.so", 1),
		"a wrong PIN":    right[:strings.Index(right, "file:")] + "file:" + pin,
	} {
		if _, err := pkcs11.Open(text); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}
