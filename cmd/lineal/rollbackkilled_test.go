package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const rollbackConfig = `
data_dir: %DIR%/data
trust_domain: acme.example
public_url: https://gw.acme.example
ledger: {family: ledger.acme.example/std, period: %PERIOD%, region: eu, data_class: internal}
gateway: {address: "127.0.0.1:0", spiffe_socket: "unix:///run/spire/agent.sock"}
tokens: {address: "127.0.0.1:0", spiffe_socket: "unix:///run/spire/agent.sock", issuer: "https://sts.acme.example"}
policy: {bundle: policy.tar}
agents: [{uri: "spiffe://acme.example/app", name: app, authority: "[]"}]
`

// TestL3RollbackKilled kills lineal ledger roll --after-rollback at its syncs,
// writes and renames. Repeated, it ends where one ends that was not killed: both
// periods are sound, and the first has every entry that was signed.
func TestL3RollbackKilled(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if faults := os.Getenv("LINEAL_FAULTS"); faults == "" || err != nil {
		if faults != "" && os.Getenv("LINEAL_REQUIRE_STRACE") == "1" {
			t.Fatal(err)
		}
		t.Skip("LINEAL_FAULTS=some or all runs this, with strace (.ci/faults)")
	}
	made := t.TempDir()
	configured(t, made)
	runLineal(t, 0, "ledger", "init", "--config", filepath.Join(made, "2026-11.yaml"))
	db := filepath.Join(made, "data", "ledger.db")
	copied(t, db, filepath.Join(made, "backup.db"))
	for _, id := range []string{"one", "two"} {
		runLineal(t, 0, "ledger", "hold", "add", id, "--basis", "audit", "--data", filepath.Join(made, "data"))
	}
	copied(t, filepath.Join(made, "backup.db"), db)
	killed := 0
	for _, calls := range []struct {
		names string
		upTo  int
	}{{"fsync,fdatasync", 34}, {"pwrite64", 89}, {"rename,renameat,renameat2", 8}, {"unlink,unlinkat", 3}} {
		for _, n := range fibonacci(calls.upTo) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "data"), os.DirFS(filepath.Join(made, "data"))); err != nil {
				t.Fatal(err)
			}
			private(t, dir)
			next := configured(t, dir)
			c := exec.CommandContext(t.Context(), strace, "-f", "-q", "-o", filepath.Join(dir, "strace"), "-e", "trace="+calls.names, "-e", "signal=none",
				"-e", "inject="+calls.names+":signal=SIGKILL:when="+strconv.Itoa(n), "lineal", "ledger", "roll", "--after-rollback", "--config", next)
			out, err := c.CombinedOutput()
			if err == nil {
				break // it has no more of these
			}
			if st, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() {
				t.Fatalf("%s %d: %v: %s", calls.names, n, err, out)
			}
			killed++
			repeated(t, dir, next)
		}
	}
	if killed < 10 {
		t.Errorf("killed %d times", killed)
	}
	t.Logf("killed %d times", killed)
}

// repeated finishes the roll, and looks at what it left.
func repeated(t *testing.T, dir, next string) {
	t.Helper()
	data := filepath.Join(dir, "data")
	out, err := exec.CommandContext(t.Context(), "lineal", "ledger", "roll", "--after-rollback", "--config", next).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "the period 2026-12 is open") && !strings.Contains(string(out), "its first checkpoint is for the next start") {
		t.Fatalf("repeated: %v: %s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(data, "rolling")); err == nil {
		t.Error("the roll is not at its end")
	}
	within(t, "the new period does not go on", func() bool { // who was killed may have had the lease
		return exec.CommandContext(t.Context(), "lineal", "ledger", "hold", "add", "three", "--basis", "audit", "--data", data).Run() == nil
	})
	runLineal(t, 0, "ledger", "fsck", "--data", data)
	if said := runLineal(t, 0, "ledger", "fsck", "--data", data, "--period", "2026-11"); !strings.Contains(said, "entries      8,") {
		t.Errorf("the former period: %s", said)
	}
	if said := runLineal(t, 0, "ledger", "periods", "--data", data); !strings.Contains(said, "lost its end after a rollback: 8 were signed") {
		t.Errorf("periods: %s", said)
	}
}

// configured writes the configuration of both periods, and gives the second.
func configured(t *testing.T, dir string) (next string) {
	t.Helper()
	for _, period := range []string{"2026-11", "2026-12"} {
		next = filepath.Join(dir, period+".yaml")
		if err := os.WriteFile(next, []byte(strings.NewReplacer("%DIR%", dir, "%PERIOD%", period).Replace(rollbackConfig)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return next
}

func copied(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// private takes rights away that copying gave.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fibonacci thins numbers out, unless all are asked for.
func fibonacci(upTo int) (out []int) {
	all := os.Getenv("LINEAL_FAULTS") == "all"
	for a, b := 1, 2; a <= upTo; a, b = b, a+b {
		if out = append(out, a); all {
			a, b = 0, a+1
		}
	}
	return out
}
