//go:build !cgo

package pkcs11

import (
	"errors"
	"testing"
)

func TestNotBuilt(t *testing.T) {
	if _, err := Open(good); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("%v", err)
	}
}
