package sqlite

import (
	"fmt"
	"syscall"
)

// remote holds the magic numbers (statfs(2)) of file systems whose locks or
// syncs do not hold what WAL needs.
var remote = map[uint32]string{
	0x6969:     "nfs",
	0x517b:     "smb",
	0xff534d42: "cifs",
	0xfe534d42: "smb2",
	0x01021997: "9p",
	0x00c36400: "ceph",
	0x5346414f: "afs",
	0x73757245: "coda",
}

// checkLocal refuses a network file system.
func checkLocal(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("checking file system of %s: %w", dir, err)
	}
	if name, ok := remote[uint32(st.Type)]; ok {
		return fmt.Errorf("%s is on a network file system (%s)", dir, name)
	}
	return nil
}
