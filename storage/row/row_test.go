package row_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/row"
)

// rows are answers of a driver that are wrong on purpose: neither engine gives
// such rows unless somebody else wrote them.
type rows struct {
	values [][]any
	err    error // after the last
	at     int
}

func (r *rows) Next() bool { r.at++; return r.at <= len(r.values) }
func (r *rows) Err() error { return r.err }

func (r *rows) Scan(dest ...any) error {
	for i, v := range r.values[r.at-1] {
		switch d := dest[i].(type) {
		case sql.Scanner:
			if err := d.Scan(v); err != nil {
				return err
			}
		case *int:
			*d = v.(int)
		case *int64:
			*d = v.(int64)
		case *string:
			*d = v.(string)
		case *[]byte:
			*d = v.([]byte)
		default:
			panic(d)
		}
	}
	return nil
}

// TestReceiptsWithoutAGap: a chain of which a hop is missing, at its root, in the
// middle or because the answer ended early, is no chain.
func TestReceiptsWithoutAGap(t *testing.T) {
	if got, err := row.Receipts(&rows{values: [][]any{{0, "R0"}, {1, "R1"}}}); err != nil || !cmp.Equal(got, []string{"R0", "R1"}) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := row.Receipts(&rows{}); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
	broken := errors.New("the connection ended")
	for name, r := range map[string]*rows{
		"no root":   {values: [][]any{{1, "R1"}}},
		"no middle": {values: [][]any{{0, "R0"}, {2, "R2"}}},
		"twice":     {values: [][]any{{0, "R0"}, {0, "R0"}}},
		"cut":       {values: [][]any{{0, "R0"}}, err: broken},
		"none, cut": {err: broken},
	} {
		if got, err := row.Receipts(r); err == nil || errors.Is(err, registry.ErrNotFound) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestRevokedGoesOn: a list that is as long as was asked for reaches to its last
// entry alone, a shorter one to the newest; one that was cut is none.
func TestRevokedGoesOn(t *testing.T) {
	two := [][]any{{int64(4), "hop", "a", int64(0), int64(0)}, {int64(6), "agent", "b", int64(1795348800), int64(1795349100)}}
	want := []registry.Revocation{{Seq: 4, Kind: "hop", Value: "a"}, {
		Seq: 6, Kind: "agent", Value: "b", Before: time.Unix(1795348800, 0).UTC(), Ends: time.Unix(1795349100, 0).UTC(),
	}}
	for limit, through := range map[int]int64{2: 6, 3: 9} {
		got, err := row.Revoked(&rows{values: two}, 9, limit)
		if diff := cmp.Diff(registry.Revoked{Entries: want, Through: through, Last: 9}, got); err != nil || diff != "" {
			t.Errorf("limit %d: %v (-want +got):\n%s", limit, err, diff)
		}
	}
	if got, err := row.Revoked(&rows{values: two, err: errors.New("cut")}, 9, 3); err == nil || got.Last != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestKeyOfItsLength: what is no key of a login is not padded or cut to one.
func TestKeyOfItsLength(t *testing.T) {
	key := registry.KeyOf("test", "secret")
	read := func(family, exp any) (c registry.Code, uses int, err error) {
		r := &rows{values: [][]any{{family, exp, 2, []byte("body")}}}
		r.Next()
		err = r.Scan(row.ScanCode(&c, &uses)...)
		return c, uses, err
	}
	if c, uses, err := read(key[:], int64(1795349100)); err != nil || c.Family != key || uses != 2 || !c.Expires.Equal(time.Unix(1795349100, 0)) {
		t.Fatalf("%+v %d, %v", c, uses, err)
	}
	for name, v := range map[string]any{"nothing": nil, "empty": []byte{}, "short": key[1:], "long": append(key[:], 0), "text": string(key[:])} {
		if _, _, err := read(v, int64(1)); err == nil {
			t.Errorf("%s is a key", name)
		}
	}
	for name, v := range map[string]any{"nothing": nil, "text": "1795349100", "real": 1795349100.5} {
		if _, _, err := read(key[:], v); err == nil {
			t.Errorf("%s is a time", name)
		}
	}
}

// TestCatalogHasARevision: an answer without a row is not an empty catalog.
func TestCatalogHasARevision(t *testing.T) {
	if _, _, err := row.Catalog(&rows{}); err == nil {
		t.Error("a catalog without a revision")
	}
}
