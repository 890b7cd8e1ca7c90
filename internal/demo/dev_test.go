package demo

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwn: what is wrong in dev.yaml is refused, and what is right is read.
func TestOwn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"nothing but comments": {ownHelp, ""},
		"parts that know each other": {`
tools: [{name: mine, url: "http://127.0.0.1:9000/mcp"}]
agents: [{name: asker, people: true, calls: [helper, mine, crm]}, {name: helper, url: "https://127.0.0.1:9001", calls: [mine]}]`, ""},
		"a key that there is not":  {`colour: blue`, "colour"},
		"a name that is taken":     {`tools: [{name: db, url: "http://127.0.0.1:9000"}]`, "taken"},
		"a name twice":             {`tools: [{name: a, url: "http://h"}, {name: a, url: "http://h"}]`, "taken"},
		"a name that is no name":   {`agents: [{name: "A b"}]`, "small letters"},
		"no URL":                   {`tools: [{name: mine, url: "127.0.0.1"}]`, "no URL"},
		"a route that is not":      {`agents: [{name: asker, calls: [nothing]}]`, `no route "nothing"`},
		"an agent that serves not": {`agents: [{name: asker, calls: [helper]}, {name: helper}]`, `no route "helper"`},
	} {
		path := filepath.Join(t.TempDir(), "dev.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readOwn(path); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDevDirectory: a directory of something else is left alone, and a port that
// is taken stops the start, without a trace that hinders the next.
func TestDevDirectory(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartDev(ctx, DevOptions{Dir: foreign}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a directory of something else: %v", err)
	}
	if left, err := os.ReadDir(foreign); err != nil || len(left) != 1 {
		t.Errorf("it was changed: %v, %v", left, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := filepath.Join(t.TempDir(), "d")
	if _, err := StartDev(ctx, DevOptions{Dir: dir, Port: l.Addr().(*net.TCPAddr).Port}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	d, err := StartDev(ctx, DevOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := StartDev(ctx, DevOptions{Dir: dir, Agent: nameDesk, Person: "nobody"}); err == nil {
		t.Error("nobody signed in")
	}
	if err := os.WriteFile(statePath(dir), []byte(`{"ports":[1]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := StartDev(ctx, DevOptions{Dir: dir}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a state of another version: %v", err)
	}
}
