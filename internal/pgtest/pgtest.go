//go:build unix

// Package pgtest runs a real PostgreSQL for tests: one server for each test
// binary, made for it and thrown away with it.
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }
//
//	url := pgtest.Shared(t).Database(t)
//
// The server listens on a free port of 127.0.0.1 and trusts every login. It
// runs with the settings that keep what is committed, unless a test asks
// [Start] for others. Without PostgreSQL on the machine tests are skipped;
// LINEAL_REQUIRE_POSTGRES=1 makes that a failure. LINEAL_POSTGRES_BIN names
// the folder of initdb and postgres if they are neither in PATH nor where
// Debian puts them.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience bounds every wait for the server.
const patience = 60 * time.Second

// Server is a running PostgreSQL.
type Server struct {
	bin, dir string
	port     int
	owner    *syscall.Credential // nil: this user

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	log    *os.File
	count  int // databases made
}

var shared struct {
	sync.Mutex
	server *Server
	err    error
}

// Shared gives the server of this test binary; the first call starts it.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(nil)
	}
	if shared.err != nil {
		giveUp(tb, shared.err)
	}
	return shared.server
}

// Start gives a server of its own to a test, which stops it at its end.
// settings are lines of postgresql.conf, such as "fsync = off".
func Start(tb testing.TB, settings ...string) *Server {
	tb.Helper()
	s, err := start(settings)
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(func() {
		if err := s.remove(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func giveUp(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, errMissing) && os.Getenv("LINEAL_REQUIRE_POSTGRES") != "1" { //nolint:forbidigo // only tests come here
		tb.Skipf("%v (LINEAL_REQUIRE_POSTGRES=1 makes this a failure)", err)
	}
	tb.Fatal(err)
}

type runner struct{ m *testing.M }

// Main wraps m so that the shared server ends with the tests.
func Main(m *testing.M) interface{ Run() int } { return runner{m} }

// Run implements the interface of go.uber.org/goleak's VerifyTestMain.
func (r runner) Run() int {
	code := r.m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		if err := shared.server.remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		shared.server = nil
	}
	return code
}

var errMissing = errors.New("PostgreSQL is not installed")

func start(settings []string) (_ *Server, err error) {
	s := &Server{}
	if s.bin, err = findBinaries(); err != nil {
		return nil, err
	}
	if s.owner, err = owner(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove())
		}
	}()
	if s.owner != nil {
		if err := os.Chown(s.dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return nil, err
		}
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return nil, err
	}
	init := s.command("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D", s.Data())
	var out bytes.Buffer
	init.Stdout, init.Stderr = &out, &out
	if err := init.Run(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out.String())
	}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("port = %d\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '%s'\nmax_connections = 200\nshared_buffers = 64MB\n", s.port, s.dir)
	for _, line := range settings {
		conf += line + "\n"
	}
	f, err := os.OpenFile(filepath.Join(s.Data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(conf); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return s, s.up()
}

// findBinaries gives the folder of initdb and postgres.
func findBinaries() (string, error) {
	if dir := os.Getenv("LINEAL_POSTGRES_BIN"); dir != "" { //nolint:forbidigo // only tests come here
		return dir, nil
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err != nil {
			return "", err
		}
		return filepath.Dir(p), nil
	}
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(dirs) == 0 {
		return "", errMissing
	}
	newest := slices.MaxFunc(dirs, func(a, b string) int { return number(a) - number(b) })
	return filepath.Dir(newest), nil
}

// number reads the major version in /usr/lib/postgresql/N/bin/initdb.
func number(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 is the least
	return n
}

// owner is whom the server runs as: it refuses to run as root.
func owner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: there is no user postgres to run it as", errMissing)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Data is the folder of the database cluster.
func (s *Server) Data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	c.SysProcAttr = attributes(s.owner)
	return c
}

// up starts the server and waits until it takes connections.
func (s *Server) up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := s.command("postgres", "-D", s.Data())
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-exited:
			return s.failure("the server ended")
		case <-ctx.Done():
			return s.failure(fmt.Sprintf("the server does not answer: %v", err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) failure(what string) error {
	text, _ := os.ReadFile(s.log.Name())
	return fmt.Errorf("%s: %s", what, text[max(0, len(text)-2000):])
}

// down ends the server: SIGINT is a fast shutdown, SIGQUIT an immediate one,
// after which it recovers from its log.
func (s *Server) down(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(sig) // it may be gone
	select {
	case <-s.exited:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		return s.failure("the server did not stop")
	}
	s.cmd = nil
	return nil
}

func (s *Server) remove() error {
	err := s.down(syscall.SIGQUIT) // nobody needs what is in it
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Crash ends the server as pg_ctl stop -m immediate does.
func (s *Server) Crash(tb testing.TB) {
	tb.Helper()
	if err := s.down(syscall.SIGQUIT); err != nil {
		tb.Fatal(err)
	}
}

// Resume starts it again, which recovers what was committed.
func (s *Server) Resume(tb testing.TB) {
	tb.Helper()
	if err := s.up(); err != nil {
		tb.Fatal(err)
	}
}

// Port is where it listens on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// URL names a database, for the superuser.
func (s *Server) URL(database string) string { return s.URLAt(s.port, "postgres", database) }

// URLAt names a database behind another port, such as a proxy's, for a login.
func (s *Server) URLAt(port int, login, database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", login, port, database)
}

// Database makes an empty database and gives its name.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	s.mu.Lock()
	s.count++
	name := fmt.Sprintf("test%d", s.count)
	s.mu.Unlock()
	s.Exec(tb, "postgres", "CREATE DATABASE "+name)
	return name
}

// Exec runs statements in a database, as the superuser.
func (s *Server) Exec(tb testing.TB, database string, statements ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			tb.Fatalf("%s: %v", sql, err)
		}
	}
}

// TryAs runs a statement for a login, and gives its error.
func (s *Server) TryAs(tb testing.TB, login, database, sql string) error {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URLAt(s.port, login, database))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// Query gives the one text that a statement answers with.
func (s *Server) Query(tb testing.TB, database, sql string) (answer string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, sql).Scan(&answer); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return answer
}
