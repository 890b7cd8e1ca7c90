package server

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/handle"
)

const (
	sealFile  = "seal.key"
	sealBlock = "LINEAL SEAL SECRET"
)

// sealBox is what seals the ids that clients keep. Its secret is made where
// there is none: it proves nothing to anybody later, and sessions begin anew
// without it. Replicas that are to serve each other's sessions share the file.
func (s *Server) sealBox() (*handle.Box, error) {
	path := filepath.Join(s.cfg.DataDir, keysDir, sealFile)
	secret, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret = make([]byte, handle.KeySize)
		if _, err := rand.Read(secret); err != nil {
			return nil, fmt.Errorf("creating the seal secret: %w", err)
		}
		err = durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: sealBlock, Bytes: secret}), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	return handle.New(secret, s.now)
}

// readSecret reads the secret and refuses a file that others may read (threat O3).
func readSecret(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s must be a regular file of mode 0600, it is %s", path, info.Mode())
	}
	data, err := os.ReadFile(path) //nolint:gosec // below the configured directory
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != sealBlock || len(rest) != 0 || len(block.Bytes) != handle.KeySize {
		return nil, fmt.Errorf("%s is not one %s", path, sealBlock)
	}
	return block.Bytes, nil
}
