package ledger_test

import (
	"errors"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
)

// TestHeld: a sequencer that lost its epoch is told so, whatever origin it means.
func TestHeld(t *testing.T) {
	h := ledger.Head{Origin: "a/2", Epoch: 7}
	for _, c := range []struct {
		origin string
		epoch  int64
		want   error
	}{{"a/2", 7, nil}, {"a/2", 6, ledger.ErrEpochLost}, {"a/2", 8, ledger.ErrEpochLost}, {"a/1", 6, ledger.ErrEpochLost}, {"a/1", 7, ledger.ErrFork}, {"", 7, ledger.ErrFork}} {
		if err := h.Held(c.origin, c.epoch); !errors.Is(err, c.want) {
			t.Errorf("%q %d: %v, want %v", c.origin, c.epoch, err, c.want)
		}
	}
}

// TestExtends: a checkpoint goes on from the last one, or is it; any other would
// be a second log.
func TestExtends(t *testing.T) {
	h := ledger.Head{Size: 10}
	mine, other := ledger.Hash{1}, ledger.Hash{2}
	for name, c := range map[string]struct {
		size  int64
		last  int64
		root  []byte
		there bool
		want  error
	}{
		"the first":           {size: 10, last: -1},
		"the first, empty":    {size: 0, last: -1},
		"the next":            {size: 10, last: 9, root: other[:]},
		"the last again":      {size: 9, last: 9, root: mine[:], there: true},
		"another of its size": {size: 9, last: 9, root: other[:], want: ledger.ErrFork},
		"no root":             {size: 9, last: 9, want: ledger.ErrFork},
		"a cut root":          {size: 9, last: 9, root: mine[:31], want: ledger.ErrFork},
		"smaller":             {size: 8, last: 9, root: mine[:], want: ledger.ErrFork},
		"beyond the log":      {size: 11, last: -1, want: ledger.ErrFork},
		"of less than none":   {size: -1, last: -1, want: ledger.ErrFork},
	} {
		there, err := ledger.Checkpoint{Size: c.size, Root: mine}.Extends(h, c.last, c.root)
		if there != c.there || !errors.Is(err, c.want) {
			t.Errorf("%s: %t, %v", name, there, err)
		}
	}
}
