package ledger

import (
	"bytes"
	"fmt"
)

// What follows is asked by every engine, in the transaction that read the head.

// Held refuses who sequences under another epoch, or another origin, than the log
// has by now.
func (h Head) Held(origin string, epoch int64) error {
	if h.Epoch != epoch {
		return fmt.Errorf("%w: the epoch is %d", ErrEpochLost, h.Epoch)
	}
	if h.Origin != origin {
		return fmt.Errorf("%w: the origin is %s", ErrFork, h.Origin)
	}
	return nil
}

// Extends judges a checkpoint of the log by its head and by size and root of the
// last checkpoint of the origin, size -1 for none: there says that it is the last
// one, so that nothing is to be stored.
func (c Checkpoint) Extends(h Head, size int64, root []byte) (there bool, err error) {
	switch {
	case c.Size > h.Size || c.Size < 0:
		return false, fmt.Errorf("%w: size %d, the log has %d", ErrFork, c.Size, h.Size)
	case size > c.Size:
		return false, fmt.Errorf("%w: size %d after %d", ErrFork, c.Size, size)
	case size == c.Size && !bytes.Equal(root, c.Root[:]):
		return false, fmt.Errorf("%w: another root of size %d", ErrFork, size)
	}
	return size == c.Size, nil
}
