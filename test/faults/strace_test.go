package faults

import (
	"strings"
	"sync"
	"testing"
)

// TestEachStep breaks the system calls by which the process stores, orders and
// publishes, one at a time: it is killed there, or the call fails. A call is
// counted in each thread for itself, so a number may hit more than once.
func TestEachStep(t *testing.T) {
	asked(t)
	for _, row := range []struct {
		calls string
		upTo  int
		how   []string
	}{
		{"fsync,fdatasync", 55, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"pwrite64", 144, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"write", 55, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"ftruncate,fallocate", 8, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"openat", 89, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"rename,renameat,renameat2", 21, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"mkdir,mkdirat", 5, []string{"signal=SIGKILL", "error=EIO", "error=ENOSPC"}},
		{"unlink,unlinkat", 21, []string{"signal=SIGKILL", "error=EIO"}},
		{"fchmod,fchmodat", 13, []string{"signal=SIGKILL", "error=EIO"}},
		{"pread64", 34, []string{"signal=SIGKILL", "error=EIO"}},
		{"read", 34, []string{"signal=SIGKILL", "error=EIO"}},
		{"close", 34, []string{"signal=SIGKILL", "error=EIO"}},
		{"fstat,newfstatat,stat,lstat", 21, []string{"error=EIO"}},
		{"fcntl", 34, []string{"signal=SIGKILL"}}, // a lock that fails to end is waited for, five seconds each time
	} {
		for _, how := range row.how {
			t.Run(strings.Split(row.calls, ",")[0]+"/"+how, func(t *testing.T) {
				t.Parallel()
				hit := 0
				for _, n := range steps(row.upTo) {
					p := Place{Dir: t.TempDir()}
					line, log := strace(t, row.calls+":"+how+":when="+itoa(n))
					c := start(t, line, session(p)...)
					told := c.end()
					if c.broken(log) == 0 {
						if len(told.Acked) != 24 || !told.Done {
							t.Fatalf("step %d: nothing was broken, and %d records are acknowledged", n, len(told.Acked))
						}
						break // the session has no more of these
					}
					hit++
					if told.Done && strings.HasPrefix(row.calls, "fsync") {
						t.Errorf("step %d: a sync failed, and the process went on", n)
					}
					if err := recovered(t, p, told); err != nil {
						t.Errorf("step %d: %v", n, err)
					}
				}
				count(t, hit)
			})
		}
	}
	t.Cleanup(func() { t.Logf("%d processes were broken", total.n) })
}

// total counts the faults of a table.
var total struct {
	sync.Mutex
	n int
}

// count fails a row that broke nothing.
func count(t *testing.T, hit int) {
	t.Helper()
	if hit == 0 {
		t.Error("nothing was broken")
	}
	total.Lock()
	total.n += hit
	total.Unlock()
}
