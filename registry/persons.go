package registry

import (
	"context"
	"time"
)

// Persons maps a person as a provider knows one, (issuer, subject), to the
// random reference that stands in tokens and records, and back. It is personal
// data; nothing else in the product holds the pair.
//
// A reference is 128 random bits, base64url, made once per pair and never
// reused. What a method accepted is durable when it returns. Persons is safe
// for concurrent use, also from several processes.
type Persons interface {
	// Reference returns the reference of the person, and makes one the first
	// time the person is seen. issuer and subject must not be empty.
	Reference(ctx context.Context, issuer, subject string) (ref string, err error)
	// Lookup returns the person behind a reference, or ErrNotFound.
	Lookup(ctx context.Context, ref string) (Person, error)
	// SetEnabled lets a person take part, or not; ErrNotFound if there is none.
	SetEnabled(ctx context.Context, ref string, enabled bool) error
}

// Person is an entry of Persons. It names a natural person: do not log it.
type Person struct {
	Ref     string
	Issuer  string // the upstream provider
	Subject string // the provider's `sub`
	Enabled bool   // true for a new entry
	Created time.Time
}
