package server

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
)

// erasable is a stopped deployment in which two persons are known, with a
// sealed value each.
type erasable struct {
	*deployment
	t       *testing.T
	refs    []string
	digests []string
	wrapped [][]byte
}

func newErasable(t *testing.T) *erasable {
	t.Helper()
	x := &erasable{deployment: newDeployment(t), t: t}
	x.init(t)
	s := x.start(t)
	for i, subject := range []string{"dana-erase-me", "robin"} {
		persons, err := newEngine(x.cfg.DataDir, x.cfg.Ledger, engineOptions{now: time.Now}).persons(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ref, err := persons.Reference(t.Context(), "https://idp.example", subject)
		if err = errors.Join(err, persons.Close()); err != nil {
			t.Fatal(err)
		}
		v, err := record.NewDisclosure(record.SaltText([32]byte{byte(i)}), "/args/customer", strictjson.String("value of "+subject))
		if err != nil {
			t.Fatal(err)
		}
		decision := &record.Decision{Person: record.Person{Ref: ref}, SD: []string{v.Digest()}}
		blobs, err := s.ledger.gateway.sealed(record.Record{Decision: decision}, []record.Disclosure{v})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ledger.store.PutBlob(t.Context(), blobs[0]); err != nil {
			t.Fatal(err)
		}
		x.refs, x.digests, x.wrapped = append(x.refs, ref), append(x.digests, v.Digest()), append(x.wrapped, blobs[0].Key.Wrapped)
	}
	x.stop(t, s)
	return x
}

// known says whether a person is in the map, and their value can be read.
func (x *erasable) known(i int) (mapped, readable bool) {
	x.t.Helper()
	a, err := OpenArchive(x.t.Context(), x.cfg.DataDir)
	if err != nil {
		x.t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	_, err = a.persons.Lookup(x.t.Context(), x.refs[i])
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		x.t.Fatal(err)
	}
	ds, _, derr := a.disclosures(x.t.Context(), &record.Decision{SD: []string{x.digests[i]}})
	if derr != nil {
		x.t.Fatal(derr)
	}
	return err == nil, len(ds) == 1
}

// TestO4Erase erases one of two persons: map row, keys and their bytes in the
// files are gone, the other person is untouched, the log tells of it, and
// verifies as before. A map that comes back from a backup is erased again.
func TestO4Erase(t *testing.T) {
	x := newErasable(t)
	for i := range x.refs {
		if mapped, readable := x.known(i); !mapped || !readable {
			t.Fatalf("person %d: mapped %v, readable %v", i, mapped, readable)
		}
	}
	backup, err := os.ReadFile(filepath.Join(x.cfg.DataDir, "persons.db"))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := Erase(t.Context(), x.cfg.DataDir, x.refs[0], "request", time.Now, nil)
	if err != nil || rep.Persons != 1 || rep.Keys != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	gone := func(when string) {
		t.Helper()
		if mapped, readable := x.known(0); mapped || readable {
			t.Errorf("%s: mapped %v, readable %v", when, mapped, readable)
		}
		if mapped, readable := x.known(1); !mapped || !readable {
			t.Errorf("%s: the other person: mapped %v, readable %v", when, mapped, readable)
		}
	}
	gone("after erasing")
	if holds(t, x.cfg.DataDir, x.wrapped[0]) || holds(t, x.cfg.DataDir, []byte("dana-erase-me")) {
		t.Error("a file still holds the person or the key")
	}
	if !holds(t, x.cfg.DataDir, x.wrapped[1]) || !holds(t, x.cfg.DataDir, []byte("robin")) {
		t.Error("the search finds nothing: it proves nothing")
	}
	if r := x.verify(t); r.Result() != evidence.ResultValid {
		t.Errorf("the log is %s", r.Result())
	}

	if err := os.WriteFile(filepath.Join(x.cfg.DataDir, "persons.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	if mapped, _ := x.known(0); !mapped {
		t.Fatal("the backup does not hold the person")
	}
	if rep, err := EraseAgain(t.Context(), x.cfg.DataDir, time.Now, nil); err != nil || rep.Persons != 1 || rep.Keys != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	gone("after a restored map")
}

// holds says whether a file of the data directory holds these bytes.
func holds(t *testing.T, dir string, what []byte) (found bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestO4EraseRefuses: nobody is erased by a mistake, and nothing without its
// record.
func TestO4EraseRefuses(t *testing.T) {
	x := newErasable(t)
	for name, c := range map[string]struct{ ref, basis string }{
		"no reference":     {"dana", "request"},
		"an unknown one":   {"AAAAlizZ22qhhrGe3Wu5KA", "request"},
		"without a basis":  {x.refs[0], ""},
		"a basis of lines": {x.refs[0], "two\nlines"},
	} {
		if rep, err := Erase(t.Context(), x.cfg.DataDir, c.ref, c.basis, time.Now, nil); err == nil || rep.Persons+int(rep.Keys) > 0 {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
	}
	x.listen(t)
	s := x.start(t)
	if _, err := Erase(t.Context(), x.cfg.DataDir, x.refs[0], "request", time.Now, nil); err == nil || !strings.Contains(err.Error(), "ledger") {
		t.Errorf("beside a running server: %v", err)
	}
	x.stop(t, s)
	if mapped, readable := x.known(0); !mapped || !readable {
		t.Errorf("mapped %v, readable %v", mapped, readable)
	}
	if _, err := EraseAgain(t.Context(), filepath.Join(t.TempDir(), "none"), time.Now, nil); err == nil || errors.Is(err, ledger.ErrEngine) {
		t.Errorf("no deployment: %v", err)
	}
}
