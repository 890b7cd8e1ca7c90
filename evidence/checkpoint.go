package evidence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// checkpoint is a C2SP tlog-checkpoint: a signed note that states size and
// root of a log. Nothing in it may be believed before its signature verified.
type checkpoint struct {
	note
	origin string
	size   int64
	root   Hash
}

// body is the checkpoint as records name it.
func (c checkpoint) body() string {
	return record.CheckpointBody(c.origin, uint64(c.size), c.root) //nolint:gosec // a size is never negative
}

// parseBody reads a checkpoint as records name it, which nothing signs but the
// record.
func parseBody(body string) (checkpoint, error) {
	lines := strings.Split(body, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return checkpoint{}, errors.New("it names no checkpoint")
	}
	c := checkpoint{origin: lines[0]}
	var err error
	if c.size, err = parseDecimal(lines[1]); err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint size: %w", err)
	}
	if c.root, err = parseHash(lines[2]); err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint root: %w", err)
	}
	return c, nil
}

func parseCheckpoint(b []byte) (checkpoint, error) {
	n, err := parseNote(b)
	if err != nil {
		return checkpoint{}, err
	}
	lines := strings.Split(strings.TrimSuffix(n.text, "\n"), "\n")
	if len(lines) < 3 {
		return checkpoint{}, errors.New("checkpoint has fewer than three lines")
	}
	for _, l := range lines {
		if l == "" {
			return checkpoint{}, errors.New("checkpoint has an empty line")
		}
	}
	c := checkpoint{note: n, origin: lines[0]}
	if c.size, err = parseDecimal(lines[1]); err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint size: %w", err)
	}
	if c.root, err = parseHash(lines[2]); err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint root: %w", err)
	}
	return c, nil
}

// The first lines of the textual proofs in a bundle.
const (
	proofHeader       = "c2sp.org/tlog-proof@v1"
	consistencyHeader = "lineal/consistency-proof/v1"
)

// tlogProof is a C2SP tlog-proof (draft): inclusion of one entry. Its `extra`
// is not authenticated and ignored.
type tlogProof struct {
	index      int64
	hashes     []Hash
	checkpoint []byte
}

func (p tlogProof) bytes() []byte {
	var b strings.Builder
	b.WriteString(proofHeader + "\nindex " + strconv.FormatInt(p.index, 10) + "\n")
	writeHashes(&b, p.hashes)
	b.WriteString("\n")
	b.Write(p.checkpoint)
	return []byte(b.String())
}

func parseProof(b []byte) (tlogProof, error) {
	head, note, ok := strings.Cut(string(b), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || lines[0] != proofHeader {
		return tlogProof{}, errors.New("not a tlog-proof")
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		if _, err := decodeStrict(lines[0][len("extra "):]); err != nil {
			return tlogProof{}, fmt.Errorf("tlog-proof: extra: %w", err)
		}
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return tlogProof{}, errors.New("tlog-proof has no index")
	}
	num, ok := strings.CutPrefix(lines[0], "index ")
	if !ok {
		return tlogProof{}, errors.New("tlog-proof has no index")
	}
	index, err := parseDecimal(num)
	if err != nil {
		return tlogProof{}, fmt.Errorf("tlog-proof index: %w", err)
	}
	hashes, err := parseHashes(lines[1:])
	if err != nil {
		return tlogProof{}, fmt.Errorf("tlog-proof: %w", err)
	}
	return tlogProof{index: index, hashes: hashes, checkpoint: []byte(note)}, nil
}

func consistencyBytes(hashes []Hash) []byte {
	var b strings.Builder
	b.WriteString(consistencyHeader + "\n")
	writeHashes(&b, hashes)
	return []byte(b.String())
}

func parseConsistency(b []byte) ([]Hash, error) {
	rest, ok := strings.CutPrefix(string(b), consistencyHeader+"\n")
	if !ok {
		return nil, errors.New("not a consistency proof")
	}
	if rest == "" {
		return nil, nil
	}
	if !strings.HasSuffix(rest, "\n") {
		return nil, errors.New("consistency proof does not end in a newline")
	}
	return parseHashes(strings.Split(strings.TrimSuffix(rest, "\n"), "\n"))
}

func writeHashes(b *strings.Builder, hashes []Hash) {
	for _, h := range hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
}

// maxProof bounds a proof: a tree of 2⁶³ leaves needs no more.
const maxProof = 64

func parseHashes(lines []string) ([]Hash, error) {
	if len(lines) > maxProof {
		return nil, fmt.Errorf("proof has more than %d hashes", maxProof)
	}
	var hashes []Hash
	for _, l := range lines {
		h, err := parseHash(l)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	return hashes, nil
}

func parseHash(s string) (Hash, error) {
	b, err := decodeStrict(s)
	if err != nil {
		return Hash{}, err
	}
	if len(b) != len(Hash{}) {
		return Hash{}, fmt.Errorf("hash has %d bytes", len(b))
	}
	return Hash(b), nil
}

// parseDecimal reads a non-negative decimal without leading zeroes or sign.
func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%q is not a canonical decimal number", s)
	}
	return n, nil
}
