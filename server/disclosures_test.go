package server

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// TestO4DisclosuresAreSealedAndErasable: the values that records commit to are
// nowhere in clear, open with the deployment's key alone, and are gone once the
// data keys of their person are.
func TestO4DisclosuresAreSealedAndErasable(t *testing.T) {
	const person = "ZX59lizZ22qhhrGe3Wu5KA"
	d := newDeployment(t)
	d.init(t)
	s := d.start(t)
	v, err := record.NewDisclosure(record.SaltText([32]byte{1}), "/args/customer", strictjson.String("CANARY-1"))
	if err != nil {
		t.Fatal(err)
	}
	decision := &record.Decision{Person: record.Person{Ref: person}, SD: []string{v.Digest()}}
	blobs, err := s.ledger.gateway.sealed(record.Record{Decision: decision}, []record.Disclosure{v})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if b.Class != blobDisclosure || b.Key == nil || b.Key.PersonRef != person {
			t.Errorf("kept as %s, %+v", b.Class, b.Key)
		}
		if err := s.ledger.store.PutBlob(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	d.stop(t, s)

	read := func() (ds []record.Disclosure, missing int) {
		a, err := OpenArchive(t.Context(), d.cfg.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		if ds, missing, err = a.disclosures(t.Context(), decision); err != nil {
			t.Fatal(err)
		}
		return ds, missing
	}
	if ds, missing := read(); len(ds) != 1 || missing != 0 || ds[0].Encoded() != v.Encoded() {
		t.Fatalf("%d read, %d missing", len(ds), missing)
	}
	files, err := os.ReadDir(d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), "ledger.db") {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(d.cfg.DataDir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		looked += len(raw)
		if bytes.Contains(raw, []byte("CANARY")) || bytes.Contains(raw, []byte(v.Encoded())) {
			t.Errorf("%s holds the value in clear", f.Name())
		}
	}
	if looked == 0 {
		t.Fatal("no file was looked at")
	}

	db, err := sql.Open("sqlite", filepath.Join(d.cfg.DataDir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	done, err := db.ExecContext(t.Context(), `DELETE FROM data_key WHERE person_ref = ?`, person)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%d keys erased, %v", n, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if ds, missing := read(); len(ds) != 0 || missing != 1 {
		t.Errorf("after erasing: %d read, %d missing", len(ds), missing)
	}
}
