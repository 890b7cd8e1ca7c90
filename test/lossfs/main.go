// Command lossfs is a file system in memory that loses what was not synced, for tests of what a power cut leaves.
//
//	process ──write──▶ current state ──fsync of file──▶ its bytes are kept
//	        ──create, rename, unlink──▶ names ──fsync of directory──▶ its names are kept
//
// A kernel keeps what a killed process wrote, so killing one never tests a sync.
// Here the power goes at a chosen step: from then on every call fails, and what
// was kept by then can be saved elsewhere, for a process that starts again. The
// steps are the calls that change or sync something, counted over the whole
// mount.
//
// It is stricter than common file systems: the sync of a file keeps no name, and
// nothing is kept by itself after a while. It is mounted by root, at the folder
// given; standard input takes commands, one a line, each answered by one line:
//
//	cut N                      the power goes at the Nth step from here; 0: never
//	count                      the steps since the last cut or reset
//	save DIR lost              what was synced, and nothing else
//	save DIR torn SEED         besides, any sectors and names that were not
//	sync                       all is kept, as it is
//	reset                      an empty mount
//
// It unmounts when its standard input ends.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lossfs DIR")
		os.Exit(2)
	}
	v := newVolume()
	server, err := fs.Mount(os.Args[1], v.root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, AllowOther: true, DisableXAttrs: true, FsName: "lossfs", Name: "lossfs"},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lossfs:", err)
		os.Exit(1)
	}
	fmt.Println("mounted")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		answer, err := command(v, strings.Fields(in.Text()))
		if err != nil {
			answer = "error " + err.Error()
		}
		fmt.Println(answer)
	}
	if err := server.Unmount(); err != nil {
		fmt.Fprintln(os.Stderr, "lossfs:", err)
		os.Exit(1)
	}
}

func command(v *volume, words []string) (string, error) {
	number := func(i int) (int, error) {
		if len(words) <= i {
			return 0, fmt.Errorf("%q needs a number", words)
		}
		return strconv.Atoi(words[i])
	}
	if len(words) == 0 {
		return "", fmt.Errorf("an empty line")
	}
	switch words[0] {
	case "cut":
		n, err := number(1)
		v.arm(n)
		return "ok", err
	case "count":
		return strconv.Itoa(v.count()), nil
	case "sync":
		v.sync()
		return "ok", nil
	case "reset":
		v.reset()
		return "ok", nil
	case "save":
		if len(words) == 3 && words[2] == "lost" {
			return "ok", v.save(words[1], nil)
		}
		seed, err := number(3)
		if err != nil || words[2] != "torn" {
			return "", fmt.Errorf("save DIR lost, or save DIR torn SEED")
		}
		return "ok", v.save(words[1], chance(seed))
	default:
		return "", fmt.Errorf("no command %q", words[0])
	}
}
