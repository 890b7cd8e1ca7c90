package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Revocations is the list of what was revoked, numbered from 1 without a gap.
// The number of the newest entry is all that a reader has to remember in order
// to go on from there.
//
// Revocations is safe for concurrent use, also from several processes: an entry
// has its number exactly when it is there, so that who has read up to a number
// will never find an older one that he has not seen.
type Revocations interface {
	// Revoke appends an entry and returns its number. It is durable when Revoke
	// returns nil; on an error it may be there or not. r.Seq is ignored.
	Revoke(ctx context.Context, r Revocation) (seq int64, err error)
	// RevokedSince returns the entries after a number, oldest first, at most limit
	// of them. Entries that were pruned are left out; [Revoked.Through] counts
	// them all the same.
	RevokedSince(ctx context.Context, after int64, limit int) (Revoked, error)
	// LastRevoked is the number of the newest entry, 0 if there never was one. It
	// is asked at every exchange.
	LastRevoked(ctx context.Context) (seq int64, err error)
	// PruneRevoked removes the entries that ended before now. No number is ever
	// given twice.
	PruneRevoked(ctx context.Context, now time.Time) error
}

// Revocation is one entry.
type Revocation struct {
	Seq  int64
	Kind string // one of RevocationKinds
	// Value is the jti, txn, reference, agent URI, kid or thumbprint.
	Value string
	// Before bounds a person or an agent to what was issued at or before it; of
	// two entries the later bound holds. Zero for the other kinds.
	Before time.Time
	// Ends is when nothing that it could name is alive any more; zero: never.
	Ends time.Time
}

// RevocationKinds are the kinds of tokens.md §10.
func RevocationKinds() []string { return []string{"hop", "txn", "person", "agent", "key", "cert"} }

// Revoked is a stretch of the list.
type Revoked struct {
	Entries []Revocation
	// Through is the number up to which Entries is everything that has not been
	// pruned. It is less than the number asked from exactly if the list is shorter
	// than that, which a reader must take for a list that was rolled back.
	Through int64
	// Last is the number of the newest entry of all when the list was read.
	Last int64
}

// Check reports what every driver refuses in a Revocation by itself.
func (r Revocation) Check() error {
	bounded := r.Kind == "person" || r.Kind == "agent"
	switch {
	case !slices.Contains(RevocationKinds(), r.Kind):
		return fmt.Errorf("revocation of kind %q", r.Kind)
	case r.Value == "":
		return errors.New("revocation of nothing")
	case bounded != !r.Before.IsZero():
		return errors.New("exactly a person and an agent are revoked up to a time")
	}
	return nil
}
