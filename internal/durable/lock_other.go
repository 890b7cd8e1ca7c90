//go:build !unix

package durable

import (
	"errors"
	"os"
)

// Lock refuses: without a lock two processes could write one file.
func Lock(string) (*os.File, error) {
	return nil, errors.New("no file lock on this system")
}
