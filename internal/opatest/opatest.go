// Package opatest runs a real Open Policy Agent for tests.
//
// [Start] runs the binary that LINEAL_OPA names, with rules and data from files.
// Without it the test is skipped, unless LINEAL_REQUIRE_OPA is 1: then the
// program of test/opa, a module of its own, is built first.
package opatest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Agent is a running Open Policy Agent.
type Agent struct {
	// URL is its base URL.
	URL string
	// Stop ends it and waits; the end of the test does too.
	Stop func()
}

// Start runs an agent with these files until the test ends.
func Start(t testing.TB, files ...string) Agent {
	t.Helper()
	binary := program(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	args := append([]string{"run", "--server", "--addr", addr, "--log-level", "error", "--skip-version-check"}, files...)
	run := exec.CommandContext(ctx, binary, args...) //nolint:gosec // the binary that the tester names
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	if err := run.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = run.Wait() // its state is kept in run
	}()
	stop := func() { cancel(); <-ended }
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("OPA said:\n%s", output.String())
		}
	})
	url := "http://" + addr
	late := time.After(30 * time.Second)
	for {
		if healthy(url) {
			return Agent{URL: url, Stop: stop}
		}
		select {
		case <-ended:
			t.Fatalf("OPA ended: %v", run.ProcessState)
		case <-late:
			t.Fatal("OPA did not come up within 30 s")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func healthy(url string) bool {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url + "/health") //nolint:noctx // it has a timeout
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func program(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("LINEAL_OPA"); binary != "" { //nolint:forbidigo // only tests come here
		return binary
	}
	if os.Getenv("LINEAL_REQUIRE_OPA") != "1" { //nolint:forbidigo // only tests come here
		t.Skip("no OPA: run .ci/opa, or set LINEAL_REQUIRE_OPA=1 to build it here")
	}
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(t.TempDir(), "opa")
	build := exec.CommandContext(t.Context(), "go", "build", "-p", "1", "-o", binary, ".")
	build.Dir = filepath.Join(filepath.Dir(here), "..", "..", "test", "opa")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building OPA: %v\n%s", err, out)
	}
	return binary
}
