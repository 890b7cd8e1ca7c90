package cedar

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// PayloadType is the DSSE payload type of a signed manifest.
const PayloadType = "application/vnd.lineal.policy-manifest.v1+json"

const (
	maxBundle = 16 << 20 // bytes of a whole bundle
	maxFiles  = 4096
)

// BundleInput is what a bundle is made of.
type BundleInput struct {
	// Name is the operator's name for the set, for logs and reports.
	Name string
	// Serial orders the versions of a set; a lower one than that in force is
	// refused. At least 1.
	Serial int64
	// Zone is the IANA name of the zone of `weekday` and `minute`; "" is UTC.
	Zone string
	// Schema is the text of GenerateSchema.
	Schema string
	// Entities is Cedar's JSON of entities: services with their environment,
	// and the groups of persons and agents.
	Entities []byte
	// Policies are Cedar texts by file name, such as "base.cedar".
	Policies map[string]string
	// Tests are test files by name, such as "base.txtar". They are carried, not run.
	Tests map[string][]byte
	// Key signs; its public key must be Ed25519.
	Key crypto.Signer
}

// manifest is the signed statement of what a bundle holds.
type manifest struct {
	Name   string         `json:"name"`
	Serial int64          `json:"serial"`
	Engine string         `json:"engine"`
	Zone   string         `json:"zone"`
	Schema string         `json:"schema"` // SHA-256 of the schema, as in Files
	Files  []manifestFile `json:"files"`  // by path, all but the manifest and its signature
}

type manifestFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // base64url, unpadded
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Build makes a signed bundle: the same bytes for the same input. It refuses
// what Load would refuse.
func Build(in BundleInput) ([]byte, error) {
	files := map[string][]byte{pathSchema: []byte(in.Schema), pathEntities: in.Entities}
	for name, text := range in.Policies {
		files[dirPolicies+name] = []byte(text)
	}
	for name, text := range in.Tests {
		files[dirTests+name] = text
	}
	m := manifest{Name: in.Name, Serial: in.Serial, Engine: EngineVersion, Zone: in.Zone}
	if m.Zone == "" {
		m.Zone = "UTC"
	}
	if err := checkPaths(files); err != nil {
		return nil, err
	}
	if _, err := compile(files, m.Zone); err != nil {
		return nil, err
	}
	return seal(m, files, in.Key)
}

// seal signs and packs.
func seal(m manifest, files map[string][]byte, key crypto.Signer) ([]byte, error) {
	m.Schema, m.Files = digest(files[pathSchema]), describe(files)
	if err := m.check(); err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	s, err := newSigner(key)
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(s)
	if err != nil {
		return nil, fmt.Errorf("signing bundle: %w", err)
	}
	env, err := signer.SignPayload(context.Background(), PayloadType, body)
	if err != nil {
		return nil, fmt.Errorf("signing bundle: %w", err)
	}
	signature, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("signing bundle: %w", err)
	}
	all := maps.Clone(files)
	all[pathManifest], all[pathSignature] = body, signature
	return pack(all)
}

// opened is a bundle whose signature and digests hold.
type opened struct {
	manifest manifest
	digest   string
	files    map[string][]byte
}

// open verifies a bundle as a whole. Whatever byte of it differs from what Build
// wrote, it is refused: the archive must be the one that its files give, and
// the envelope the one that manifest and signature give.
func open(archive []byte, key ed25519.PublicKey) (*opened, error) {
	files, err := unpack(archive)
	if err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	again, err := pack(files)
	if err != nil || !bytes.Equal(again, archive) {
		return nil, refuse(CodeMalformed, "", errors.New("not in the one form of a bundle"))
	}
	body, signature := files[pathManifest], files[pathSignature]
	if body == nil || signature == nil {
		return nil, refuse(CodeFiles, "", errors.New("no manifest or no signature"))
	}
	if err := verify(body, signature, key); err != nil {
		return nil, refuse(CodeSignature, "", err)
	}
	b := &opened{digest: digest(body), files: files}
	if err := strictjson.Unmarshal(body, &b.manifest, strictjson.Limits{MaxNames: 4 * maxFiles}); err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	if err := b.manifest.check(); err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	delete(files, pathManifest)
	delete(files, pathSignature)
	if !slices.Equal(describe(files), b.manifest.Files) || digest(files[pathSchema]) != b.manifest.Schema {
		return nil, refuse(CodeFiles, "", errors.New("the files are not those of the manifest"))
	}
	return b, checkPaths(files)
}

func (m manifest) check() error {
	switch {
	case m.Name == "" || len(m.Name) > 256:
		return errors.New("a bundle has a name of at most 256 bytes")
	case m.Serial < 1:
		return errors.New("a bundle has a serial of at least 1")
	case !strings.HasPrefix(m.Engine, "cedar-go/"):
		return fmt.Errorf("engine %.40q is not known", m.Engine)
	}
	return nil
}

// describe lists files as a manifest does.
func describe(files map[string][]byte) []manifestFile {
	list := make([]manifestFile, 0, len(files))
	for _, p := range slices.Sorted(maps.Keys(files)) {
		list = append(list, manifestFile{Path: p, SHA256: digest(files[p])})
	}
	return list
}

// checkPaths allows the files of scope-and-policy.md §4.3 and no others.
func checkPaths(files map[string][]byte) error {
	for _, p := range []string{pathSchema, pathEntities} {
		if len(files[p]) == 0 {
			return refuse(CodeFiles, "", fmt.Errorf("%s is missing", p))
		}
	}
	for p := range files {
		dir, name := path.Split(p)
		switch {
		case p == pathSchema, p == pathEntities:
		case dir == dirPolicies && strings.HasSuffix(name, ".cedar") && name != ".cedar":
		case dir == dirTests && strings.HasSuffix(name, ".txtar") && name != ".txtar":
		default:
			return refuse(CodeFiles, "", fmt.Errorf("%.200q is no file of a bundle", p))
		}
	}
	return nil
}

// pack writes the one archive that these files have: by path, USTAR, no times,
// no owners.
func pack(files map[string][]byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, p := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: p, Size: int64(len(files[p])), Mode: 0o644, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("packing %q: %w", p, err)
		}
		if _, err := w.Write(files[p]); err != nil {
			return nil, fmt.Errorf("packing %q: %w", p, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	if buf.Len() > maxBundle {
		return nil, fmt.Errorf("packing: more than %d bytes", maxBundle)
	}
	return buf.Bytes(), nil
}

func unpack(archive []byte) (map[string][]byte, error) {
	if len(archive) > maxBundle {
		return nil, fmt.Errorf("more than %d bytes", maxBundle)
	}
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading archive: %w", err)
		}
		if _, dup := files[h.Name]; dup || h.Typeflag != tar.TypeReg || len(files) == maxFiles {
			return nil, fmt.Errorf("%.200q: only plain files, each once, at most %d", h.Name, maxFiles)
		}
		// The reader bounds this by the archive, which is bounded.
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("reading %.200q: %w", h.Name, err)
		}
		files[h.Name] = b
	}
}

// verify checks that signature is the envelope of body by key, in the one form
// that Build writes.
func verify(body, signature []byte, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return errors.New("the key is not an Ed25519 public key")
	}
	var env struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := strictjson.Unmarshal(signature, &env, strictjson.Limits{MaxBytes: maxBundle}); err != nil {
		return err
	}
	if env.PayloadType != PayloadType || len(env.Signatures) != 1 {
		return errors.New("not one signature of a policy manifest")
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(env.Signatures[0].Sig)
	if err != nil {
		return errors.New("the signature is not base64")
	}
	want := dsse.Envelope{
		PayloadType: PayloadType,
		Payload:     base64.StdEncoding.EncodeToString(body),
		Signatures:  []dsse.Signature{{KeyID: KeyID(key), Sig: base64.StdEncoding.EncodeToString(sig)}},
	}
	again, err := json.Marshal(want)
	if err != nil || !bytes.Equal(again, signature) {
		return errors.New("the envelope is not that of this manifest and key")
	}
	v, err := dsse.NewEnvelopeVerifier(verifier{key})
	if err != nil {
		return err
	}
	_, err = v.Verify(context.Background(), &want)
	return err
}

// KeyID names a signing key in an envelope: the base64url SHA-256 of its bytes.
func KeyID(key ed25519.PublicKey) string { return digest(key) }

// verifier and signer are Ed25519 for DSSE.
type verifier struct{ key ed25519.PublicKey }

func (v verifier) KeyID() (string, error)   { return KeyID(v.key), nil }
func (v verifier) Public() crypto.PublicKey { return v.key }

func (v verifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.key, data, sig) {
		return errors.New("the signature does not verify")
	}
	return nil
}

type signer struct {
	key    crypto.Signer
	public ed25519.PublicKey
}

func newSigner(key crypto.Signer) (signer, error) {
	if key == nil {
		return signer{}, errors.New("signing bundle: no key")
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return signer{}, errors.New("signing bundle: the key is not Ed25519")
	}
	return signer{key, public}, nil
}

func (s signer) KeyID() (string, error) { return KeyID(s.public), nil }

func (s signer) Sign(_ context.Context, data []byte) ([]byte, error) {
	return s.key.Sign(nil, data, crypto.Hash(0))
}
