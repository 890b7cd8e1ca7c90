package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// signCheckpoint makes the signed note of a tree (C2SP tlog-checkpoint v1.0.0):
// origin, size and base64 root, one line each.
func signCheckpoint(origin string, size int64, root Hash, signer note.Signer) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
	msg, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("signing checkpoint %d of %s: %w", size, origin, err)
	}
	return Checkpoint{Origin: origin, Size: size, Root: root, Note: msg}, nil
}

// OpenCheckpoint verifies a signed note under v and reads the checkpoint in
// it. The log's own key must have the origin as its name.
func OpenCheckpoint(msg []byte, v note.Verifier) (Checkpoint, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("opening checkpoint: %w", err)
	}
	c, err := parseCheckpointText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("opening checkpoint: origin %q is not the key's %q", c.Origin, v.Name())
	}
	c.Note = msg
	return c, nil
}

// parseCheckpointText reads the text of a checkpoint; extension lines are
// allowed and ignored.
func parseCheckpointText(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return Checkpoint{}, fmt.Errorf("parsing checkpoint: fewer than three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("parsing checkpoint: size %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(Hash{}) || strings.ContainsAny(lines[2], "\r\n") {
		return Checkpoint{}, fmt.Errorf("parsing checkpoint: root %q", lines[2])
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}, nil
}

// NewCheckpointKey makes the signer and verifier of an origin from an Ed25519
// key. Each origin needs a key of its own (C2SP tlog-policy).
func NewCheckpointKey(origin string, key ed25519.PrivateKey) (note.Signer, note.Verifier, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, nil, fmt.Errorf("making checkpoint key: %d bytes", len(key))
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("making checkpoint key: no Ed25519 public key")
	}
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		return nil, nil, fmt.Errorf("making checkpoint key: %w", err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, nil, fmt.Errorf("making checkpoint key for %q: %w", origin, err)
	}
	return &checkpointSigner{Verifier: v, key: key}, v, nil
}

// checkpointSigner is a note.Signer over a key in memory. Its formats show the
// name alone.
type checkpointSigner struct {
	note.Verifier
	key ed25519.PrivateKey
}

// Sign signs with Ed25519, which is deterministic.
func (s *checkpointSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func (s *checkpointSigner) String() string { return "checkpoint key of " + s.Name() }

// GoString keeps the key out of %#v.
func (s *checkpointSigner) GoString() string { return s.String() }

// LogValue keeps the key out of logs.
func (s *checkpointSigner) LogValue() slog.Value { return slog.StringValue(s.String()) }
