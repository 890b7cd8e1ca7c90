package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// database is a place in a PostgreSQL database of its own.
func database(t *testing.T, s *pgtest.Server) Place {
	t.Helper()
	return Place{Dir: t.TempDir(), URL: s.URL(s.Database(t))}
}

// beside is another process's place on the same database.
func (p Place) beside(t *testing.T) Place {
	t.Helper()
	return Place{Dir: t.TempDir(), URL: p.URL}
}

func sequencer(t *testing.T, p Place, lease time.Duration) *child {
	t.Helper()
	return start(t, nil, "-dir", p.Dir, "-url", p.URL, "-sequence", "-lease", lease.String())
}

func writer(t *testing.T, p Place, args ...string) *child {
	t.Helper()
	return start(t, nil, append([]string{"-dir", p.Dir, "-url", p.URL, "-writer", "gw"}, args...)...)
}

// acks waits until a child got so many more acknowledgements.
func (c *child) acks(more int) {
	c.t.Helper()
	from := c.acked()
	within(c.t, "no record becomes durable any more", func() bool {
		if len(c.heard) > 0 {
			c.t.Fatalf("the process ended: %v: %s", c.told.Stopped, c.errs.String())
		}
		return c.acked() >= from+more
	})
}

func (c *child) leads() bool { return c.is(func(t *Told) bool { return t.Sequencing }) }

// all joins what several processes told, none of which may have been refused.
func all(t *testing.T, tolds ...*Told) *Told {
	t.Helper()
	sum := &Told{}
	for _, o := range tolds {
		if err := sum.join(o); err != nil {
			t.Error(err)
		}
	}
	return sum
}

// TestKilledUnderLoad kills the process wherever it happens to be, again and again.
func TestKilledUnderLoad(t *testing.T) {
	p, sum := Place{Dir: t.TempDir()}, &Told{}
	for range 5 {
		c := writer(t, p, "-sequence", "-callers", "16")
		c.acks(150)
		sum = all(t, sum, c.kill())
	}
	holds(t, p, sum)
}

// TestStoppedSequencer: the process that sequences hangs until long after its
// lease. Another goes on; the first, when it wakes, adds nothing and ends.
func TestStoppedSequencer(t *testing.T) {
	asked(t)
	lease, sleep := time.Second, 3*time.Second
	if wholeTable() {
		lease, sleep = 10*time.Second, 30*time.Second
	}
	p := database(t, pgtest.Shared(t))
	other := p.beside(t)
	zombie := sequencer(t, p, lease)
	within(t, "nobody sequences", zombie.leads)
	w := writer(t, p.beside(t))
	w.acks(50)
	zombie.signal(syscall.SIGSTOP)
	stopped := time.Now()
	heir := sequencer(t, other, lease)
	within(t, "nobody goes on", heir.leads)
	w.acks(100)
	time.Sleep(max(0, sleep-time.Since(stopped)))
	zombie.signal(syscall.SIGCONT)
	late := zombie.end()
	if !slices.Contains(late.Stopped, "epoch_lost") || late.Done {
		t.Errorf("the process that was stopped told %v", late.Stopped)
	}
	w.acks(20)
	sum := all(t, late, w.stop(), heir.stop())
	if len(heir.told.Stopped) != 0 || len(w.told.Stopped) != 0 {
		t.Errorf("others ended too: %v, %v", heir.told.Stopped, w.told.Stopped)
	}
	holds(t, other, sum)
}

// TestStoppedEngine: the database server hangs. Records are refused in time with
// a code; when it wakes, what was under way is stored once.
func TestStoppedEngine(t *testing.T) {
	asked(t)
	s := pgtest.Start(t)
	p := database(t, s)
	c := writer(t, p, "-sequence", "-lease", "1s", "-deadline", "300ms", "-callers", "8")
	c.acks(50)
	signal := engine(t, s)
	signal(syscall.SIGSTOP)
	within(t, "nothing is refused", func() bool { return c.is(func(t *Told) bool { return len(t.Refused) > 0 }) })
	time.Sleep(1500 * time.Millisecond) // past the lease
	signal(syscall.SIGCONT)
	c.acks(50)
	told := c.stop()
	typed(t, told)
	if !told.Done {
		t.Errorf("the process stopped: %v", told.Stopped)
	}
	holds(t, p, told)
}

// engine reaches all processes of a database server.
func engine(t *testing.T, s *pgtest.Server) func(syscall.Signal) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	main, _, _ := strings.Cut(string(text), "\n")
	return func(sig syscall.Signal) {
		t.Helper()
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil || len(stats) == 0 {
			t.Skip("no /proc to find the server's processes in")
		}
		n := 0
		for _, path := range stats {
			stat, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			pid := filepath.Base(filepath.Dir(path))
			_, rest, _ := strings.Cut(string(stat), ") ")
			if fields := strings.Fields(rest); pid != main && (len(fields) < 2 || fields[1] != main) {
				continue
			}
			id, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if syscall.Kill(id, sig) == nil {
				n++
			}
		}
		if n < 3 {
			t.Fatalf("reached %d processes of the server", n)
		}
	}
}

// typed: every refusal has its code and a cause of the list.
func typed(t *testing.T, told *Told) {
	t.Helper()
	if len(told.Refused) == 0 {
		t.Error("nothing was refused")
	}
	for what := range told.Refused {
		code, cause, _ := strings.Cut(what, " ")
		if code != "ledger_unavailable" || !slices.Contains([]string{"queue_full", "intake_backlog", "late", "ledger_unavailable", "disk_low"}, cause) {
			t.Errorf("refused with %q", what)
		}
	}
}

// TestRestoredBackup: an older database beside what the process has seen outside
// of it. Nothing is appended to it.
func TestRestoredBackup(t *testing.T) {
	p := Place{Dir: t.TempDir()}
	backup := t.TempDir()
	first := writer(t, p, "-sequence", "-records", "20").end()
	shell(t, "cp", "-a", p.database(), backup)
	second := writer(t, p, "-sequence", "-records", "20").end()
	newer := t.TempDir()
	shell(t, "cp", "-a", p.database(), newer)
	shell(t, "cp", "-a", filepath.Join(backup, "ledger.db"), p.Dir)

	c := writer(t, p, "-sequence", "-records", "20")
	if told := c.end(); len(told.Acked) != 0 || len(told.Checkpoints) != 0 || !strings.Contains(c.errs.String(), "larger tree") || c.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%d records, %d checkpoints over a restored backup: %s", len(told.Acked), len(told.Checkpoints), c.errs.String())
	}
	shell(t, "cp", "-a", filepath.Join(newer, "ledger.db"), p.Dir) // the twin
	holds(t, p, all(t, first, second))
}

func shell(t *testing.T, line ...string) {
	t.Helper()
	if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", line, err, out)
	}
}

// TestRestoredServer: the same of a database server, under processes that go on
// running. The writer's next record meets a tail that is not its own; whoever
// sequenced has seen a larger tree.
func TestRestoredServer(t *testing.T) {
	asked(t)
	s := pgtest.Start(t)
	p := database(t, s)
	backup := filepath.Join(t.TempDir(), "data")
	q, w := sequencer(t, p, time.Second), writer(t, p.beside(t), "-callers", "1")
	w.acks(30)
	before := all(t, w.stop(), q.stop())
	s.Crash(t)
	shell(t, "cp", "-a", s.Data(), backup)
	s.Resume(t)
	q, w = sequencer(t, p, time.Second), writer(t, p.beside(t), "-callers", "1")
	w.acks(30)
	q.stop()
	w.signal(syscall.SIGSTOP) // it lives through the restore
	s.Crash(t)
	newer := filepath.Join(t.TempDir(), "data")
	shell(t, "cp", "-a", s.Data(), newer)
	shell(t, "rm", "-r", s.Data())
	shell(t, "cp", "-a", backup, s.Data())
	s.Resume(t)
	w.signal(syscall.SIGCONT)
	late := w.end()
	if late.Done || !slices.Contains(late.Stopped, "writer_conflict") && !slices.Contains(late.Stopped, "stale_writer") {
		t.Errorf("the writer told %v", late.Stopped)
	}
	c := sequencer(t, p, time.Second)
	if told := c.end(); told.Sequencing || len(told.Checkpoints) != 0 || !strings.Contains(c.errs.String(), "larger tree") {
		t.Errorf("a sequencer over a restored backup: %s", c.errs.String())
	}
	s.Crash(t)
	shell(t, "rm", "-r", s.Data())
	shell(t, "cp", "-a", newer, s.Data())
	s.Resume(t)
	holds(t, p, all(t, before, late, &q.told)) // the twin: the newer one is whole
}

// TestClockJumps: the store's clock goes back, far ahead, and back again. No
// entry gets an earlier time than the one before it; what is acknowledged while
// the clock is behind waits, and gets its index later.
func TestClockJumps(t *testing.T) {
	p, sum := Place{Dir: t.TempDir()}, &Told{}
	for _, step := range []struct {
		clock time.Duration
		stops string
	}{{0, ""}, {-time.Hour, "clock_behind"}, {time.Hour, ""}, {0, "clock_behind"}, {time.Hour + time.Minute, ""}} {
		told := writer(t, p, "-sequence", "-records", "20", "-clock", step.clock.String()).end()
		if got := strings.Join(slices.Compact(slices.Clone(told.Stopped)), " "); got != step.stops || told.Done != (step.stops == "") {
			t.Errorf("with a clock at %v: stopped %q", step.clock, told.Stopped)
		}
		sum = all(t, sum, told)
	}
	p.Clock = 2 * time.Hour
	holds(t, p, sum)
}

// TestOverload offers twice what the process can do, whatever it answers: what
// it cannot take is refused with a code, and its memory does not grow with it.
func TestOverload(t *testing.T) {
	asked(t)
	p := Place{Dir: t.TempDir()}
	c := writer(t, p, "-sequence", "-callers", "256")
	c.acks(1)
	from, began := c.acked(), time.Now()
	time.Sleep(500 * time.Millisecond)
	rate := int(float64(c.acked()-from) / time.Since(began).Seconds())
	sum := c.stop()
	for tries := 0; ; tries++ {
		rate *= 2
		c = writer(t, p, "-sequence", "-rate", strconv.Itoa(rate), "-records", strconv.Itoa(rate), "-queued", "512", "-intake", "5000", "-deadline", "1s")
		told := c.end()
		sum = all(t, sum, told)
		offered := len(told.Acked)
		for _, n := range told.Refused {
			offered += n
		}
		usage, ok := c.cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Skip("no resource usage on this system")
		}
		t.Logf("%d offered in a second: %d acknowledged, %v refused, %d MiB at most", rate, len(told.Acked), told.Refused, usage.Maxrss>>10)
		if usage.Maxrss>>10 > 512 {
			t.Errorf("the process grew to %d MiB", usage.Maxrss>>10)
		}
		if offered != rate || !told.Done || len(told.Acked) == 0 {
			t.Fatalf("%d of %d were answered; stopped %v: %s", offered, rate, told.Stopped, c.errs.String())
		}
		if len(told.Refused) > 0 {
			typed(t, told)
			break
		}
		if tries == 4 {
			t.Fatal("it could not be offered more than it can do")
		}
	}
	holds(t, p, sum)
}

// TestDiskFull fills the file system under the process: records are refused with
// a code until there is room again, and nothing that was acknowledged is lost.
func TestDiskFull(t *testing.T) {
	asked(t)
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("mounting needs privileges: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p := Place{Dir: filepath.Join(dir, "log")}
	c := writer(t, p, "-sequence", "-callers", "8")
	c.acks(50)
	filler := filepath.Join(dir, "filler")
	_ = os.WriteFile(filler, make([]byte, 16<<20), 0o600) // as much as there is room for
	within(t, "nothing is refused", func() bool { return c.is(func(t *Told) bool { return len(t.Refused) > 0 }) })
	time.Sleep(300 * time.Millisecond)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c.acks(50)
	told := c.stop()
	typed(t, told)
	if !told.Done {
		t.Errorf("the process stopped: %v: %s", told.Stopped, c.errs.String())
	}
	holds(t, p, told)
}
