package disk

import (
	"os"
	"syscall"
)

// free gives the bytes that a process without privileges may still write.
func free(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec,unconvert // no disk has 2^63 blocks; Bsize differs between systems
}

// reserve gives a file its blocks without writing them.
func reserve(f *os.File, size int64) error { return syscall.Fallocate(int(f.Fd()), 0, 0, size) }
