package registry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// Proofs remembers what a workload made itself and may use once: DPoP proofs
// (RFC 9449 §11.1) and assertions it signed with its own key (tokens.md §9,
// threats I6, X9). One store stands behind all replicas of a service, so that a
// proof is used once among them, and it is durable, so that a restart forgets
// nothing (threat X12).
//
// Proofs is safe for concurrent use, also from several processes. An error is
// never a first use: the caller must refuse.
type Proofs interface {
	// Use reports whether this is the first use of id, which the owner of a key
	// made unique. Of any number of callers one is told so, and no other until
	// the time until, up to which at least the use is remembered; until is when
	// nothing accepts the proof any more for its age. owner is the RFC 7638
	// thumbprint of the key, or, for an assertion, the URI of the client: a
	// thumbprint has no colon, so that the two never meet.
	Use(ctx context.Context, owner, id string, until time.Time) (first bool, err error)
	// Secret returns 32 random bytes, made at the first call for this name and the
	// same ever after and for every replica. Nonces are made from it.
	Secret(ctx context.Context, name string) ([]byte, error)
}

// SecretBytes is the length of a secret of Proofs.
const SecretBytes = 32

// UsesKept is how long drivers keep a use, and a pin, beyond its end, so that a
// replica whose clock is ahead does not forget what another would still accept.
const UsesKept = 10 * time.Minute

// CheckUse reports what every driver refuses in a use by itself.
func CheckUse(owner, id string, until time.Time) error {
	if owner == "" || id == "" || until.IsZero() {
		return errors.New("use without owner, id or end")
	}
	return nil
}

// UseKey is the key under which drivers keep a use: SHA-256 over owner and id,
// each with its length, so that no two pairs meet and no id is too long.
func UseKey(owner, id string) [sha256.Size]byte {
	var b []byte
	for _, s := range []string{owner, id} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}
