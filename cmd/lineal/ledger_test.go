package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// TestLedgerServe asks the command for the log over HTTP: entry bundles are
// there only if the operator said so.
func TestLedgerServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := config.Ledger{Family: "ledger.acme.example/std", Period: "2026-11", Region: "eu", DataClass: "internal"}
	if err := server.Init(t.Context(), dir, cfg, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	for _, entries := range []bool{false, true} {
		args := []string{"ledger", "serve", "--data", dir, "--listen", "127.0.0.1:0"}
		want := http.StatusNotFound
		if entries {
			args, want = append(args, "--entries"), http.StatusOK
		}
		url, stop := serving(t, args)
		for path, want := range map[string]int{
			"checkpoint": http.StatusOK, "tile/0/000.p/2": http.StatusOK, "tile/entries/000.p/2": want,
			"highest_seen": http.StatusNotFound, "tile/0/000": http.StatusNotFound, "tile/0/00": http.StatusBadRequest,
		} {
			if got, body := get(t, url+path); got != want || got == http.StatusOK && len(body) == 0 {
				t.Errorf("entries %v: %s: %d, %d bytes", entries, path, got, len(body))
			}
		}
		stop()
	}
}

// serving runs a command that prints its URL, and gives that and how to end it.
func serving(t *testing.T, args []string) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var said bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, args, streams{out: w, err: &said, env: func(string) string { return "" }})
		_ = w.Close()
		ended <- code
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: exit %d: %s", err, <-ended, said.String())
	}
	return strings.TrimSpace(line), func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("exit %d: %s", code, said.String())
		}
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body
}

// TestLedgerRebuildWriters: a row that has a writer's last record wrong keeps the
// server from starting; rebuild sets it, and says whose it was. The second time
// there is nothing to set.
func TestLedgerRebuildWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := config.Ledger{Family: "ledger.acme.example/std", Period: "2026-11", Region: "eu", DataClass: "internal"}
	if err := server.Init(t.Context(), dir, cfg, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(dir, "ledger.db")})
	if err != nil {
		t.Fatal(err)
	}
	head, err := store.Head(t.Context(), cfg.Family)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.ResetWriters(t.Context(), cfg.Family, head.Size, nil); err != nil || len(got) != 1 {
		t.Fatalf("damaged %q, %v", got, err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	const line = "writer       admin goes on after its last record in the log\n"
	if out := runLineal(t, 0, "ledger", "rebuild", "--data", dir); !strings.Contains(out, line) {
		t.Errorf("rebuild said %s", out)
	}
	if out := runLineal(t, 0, "ledger", "rebuild", "--data", dir); strings.Contains(out, "goes on after") {
		t.Errorf("a second rebuild said %s", out)
	}
}
