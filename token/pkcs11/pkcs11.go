// Package pkcs11 signs with a private key that never leaves its PKCS #11 token: a hardware security module, or a service that looks like one.
//
//	pkcs11:token=…;object=…?module-path=…&pin-source=file:…  ──Open──▶  crypto.Signer  ──token.NewSigner──▶  token.Signer
//
// [Open] finds one private key on P-256 or Ed25519 by its URI (RFC 7512) and the
// public key beside it, and signs a probe, so that a key which cannot sign shows
// at the start. A session that the token lost is opened again, once per
// signature.
//
// The package makes, imports and lists no keys; the token's own tools do. It needs
// cgo, because the module is a C library: a build without it has everything but
// this, and Open says so.
package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// ErrNotBuilt says that this program was built without cgo.
var ErrNotBuilt = errors.New("built without PKCS #11: build with CGO_ENABLED=1")

// uri is a parsed PKCS #11 URI: one private key of one token.
type uri struct {
	token, serial string // of the token; at least one
	object        string // CKA_LABEL
	id            string // CKA_ID, raw bytes; object or id, or both
	module        string // path of the library
	pinFile       string
}

// parseURI reads the attributes of RFC 7512 that name one private key, and
// refuses every other: an attribute that is not looked at would be believed.
func parseURI(text string) (uri, error) {
	u, err := readURI(text)
	if err != nil {
		return uri{}, fmt.Errorf("PKCS #11 URI: %w", err)
	}
	return u, nil
}

func readURI(text string) (u uri, err error) {
	path, ok := strings.CutPrefix(text, "pkcs11:")
	if !ok {
		return u, errors.New("another scheme than pkcs11")
	}
	path, query, _ := strings.Cut(path, "?")
	var kind, pin string
	err = attributes(path, ";", map[string]*string{"token": &u.token, "serial": &u.serial, "object": &u.object, "id": &u.id, "type": &kind})
	if err != nil {
		return u, err
	}
	if err := attributes(query, "&", map[string]*string{"module-path": &u.module, "pin-source": &pin}); err != nil {
		return u, err
	}
	switch {
	case kind != "" && kind != "private":
		return u, fmt.Errorf("type=%s: only a private key signs", kind)
	case u.token == "" && u.serial == "":
		return u, errors.New("names no token: token= or serial= is required")
	case u.object == "" && u.id == "":
		return u, errors.New("names no key: object= or id= is required")
	case !strings.HasPrefix(u.module, "/"):
		return u, errors.New("module-path= must be the absolute path of the library")
	}
	u.pinFile = strings.TrimPrefix(strings.TrimPrefix(pin, "file:"), "//")
	if !strings.HasPrefix(u.pinFile, "/") {
		return u, errors.New("pin-source= must be file: and an absolute path")
	}
	return u, nil
}

// attributes reads name=value pairs, each once and none unknown.
func attributes(text, separator string, known map[string]*string) error {
	if text == "" {
		return nil
	}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(text, separator) {
		name, value, ok := strings.Cut(pair, "=")
		to := known[name]
		switch {
		case name == "pin-value":
			return errors.New("pin-value= would stand in the configuration: use pin-source=file:…")
		case !ok || to == nil:
			return fmt.Errorf("attribute %q is not supported here", name)
		case seen[name]:
			return fmt.Errorf("attribute %q twice", name)
		}
		decoded, err := url.PathUnescape(value)
		if err != nil || decoded == "" || strings.ContainsRune(decoded, 0) && name != "id" {
			return fmt.Errorf("value of %q is empty or malformed", name)
		}
		seen[name], *to = true, decoded
	}
	return nil
}

// readPIN reads the PIN, and refuses a file that others may read (threat O3).
func readPIN(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("reading PIN: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("reading PIN: %s must be a regular file of mode 0600, it is %s", path, info.Mode())
	}
	b, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("reading PIN: %w", err)
	}
	pin := strings.TrimRight(string(b), "\r\n")
	if pin == "" {
		return "", fmt.Errorf("reading PIN: %s is empty", path)
	}
	return pin, nil
}
