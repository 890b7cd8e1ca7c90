package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// patience bounds every wait.
const patience = 60 * time.Second

// programs are built once, for all tests.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(pgtest.Main(m), goleak.Cleanup(func(code int) {
		if programs.dir != "" {
			_ = os.RemoveAll(programs.dir)
		}
		os.Exit(code)
	}))
}

// program gives the path of the appender, which is built without the race
// detector: what is watched is what it leaves.
func program(t testing.TB) string {
	t.Helper()
	programs.once.Do(func() {
		programs.dir, programs.err = os.MkdirTemp("", "faults") //nolint:usetesting // it outlives the test
		if programs.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", programs.dir, "./appender")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			programs.err = fmt.Errorf("building the appender: %w: %s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, "appender")
}

// wholeTable reports whether every step is broken, or a sample that fits into
// the time of each change (make faults).
func wholeTable() bool { return os.Getenv("LINEAL_FAULTS") == "all" }

// asked skips what takes many processes or much time unless it is asked for.
func asked(t *testing.T) {
	t.Helper()
	if os.Getenv("LINEAL_FAULTS") == "" {
		t.Skip("LINEAL_FAULTS=some or all runs these (.ci/faults)")
	}
}

// child is an appender that runs, or ran.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	errs  bytes.Buffer
	heard chan error // of the one who reads its lines

	mu   sync.Mutex // guards told while the child runs
	told Told
}

// start starts an appender behind a command line, such as strace's.
func start(t *testing.T, before []string, args ...string) *child {
	t.Helper()
	line := append(slices.Clone(before), append([]string{program(t)}, args...)...)
	c := &child{t: t, cmd: exec.Command(line[0], line[1:]...), heard: make(chan error, 1)}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // strace and what it runs end together
	c.cmd.Stderr = &c.errs
	c.cmd.WaitDelay = patience
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.heard <- c.hear(out) }()
	t.Cleanup(func() { c.signal(syscall.SIGKILL) })
	return c
}

func (c *child) hear(r io.Reader) error {
	pr, pw := io.Pipe()
	var all sync.WaitGroup
	all.Go(func() {
		_, err := io.Copy(pw, r)
		_ = pw.CloseWithError(err)
	})
	defer all.Wait()
	b := make([]byte, 0, 4096)
	buf := make([]byte, 4096)
	for {
		n, err := pr.Read(buf)
		b = append(b, buf[:n]...)
		for {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				break
			}
			c.mu.Lock()
			lerr := c.told.line(string(b[:i]))
			c.mu.Unlock()
			if lerr != nil {
				_ = pr.CloseWithError(lerr)
				return lerr
			}
			b = b[i+1:]
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// signal reaches the child and whatever runs it.
func (c *child) signal(s syscall.Signal) {
	if c.cmd.ProcessState == nil {
		_ = syscall.Kill(-c.cmd.Process.Pid, s) // it may be gone
	}
}

// acked is how many records are acknowledged by now.
func (c *child) acked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.told.Acked)
}

// is asks about what was told by now.
func (c *child) is(ok func(*Told) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ok(&c.told)
}

// end waits for the child, and gives all it told.
func (c *child) end() *Told {
	c.t.Helper()
	kill := time.AfterFunc(patience, func() { c.signal(syscall.SIGQUIT) })
	if err := <-c.heard; err != nil {
		c.t.Errorf("reading what the process told: %v", err)
	}
	_ = c.cmd.Wait() // how it ended is in the state
	if !kill.Stop() {
		c.t.Fatalf("the process did not end: %s", c.errs.String())
	}
	_ = c.stdin.Close()
	return &c.told
}

// stop ends the child in order.
func (c *child) stop() *Told {
	_ = c.stdin.Close()
	return c.end()
}

// kill ends it at once.
func (c *child) kill() *Told {
	c.signal(syscall.SIGKILL)
	return c.end()
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// join adds what a second process told.
func (t *Told) join(o *Told) error {
	var text strings.Builder
	for _, id := range o.Acked {
		fmt.Fprintln(&text, "ack", id)
	}
	for size, root := range o.Checkpoints {
		fmt.Fprintln(&text, "checkpoint", size, root)
	}
	for _, r := range o.Rejected {
		fmt.Fprintln(&text, "rejected", r)
	}
	return t.Hear(strings.NewReader(text.String()))
}

// holds starts the log anew and checks everything.
func holds(t *testing.T, p Place, told *Told) {
	t.Helper()
	if err := recovered(t, p, told); err != nil {
		t.Error(err)
	}
}

func recovered(t *testing.T, p Place, told *Told) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Recover(ctx, p, told); err != nil {
		return err
	}
	return Check(ctx, p, told)
}

// strace gives the command line that breaks a system call, and the file that
// says what it broke.
func strace(t *testing.T, inject string) (line []string, log string) {
	t.Helper()
	asked(t)
	path, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("LINEAL_REQUIRE_STRACE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v (LINEAL_REQUIRE_STRACE=1 makes this a failure)", err)
	}
	log = filepath.Join(t.TempDir(), "strace")
	calls, _, _ := strings.Cut(inject, ":")
	return []string{path, "-f", "-q", "-o", log, "-e", "trace=" + calls, "-e", "signal=none", "-e", "inject=" + inject}, log
}

// broken counts what strace broke of a child that has ended. strace ends as what
// it ran did.
func (c *child) broken(log string) int {
	t := c.t
	t.Helper()
	if st, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
		return 1
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "(INJECTED)") + strings.Count(string(text), "(DELAYED)")
}

// session is what the broken processes do.
func session(p Place) []string {
	return []string{"-dir", p.Dir, "-url", p.URL, "-writer", "gw", "-sequence", "-records", "24", "-callers", "3"}
}

// steps are those of a system call that are broken, up to a number.
func steps(upTo int) []int {
	var out []int
	if wholeTable() {
		for n := 1; n <= upTo; n++ {
			out = append(out, n)
		}
		return out
	}
	for a, b := 1, 2; a <= upTo; a, b = b, a+b {
		out = append(out, a)
	}
	return out
}

func itoa(n int) string { return strconv.Itoa(n) }
