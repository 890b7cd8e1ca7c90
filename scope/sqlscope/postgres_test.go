package sqlscope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// postgres is a PostgreSQL server that the tests start, on a socket in a
// directory of its own, with one superuser and trust authentication.
type postgres struct {
	dir     string
	version int // as server_version_num
	stdin   io.Closer
	done    chan struct{}
}

const (
	superuser = "lineal"
	startTime = 60 * time.Second
	queryTime = 20 * time.Second
)

var errNoPostgres = errors.New("no PostgreSQL server programs on this machine; .ci/postgres installs them")

// theServer is started by the first test that asks, and stopped by TestMain.
var theServer struct {
	once sync.Once
	*postgres
	err error
}

func TestMain(m *testing.M) {
	if text := os.Getenv(overflowEnv); text != "" {
		os.Exit(overflow(text))
	}
	code := m.Run()
	if theServer.postgres != nil {
		if err := theServer.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server returns the server with both databases filled. Without server programs
// the test is skipped, unless LINEAL_REQUIRE_POSTGRES is set.
func server(t testing.TB) *postgres {
	t.Helper()
	theServer.once.Do(func() {
		theServer.postgres, theServer.err = startPostgres()
		if theServer.err == nil {
			theServer.err = theServer.fill()
		}
	})
	if errors.Is(theServer.err, errNoPostgres) && os.Getenv("LINEAL_REQUIRE_POSTGRES") == "" {
		t.Skip(theServer.err)
	}
	if theServer.err != nil {
		t.Fatal(theServer.err)
	}
	return theServer.postgres
}

// programs finds the directory of initdb and postgres: in PATH, or where Debian
// puts them, the newest version first.
func programs() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			if _, err := os.Stat(filepath.Join(filepath.Dir(p), "postgres")); err == nil {
				return filepath.Dir(p), nil
			}
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errNoPostgres
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// unprivileged is how a program runs when the test is root: PostgreSQL refuses
// to be.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func startPostgres() (_ *postgres, err error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg") // short: a socket's path has 107 bytes
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	attr, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, attr
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// The shell ends the server when the test's end of the pipe closes, however
	// the test ends.
	cmd := exec.Command("/bin/sh", "-c", `"$0" "$@" >log 2>&1 & cat >/dev/null; kill -INT $!; wait $!`,
		filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off",
		"-c", "max_connections=20", "-c", "shared_buffers=16MB", "-c", "autovacuum=off", "-c", "jit=off")
	cmd.Dir, cmd.SysProcAttr = dir, attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, stdin: stdin, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // the shell's status is that of the signal
		close(p.done)
	}()
	if err := p.await(ctx); err != nil {
		_ = p.stop()
		return nil, err
	}
	return p, nil
}

func (p *postgres) await(ctx context.Context) error {
	for {
		s, err := p.connect(ctx, "postgres")
		if err == nil {
			defer s.close()
			p.version, err = strconv.Atoi(strings.Trim(s.run(ctx, "SHOW server_version_num").value(), "[]"))
			return err
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			return fmt.Errorf("starting PostgreSQL: %w\n%s", err, log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *postgres) stop() error {
	_ = p.stdin.Close()
	var err error
	select {
	case <-p.done:
	case <-time.After(startTime):
		err = errors.New("PostgreSQL did not stop")
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// session is one connection. What the server says beside rows is collected.
type session struct {
	conn *pgconn.PgConn
	said []string
}

func (p *postgres) connect(ctx context.Context, database string) (*session, error) {
	s := new(session)
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=%s user=%s dbname=%s sslmode=disable", p.dir, superuser, database))
	if err != nil {
		return nil, err
	}
	c.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.said = append(s.said, "notice: "+n.Message) }
	c.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		s.said = append(s.said, "notification: "+n.Channel+" "+n.Payload)
	}
	s.conn, err = pgconn.ConnectConfig(ctx, c)
	return s, err
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), queryTime)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// outcome is all that a client learns from one text.
type outcome struct {
	Columns []string
	Rows    []string
	Said    []string
	Code    string // SQLSTATE
	Message string
}

func (o outcome) value() string { return strings.Join(o.Rows, " ") }

// run sends one text by the simple protocol, which takes several statements.
func (s *session) run(ctx context.Context, sql string) outcome {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	s.said = nil
	var o outcome
	var results []*pgconn.Result
	var err error
	if strings.HasSuffix(sql, " TO STDOUT") {
		var copied strings.Builder
		_, err = s.conn.CopyTo(ctx, &copied, sql)
		o.Rows = append(o.Rows, copied.String())
	} else {
		results, err = s.conn.Exec(ctx, sql).ReadAll()
	}
	for _, r := range results {
		for _, f := range r.FieldDescriptions {
			o.Columns = append(o.Columns, f.Name)
		}
		for _, row := range r.Rows {
			o.Rows = append(o.Rows, fmt.Sprintf("%s", row))
		}
	}
	o.Said = s.said
	if err != nil {
		o.Code, o.Message = "client", err.Error()
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		o.Code, o.Message = pg.Code, pg.Message
	}
	return o
}
