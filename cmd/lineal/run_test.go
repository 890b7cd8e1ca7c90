package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestEnvironment: what the child gets in place of what was there.
func TestEnvironment(t *testing.T) {
	e := environment{set: map[string]string{"OPENAI_API_KEY": "local", "NO_PROXY": "127.0.0.1"}, unset: []string{"ANTHROPIC_API_KEY"}}
	got := e.apply([]string{"PATH=/bin", "OPENAI_API_KEY=real", "ANTHROPIC_API_KEY=real", "NO_PROXY=corp.test", "HTTP_PROXY=http://p"})
	slices.Sort(got)
	want := []string{"HTTP_PROXY=http://p", "NO_PROXY=corp.test,127.0.0.1", "OPENAI_API_KEY=local", "PATH=/bin", "no_proxy=127.0.0.1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got := (environment{}).apply([]string{"NO_PROXY=x"}); !slices.Equal(got, []string{"NO_PROXY=x"}) {
		t.Errorf("changed without need: %q", got)
	}
}

// TestChildExit: the child's code, or its signal's.
func TestChildExit(t *testing.T) {
	for command, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143} {
		err := childExit(exec.Command("sh", "-c", command).Run())
		var exit *exitError
		if got := 0; errors.As(err, &exit) {
			if got = exit.code; got != want || exit.err != nil {
				t.Errorf("%s: %d, %v", command, got, exit.err)
			}
		} else if want != 0 || err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// TestAwait: signals reach the child, and a sidecar that breaks ends it.
func TestAwait(t *testing.T) {
	begin := func() (*exec.Cmd, chan error) {
		child := exec.Command("sh", "-c", `trap 'exit 9' USR1; trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done`)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- child.Wait() }()
		return child, ended
	}
	signals, broken := make(chan os.Signal, 1), make(chan error, 1)
	child, ended := begin()
	signals <- syscall.SIGUSR1
	var exit *exitError
	if err := await(t.Context(), child, ended, signals, broken); !errors.As(err, &exit) || exit.code != 9 {
		t.Errorf("after a signal: %v", err)
	}
	child, ended = begin()
	broken <- errors.New("the listener is gone")
	if err := await(t.Context(), child, ended, signals, broken); err == nil || !strings.Contains(err.Error(), "the listener is gone") {
		t.Errorf("after the sidecar ended: %v", err)
	}
}
