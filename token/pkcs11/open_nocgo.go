//go:build !cgo

package pkcs11

import (
	"crypto"
	"io"
)

// Key is a private key of a token; there is none in this build.
type Key struct{ crypto.Signer }

var (
	_ crypto.Signer = (*Key)(nil)
	_ io.Closer     = (*Key)(nil)
)

// Open returns ErrNotBuilt, or what is wrong with the URI.
func Open(text string) (*Key, error) {
	if _, err := parseURI(text); err != nil {
		return nil, err
	}
	return nil, ErrNotBuilt
}

// Close does nothing.
func (*Key) Close() error { return nil }
