package evidence

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Propose reads a bundle of a log that the policy does not name yet, such as
// the next period of one that it does, and gives the line to add: `log <vkey>`.
// It is "" if the policy has that line.
//
// The proposal is as good as the manifest's signature: a manifest key of the
// policy named the key, the key signed the bundle's checkpoint, and the log is
// of a family of which the policy trusts a log already. Whoever adds the line
// should compare it with what the operator publishes: [Verify] trusts it
// from then on.
func Propose(bundle []byte, p Policy) (line string, err error) {
	return propose(sourceOf(bundle), p)
}

// ProposeFile is [Propose] for the bundle at a path.
func ProposeFile(path string, p Policy) (line string, err error) {
	f, err := os.Open(path) //nolint:gosec // who verifies names the file
	if err != nil {
		return "", fmt.Errorf("reading evidence bundle: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reading evidence bundle: %w", err)
	}
	return propose(&source{r: f, size: st.Size()}, p)
}

func propose(src *source, p Policy) (line string, err error) {
	v := newVerifier(src, p)
	if v.files, err = readContainer(src); err == nil {
		err = checkContainer(src, v.files)
	}
	if err == nil {
		err = src.err
	}
	if err != nil {
		return "", fmt.Errorf("proposing: %w", err)
	}
	at, ok := v.find(manifestFile)
	if !ok {
		return "", fmt.Errorf("proposing: %s is missing", manifestFile)
	}
	m, err := readListing(src, v.files[at])
	if err != nil {
		return "", fmt.Errorf("proposing: %s: %w", manifestFile, err)
	}
	signature, _ := v.file(manifestNote)
	if _, err := checkManifestNote(signature, m.Origin, m.sum, p.manifests); err != nil {
		return "", fmt.Errorf("proposing: %s: %w", manifestNote, err)
	}
	if m.Log == "" {
		return "", errors.New("proposing: the manifest names no log key")
	}
	k, err := ParseKey(m.Log)
	if err != nil {
		return "", fmt.Errorf("proposing: %w", err)
	}
	note, _ := v.file(lastFile)
	if !m.names(lastFile, digest(note)) {
		return "", fmt.Errorf("proposing: %s is not the file that the manifest names", lastFile)
	}
	c, err := parseCheckpoint(note)
	if err != nil {
		return "", fmt.Errorf("proposing: %s: %w", lastFile, err)
	}
	if ok, err := c.signedBy(k); err != nil || !ok || c.origin != m.Origin {
		return "", fmt.Errorf("proposing: %s is not signed by the key that the manifest names", lastFile)
	}
	return p.lineFor(k)
}

// lineFor is the line that a policy lacks for a log.
func (p Policy) lineFor(k Key) (string, error) {
	known := false
	for _, log := range p.logs {
		switch {
		case log == k:
			return "", nil
		case log.pub == k.pub:
			return "", errors.New("proposing: another log of the policy has this key: each period needs its own")
		}
		known = known || familyOf(log.name) == familyOf(k.name)
	}
	if !known {
		return "", fmt.Errorf("proposing: the policy trusts no log of the family %q", familyOf(k.name))
	}
	return "log " + k.String(), nil
}

// familyOf is an origin without its period.
func familyOf(origin string) string {
	if i := strings.LastIndexByte(origin, '/'); i > 0 {
		return origin[:i]
	}
	return origin
}
