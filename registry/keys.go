package registry

import (
	"context"
	"errors"
	"fmt"
)

// Keys is what the token services of an issuer know of each other's signing
// keys, public halves alone: any of them publishes the keys of all, and a restart
// forgets none (tokens.md §14).
//
// The registry does not know what a key is good for. An entry is a statement that
// the token service signed with a key which the database does not hold, so that
// who can write to the database can neither add a key nor give one more time.
//
// Keys is safe for concurrent use, also from several processes. An entry is never
// removed: an id that once named a key names no other.
type Keys interface {
	// IssuerKeys returns every entry of the issuer, in the order of the ids.
	IssuerKeys(ctx context.Context, issuer string) ([]IssuerKey, error)
	// PutIssuerKey keeps k, durably when it returns nil. Version 1 is a new entry,
	// version n+1 takes the place of version n; if the entry stands at another
	// version nothing is written and the error is ErrExists: read it again. On any
	// other error it may be there or not.
	PutIssuerKey(ctx context.Context, k IssuerKey) error
}

// IssuerKey is one entry.
type IssuerKey struct {
	Issuer  string // `iss`
	KeyID   string // `kid`
	Version int64  // from 1
	// Statement is the token service's business.
	Statement []byte
}

// maxStatement bounds a statement, in bytes.
const maxStatement = 4096

// Check reports what every driver refuses in an IssuerKey by itself.
func (k IssuerKey) Check() error {
	switch {
	case k.Issuer == "" || k.KeyID == "":
		return errors.New("key without issuer or id")
	case k.Version < 1:
		return fmt.Errorf("key at version %d", k.Version)
	case len(k.Statement) == 0 || len(k.Statement) > maxStatement:
		return fmt.Errorf("key with a statement of %d bytes", len(k.Statement))
	}
	return nil
}
