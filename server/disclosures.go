package server

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/lineal-auth/lineal/internal/sealed"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// keyDisclosures is the file of the key that opens disclosures. Only who reads
// them needs it; a process that writes may have its public half alone.
const (
	keyDisclosures        = "disclosures"
	disclosuresPublicFile = keyDisclosures + ".pub"
)

func createDisclosureKey(dir string) error {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("creating keys: %w", err)
	}
	return writeKey(dir, keyDisclosures, key)
}

// disclosurePublic is the public half, of the key itself or of the file that
// stands for it.
func disclosurePublic(dir string) (*ecdh.PublicKey, error) {
	key, err := disclosureKey(dir)
	switch {
	case err == nil:
		return key.PublicKey(), nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	pub, err := readPublic(dir, disclosuresPublicFile)
	if err != nil {
		return nil, err
	}
	x, ok := pub.(*ecdh.PublicKey)
	if !ok || x.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("reading %s: not an X25519 key", disclosuresPublicFile)
	}
	return x, nil
}

// disclosureKey is the private half. The error is fs.ErrNotExist where it is not
// at hand.
func disclosureKey(dir string) (*ecdh.PrivateKey, error) {
	key, err := readKey(dir, keyDisclosures)
	if err != nil {
		return nil, err
	}
	x, ok := key.(*ecdh.PrivateKey)
	if !ok || x.Curve() != ecdh.X25519() {
		return nil, fmt.Errorf("reading key %s: not an X25519 key", keyDisclosures)
	}
	return x, nil
}

// sealed are the disclosures of a decision as they are kept beside it: each
// encrypted under a data key of its own, which is the person's to be erased.
func (r *recorder) sealed(rec record.Record, disclosed []record.Disclosure) ([]ledger.Blob, error) {
	if len(disclosed) == 0 {
		return nil, nil
	}
	var person string
	if rec.Decision != nil {
		person = rec.Decision.Person.Ref
	}
	blobs := make([]ledger.Blob, len(disclosed))
	for i, d := range disclosed {
		bytes, wrapped, err := r.sealer.Seal(d.Digest(), []byte(d.Encoded()))
		if err != nil {
			return nil, err
		}
		blobs[i] = ledger.Blob{
			Digest: d.Digest(), Class: blobDisclosure, Bytes: bytes,
			Key: &ledger.DataKey{PersonRef: person, Wrapped: wrapped},
		}
	}
	return blobs, nil
}

// disclosures are what a decision names in `sd` and is still at hand. missing
// counts the others: erased, or sealed to a key that is not here.
func (a *Archive) disclosures(ctx context.Context, d *record.Decision) (ds []record.Disclosure, missing int, err error) {
	opener, err := disclosureOpener(a.dataDir)
	if err != nil {
		return nil, 0, err
	}
	return a.opened(ctx, opener, d)
}

// opened is disclosures, where the key was read before.
func (a *Archive) opened(ctx context.Context, opener sealed.Opener, d *record.Decision) (ds []record.Disclosure, missing int, err error) {
	for _, digest := range d.SD {
		b, err := a.store.Blob(ctx, digest)
		switch {
		case errors.Is(err, ledger.ErrNotFound), err == nil && b.Key == nil:
			missing++
			continue
		case err != nil:
			return nil, 0, fmt.Errorf("reading disclosures: %w", err)
		}
		text, err := opener.Open(digest, b.Bytes, b.Key.Wrapped)
		if err != nil {
			missing++
			continue
		}
		v, err := record.ParseDisclosure(string(text))
		if err != nil || v.Digest() != digest {
			return nil, 0, fmt.Errorf("reading disclosures: what is kept as %s is something else", digest)
		}
		ds = append(ds, v)
	}
	return ds, missing, nil
}

// disclosureOpener is the zero Opener, which opens nothing, where the key is not
// at hand: an archive may be read without it.
func disclosureOpener(dataDir string) (sealed.Opener, error) {
	key, err := disclosureKey(filepath.Join(dataDir, keysDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sealed.Opener{}, nil
	case err != nil:
		return sealed.Opener{}, err
	}
	return sealed.NewOpener(key), nil
}

// disclose adds what is at hand of the values of these decisions.
func (a *Archive) disclose(ctx context.Context, e *exporter, ids []string) (err error) {
	if len(ids) == 0 {
		return nil
	}
	desk, err := a.Desk(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, desk.Close()) }()
	for _, id := range ids {
		found, err := decisionIn(ctx, desk, id)
		if err != nil {
			return fmt.Errorf("disclosing %s: %w", id, err)
		}
		if !e.holds(found.Index) {
			return fmt.Errorf("disclosing %s: record %d is not in this bundle", id, found.Index)
		}
		rec := found.Record
		ds, missing, err := a.disclosures(ctx, rec.Decision)
		if err != nil {
			return err
		}
		if missing > 0 && len(ds) == 0 {
			return fmt.Errorf("disclosing %s: none of its %d values is at hand", id, missing)
		}
		for _, d := range ds {
			if err := e.bundle.Disclosure(d.Encoded()); err != nil {
				return err
			}
		}
	}
	return nil
}

// decision finds the one decision that an id means.
func (a *Archive) decision(ctx context.Context, id string) (search.Entry, error) {
	desk, err := a.Desk(ctx)
	if err != nil {
		return search.Entry{}, err
	}
	e, err := decisionIn(ctx, desk, id)
	return e, errors.Join(err, desk.Close())
}

// decisionIn finds the one decision that an id means, as a trace does.
func decisionIn(ctx context.Context, desk *Desk, id string) (search.Entry, error) {
	lineage, err := desk.Trace(ctx, id)
	if err != nil {
		return search.Entry{}, err
	}
	entries, err := desk.Find(ctx, lineage.RecordID)
	if err != nil {
		return search.Entry{}, err
	}
	for _, e := range entries {
		if e.Record.Decision != nil && e.Record.ID == lineage.RecordID {
			return e, nil
		}
	}
	return search.Entry{}, errors.New("the record is no decision")
}
