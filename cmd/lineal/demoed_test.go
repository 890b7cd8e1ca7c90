package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// demoOf is what one run of the demo left, for all tests that ask it. It is made
// by the first of them, and removed by removing's Run.
var demoOf struct {
	sync.Mutex
	dir string
}

// removing runs tests, and removes what they had made of the demo.
type removing struct{ next interface{ Run() int } }

func (r removing) Run() int {
	code := r.next.Run()
	demoOf.Lock()
	defer demoOf.Unlock()
	if err := os.RemoveAll(demoOf.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// demoed makes to, which does not exist, a copy of what the demo left.
func demoed(ctx context.Context, to string) error {
	from, err := demoOnce(ctx)
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch at := filepath.Join(to, name); {
		case d.IsDir():
			return os.Mkdir(at, info.Mode().Perm())
		case !info.Mode().IsRegular():
			return fmt.Errorf("the demo left %s, %s", name, info.Mode())
		default:
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(at, text, info.Mode().Perm()))
		}
	})
}

func demoOnce(ctx context.Context) (string, error) {
	demoOf.Lock()
	defer demoOf.Unlock()
	if demoOf.dir != "" {
		return filepath.Join(demoOf.dir, "demo"), nil
	}
	dir, err := os.MkdirTemp("", "lineal-demoed-")
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "demo")
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if code := run(ctx, []string{"demo", "--json", "--data", at}, streams{out: &out, err: &errs, env: func(string) string { return "" }}); code != exitOK {
		return "", errors.Join(fmt.Errorf("demo: exit %d\n%s%s", code, &errs, &out), os.RemoveAll(dir))
	}
	demoOf.dir = dir
	return at, nil
}

// demoDir is a copy of what the demo left, the test's own.
func demoDir(t *testing.T) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "demo")
	if err := demoed(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	return at
}

// demoScript is demoDir for a script: demoed DIR.
func demoScript(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(demoed(context.Background(), ts.MkAbs(args[0])))
}
