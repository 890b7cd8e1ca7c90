package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// eatmydata makes a program's syncs do nothing. It reaches the server, not Go.
func eatmydata(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/libeatmydata.so*")
	if err != nil || len(found) == 0 {
		if os.Getenv("LINEAL_REQUIRE_EATMYDATA") == "1" {
			t.Fatal("libeatmydata is not installed")
		}
		t.Skip("libeatmydata is not installed (LINEAL_REQUIRE_EATMYDATA=1 makes this a failure)")
	}
	return found[0]
}

// TestPowerCutOfServer cuts the power of a PostgreSQL server under load. What was
// acknowledged is there when it comes back. Under eatmydata it is not, and the
// check says so: the negative control.
func TestPowerCutOfServer(t *testing.T) {
	asked(t)
	for _, c := range []struct {
		name  string
		loses bool
	}{{"syncs", false}, {"eatmydata", true}} {
		t.Run(c.name, func(t *testing.T) {
			m := mount(t)
			if c.loses {
				t.Setenv("LD_PRELOAD", eatmydata(t))
			}
			elsewhere := os.TempDir()
			t.Setenv("TMPDIR", m.dir)
			s := pgtest.Start(t, "unix_socket_directories = ''")
			t.Setenv("TMPDIR", elsewhere)
			p := database(t, s)
			began := writer(t, p, "-sequence", "-lease", "1s", "-records", "20").end()
			m.do("sync")
			w := writer(t, p, "-sequence", "-lease", "1s", "-deadline", "300ms")
			w.acks(100)
			m.do("cut", 1)
			within(t, "the server goes on without power", func() bool { return w.is(func(t *Told) bool { return len(t.Refused) > 0 }) || len(w.heard) > 0 })
			told := all(t, began, w.kill())
			s.Crash(t)
			left := t.TempDir()
			m.do("save", left, "lost")
			m.do("reset")
			shell(t, "cp", "-a", left+"/.", m.dir)
			s.Resume(t)
			time.Sleep(time.Second) // the lease of the process that ended
			if c.loses {
				// The files outside of the database would refuse it as rolled back.
				p.Dir = t.TempDir()
			}
			switch err := recovered(t, p, told); {
			case !c.loses && err != nil:
				t.Error(err)
			case c.loses && (!errors.Is(err, ErrLost) || !strings.Contains(fmt.Sprint(err), "was acknowledged and is in the log 0 times")):
				t.Errorf("the check said: %.300v", err)
			}
		})
	}
}
