package evidence

import (
	"errors"
	"fmt"
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
	files, err := readContainer(bundle)
	if err == nil {
		err = checkContainer(bundle, files)
	}
	if err != nil {
		return "", fmt.Errorf("proposing: %w", err)
	}
	named := map[string][]byte{}
	for _, f := range files {
		named[f.name] = f.data
	}
	m, err := parseManifest(named[manifestFile])
	if err != nil {
		return "", fmt.Errorf("proposing: %s: %w", manifestFile, err)
	}
	if _, err := checkManifestNote(named[manifestNote], m, named[manifestFile], p.manifests); err != nil {
		return "", fmt.Errorf("proposing: %s: %w", manifestNote, err)
	}
	if m.Log == "" {
		return "", errors.New("proposing: the manifest names no log key")
	}
	k, err := ParseKey(m.Log)
	if err != nil {
		return "", fmt.Errorf("proposing: %w", err)
	}
	if digest(named[lastFile]) != m.Files[lastFile] {
		return "", fmt.Errorf("proposing: %s is not the file that the manifest names", lastFile)
	}
	c, err := parseCheckpoint(named[lastFile])
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
