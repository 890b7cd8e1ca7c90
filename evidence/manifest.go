package evidence

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Mode is what a bundle claims to hold.
type Mode string

// The modes. Only a range can prove that something did not happen in it.
const (
	ModeRange    Mode = "range"    // every record of [from, to)
	ModeSelected Mode = "selected" // the records that answer a question; maybe not all
)

// manifest is manifest.json.
type manifest struct {
	Version int               `json:"v"`
	Mode    Mode              `json:"mode"`
	Origin  string            `json:"origin"`
	From    int64             `json:"from"` // range: [from, to); selected: 0, 0
	To      int64             `json:"to"`
	Query   string            `json:"query"`
	Created string            `json:"created"`       // RFC 3339, UTC
	Log     string            `json:"log,omitempty"` // vkey of the log, for Propose alone
	Files   map[string]string `json:"files"`         // name → unpadded base64url SHA-256
}

const manifestVersion = 1

// manifestLimits bounds manifest.json: a bundle may hold millions of files.
var manifestLimits = strictjson.Limits{MaxBytes: 1 << 30, MaxDepth: 4, MaxNames: 1 << 24, MaxValues: 1 << 24}

func (m manifest) bytes() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", " ") // map keys come sorted
	if err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	return append(b, '\n'), nil
}

func parseManifest(b []byte) (manifest, error) {
	var m manifest
	if err := strictjson.Unmarshal(b, &m, manifestLimits); err != nil {
		return manifest{}, err
	}
	switch {
	case m.Version != manifestVersion:
		return manifest{}, fmt.Errorf("version %d is not known here", m.Version)
	case m.Mode != ModeRange && m.Mode != ModeSelected:
		return manifest{}, fmt.Errorf("mode %q is not known here", m.Mode)
	case m.Origin == "":
		return manifest{}, errors.New("no origin")
	case m.From < 0 || m.To < m.From:
		return manifest{}, fmt.Errorf("range [%d, %d) is none", m.From, m.To)
	case m.Mode == ModeSelected && (m.From != 0 || m.To != 0):
		return manifest{}, errors.New("a selection has no range")
	}
	if _, err := time.Parse(time.RFC3339, m.Created); err != nil {
		return manifest{}, errors.New("created is no RFC 3339 time")
	}
	if m.Log != "" {
		if k, err := ParseKey(m.Log); err != nil || k.Name() != m.Origin || k.alg != algEd25519 {
			return manifest{}, errors.New("log is no key of the origin")
		}
	}
	return m, nil
}

// maxBundleFiles is how many files a manifest of those limits can name, with its
// own members.
const maxBundleFiles = 1<<24 - 16

// noFiles ends a manifest of no files.
const noFiles = "{}\n}\n"

// manifestText is the note text that a manifest key signs, of a manifest with this
// hash: its first line keeps the signature from meaning anything else.
func manifestText(origin string, sum Hash) string {
	return "lineal/evidence-manifest/v1\n" + origin + "\n" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

// checkManifestNote checks manifest.sig: exactly one signature, by a manifest
// key of the policy, over the manifest of this hash. One, so that no byte of the file
// can be changed without breaking it.
func checkManifestNote(sig []byte, origin string, sum Hash, keys []Key) (Key, error) {
	n, err := parseNote(sig)
	if err != nil {
		return Key{}, err
	}
	if len(n.sigs) != 1 {
		return Key{}, fmt.Errorf("%d signatures, not one", len(n.sigs))
	}
	if want := manifestText(origin, sum); n.text != want {
		return Key{}, errors.New("it is not a signature over this manifest.json")
	}
	for _, k := range keys {
		ok, err := n.signedBy(k)
		if err != nil {
			return Key{}, err
		}
		if ok {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("signed by %q, which is no manifest key of the policy", n.sigs[0].name)
}

// The folders of a bundle.
const (
	recordsDir     = "records/"
	proofsDir      = "proofs/"
	receiptsDir    = "receipts/"
	issuersDir     = "issuers/"
	policiesDir    = "policies/"
	disclosuresDir = "disclosures/"
	exchangeDir    = "exchange/"
	firstFile      = "checkpoints/first"
	lastFile       = "checkpoints/last"
	consistFile    = "checkpoints/consistency"
)

// indexName is the file of something that belongs to an index.
func indexName(dir string, index int64, ext string) string {
	return fmt.Sprintf("%s%d%s", dir, index, ext)
}

// parseIndexName is the reverse of indexName, and refuses other spellings.
func parseIndexName(name, dir, ext string) (int64, bool) {
	s, ok := strings.CutPrefix(name, dir)
	s, ok2 := strings.CutSuffix(s, ext)
	if !ok || !ok2 {
		return 0, false
	}
	n, err := parseDecimal(s)
	return n, err == nil
}

// parseDigestName reads a file name that is a digest.
func parseDigestName(name, dir, ext string) (string, bool) {
	s, ok := strings.CutPrefix(name, dir)
	s, ok2 := strings.CutSuffix(s, ext)
	return s, ok && ok2 && isDigest(s)
}
