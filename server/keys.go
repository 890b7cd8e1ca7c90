package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lineal-auth/lineal/internal/durable"
)

// keyRing is the deployment's own keys, each in a file of its own below
// DataDir/keys, PKCS #8, mode 0600.
type keyRing struct {
	manifest ed25519.PrivateKey // signs key records, policy bundles and evidence manifests
	log      ed25519.PrivateKey // signs the checkpoints of this origin
	gateway  ed25519.PrivateKey // signs the gateway's records
	tokens   ed25519.PrivateKey // signs the token service's records
	issuer   *ecdsa.PrivateKey  // signs tokens and receipts
}

const keysDir = "keys"

// createKeys makes the keys of a new deployment. A key that is there already
// is an error: no start ever replaces one.
func createKeys(dataDir string) error {
	dir := filepath.Join(dataDir, keysDir)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating keys: %w", err)
	}
	for _, name := range []string{"manifest", "log", "gateway", "tokens"} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return fmt.Errorf("creating keys: %w", err)
		}
		if err := writeKey(dir, name, key); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("creating keys: %w", err)
	}
	return writeKey(dir, "issuer", key)
}

func writeKey(dir, name string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("creating key %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".key")
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("creating key %s: %s is there already", name, path)
	}
	return durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// loadKeys reads the keys and refuses files that others may read (threat O3).
func loadKeys(dataDir string) (keyRing, error) {
	dir := filepath.Join(dataDir, keysDir)
	var ring keyRing
	for name, to := range map[string]*ed25519.PrivateKey{
		"manifest": &ring.manifest, "log": &ring.log, "gateway": &ring.gateway, "tokens": &ring.tokens,
	} {
		key, err := readKey(dir, name)
		if err != nil {
			return keyRing{}, err
		}
		ed, ok := key.(ed25519.PrivateKey)
		if !ok {
			return keyRing{}, fmt.Errorf("reading key %s: not an Ed25519 key", name)
		}
		*to = ed
	}
	key, err := readKey(dir, "issuer")
	if err != nil {
		return keyRing{}, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return keyRing{}, errors.New("reading key issuer: not a P-256 key")
	}
	ring.issuer = ec
	return ring, nil
}

func readKey(dir, name string) (crypto.PrivateKey, error) {
	path := filepath.Join(dir, name+".key")
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("reading key %s: %s must be a regular file of mode 0600, it is %s", name, path, info.Mode())
	}
	data, err := os.ReadFile(path) //nolint:gosec // below the configured directory
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("reading key %s: not one PKCS #8 PEM block", name)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	return key, nil
}
