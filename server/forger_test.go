package server

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"iter"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// forger makes single records with whatever key and place a test wants.
type forger struct {
	t    *testing.T
	keys keyRing
	log  string
}

func nothing(context.Context, string, int64, int64) iter.Seq2[ledger.Entry, error] {
	return func(func(ledger.Entry, error) bool) {}
}

func manifestKey(t *testing.T, keys keyRing) ed25519.PublicKey {
	t.Helper()
	return public(t, keys.manifest)
}

func public(t *testing.T, key ed25519.PrivateKey) ed25519.PublicKey {
	t.Helper()
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("no public key")
	}
	return pub
}

func (f *forger) signer(key ed25519.PrivateKey) record.Signer {
	f.t.Helper()
	s, err := record.NewSigner(key)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// head is that of a record by a writer; the run is the hash of a name.
func (f *forger) head(kind record.Kind, id string, role record.Role, s record.Signer, run string) record.Record {
	return record.Record{Header: record.Header{
		Version: record.Version, Kind: kind, ID: newID(), Log: f.log, Time: record.At(time.Now()),
		Writer:    record.Writer{ID: id, Role: role, KeyID: s.KeyID(), Run: runID(run)},
		DataClass: record.DataInternal, Region: record.RegionLocal, NotAsserted: []record.NotAsserted{},
	}}
}

// runID is 128 bits that stand for a name.
func runID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (f *forger) beat(id string, role record.Role, s record.Signer, run string) record.Record {
	r := f.head(record.KindHeartbeat, id, role, s, run)
	r.Heartbeat = &record.Heartbeat{State: record.Beat, Build: record.Hash([]byte("build")), Interval: 10}
	return r
}

// key introduces a writer's key.
func (f *forger) key(keyID, id string, keys keyRing) record.Record {
	r := f.head(record.KindKey, writerAdmin, record.RoleAdmin, f.signer(keys.manifest), "admin")
	r.KeyChange = &record.KeyChange{
		Op: record.KeyAdd, For: id, Role: record.RoleGateway, KeyID: keyID,
		PublicKey: base64.RawURLEncoding.EncodeToString(public(f.t, keys.gateway)),
	}
	return r
}

// selfIntroduction is a key record that a writer signs itself.
func (f *forger) selfIntroduction(s record.Signer) []byte {
	r := f.head(record.KindKey, writerGateway, record.RoleGateway, s, "run")
	r.KeyChange = &record.KeyChange{
		Op: record.KeyAdd, For: "another", Role: record.RoleGateway, KeyID: record.KeyID(public(f.t, f.keys.tokens)),
		PublicKey: base64.RawURLEncoding.EncodeToString(public(f.t, f.keys.tokens)),
	}
	e, _ := f.seal(r, 0, "", s)
	return e
}

func (f *forger) seal(r record.Record, seq int64, prev string, s record.Signer) (envelope []byte, hash string) {
	f.t.Helper()
	d, err := record.NewDraft(r)
	if err != nil {
		f.t.Fatal(err)
	}
	payload, hash, err := d.Link(seq, prev)
	if err != nil {
		f.t.Fatal(err)
	}
	if envelope, err = record.Sign(payload, s); err != nil {
		f.t.Fatal(err)
	}
	return envelope, hash
}
