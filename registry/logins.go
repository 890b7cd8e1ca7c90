package registry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// LoginKey is a secret as drivers keep it: SHA-256 over what it is for and the
// secret. The store holds no credential.
type LoginKey [sha256.Size]byte

// KeyOf is the key of a secret.
func KeyOf(purpose, secret string) LoginKey {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(purpose)))
	b = append(append(b, purpose...), secret...)
	return sha256.Sum256(b)
}

// Logins keeps what persons who log in directly leave behind: logins under
// way, authorization codes, and the families of refresh tokens. Bodies are the
// token service's; a driver does not read them.
//
// What a method accepted is durable when it returns, so that a restart forgets
// no use (threat X12). What ended before the driver's clock is not found. An
// error but ErrNotFound is never an answer: the caller must refuse. Logins is
// safe for concurrent use, also from several processes.
type Logins interface {
	// Begin keeps a step of a login, for the browser that holds the secret behind
	// browser. Over [MaxLogins] of them, and for a key that is there, it is an error.
	Begin(ctx context.Context, step LoginStep) error
	// Take removes and returns the step, once, or ErrNotFound: also for another
	// browser, whose attempt changes nothing.
	Take(ctx context.Context, key, browser LoginKey) (LoginStep, error)

	// PutCode keeps a code.
	PutCode(ctx context.Context, c Code) error
	// Redeem uses the code and returns it, or ErrNotFound. Of any number of callers
	// one is told that uses is 1. Any other use ends the family that the code
	// began, or would begin. uses counts this one. A code is remembered for [CodesKept] beyond its
	// end: also one that has ended is a reuse, once it was used.
	Redeem(ctx context.Context, key LoginKey) (c Code, uses int, err error)

	// BeginFamily keeps a family of refresh tokens, with its first one. It is
	// ErrExists if the code was presented again meanwhile.
	BeginFamily(ctx context.Context, f Family) error
	// Family returns the family, or ErrNotFound if there is none, or it has ended.
	Family(ctx context.Context, key LoginKey) (Family, error)
	// Rotate replaces the one refresh token that may be used, from by to, and
	// reports whether it did: not if from was not the one, or the family has ended.
	Rotate(ctx context.Context, key, from, to LoginKey) (bool, error)
	// EndFamily ends a family for good. That there is none is no error.
	EndFamily(ctx context.Context, key LoginKey) error
	// EndFamilies ends the families of a person, or of a client, that began at or
	// before a time.
	EndFamilies(ctx context.Context, owner FamilyOwner, before time.Time) error
}

// FamilyOwner is one of the two to whom a family belongs: exactly one is set.
type FamilyOwner struct {
	Person string // reference
	Client string // URI
}

// Check reports what every driver refuses in a FamilyOwner by itself.
func (o FamilyOwner) Check() error {
	if (o.Person == "") == (o.Client == "") {
		return errors.New("not exactly a person or a client")
	}
	return nil
}

// LoginStep is a login under way, between two visits of one browser.
type LoginStep struct {
	Key, Browser LoginKey
	Expires      time.Time
	Body         []byte
}

// Code is an authorization code.
type Code struct {
	Key     LoginKey
	Family  LoginKey // that it begins
	Expires time.Time
	Body    []byte
}

// Family is a line of refresh tokens, each the successor of the one before.
type Family struct {
	Key     LoginKey
	Code    LoginKey // that began it
	Current LoginKey // the token that may be used
	Person  string   // reference
	Client  string   // URI
	Begun   time.Time
	Expires time.Time
	Body    []byte
}

const (
	// MaxLoginBody bounds a body, in bytes.
	MaxLoginBody = 64 << 10
	// MaxLogins bounds the logins under way: strangers begin them (threat N6).
	// Replicas that count at once may pass it by their number.
	MaxLogins = 20_000
	// CodesKept is how long a used code is known beyond its end.
	CodesKept = 24 * time.Hour
)

// Check reports what every driver refuses in a LoginStep by itself.
func (s LoginStep) Check() error { return checkLogin(s.Expires, s.Body, s.Key, s.Browser) }

// Check reports what every driver refuses in a Code by itself.
func (c Code) Check() error { return checkLogin(c.Expires, c.Body, c.Key, c.Family) }

// Check reports what every driver refuses in a Family by itself.
func (f Family) Check() error {
	if f.Person == "" || f.Client == "" || f.Begun.IsZero() {
		return errors.New("family without person, client or beginning")
	}
	return checkLogin(f.Expires, f.Body, f.Key, f.Code, f.Current)
}

func checkLogin(end time.Time, body []byte, keys ...LoginKey) error {
	for _, k := range keys {
		if k == (LoginKey{}) {
			return errors.New("a key is missing")
		}
	}
	if end.IsZero() || len(body) == 0 || len(body) > MaxLoginBody {
		return errors.New("no end, no body, or too long a body")
	}
	return nil
}
