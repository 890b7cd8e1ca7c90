//go:build !unix

package sqlite

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock two processes could write one ledger.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("no file lock on this system, so the ledger cannot be opened for writing")
}
