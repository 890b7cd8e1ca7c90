package server

import (
	"crypto"
	"crypto/ecdh"
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
	"strings"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
)

// keyRing is the keys of one process, each in a file of its own below
// DataDir/keys, PKCS #8, mode 0600. Manifest, log and issuer key are the
// deployment's; a process holds those that its roles need, and the others are
// nil. The keys of its writers are its own.
type keyRing struct {
	manifest ed25519.PrivateKey // signs key records, policy bundles and evidence manifests
	log      ed25519.PrivateKey // signs the checkpoints of this origin
	gateway  ed25519.PrivateKey // signs the gateway's records
	tokens   ed25519.PrivateKey // signs the token service's records
	issuer   crypto.Signer      // signs tokens and receipts, unless the configuration lists keys

	manifestPublic ed25519.PublicKey // always there
	// disclosures seals the values that records commit to; always there. The
	// private half opens them and is read by who reads them.
	disclosures *ecdh.PublicKey
}

const (
	keysDir = "keys"
	// manifestPublicFile stands beside the keys of a process that does not hold
	// the manifest key.
	manifestPublicFile = "manifest.pub"
)

// createKeys makes the keys of a new deployment. A key that is there already
// is an error: no start ever replaces one.
func createKeys(dataDir string) error {
	dir, err := makeKeysDir(dataDir)
	if err != nil {
		return err
	}
	if err := createSigningKeys(dir, "manifest", "log", "gateway", "tokens"); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("creating keys: %w", err)
	}
	if err := writeKey(dir, "issuer", key); err != nil {
		return err
	}
	return createDisclosureKey(dir)
}

func makeKeysDir(dataDir string) (string, error) {
	dir := filepath.Join(dataDir, keysDir)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("creating keys: %w", err)
	}
	return dir, nil
}

// createSigningKeys makes Ed25519 keys.
func createSigningKeys(dir string, names ...string) error {
	for _, name := range names {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return fmt.Errorf("creating keys: %w", err)
		}
		if err := writeKey(dir, name, key); err != nil {
			return err
		}
	}
	return nil
}

func writeKey(dir, name string, key crypto.PrivateKey) error {
	if err := writeKeyFile(filepath.Join(dir, name+".key"), key); err != nil {
		return fmt.Errorf("creating key %s: %w", name, err)
	}
	return nil
}

// writeKeyFile is the inverse of readKeyFile. It replaces nothing.
func writeKeyFile(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already", path)
	}
	return durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// readSigningKey reads an Ed25519 key.
func readSigningKey(dir, name string) (ed25519.PrivateKey, error) {
	key, err := readKey(dir, name)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading key %s: not an Ed25519 key", name)
	}
	return ed, nil
}

// makeSigningKey reads an Ed25519 key, and makes it if it is not there.
func makeSigningKey(dir, name string) (ed25519.PrivateKey, error) {
	key, err := readSigningKey(dir, name)
	if !isMissing(err) {
		return key, err
	}
	if err := createSigningKeys(dir, name); err != nil {
		return nil, err
	}
	return readSigningKey(dir, name)
}

// WriteKey writes the private key of a writer into a new file, as a data directory
// holds it.
func WriteKey(path string, key ed25519.PrivateKey) error {
	if err := writeKeyFile(path, key); err != nil {
		return fmt.Errorf("writing key: %w", err)
	}
	return nil
}

// loadKeys reads the keys that are there, and refuses files that others may read
// (threat O3). What for they suffice is another question.
func loadKeys(dataDir string) (keyRing, error) {
	dir := filepath.Join(dataDir, keysDir)
	var ring keyRing
	for name, to := range map[string]*ed25519.PrivateKey{
		"manifest": &ring.manifest, "log": &ring.log, "gateway": &ring.gateway, "tokens": &ring.tokens,
	} {
		key, err := readKey(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
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
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return keyRing{}, err
	default:
		if ring.issuer, err = issuerKey(key); err != nil {
			return keyRing{}, fmt.Errorf("reading key issuer: %w", err)
		}
	}
	if ring.disclosures, err = disclosurePublic(dir); err != nil {
		return keyRing{}, err
	}
	return ring, ring.loadManifestPublic(dir)
}

// loadManifestPublic takes the manifest key's public part from the key itself,
// or else from the file that stands for it.
func (r *keyRing) loadManifestPublic(dir string) error {
	if r.manifest != nil {
		pub, ok := r.manifest.Public().(ed25519.PublicKey)
		if !ok {
			return errors.New("manifest key has no public part")
		}
		r.manifestPublic = pub
		return nil
	}
	key, err := readPublic(dir, manifestPublicFile)
	if err != nil {
		return err
	}
	pub, ok := key.(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("reading %s: not an Ed25519 key", manifestPublicFile)
	}
	r.manifestPublic = pub
	return nil
}

// readPublic reads the public half of a key that is not here, PKIX in PEM.
func readPublic(dir, file string) (any, error) {
	data, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // below the configured directory
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("reading %s: not one PEM block of a public key", file)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return key, nil
}

func writePublic(dir, file string, key any) error {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}

// suffice reports which keys are missing for what a process runs.
func (r keyRing) suffice(cfg config.Config) error {
	var missing []string
	for _, k := range []struct {
		role config.Role
		name string
		have bool
	}{
		{config.RoleGateway, "gateway", r.gateway != nil},
		{config.RoleTokens, "tokens", r.tokens != nil},
		{config.RoleTokens, "issuer", r.issuer != nil || len(cfg.Tokens.Keys) > 0},
		{config.RoleLedger, "manifest", r.manifest != nil},
		{config.RoleLedger, "log", r.log != nil},
	} {
		if cfg.Runs(k.role) && !k.have {
			missing = append(missing, fmt.Sprintf("%s (role %s)", k.name, k.role))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s holds no key %s", filepath.Join(cfg.DataDir, keysDir), strings.Join(missing, ", "))
	}
	return nil
}

// errNotHere says that a process does not hold a key of the deployment's.
func errNotHere(name string) error {
	return fmt.Errorf("this data directory does not hold the key %s: ask in one of a process with the role ledger", name)
}

func readKey(dir, name string) (crypto.PrivateKey, error) {
	key, err := readKeyFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", name, err)
	}
	return key, nil
}

// readKeyFile reads a private key, and refuses a file that others may read
// (threat O3).
func readKeyFile(path string) (crypto.PrivateKey, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s must be a regular file of mode 0600, it is %s", path, info.Mode())
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("%s is not one PKCS #8 PEM block", path)
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}
