package sqlite_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// TestWALStaysShort: batches that keep coming in leave the mover no moment at
// which everything is moved. The write-ahead log stays within its bound all the
// same, and most of it is in the database before the store is closed.
func TestWALStaysShort(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, nil)
	if err := s.CreateLog(t.Context(), storagetest.Log, storagetest.Origin); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenWriter(t.Context(), storagetest.Log, "g", "run"); err != nil {
		t.Fatal(err)
	}
	const batches, records = 80, 16 // of a mebibyte
	envelope, longest := make([]byte, ledger.MaxEntry), int64(0)
	for n := range int64(batches) {
		b := ledger.Batch{Log: storagetest.Log, GWID: "g", Run: "run", First: n * records, Prev: tailAt(n), Tail: tailAt(n + 1)}
		for i := range int64(records) {
			b.Records = append(b.Records, ledger.Record{RecordID: fmt.Sprint(n*records + i), Envelope: envelope})
		}
		if _, err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		longest = max(longest, fileSize(t, path(dir)+"-wal"))
	}
	if longest > 40<<20 {
		t.Errorf("the write-ahead log grew to %d bytes", longest)
	}
	if moved := fileSize(t, path(dir)); moved < batches<<20/3 {
		t.Errorf("only %d bytes are in the database", moved)
	}
}

// tailAt is the tail of a writer after so many batches.
func tailAt(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint("tail ", n)
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
