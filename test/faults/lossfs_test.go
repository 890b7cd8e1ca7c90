package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// lossy is a mount that loses what was not synced: test/lossfs.
type lossy struct {
	t   *testing.T
	dir string
	in  io.WriteCloser
	out *bufio.Scanner
}

func mount(t *testing.T) *lossy {
	t.Helper()
	asked(t)
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("LINEAL_REQUIRE_FUSE") == "1" {
			t.Fatalf("mounting needs root and /dev/fuse: %v", err)
		}
		t.Skip("mounting needs root and /dev/fuse (LINEAL_REQUIRE_FUSE=1 makes this a failure)")
	}
	bin := filepath.Join(filepath.Dir(program(t)), "lossfs")
	if _, err := os.Stat(bin); err != nil {
		build := exec.Command("go", "build", "-o", bin, ".")
		build.Dir, build.Env = "../lossfs", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building lossfs: %v: %s", err, out)
		}
	}
	m := &lossy{t: t, dir: t.TempDir()}
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil { // for the user that a database server runs as
		t.Fatal(err)
	}
	cmd := exec.Command(bin, m.dir)
	cmd.Stderr = os.Stderr
	var err error
	if m.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.out = bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = m.in.Close()
		end := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	m.expect("mounted")
	return m
}

func (m *lossy) expect(want string) {
	m.t.Helper()
	if got := m.answer(); got != want {
		m.t.Fatalf("lossfs said %q, not %q", got, want)
	}
}

func (m *lossy) answer() string {
	m.t.Helper()
	if !m.out.Scan() {
		m.t.Fatalf("lossfs ended: %v", m.out.Err())
	}
	return m.out.Text()
}

// do gives a command that answers "ok".
func (m *lossy) do(words ...any) {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.in, words...); err != nil {
		m.t.Fatal(err)
	}
	m.expect("ok")
}

func (m *lossy) count() int {
	m.t.Helper()
	if _, err := fmt.Fprintln(m.in, "count"); err != nil {
		m.t.Fatal(err)
	}
	n, err := strconv.Atoi(m.answer())
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// place is a log on the mount.
func (m *lossy) place() Place { return Place{Dir: filepath.Join(m.dir, "log")} }

// left is what the cut left, on a file system that loses nothing.
func (m *lossy) left(how ...any) Place {
	m.t.Helper()
	dir := m.t.TempDir()
	m.do(append([]any{"save", dir}, how...)...)
	return Place{Dir: filepath.Join(dir, "log")}
}

// cut runs a session on an empty mount until the power goes at a step.
func (m *lossy) cut(step int, before ...string) *Told {
	m.t.Helper()
	m.do("reset")
	m.do("cut", step)
	return start(m.t, before, session(m.place())...).end()
}

// TestPowerCut cuts the power at each step that changes or syncs a file. What was
// acknowledged is there, whether all that was not synced is lost or some of it.
func TestPowerCut(t *testing.T) {
	m := mount(t)
	if told := m.cut(0); !told.Done || len(told.Acked) != 24 {
		t.Fatalf("with power: %d records, stopped %v", len(told.Acked), told.Stopped)
	}
	steps := m.count()
	stride := 1
	if !wholeTable() {
		stride = steps/40 + 1
	}
	cuts, acked := 0, 0
	for n := 1; n < steps; n += stride {
		told := m.cut(n)
		if told.Done {
			continue // it took fewer steps this time
		}
		cuts++
		acked += len(told.Acked)
		ways := [][]any{{"lost"}, {"torn", 2 * n}, {"torn", 2*n + 1}}
		for _, how := range ways {
			heard := all(t, told)
			if err := recovered(t, m.left(how...), heard); err != nil {
				t.Errorf("step %d of %d, %v: %v", n, steps, how, err)
			}
		}
	}
	if cuts < 20 || acked == 0 {
		t.Errorf("%d cuts, %d records acknowledged before them", cuts, acked)
	}
	t.Logf("%d cuts in a session of %d steps, each with three ends; %d records were acknowledged before them", cuts, steps, acked)
}

// TestPowerCutWithoutSync is the negative control: with syncs that do nothing the
// same cuts lose what was acknowledged, and the check says so. If it does not,
// [TestPowerCut] proves nothing.
func TestPowerCutWithoutSync(t *testing.T) {
	m := mount(t)
	const calls = "fsync,fdatasync"
	for _, c := range []struct {
		name  string
		line  func() ([]string, string)
		loses bool
	}{
		{"faked", func() ([]string, string) { return strace(t, calls+":retval=0") }, true},
		{"real", func() ([]string, string) { return strace(t, calls+":delay_enter=1") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			line, log := c.line()
			m.do("reset")
			p := start(t, line, session(m.place())...)
			told := p.end()
			if len(told.Acked) != 24 || p.broken(log) == 0 {
				t.Fatalf("%d records, %d calls changed: %s", len(told.Acked), p.broken(log), p.errs.String())
			}
			m.t = t
			err := recovered(t, m.left("lost"), told)
			if errors.Is(err, ErrLost) != c.loses {
				t.Errorf("the check said: %.300v", err)
			}
			if c.loses && !strings.Contains(fmt.Sprint(err), "was acknowledged and is in the log 0 times") {
				t.Errorf("no record was lost: %.300v", err)
			}
			if !c.loses && err != nil {
				t.Error(err)
			}
		})
	}
}
