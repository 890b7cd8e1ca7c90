package registry

import (
	"context"
	"errors"
	"time"
)

// Pins holds each JWT that a platform issued to a workload to the first key that
// was proven with it (tokens.md §9, threat I6). Platforms serve such a JWT again
// from a cache, so that it cannot be used up; who steals one has not its key. One
// store stands behind all replicas of a service, and it is durable, so that
// neither another replica nor a restart gives a second key a chance (threat X12).
//
// Pins is safe for concurrent use, also from several processes. An error is never
// a match: the caller must refuse.
type Pins interface {
	// Pin holds the credential to key if it has none yet, and returns the key that
	// it is held to. Of any number of callers all are told the same key, at least
	// until the time until, when nothing accepts the credential any more.
	// credential is identity.Workload's Credential, key the thumbprint of a key or
	// certificate, named by its kind.
	Pin(ctx context.Context, credential, key string, until time.Time) (pinned string, err error)
}

// CheckPin reports what every driver refuses in a pin by itself.
func CheckPin(credential, key string, until time.Time) error {
	if credential == "" || key == "" || until.IsZero() {
		return errors.New("pin without credential, key or end")
	}
	return nil
}
