package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Nonces makes and checks the nonces of DPoP proofs (RFC 9449 §8, §9) and keeps
// none: a nonce is the time it was made at and a MAC over it. All replicas of
// one service, and no other service, share key and purpose, so that the nonce
// of one passes at each. It is safe for concurrent use.
type Nonces struct {
	key  []byte
	life time.Duration
	now  func() time.Time
}

// NonceConfig configures Nonces.
type NonceConfig struct {
	// Key is secret and of at least 32 bytes; Purpose names the service whose
	// nonces they are. Both are required.
	Key     []byte
	Purpose string
	// Life is how long a nonce is good for; zero: five minutes. At most one hour.
	Life time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

const (
	defaultNonceLife = 5 * time.Minute
	maxNonceLife     = time.Hour
	minNonceKey      = 32
	nonceMAC         = 16 // bytes
)

// NewNonces builds Nonces.
func NewNonces(cfg NonceConfig) (*Nonces, error) {
	if len(cfg.Key) < minNonceKey || cfg.Purpose == "" {
		return nil, errors.New("making nonces: the key is short, or there is no purpose")
	}
	if cfg.Life == 0 {
		cfg.Life = defaultNonceLife
	}
	if cfg.Life < 0 || cfg.Life > maxNonceLife {
		return nil, fmt.Errorf("making nonces: a life of %s", cfg.Life)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	mac := hmac.New(sha256.New, cfg.Key)
	_, _ = mac.Write([]byte("dpop nonce\x00" + cfg.Purpose))
	return &Nonces{key: mac.Sum(nil), life: cfg.Life, now: cfg.Now}, nil
}

// Make returns a nonce: 32 characters of base64url.
func (n *Nonces) Make() string {
	b := make([]byte, 0, 8+nonceMAC)
	b = binary.BigEndian.AppendUint64(b, uint64(n.now().Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, n.mac(b)...))
}

// Check reports whether a nonce was made with this key for this purpose and is
// good still. A replica whose clock is ahead by up to [Leeway] may have made it.
func (n *Nonces) Check(nonce string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != 8+nonceMAC || !hmac.Equal(b[8:], n.mac(b[:8])) {
		return false
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(b)), 0) //nolint:gosec // our own, by the MAC
	now := n.now()
	return !made.After(now.Add(Leeway)) && now.Before(made.Add(n.life))
}

func (n *Nonces) mac(b []byte) []byte {
	mac := hmac.New(sha256.New, n.key)
	_, _ = mac.Write(b)
	return mac.Sum(nil)[:nonceMAC]
}
