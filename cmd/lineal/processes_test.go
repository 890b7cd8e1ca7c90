package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/policy/cedar/cedartest"
	"github.com/lineal-auth/lineal/server"
)

const processConfig = `
public_url: https://agents.lineal.test
trust_domain: lineal.test
data_dir: %[1]s
gateway: {address: "%[2]s", spiffe_socket: "%[3]s"}
tokens: {issuer: "https://tokens.lineal.test/sts", address: "%[4]s", spiffe_socket: "%[5]s", person_issuers: ["https://idp.lineal.test"]}
ledger:
  {family: ledger.lineal.test/std, period: 2026-11, region: local, data_class: internal, store: "%[6]s", persons: "%[7]s", node: "%[8]s"}
policy: {bundle: %[9]s}
admin: {probes: "%[10]s"}
agents: [{uri: "spiffe://lineal.test/app", name: app, authority: '[{"type":"urn:lineal:call:v1","locations":["https://a.test"],"actions":["llm:chat"],"names":["small"]}]'}]
`

// TestKilledProcess: two processes of one deployment, as an operator starts them.
// The one that sequences is killed; the other takes over and publishes, the log
// of both verifies, and the killed one starts again.
func TestKilledProcess(t *testing.T) {
	pg := pgtest.Shared(t)
	database := pg.Database(t)
	store, persons := pg.URL(database), pg.URL(pg.Database(t))
	ca, err := devca.New(devca.Config{TrustDomain: "lineal.test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	var sockets []string
	for _, path := range []string{"gateway", "tokens"} {
		addr, err := ca.Serve(identity.MustParseAgent("spiffe://lineal.test/"+path), devca.Profile{Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, addr)
	}
	dir := t.TempDir()
	bundle := filepath.Join(dir, "policy.tar")
	configure := func(name, node string) (path, data, probes string) {
		path, data, probes = filepath.Join(dir, name+".yaml"), filepath.Join(dir, name), freeAddress(t)
		text := fmt.Sprintf(processConfig, data, freeAddress(t), sockets[0], freeAddress(t), sockets[1], store, persons, node, bundle, probes)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path, data, probes
	}
	configA, dataA, probesA := configure("a", "")
	configB, dataB, probesB := configure("b", "b")

	runLineal(t, 0, "ledger", "init", "--config", configA)
	if err := writeBundle(dataA, bundle, `@id("never") forbid (principal, action, resource);`); err != nil {
		t.Fatal(err)
	}
	runLineal(t, 4, "serve", "--config", configB) // it has not joined
	runLineal(t, 0, "ledger", "join", "--config", configB, "--member", dataA)
	runLineal(t, 4, "ledger", "join", "--config", configB, "--member", dataA) // it has

	a := startLineal(t, "serve", "--config", configA)
	a.says(`"this process sequences"`)
	b := startLineal(t, "serve", "--config", configB)
	b.ready(probesB)
	within(t, "the second process records nothing", func() bool {
		return pg.Query(t, database, `SELECT count(*)::text FROM lineal.writer WHERE gw_id LIKE '%-b' AND next_seq > 0`) == "3"
	})
	published := func() int {
		n, err := strconv.Atoi(pg.Query(t, database, `SELECT coalesce(max(size), 0)::text FROM lineal.checkpoint WHERE published IS NOT NULL`))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a.end(syscall.SIGKILL, -1)
	before := published()
	b.says(`"this process sequences"`)
	within(t, "the second process publishes nothing", func() bool { return published() > before })
	within(t, "the log has not the records of both", func() bool {
		records := runLineal(t, 0, "records", "--data", dataB)
		return strings.Contains(records, `"id":"gateway"`) && strings.Contains(records, `"id":"gateway-b"`)
	})

	out := filepath.Join(dir, "evidence.zip")
	runLineal(t, 0, "export", "--data", dataB, "--out", out)
	runLineal(t, 0, "verify", out, "--policy", writeTrust(t, dataB, "https://tokens.lineal.test/sts"))

	again := startLineal(t, "serve", "--config", configA)
	again.ready(probesA)
	within(t, "the killed process records nothing again", func() bool {
		return strings.Count(runLineal(t, 0, "records", "--data", dataB), `"state":"start"`) == 9
	})
	b.end(syscall.SIGTERM, 0)
	again.says(`"this process sequences"`)
	again.end(syscall.SIGTERM, 0)
}

// freeAddress is one where nobody listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// writeBundle writes rules that the deployment's key signed.
func writeBundle(dataDir, path, rules string, services ...string) error {
	key, err := server.ManifestKey(dataDir)
	if err != nil {
		return err
	}
	bundle, err := cedartest.Bundle(key, 1, rules, services...)
	if err != nil {
		return err
	}
	return os.WriteFile(path, bundle, 0o600)
}

// writeTrust writes the policy file of the deployment.
func writeTrust(t *testing.T, dataDir, issuer string) string {
	t.Helper()
	trust, err := server.Trust(dataDir, issuer)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := evidence.WritePolicy(&text, trust); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "trust.policy")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runLineal runs a command to its end and gives what it printed.
func runLineal(t *testing.T, code int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "lineal", args...)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, _ := c.Output()
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("lineal %s: exit %d, want %d: %s", strings.Join(args, " "), got, code, errs.String())
	}
	return string(out)
}

// running is a command that runs.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

func startLineal(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command("lineal", args...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait() // its code is in the state
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
	})
	return r
}

// Write takes what the command prints and logs.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *running) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// says waits until the command has logged a text.
func (r *running) says(text string) {
	r.t.Helper()
	within(r.t, "no log of "+text, func() bool {
		select {
		case <-r.done:
			r.t.Fatalf("it ended: %s", r.logged())
		default:
		}
		return strings.Contains(r.logged(), text)
	})
}

// ready waits until all parts of the process say that they are.
func (r *running) ready(probes string) {
	r.t.Helper()
	last := ""
	defer func() {
		if r.t.Failed() {
			r.t.Logf("it said %s, and logged %s", last, r.logged())
		}
	}()
	within(r.t, "it is not ready", func() bool {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+probes+"/readyz", nil)
		if err != nil {
			r.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		body, _ := io.ReadAll(resp.Body) // it only explains
		_ = resp.Body.Close()
		last = string(body)
		return resp.StatusCode == http.StatusOK
	})
}

// end ends the command by a signal; its exit code is -1 if the signal killed it.
func (r *running) end(sig os.Signal, code int) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatalf("%v: %s", err, r.logged())
	}
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		r.t.Fatal("it does not end")
	}
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("exit %d, want %d: %s", got, code, r.logged())
	}
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}
