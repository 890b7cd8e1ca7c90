package main

import (
	"context"
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or a directory: its current state, and what a power cut leaves
// of it.
type node struct {
	fs.Inode
	v    *volume
	ino  uint64
	mode uint32
	uid  uint32
	gid  uint32

	data, synced []byte           // of a file
	names, kept  map[string]*node // of a directory
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Blksize = n.ino, n.mode, 1, 4096
	out.Uid, out.Gid = n.uid, n.gid
	out.Size = uint64(len(n.data))
	out.Blocks = (out.Size + sector - 1) / sector
}

func (n *node) inode(ctx context.Context, child *node, out *fuse.EntryOut) *fs.Inode {
	child.attr(&out.Attr)
	return n.NewInode(ctx, child, fs.StableAttr{Mode: child.mode & syscall.S_IFMT, Ino: child.ino})
}

// Lookup finds a name as it is now.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.lit(); errno != 0 {
		return nil, errno
	}
	child := n.names[name]
	if child == nil {
		return nil, syscall.ENOENT
	}
	return n.inode(ctx, child, out), 0
}

// Getattr says what the node is now.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	n.attr(&out.Attr)
	return n.v.lit()
}

// Setattr changes size, mode or owner. Mode and owner are kept at once: nothing
// here depends on them.
func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return errno
	}
	if size, ok := in.GetSize(); ok {
		n.grow(int(size))
		n.data = n.data[:size]
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode&0o7777
	}
	if uid, ok := in.GetUID(); ok {
		n.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.gid = gid
	}
	n.attr(&out.Attr)
	return 0
}

// grow makes the file at least so long.
func (n *node) grow(size int) {
	if d := size - len(n.data); d > 0 {
		n.data = append(n.data, make([]byte, d)...)
	}
}

// Create makes a file.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, errno := n.make(ctx, name, syscall.S_IFREG|mode&0o7777)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	return n.inode(ctx, child, out), nil, 0, 0
}

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child, errno := n.make(ctx, name, syscall.S_IFDIR|mode&0o7777)
	if errno != 0 {
		return nil, errno
	}
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	return n.inode(ctx, child, out), 0
}

func (n *node) make(ctx context.Context, name string, mode uint32) (*node, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return nil, errno
	}
	if n.names[name] != nil {
		return nil, syscall.EEXIST
	}
	child := n.v.add(mode)
	if c, ok := fuse.FromContext(ctx); ok {
		child.uid, child.gid = c.Uid, c.Gid
	}
	n.names[name] = child
	return child, 0
}

// Unlink removes the name of a file.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name) }

// Rmdir removes an empty directory.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno { return n.remove(name) }

func (n *node) remove(name string) syscall.Errno {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return errno
	}
	switch child := n.names[name]; {
	case child == nil:
		return syscall.ENOENT
	case len(child.names) > 0:
		return syscall.ENOTEMPTY
	}
	delete(n.names, name)
	return 0
}

// Rename moves a name, over another one if there is.
func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return errno
	}
	dir, ok := to.(*node)
	switch {
	case !ok || flags != 0:
		return syscall.EINVAL
	case n.names[name] == nil:
		return syscall.ENOENT
	}
	child := n.names[name]
	delete(n.names, name)
	dir.names[newName] = child
	return 0
}

// Readdir lists the names as they are now.
func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.lit(); errno != 0 {
		return nil, errno
	}
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		list = append(list, fuse.DirEntry{Name: name, Ino: n.names[name].ino, Mode: n.names[name].mode})
	}
	return fs.NewListDirStream(list), 0
}

// Open needs no handle.
func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	return nil, 0, n.v.lit()
}

// Read gives the current bytes.
func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.lit(); errno != 0 {
		return nil, errno
	}
	if off >= int64(len(n.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.data[off:])]), 0
}

// Write changes the current bytes.
func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return 0, errno
	}
	n.grow(int(off) + len(data))
	copy(n.data[off:], data)
	return uint32(len(data)), 0
}

// Fsync keeps a file's bytes, or a directory's names.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.v.mu.Lock()
	defer n.v.mu.Unlock()
	if errno := n.v.step(); errno != 0 {
		return errno
	}
	n.keep()
	return 0
}

// Statfs says that there is room.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = 1<<22, 1<<22, 1<<22, 1<<20, 1<<20
	return 0
}
