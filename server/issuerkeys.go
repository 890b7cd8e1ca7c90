package server

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
	"github.com/lineal-auth/lineal/token/pkcs11"
)

// issuerKey accepts a private key that may sign tokens.
func issuerKey(key crypto.PrivateKey) (crypto.Signer, error) {
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	}
	return nil, errors.New("neither a P-256 nor an Ed25519 key")
}

// CreateIssuerKey makes a private key in a file of the data directory's keys and
// returns its `kid`. name is of letters, digits and hyphens, and new; alg is
// token.ES256 or token.EdDSA.
func CreateIssuerKey(dataDir, name, alg string) (kid string, err error) {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) {
		return "", fmt.Errorf("creating key: %q is no name", name)
	}
	var key crypto.Signer
	switch token.Algorithm(alg) {
	case token.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case token.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("algorithm %q", alg)
	}
	if err != nil {
		return "", fmt.Errorf("creating key %s: %w", name, err)
	}
	dir := filepath.Join(dataDir, keysDir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("creating key %s: %s is no data directory: %w", name, dataDir, err)
	}
	if err := writeKey(dir, name, key); err != nil {
		return "", err
	}
	return token.Thumbprint(key.Public())
}

// heldKeys opens the configured keys of the issuer, or the one that a data
// directory begins with.
func (s *Server) heldKeys(ctx context.Context) ([]sts.HeldKey, error) {
	if len(s.cfg.Tokens.Keys) == 0 {
		signer, err := token.NewSigner("", s.keys.issuer)
		return []sts.HeldKey{{Signer: signer}}, err
	}
	var held []sts.HeldKey
	for i, k := range s.cfg.Tokens.Keys {
		key, err := s.openKey(ctx, k)
		if err != nil {
			return nil, fmt.Errorf("tokens.keys[%d]: %w", i, err)
		}
		signer, err := token.NewSigner("", key)
		if err != nil {
			return nil, fmt.Errorf("tokens.keys[%d]: %w", i, err)
		}
		held = append(held, sts.HeldKey{Signer: signer, UseFrom: k.UseFrom})
	}
	return held, nil
}

// openKey is the one place that knows where private keys may live.
func (s *Server) openKey(ctx context.Context, k config.Key) (crypto.Signer, error) {
	if k.PKCS11 != "" {
		return opened(ctx, s, func(context.Context) (*pkcs11.Key, error) { return pkcs11.Open(k.PKCS11) })
	}
	path := k.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.cfg.DataDir, keysDir, path)
	}
	key, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	return issuerKey(key)
}

// issuerRing opens the keys of the issuer and keeps them in order until the
// server closes. Where the manifest key is, their changes are recorded and
// vouched for; elsewhere a key signs when that has happened.
func (s *Server) issuerRing(ctx context.Context) (*sts.Ring, error) {
	held, err := s.heldKeys(ctx)
	if err != nil {
		return nil, err
	}
	cfg := sts.RingConfig{
		Issuer: s.cfg.Tokens.Issuer, Held: held, Keys: s.registry, Revocations: s.registry, Voucher: s.keys.manifestPublic,
		Now: s.now, Logger: s.logger,
	}
	if admin := s.ledger.admin; admin != nil && s.keys.manifest != nil {
		cfg.Vouch = s.keys.manifest
		cfg.Record = func(ctx context.Context, change record.KeyChange) error {
			rec := admin.own(record.KindKey)
			rec.KeyChange = &change
			return admin.Record(ctx, rec)
		}
	}
	ring, err := sts.OpenRing(ctx, cfg)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopKeys = cancel
	s.tending.Go(func() { ring.Run(run) })
	return ring, nil
}

// endKeys stops what issuerRing began.
func (s *Server) endKeys() {
	if s.stopKeys != nil {
		s.stopKeys()
		s.tending.Wait()
	}
}
