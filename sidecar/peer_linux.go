package sidecar

import (
	"net"
	"os"
	"syscall"
)

// isThisUser reports whether the other end of a Unix socket is a process of
// this user, or of root.
func isThisUser(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || failed != nil {
		return false
	}
	return peer.Uid == uint32(os.Getuid()) || peer.Uid == 0 //nolint:gosec // a user id
}
