package server

import (
	"context"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// TestL3SeenCheckpointNeverGoesBack: what a gateway has seen of its log it goes on
// saying where the store holds less; what is newer, or of the period that is open
// now, it takes.
func TestL3SeenCheckpointNeverGoesBack(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	s := d.start(t)
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var seen seenCheckpoint
	if seen.body() != "" {
		t.Errorf("before anything was seen: %q", seen.body())
	}
	seen.look(t.Context(), s.ledger)
	origin, size, root, err := record.ParseCheckpointBody(seen.body())
	if err != nil || origin != d.cfg.Ledger.Origin() || size == 0 {
		t.Fatalf("%q, %v", seen.body(), err)
	}
	older := &ledger.Checkpoint{Origin: origin, Size: int64(size) - 1} //nolint:gosec // a few entries
	larger := &ledger.Checkpoint{Origin: origin, Size: int64(size) + 1000, Root: ledger.Hash{1}}
	former := &ledger.Checkpoint{Origin: origin + "-before", Size: int64(size) + 1000}
	for name, tt := range map[string]struct{ had, want *ledger.Checkpoint }{
		"an older one": {older, nil}, "a larger one": {larger, larger}, "the period before": {former, nil},
	} {
		seen.newest.Store(tt.had)
		seen.look(t.Context(), s.ledger)
		got := seen.newest.Load()
		if tt.want != nil && got != tt.want || tt.want == nil && (got.Origin != origin || got.Size < int64(size)) {
			t.Errorf("had %s: says %+v", name, got)
		}
	}

	// What cannot be asked changes nothing. The root is the log's.
	seen.newest.Store(&ledger.Checkpoint{Origin: origin, Size: int64(size), Root: root})
	before := seen.body()
	d.stop(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen.look(ctx, s.ledger)
	if seen.body() != before {
		t.Errorf("after the store closed: %q, and before %q", seen.body(), before)
	}
}
