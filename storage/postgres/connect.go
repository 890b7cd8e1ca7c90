package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	minVersion = 15 // major version of the server

	// patience is how long one transaction may take without the caller's
	// context: a server that does not answer for so long is given up. Before
	// COMMIT that undoes the transaction; after it, nobody knows.
	patience = 30 * time.Second
	// abandoned is how long the server keeps a transaction whose client says
	// nothing: a stopped process must not hold the locks of the others.
	abandoned = 10 * time.Second
	// lifetime bounds how long a connection rests on checks made at its start.
	lifetime = 15 * time.Minute

	defaultConns = 8
)

// ErrUnsafe says that the server could lose what it confirmed, or is not the
// one to ask: it is older than 15, in recovery, or runs with fsync,
// full_page_writes or synchronous_commit switched off or reduced, or without
// the standbys that were asked for.
var ErrUnsafe = errors.New("the server does not keep what it confirms")

// access is how to reach one schema of one server.
type access struct {
	url      string
	schema   string
	conns    int
	readOnly bool
	standby  bool // insist on synchronous standbys
	logger   *slog.Logger
}

// database is a schema reached through two pools, so that no read ever keeps a
// write waiting for a connection.
type database struct {
	schema string
	write  *pgxpool.Pool // nil if read-only
	read   *pgxpool.Pool
	logger *slog.Logger
	closed atomic.Bool
	// failed is set after the server reported damage. What it says later about
	// the same data is worth nothing until a person has looked.
	failed atomic.Pointer[error]
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// connect opens the pools and one connection of each, so that a server that
// cannot be used is refused now.
func connect(ctx context.Context, a access) (_ *database, err error) {
	if a.url == "" || !schemaName.MatchString(a.schema) {
		return nil, fmt.Errorf("a URL and a schema of lower-case letters, digits and underscores are required, not %q", a.schema)
	}
	if a.conns <= 0 {
		a.conns = defaultConns
	}
	if a.logger == nil {
		a.logger = slog.New(slog.DiscardHandler)
	}
	d := &database{schema: a.schema, logger: a.logger}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if !a.readOnly {
		if d.write, err = openPool(ctx, a, false); err != nil {
			return nil, err
		}
	}
	if d.read, err = openPool(ctx, a, true); err != nil {
		return nil, err
	}
	return d, nil
}

func openPool(ctx context.Context, a access, readOnly bool) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(a.url) // its errors hide the password
	if err != nil {
		return nil, err
	}
	cfg.MinConns, cfg.MaxConns = 0, int32(min(a.conns, 1000)) //nolint:gosec // bounded
	cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter = lifetime, lifetime/10
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	cfg.ConnConfig.DialFunc = (&net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
	}).DialContext
	if cfg.ConnConfig.ValidateConnect == nil { // of several hosts, take the primary
		cfg.ConnConfig.ValidateConnect = isPrimary
	}
	cfg.ConnConfig.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if n.SeverityUnlocalized == "WARNING" {
			c.CustomData()[warning] = n.Message
		}
	}
	for k, v := range map[string]string{
		"search_path": a.schema, "client_encoding": "UTF8", "default_transaction_isolation": "read committed",
		"statement_timeout": "0", "lock_timeout": "0", // a COMMIT that waits for its standby must not be cancelled
		"idle_in_transaction_session_timeout": fmt.Sprint(abandoned.Milliseconds()),
	} {
		cfg.ConnConfig.RuntimeParams[k] = v
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "lineal"
	}
	if readOnly {
		cfg.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	} else {
		cfg.BeforeConnect = neverCancel
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error { return checkSession(ctx, c, a.standby) }
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// isPrimary refuses a host in recovery, so that the next one is tried.
func isPrimary(_ context.Context, c *pgconn.PgConn) error {
	if c.ParameterStatus("in_hot_standby") != "off" { // reported since version 14
		return fmt.Errorf("%w: it is in recovery", ErrUnsafe)
	}
	return nil
}

// warning is the key under which a connection keeps the last warning.
const warning = "lineal.warning"

// neverCancel takes from a connection the means to cancel its own statement.
// The library sends a cancel request, by a second connection, whenever one
// breaks; that would end a COMMIT's wait for its standby and let it count.
func neverCancel(_ context.Context, c *pgx.ConnConfig) error {
	dial, connected := c.DialFunc, new(atomic.Bool)
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if connected.Load() {
			return nil, errors.New("a commit is never cancelled")
		}
		return dial(ctx, network, addr)
	}
	c.Config.AfterConnect = func(context.Context, *pgconn.PgConn) error {
		connected.Store(true)
		return nil
	}
	return nil
}

// checkSession reads back what the durability of every commit on this
// connection rests on, and pins what a reload of the configuration could
// change under it.
func checkSession(ctx context.Context, c *pgx.Conn, standby bool) error {
	var version int
	var fsync, pages, commit, encoding, standbys string
	var recovery bool
	if err := c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
		current_setting('synchronous_commit'), current_setting('server_encoding'), current_setting('synchronous_standby_names'), pg_is_in_recovery()`).
		Scan(&version, &fsync, &pages, &commit, &encoding, &standbys, &recovery); err != nil {
		return fmt.Errorf("reading the server's settings: %w", err)
	}
	switch {
	case version < minVersion*10000:
		return fmt.Errorf("%w: server version %d is older than %d", ErrUnsafe, version, minVersion*10000)
	case recovery:
		return fmt.Errorf("%w: it is in recovery", ErrUnsafe)
	case fsync != "on" || pages != "on":
		return fmt.Errorf("%w: fsync is %s and full_page_writes %s", ErrUnsafe, fsync, pages)
	case commit != "on" && commit != "remote_apply":
		return fmt.Errorf("%w: synchronous_commit is %s, neither on nor remote_apply", ErrUnsafe, commit)
	case encoding != "UTF8":
		return fmt.Errorf("the database's encoding is %s, not UTF8", encoding)
	case standby && standbys == "":
		return fmt.Errorf("%w: synchronous_standby_names is empty", ErrUnsafe)
	}
	if _, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', $1, false)`, commit); err != nil {
		return fmt.Errorf("pinning synchronous_commit: %w", err)
	}
	return nil
}

// close waits for what is under way and closes all connections.
func (d *database) close() {
	d.closed.Store(true)
	for _, p := range []*pgxpool.Pool{d.write, d.read} {
		if p != nil {
			p.Close()
		}
	}
}
