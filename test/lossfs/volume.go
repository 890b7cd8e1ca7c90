package main

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// volume is the state of the mount.
type volume struct {
	root *node

	mu      sync.Mutex // guards what follows and all nodes
	steps   int
	cut     int // the step at which the power goes; 0: never
	dark    bool
	lastIno uint64
}

func newVolume() *volume {
	v := &volume{lastIno: 1}
	v.root = &node{v: v, ino: 1, mode: syscall.S_IFDIR | 0o777, names: map[string]*node{}, kept: map[string]*node{}}
	return v
}

// step counts a change; it fails from the cut on. v.mu is held.
func (v *volume) step() syscall.Errno {
	v.steps++
	if v.steps == v.cut {
		v.dark = true
	}
	return v.lit()
}

// lit fails while the power is gone. v.mu is held.
func (v *volume) lit() syscall.Errno {
	if v.dark {
		return syscall.EIO
	}
	return 0
}

func (v *volume) arm(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.steps, v.cut, v.dark = 0, n, false
}

func (v *volume) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.steps
}

func (v *volume) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.root.names, v.root.kept = map[string]*node{}, map[string]*node{}
	v.steps, v.cut, v.dark = 0, 0, false
}

// sync keeps everything as it is.
func (v *volume) sync() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.root.keepAll()
}

func (n *node) keepAll() {
	n.keep()
	for _, child := range n.names {
		child.keepAll()
	}
}

// keep is what a sync does. v.mu is held.
func (n *node) keep() {
	if n.names != nil {
		n.kept = maps.Clone(n.names)
		return
	}
	n.synced = append(n.synced[:0], n.data...)
}

// add makes a node. v.mu is held.
func (v *volume) add(mode uint32) *node {
	v.lastIno++
	n := &node{v: v, ino: v.lastIno, mode: mode}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.names, n.kept = map[string]*node{}, map[string]*node{}
	}
	return n
}

// sector is what a disk writes whole.
const sector = 512

func chance(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 0)) }

// save writes what a process finds that starts after the power came back. With
// torn, whatever was not synced is there or not, sector by sector and name by
// name of a directory.
func (v *volume) save(dir string, torn *rand.Rand) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.root.save(dir, torn)
}

func (n *node) save(path string, torn *rand.Rand) error {
	perm := os.FileMode(n.mode & 0o777)
	if n.names == nil {
		if err := os.WriteFile(path, n.after(torn), perm); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(path, perm); err != nil {
			return err
		}
		names := n.kept
		if torn != nil && torn.IntN(2) == 0 {
			names = n.names
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if err := names[name].save(filepath.Join(path, name), torn); err != nil {
				return err
			}
		}
	}
	return os.Lchown(path, int(n.uid), int(n.gid))
}

// after is a file's content after the cut.
func (n *node) after(torn *rand.Rand) []byte {
	if torn == nil {
		return n.synced
	}
	size := len(n.synced)
	if d := len(n.data) - size; d != 0 && torn.IntN(2) == 0 {
		size += d
	}
	out := make([]byte, size)
	copy(out, n.synced)
	for at := 0; at < size; at += sector {
		end := min(at+sector, size, len(n.data))
		if at < end && !bytes.Equal(out[at:end], n.data[at:end]) && torn.IntN(2) == 0 {
			copy(out[at:end], n.data[at:end])
		}
	}
	return out
}
