// Package searchtest gives tests a desk over a generated log, in an index that is
// thrown away with the test.
package searchtest

import (
	"context"
	"iter"
	"testing"

	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// Log is a log of 60 transactions of five persons, and its desk.
type Log struct {
	*scenario.Bulk

	Desk *search.Desk
	// Change alters what the log holds at an index; nil: nothing.
	Change func(index int64, payload []byte) []byte
}

// New makes the log. Nothing is indexed before Follow.
func New(t testing.TB) *Log {
	t.Helper()
	bulk, err := scenario.NewBulk(60, 5, 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.OpenIndex(t.Context(), sqlite.RegistryConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	l := &Log{Bulk: bulk}
	if l.Desk, err = search.NewDesk(search.DeskConfig{Store: store, Read: l.payloads}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *Log) payloads(ctx context.Context, from, to int64) iter.Seq2[search.Payload, error] {
	return func(yield func(search.Payload, error) bool) {
		for b, err := range l.Read(ctx, from, to) {
			if l.Change != nil {
				b = l.Change(from, b)
			}
			if !yield(search.Payload{Index: from, Bytes: b}, err) {
				return
			}
			from++
		}
	}
}

// Follow indexes the whole log.
func (l *Log) Follow(ctx context.Context) error {
	return l.Desk.Follow(ctx, search.AsOf{Origin: "ledger.example/std/2026-10", Size: l.Size(), Root: "x"})
}
