package pkcs11

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = "pkcs11:token=lineal%20keys;object=issuer-1?module-path=/usr/lib/m.so&pin-source=file:/run/pin"

func TestParseURI(t *testing.T) {
	u, err := parseURI(good)
	if err != nil || u.token != "lineal keys" || u.object != "issuer-1" || u.module != "/usr/lib/m.so" || u.pinFile != "/run/pin" {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := parseURI(strings.Replace(good, "object=issuer-1", "id=%01%ff;type=private", 1)); err != nil || u.id != "\x01\xff" {
		t.Errorf("%+v, %v", u, err)
	}
	for name, text := range map[string]string{
		"another scheme":      "file:/x",
		"no token":            strings.Replace(good, "token=lineal%20keys;", "", 1),
		"no key":              strings.Replace(good, ";object=issuer-1", "", 1),
		"no module":           strings.Replace(good, "module-path=/usr/lib/m.so&", "", 1),
		"a relative module":   strings.Replace(good, "/usr/lib/m.so", "m.so", 1),
		"no PIN":              strings.Replace(good, "&pin-source=file:/run/pin", "", 1),
		"a PIN in the URI":    good + "&pin-value=1234",
		"a program as PIN":    strings.Replace(good, "file:/run/pin", "%7Ccat%20/run/pin", 1),
		"twice":               strings.Replace(good, "object=", "object=a;object=", 1),
		"an unknown one":      strings.Replace(good, "object=", "slot-id=1;object=", 1),
		"a public key":        strings.Replace(good, "object=", "type=public;object=", 1),
		"an empty value":      strings.Replace(good, "issuer-1", "", 1),
		"a malformed percent": strings.Replace(good, "issuer-1", "%zz", 1),
	} {
		if u, err := parseURI(text); err == nil {
			t.Errorf("%s: %+v", name, u)
		} else if strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the PIN is in the error", name)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add(good)
	f.Add("pkcs11:token=a;id=%00?module-path=/m&pin-source=/p")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseURI(text)
		if err == nil && (u.token == "" && u.serial == "" || u.object == "" && u.id == "" || u.module == "" || u.pinFile == "") {
			t.Errorf("%q: %+v", text, u)
		}
	})
}

// TestO3ReadablePIN: a PIN that others may read is refused.
func TestO3ReadablePIN(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pin, err := readPIN(path); err != nil || pin != "1234" {
		t.Errorf("%q, %v", pin, err)
	}
	if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // what is refused
		t.Fatal(err)
	}
	if _, err := readPIN(path); err == nil {
		t.Error("a PIN that others may read was read")
	}
}
