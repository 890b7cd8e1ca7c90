package server

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
)

// What the policy commands work with; see package cedar.
type (
	// PolicySource is a policy set as its author keeps it.
	PolicySource = cedar.Source
	// PolicyCheck is what was found out about a set.
	PolicyCheck = cedar.Check
	// PolicyFinding is one thing that is wrong with it.
	PolicyFinding = cedar.Finding
	// PolicyProposal is what a first set is made of.
	PolicyProposal = cedar.Proposal
	// HopReading says what one hop's grant makes of a call.
	HopReading = cedar.HopReading
	// PolicyReading says what one policy makes of a call.
	PolicyReading = cedar.PolicyReading
)

// maxPolicyFile bounds each file of a set, and a whole bundle.
const maxPolicyFile = 16 << 20

// OpenPolicy reads a policy set: a folder, or a bundle. The signature of a
// bundle is checked if key is not nil.
func OpenPolicy(path string, key ed25519.PublicKey) (*PolicySource, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	if !info.IsDir() {
		archive, err := readPolicyFile(path)
		if err != nil {
			return nil, err
		}
		return cedar.OpenSource(archive, key)
	}
	files := map[string][]byte{}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case p != path && strings.HasPrefix(name, "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		case !slices.Contains([]string{".json", ".cedar", ".cedarschema", ".txtar"}, filepath.Ext(name)):
			return nil
		}
		within, err := filepath.Rel(path, p)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(within)], err = readPolicyFile(p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading policy: %w", err)
	}
	return cedar.NewSource(files), nil
}

func readPolicyFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPolicyFile {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxPolicyFile)
	}
	return os.ReadFile(path) //nolint:gosec // the operator names the file
}

// SigningKey reads an Ed25519 private key, PKCS #8 in PEM, from a file that only
// its owner may read.
func SigningKey(path string) (ed25519.PrivateKey, error) {
	dir, name := filepath.Split(path)
	base, ok := strings.CutSuffix(name, ".key")
	if !ok {
		return nil, fmt.Errorf("reading key: %s: a private key is in a file NAME.key", path)
	}
	key, err := readKey(dir, base)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("reading key: %s: not an Ed25519 key", path)
	}
	return ed, nil
}

// VerifyingKey reads an Ed25519 public key, PKIX in PEM, or the public half of a
// private one (NAME.key).
func VerifyingKey(path string) (ed25519.PublicKey, error) {
	if strings.HasSuffix(path, ".key") {
		key, err := SigningKey(path)
		if err != nil {
			return nil, err
		}
		pub, _ := key.Public().(ed25519.PublicKey)
		return pub, nil
	}
	text, err := readPolicyFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("reading key: %s: not one PUBLIC KEY in PEM", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading key: %s: %w", path, err)
	}
	pub, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("reading key: %s: not an Ed25519 key", path)
	}
	return pub, nil
}

// WritePolicy makes a bundle of a checked set and writes it; path must not
// exist. It returns the digest, the bundle's version.
func WritePolicy(s *PolicySource, key ed25519.PrivateKey, path string) (digest string, err error) {
	archive, err := s.Build(key)
	if err != nil {
		return "", err
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	e, err := cedar.Load(archive, pub, 1) // what a start would do with it
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("writing bundle: %s is there already", path)
	}
	if err := durable.WriteFile(path, archive, 0o644); err != nil {
		return "", fmt.Errorf("writing bundle: %w", err)
	}
	return e.Version().Digest, nil
}

// ProposePolicy writes a first set into a new folder.
func ProposePolicy(p PolicyProposal, dir string) error {
	files, err := cedar.Propose(p)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("writing policy: %s is not empty", dir)
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing policy: %w", err)
		}
		if err := durable.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("writing policy: %w", err)
		}
	}
	return nil
}

// DecisionLine is a decision in the words of a case's .want.
func DecisionLine(d policy.Decision) string { return cedar.DecisionLine(d) }

// Broken are the findings that keep a set from being tested: all but those that
// testing itself would tell.
func Broken(c PolicyCheck) []PolicyFinding {
	return slices.DeleteFunc(slices.Clone(c.Findings), func(f PolicyFinding) bool {
		return f.Warning || f.Code == cedar.CodeFailed || f.Code == cedar.CodeUntested
	})
}

// NewPolicyProposal is a proposal for a service with these tools and agents.
func NewPolicyProposal(service string, tools []byte, agents []string) (PolicyProposal, error) {
	p := PolicyProposal{Service: service, Tools: tools}
	for _, text := range agents {
		a, err := identity.ParseAgent(text)
		if err != nil {
			return p, fmt.Errorf("agent %q: %w", text, err)
		}
		p.Agents = append(p.Agents, a)
	}
	return p, nil
}
