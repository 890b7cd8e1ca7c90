package feed_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/feed"
)

// rsyslogd is the daemon of the machine, or the one of LINEAL_RSYSLOGD.
func rsyslogd(t *testing.T) string {
	t.Helper()
	for _, path := range []string{os.Getenv("LINEAL_RSYSLOGD"), "/usr/sbin/rsyslogd"} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("LINEAL_REQUIRE_RSYSLOG") != "" {
		t.Fatal("no rsyslogd here")
	}
	t.Skip("no rsyslogd here")
	return ""
}

// rsyslog runs the daemon on a port, which writes what it receives as JSON lines
// to out; it ends it when told.
func rsyslog(t *testing.T, program, dir, port, out string) (kill func()) {
	t.Helper()
	conf := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="128k")
module(load="imtcp" MaxSessions="50")
template(name="msg" type="string" string="%%msg%%\n")
ruleset(name="r") { action(type="omfile" file=%q template="msg" flushOnTXEnd="on") }
input(type="imtcp" port=%q address="127.0.0.1" ruleset="r")
`, dir, out, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	c := exec.Command(program, "-n", "-f", conf, "-i", filepath.Join(dir, "pid")) //nolint:gosec,noctx // a daemon of the machine, killed below
	if modules := os.Getenv("LINEAL_RSYSLOG_MODULES"); modules != "" {
		c.Args = append(c.Args, "-M", modules)
	}
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	kill = func() {
		if !ended {
			ended = true
			_ = c.Process.Kill()
			_ = c.Wait()
			_ = os.Remove(filepath.Join(dir, "pid"))
		}
	}
	t.Cleanup(kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close()
			return kill
		}
		if ctx.Err() != nil {
			kill()
			t.Fatalf("rsyslogd does not listen: %s", said.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestRsyslog sends to the daemon that most machines have, which is killed in
// between: each index is in its file, whole, and first in order.
func TestRsyslog(t *testing.T) {
	program, dir := rsyslogd(t), t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	kill := rsyslog(t, program, dir, port, out)
	sink := &killing{Syslog: toSyslog(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)}
	sink.Address = "127.0.0.1:" + port
	sink.kill = func() {
		kill()
		kill = rsyslog(t, program, dir, port, out)
	}
	cfg := config(newLog(t, 150), sink, &feed.Forgotten{})
	cfg.Batch, cfg.Resend, cfg.Backoff, cfg.MaxBackoff = 10, 50, time.Millisecond, 50*time.Millisecond
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	if sink.kills != 2 {
		t.Fatalf("rsyslogd was killed %d times", sink.kills)
	}
	// It writes beside reading: wait for the last.
	ctx, cancel := contextUntil(t, func() bool { b, _ := os.ReadFile(out); return strings.Contains(string(b), `"index":149,`) }) //nolint:gosec // of this test
	defer cancel()
	<-ctx.Done()
	got := fileLines(t, out)
	slices.Sort(got)
	checkAll(t, slices.Compact(got), 0, 150)
	b, err := os.ReadFile(out) //nolint:gosec // of this test
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	e := batch(t, 1).Entries[0]
	if line, err := export.Line(e); err != nil || first != string(line) {
		t.Errorf("it wrote %.200q: %v", first, err)
	}
}

// killing kills the receiver before the third and the eighth batch are sent, of
// which it may hold what came before in memory alone.
type killing struct {
	*feed.Syslog
	n, kills int
	kill     func()
}

func (k *killing) Deliver(ctx context.Context, b feed.Batch) error {
	if k.n++; k.n == 3 || k.n == 8 {
		k.kills++
		k.kill()
		return fmt.Errorf("the receiver is gone")
	}
	return k.Syslog.Deliver(ctx, b)
}
