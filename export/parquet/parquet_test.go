package parquet_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	library "github.com/parquet-go/parquet-go"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/export/parquet"
	"github.com/lineal-auth/lineal/record"
)

func samples(t *testing.T) (out []export.Entry) {
	t.Helper()
	files, err := filepath.Glob("../../record/testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[record.Kind]bool)
	for i, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // a golden file
		if err != nil {
			t.Fatal(err)
		}
		e, err := export.NewEntry("ledger.example/std/2027-03", int64(i), bytes.TrimSpace(b))
		if err != nil {
			t.Fatal(err)
		}
		out, kinds[e.Record.Kind] = append(out, e), true
	}
	if len(kinds) != 12 {
		t.Fatalf("samples of %d kinds of record, want all 12", len(kinds))
	}
	return out
}

// TestRoundTrip: what a reader of the file gets is what the records say, and the
// record itself byte for byte.
func TestRoundTrip(t *testing.T) {
	var file bytes.Buffer
	w := parquet.NewWriter(&file)
	entries := samples(t)
	for _, e := range entries {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rows, err := library.Read[parquet.Row](bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(entries) {
		t.Fatalf("%d rows of %d records", len(rows), len(entries))
	}
	for i, e := range entries {
		want, err := parquet.RowOf(e)
		if err != nil {
			t.Fatal(err)
		}
		got := rows[i]
		got.Time = got.Time.UTC()
		for k := range got.Chain {
			got.Chain[k].IssuedAt, got.Chain[k].Expires = got.Chain[k].IssuedAt.UTC(), got.Chain[k].Expires.UTC()
		}
		if got.Ended != nil {
			at := got.Ended.UTC()
			got.Ended = &at
		}
		empty := cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })
		noChain := cmp.Transformer("chain", func(s []parquet.Hop) string { return fmt.Sprintf("%+v", append([]parquet.Hop{}, s...)) })
		if diff := cmp.Diff(want, got, empty, noChain); diff != "" {
			t.Errorf("%s: %s", e.Record.Kind, diff)
		}
		if record.Hash([]byte(got.Record)) != got.RecordHash || !got.Time.Equal(want.Time) {
			t.Errorf("row %d is not of its record", i)
		}
	}
}

// TestNulls: a column of which a record has nothing is null, not an empty text.
func TestNulls(t *testing.T) {
	var file bytes.Buffer
	w := parquet.NewWriter(&file)
	for _, e := range samples(t) {
		if e.Record.Kind == record.KindHeartbeat {
			if err := w.Write(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := library.OpenFile(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.RowGroups()[0].ColumnChunks() {
		name := f.Schema().Columns()[c.Column()][0]
		pages := c.Pages()
		page, err := pages.ReadPage()
		if err != nil {
			t.Fatal(err)
		}
		always := map[string]bool{
			"origin": true, "index": true, "record_hash": true, "record_id": true, "kind": true, "time": true, "writer": true, "role": true,
			"data_class": true, "region": true, "record": true,
		}
		if null := page.NumNulls() > 0; null == always[name] {
			t.Errorf("%s: %d nulls in one row", name, page.NumNulls())
		}
		if err := pages.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func ExampleWriter() {
	payload, err := os.ReadFile("../../record/testdata/decision.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := export.NewEntry("ledger.example/std/2027-03", 7, bytes.TrimSpace(payload))
	if err != nil {
		fmt.Println(err)
		return
	}
	var file bytes.Buffer
	w := parquet.NewWriter(&file)
	if err := w.Write(e); err != nil {
		fmt.Println(err)
	}
	fmt.Println(w.Close(), file.String()[:4])
	// Output: <nil> PAR1
}
