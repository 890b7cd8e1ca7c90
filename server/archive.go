package server

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/token"
)

// Archive reads the log of a data directory, or of the store that the data
// directory names, whether its server runs or not. It writes nothing.
type Archive struct {
	dataDir string
	cfg     config.Ledger
	store   ledger.Store
	persons personStore // nil where the person map is not at hand
	open    string      // origin of the period that is open, as the directory says
	former  bool        // the period is closed
	pruned  *pruned     // of a former period, nil if it was not pruned
}

// OpenArchive opens a data directory for reading, at the period that is open. The
// person map is used where it is there and may be read: it is kept apart from the
// log, and an archive without it answers with references instead of names.
func OpenArchive(ctx context.Context, dataDir string) (*Archive, error) {
	return OpenPeriod(ctx, dataDir, "")
}

// OpenPeriod is OpenArchive for one period of the log, "2026-11"; "" is the one
// that is open. What was pruned of it cannot be read.
func OpenPeriod(ctx context.Context, dataDir, period string) (*Archive, error) {
	cfg, err := readLedger(dataDir)
	if err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	a := &Archive{dataDir: dataDir, cfg: cfg, open: cfg.Origin(), former: period != "" && period != cfg.Period}
	e := newEngine(dataDir, cfg, engineOptions{})
	if a.store, err = e.reader(ctx); err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	if a.persons, err = e.knownPersons(ctx); err != nil {
		a.persons = nil
		return nil, errors.Join(fmt.Errorf("opening person map: %w", err), a.Close())
	}
	if a.former {
		a.cfg.Period = period
		if a.pruned, err = a.knownPruned(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("opening archive: %w", err), a.Close())
		}
	}
	return a, nil
}

// Close releases the files, or connections.
func (a *Archive) Close() error {
	err := a.store.Close()
	if a.persons != nil {
		err = errors.Join(err, a.persons.Close())
	}
	return err
}

// Records holds every record of the log up to its newest published checkpoint
// in memory. A log of any length is asked at a [Desk].
func (a *Archive) Records(ctx context.Context) (*search.Index, error) {
	to, err := a.asOf(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string) // looked up now: the index outlives the archive
	x := search.New(search.Config{Name: func(ref string) string { return names[ref] }})
	for p, err := range a.payloads(ctx, 0, to.Size) {
		if err != nil {
			return nil, err
		}
		if err := x.Add(p.Index, p.Bytes); err != nil {
			return nil, err
		}
	}
	for _, e := range x.Records(search.Filter{}) {
		for _, ref := range personsOf(e.Record) {
			if _, known := names[ref]; !known {
				names[ref] = a.name(ctx, ref)
			}
		}
	}
	x.SetAsOf(to)
	return x, nil
}

// Effect is the verdict that a Filter selects.
type Effect = record.Effect

// Kind is the kind of record that a Filter selects.
type Kind = record.Kind

// Filter selects records; see search.Filter.
type Filter = search.Filter

// Page is a part of an answer; see search.Page.
type Page = search.Page

// Timestamp is a time as records have it.
type Timestamp = record.Timestamp

// At is a time as a record has it.
func At(t time.Time) Timestamp { return record.At(t) }

// IsUnknown reports whether err says that no record answers.
func IsUnknown(err error) bool { return errors.Is(err, search.ErrNotFound) }

// IsAmbiguous reports whether err says that an id names several calls.
func IsAmbiguous(err error) bool {
	_, is := search.IsAmbiguous(err)
	return is
}

// name looks a person's reference up in the person map: the subject at the
// provider, which the record names beside it.
func (a *Archive) name(ctx context.Context, ref string) string {
	if a.persons == nil {
		return ""
	}
	p, err := a.persons.Lookup(ctx, ref)
	if err != nil {
		return ""
	}
	return p.Subject
}

// personsOf are the references of the persons that a record names.
func personsOf(r record.Record) []string {
	switch {
	case r.Decision != nil && r.Decision.Person.Ref != "":
		return []string{r.Decision.Person.Ref}
	case r.Issuance != nil && r.Issuance.Person.Ref != "":
		return []string{r.Issuance.Person.Ref}
	default:
		return nil
	}
}

// Trust is what a verifier of this deployment's evidence must be given by
// another way than the evidence: the log's key, the manifest key, and the
// key that the issuer began with. Its later keys are in key records, which the
// manifest key signs. issuer is the token service's URL.
func Trust(dataDir, issuer string) (evidence.Trust, error) {
	keys, err := loadKeys(dataDir)
	if err != nil {
		return evidence.Trust{}, err
	}
	cfg, err := readLedger(dataDir)
	if err != nil {
		return evidence.Trust{}, err
	}
	if keys.log == nil {
		return evidence.Trust{}, errNotHere("log")
	}
	logKey, err := evidenceKey(cfg.Origin(), keys.log)
	if err != nil {
		return evidence.Trust{}, err
	}
	logs, err := formerKeys(dataDir)
	if err != nil {
		return evidence.Trust{}, err
	}
	manifest, err := evidence.NewKey(cfg.Family, keys.manifestPublic)
	if err != nil {
		return evidence.Trust{}, err
	}
	var issuers []evidence.Issuer
	if keys.issuer != nil {
		signer, err := token.NewSigner("", keys.issuer)
		if err != nil {
			return evidence.Trust{}, err
		}
		issuers = []evidence.Issuer{{URL: issuer, Thumbprint: signer.KeyID()}}
	}
	witnesses := make([]evidence.Key, len(cfg.Witnesses))
	for i, w := range cfg.Witnesses {
		if witnesses[i], err = evidence.ParseKey(w.Key); err != nil {
			return evidence.Trust{}, fmt.Errorf("witness %s: %w", w.Name, err)
		}
	}
	return evidence.Trust{
		Witnesses: witnesses, Quorum: cfg.WitnessQuorum,
		Logs: append(logs, logKey), Manifests: []evidence.Key{manifest}, Issuers: issuers,
		Require: []evidence.Dimension{
			evidence.Signature, evidence.WriterKeys, evidence.Inclusion, evidence.Checkpoints, evidence.Sequence,
			evidence.Completeness, evidence.Chain,
		},
	}, nil
}

// formerKeys are the keys of the periods that were closed here, by origin.
func formerKeys(dataDir string) (keys []evidence.Key, err error) {
	files, err := filepath.Glob(filepath.Join(dataDir, keysDir, "*.vkey")) // sorted
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f) //nolint:gosec // below the data directory
		if err != nil {
			return nil, err
		}
		k, err := evidence.ParseKey(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// logKey is the key of the archive's checkpoints.
func (a *Archive) logKey(keys keyRing) (evidence.Key, note.Verifier, error) {
	if !a.former {
		if keys.log == nil {
			return evidence.Key{}, nil, errNotHere("log")
		}
		k, err := evidenceKey(a.cfg.Origin(), keys.log)
		if err != nil {
			return evidence.Key{}, nil, err
		}
		v, err := logVerifier(keys, a.cfg.Origin())
		return k, v, err
	}
	text, err := os.ReadFile(vkeyFile(a.dataDir, a.cfg.Origin()))
	if errors.Is(err, fs.ErrNotExist) {
		return evidence.Key{}, nil, fmt.Errorf("no period %q of %s was closed here: lineal ledger periods lists them", a.cfg.Period, a.cfg.Family)
	}
	if err != nil {
		return evidence.Key{}, nil, err
	}
	vkey := strings.TrimSpace(string(text))
	k, err := evidence.ParseKey(vkey)
	if err != nil {
		return evidence.Key{}, nil, err
	}
	v, err := note.NewVerifier(vkey)
	return k, v, err
}

// Periods lists the periods of the log, from the first to the open one.
func (a *Archive) Periods(ctx context.Context) ([]Period, error) {
	return periodsOf(ctx, a.store, a.cfg.Family)
}

func evidenceKey(name string, key ed25519.PrivateKey) (evidence.Key, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return evidence.Key{}, errors.New("key has no public part")
	}
	return evidence.NewKey(name, pub)
}

// pinnedKeys is the key that the issuer began with, if it is here: it may have
// signed before there were records of keys.
func pinnedKeys(key crypto.Signer) ([][]byte, error) {
	if key == nil {
		return nil, nil
	}
	signer, err := token.NewSigner("", key)
	if err != nil {
		return nil, err
	}
	pub, err := token.PublicKeyOf(signer)
	if err != nil {
		return nil, err
	}
	jwks, err := token.JWKS(pub)
	return [][]byte{jwks}, err
}

// ManifestKey is the key that signs policy bundles and evidence manifests.
func ManifestKey(dataDir string) (crypto.Signer, error) {
	keys, err := loadKeys(dataDir)
	if err != nil {
		return nil, err
	}
	if keys.manifest == nil {
		return nil, errNotHere("manifest")
	}
	return keys.manifest, nil
}

// Flush returns when everything recorded so far is sequenced, integrated and
// published, including outcomes of calls that have ended.
func (s *Server) Flush(ctx context.Context) error {
	if s.gateway != nil {
		if err := s.gateway.Wait(ctx); err != nil {
			return err
		}
	}
	return s.ledger.flush(ctx)
}

// Export flushes and writes the evidence bundle of the whole log.
func (s *Server) Export(ctx context.Context, w io.Writer) error {
	a, err := s.archive(ctx)
	if err != nil {
		return err
	}
	return errors.Join(a.Export(ctx, w, Selection{}, s.now()), a.Close())
}

// Records flushes and indexes every record of the log. The index does not
// need the server any more.
func (s *Server) Records(ctx context.Context) (*search.Index, error) {
	a, err := s.archive(ctx)
	if err != nil {
		return nil, err
	}
	x, err := a.Records(ctx)
	return x, errors.Join(err, a.Close())
}

func (s *Server) archive(ctx context.Context) (*Archive, error) {
	if err := s.Flush(ctx); err != nil {
		return nil, err
	}
	return OpenArchive(ctx, s.cfg.DataDir)
}

// Trust is what a verifier of this server's evidence must be given.
func (s *Server) Trust() (evidence.Trust, error) { return Trust(s.cfg.DataDir, s.cfg.Tokens.Issuer) }
