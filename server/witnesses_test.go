package server

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
)

// litewitness is the witness of another make (filippo.io/torchwood), built by
// .ci/witness as a program of its own.
type litewitness struct {
	config.Witness
	db string
}

func startLitewitness(t *testing.T) litewitness {
	t.Helper()
	program := os.Getenv("LINEAL_LITEWITNESS")
	if program == "" {
		if os.Getenv("LINEAL_REQUIRE_LITEWITNESS") != "" {
			t.Fatal("LINEAL_LITEWITNESS names no program")
		}
		t.Skip("LINEAL_LITEWITNESS names no program; see .ci/witness")
	}
	const name = "witness.test/w1"
	dir, err := os.MkdirTemp("", "lw") //nolint:usetesting // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	serveAgent(t, filepath.Join(dir, "agent"), key)
	address := freeAddress(t)
	id := sha256.Sum256(pub)
	var said lockedBuffer
	cmd := exec.CommandContext(t.Context(), program, "-name", name, "-db", filepath.Join(dir, "w.db"),
		"-ssh-agent", filepath.Join(dir, "agent"), "-listen", address, "-key", hex.EncodeToString(id[:]))
	cmd.Stderr, cmd.Cancel = &said, func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	witness, err := evidence.NewWitnessKey(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	w := litewitness{Witness: config.Witness{Name: "w1", URL: "http://" + address, Key: witness.String()}, db: filepath.Join(dir, "w.db")}
	until(t, "the witness listens", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if out := said.String(); !strings.Contains(out, w.Key) {
		t.Fatalf("the witness says another key than %s:\n%s", w.Key, out)
	}
	return w
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// serveAgent is the ssh-agent that the witness keeps its key in.
func serveAgent(t *testing.T, path string, key ed25519.PrivateKey) {
	t.Helper()
	keyring := agent.NewKeyring()
	if err := keyring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = agent.ServeAgent(keyring, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() }) // the witness hangs up before: it was started later
}

// add makes the witness know a log, as its operator would.
func (w litewitness) add(t *testing.T, origin, vkey string) {
	t.Helper()
	db, err := sql.Open("sqlite", w.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	empty := sha256.Sum256(nil)
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)`, []any{origin, base64.StdEncoding.EncodeToString(empty[:])}},
		{`INSERT INTO key (origin, key) VALUES (?, ?)`, []any{origin, vkey}},
	} {
		if _, err := db.ExecContext(t.Context(), q.sql, q.args...); err != nil {
			t.Fatalf("%s: %v", q.sql, err)
		}
	}
}

// growWitnessed runs the ledger of a data directory with its witnesses, and
// appends n refusals. alarm is what the operator's log must say, "" if all is
// well. It returns the size that is published.
func growWitnessed(t *testing.T, dir string, cfg config.Ledger, n int, alarm string) int64 {
	t.Helper()
	if err := saveLedger(dir, cfg); err != nil {
		t.Fatal(err)
	}
	var said lockedBuffer
	l := openedLedgerWith(t, dir, func(c *ledgerConfig) { c.logger = slog.New(slog.NewJSONHandler(&said, nil)) }, func(e engine) engine { return e })
	for range n {
		if err := l.gateway.Record(t.Context(), denied(t, l, "scope_exceeded")); err != nil {
			t.Fatal(err)
		}
	}
	err := l.flush(t.Context())
	head, herr := l.store.Head(t.Context(), cfg.Family)
	last, lerr := l.store.LastCheckpoint(t.Context(), cfg.Origin(), true)
	if herr != nil || lerr != nil {
		t.Fatal(herr, lerr)
	}
	stopped := l.order.holding().Witnessing().Stopped
	if alarm == "" && (err != nil || stopped != nil || last.Size < head.Size || strings.Contains(said.String(), "ALARM")) {
		t.Fatalf("flush: %v, stopped: %v, published %d of %d:\n%s", err, stopped, last.Size, head.Size, said.String())
	}
	if alarm != "" && (!errors.Is(err, ledger.ErrWitnessDisagrees) || !errors.Is(stopped, ledger.ErrWitnessDisagrees) ||
		last.Size >= head.Size || !strings.Contains(said.String(), alarm)) {
		t.Fatalf("flush: %v, stopped: %v, published %d of %d:\n%s", err, stopped, last.Size, head.Size, said.String())
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return last.Size
}

// copyData copies a data directory, which nobody else may read.
func copyData(t *testing.T, from, to string) {
	t.Helper()
	err := os.CopyFS(to, os.DirFS(from))
	if err == nil {
		err = filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
			mode := fs.FileMode(0o600)
			if err == nil && d.IsDir() {
				mode = 0o700
			}
			return errors.Join(err, os.Chmod(path, mode))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestL3Litewitness lets litewitness cosign a deployment's log, across a
// restart, and shows it two forks: one that is smaller than what it has seen,
// and one that is larger. It answers neither with a signature; publication
// stops with an alarm, and records go on.
func TestL3Litewitness(t *testing.T) {
	w := startLitewitness(t)
	dir := filepath.Join(t.TempDir(), "data")
	cfg := config.Ledger{Family: "ledger.example/std", Period: "2027-03", Region: "eu", DataClass: "internal", Witnesses: []config.Witness{w.Witness}}
	if err := Init(t.Context(), dir, cfg, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	vkey, err := LogKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.add(t, cfg.Origin(), vkey)
	forks := make([]string, 2)
	for i := range forks {
		forks[i] = filepath.Join(t.TempDir(), "fork")
	}

	size := growWitnessed(t, dir, cfg, 3, "")
	for _, fork := range forks { // the log and its key as they are now
		copyData(t, dir, fork)
	}
	if err := saveLedger(forks[0], cfg); err != nil {
		t.Fatal(err)
	}
	running := openedLedgerWith(t, forks[0], func(*ledgerConfig) {}, func(e engine) engine { return e })
	again := growWitnessed(t, dir, cfg, 9, "")
	if again <= size {
		t.Fatalf("%d entries, then %d", size, again)
	}
	report := judge(t, dir, "https://sts.example")
	if f := report.Finding(evidence.Witnesses); f.Status != evidence.Pass {
		t.Errorf("evidence: %+v", f)
	}

	// A copy that runs and is smaller is told so (409), and says nothing more. At
	// the next start it is seen for what it is, an older state of the log.
	if err := running.gateway.Record(t.Context(), denied(t, running, "scope_exceeded")); err != nil {
		t.Fatal(err)
	}
	if err := running.flush(t.Context()); !errors.Is(err, ledger.ErrWitnessDisagrees) || !strings.Contains(err.Error(), "it has seen ") {
		t.Errorf("the smaller fork is published: %v", err)
	}
	if err := running.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	keys, err := loadKeys(forks[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = newLedgerService(t.Context(), newEngine(forks[0], cfg, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: cfg, dataDir: forks[0], keys: keys, sequences: true, now: time.Now,
	})
	if !errors.Is(err, ledger.ErrRollbackDetected) {
		t.Errorf("the smaller fork starts: %v", err)
	}
	// A copy that grew where no witness saw it is larger, and another tree.
	plain := cfg
	plain.Witnesses = nil
	growWitnessed(t, forks[1], plain, 40, "")
	growWitnessed(t, forks[1], cfg, 40, "ALARM: a witness contradicts the log")

	grown := growWitnessed(t, dir, cfg, 1, "")
	if grown <= again {
		t.Errorf("the log itself has %d entries, and had %d", grown, again)
	}
	t.Logf("witness: litewitness cosigned %d, %d and %d entries, and two forks stopped", size, again, grown)
}

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
