package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// engine opens what a deployment keeps. This file, and move.go for the way from one
// to the other, are the one place that knows which engines there are; everything
// else sees interfaces.
//
// Every store is opened once by a process and closed by it.
type engine interface {
	// ledger is the log. Only an engine that may create allows CreateLog.
	ledger(ctx context.Context) (ledger.Store, error)
	// reader is the log, opened so that nothing can be written.
	reader(ctx context.Context) (ledger.Store, error)
	// registry is what was issued, what of it was revoked, and the other facts that
	// change and name no person.
	registry(ctx context.Context) (registryStore, error)
	// persons is the person map, which is kept apart.
	persons(ctx context.Context) (personStore, error)
	// knownPersons is the person map if it is at hand, else nil: it is kept apart
	// from the log, and who reads the log need not have it.
	knownPersons(ctx context.Context) (personStore, error)
	// proofs are the DPoP proofs that were used, and the keys of nonces.
	proofs(ctx context.Context) (proofStore, error)
	// pins are platforms' JWTs and the keys they are held to.
	pins(ctx context.Context) (pinStore, error)
	// logins are logins under way, codes and refresh tokens.
	logins(ctx context.Context) (loginStore, error)
}

// What engines open: the interfaces of registry, which somebody has to close.
type (
	registryStore interface {
		registry.Issued
		registry.Revocations
		registry.Bindings
		registry.Catalog
		registry.Keys
		io.Closer
	}
	personStore interface {
		registry.Persons
		// Forget deletes who is behind a reference: registry.ErrNotFound if nobody is.
		Forget(ctx context.Context, ref string) error
		io.Closer
	}
	proofStore interface {
		registry.Proofs
		io.Closer
	}
	pinStore interface {
		registry.Pins
		io.Closer
	}
	loginStore interface {
		registry.Logins
		io.Closer
	}
)

// engineOptions are what every engine needs beside the configuration.
type engineOptions struct {
	create bool // make what is not there
	now    func() time.Time
	logger *slog.Logger
}

// newEngine chooses the engine: files in the data directory for one process, or
// a PostgreSQL server for any number of them.
func newEngine(dataDir string, l config.Ledger, opts engineOptions) engine {
	if l.Store == "" {
		return sqliteEngine{dataDir, opts}
	}
	return postgresEngine{l, opts}
}

// prepareRegistries makes every registry, or brings it up to date, so that
// services need no right to make tables. The engine must be one that may create.
func prepareRegistries(ctx context.Context, e engine, l config.Ledger) error {
	open := []func() (io.Closer, error){
		func() (io.Closer, error) { return e.registry(ctx) },
		func() (io.Closer, error) { return e.proofs(ctx) },
		func() (io.Closer, error) { return e.pins(ctx) },
		func() (io.Closer, error) { return e.logins(ctx) },
	}
	if l.Persons != "" {
		open = append(open, func() (io.Closer, error) { return e.persons(ctx) })
	}
	for _, f := range open {
		c, err := f()
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// sqliteEngine keeps each store in a file of its own below the data directory.
type sqliteEngine struct {
	dataDir string
	opts    engineOptions
}

func (e sqliteEngine) ledger(ctx context.Context) (ledger.Store, error) {
	return sqlite.Open(ctx, sqlite.Config{Path: e.path(), Create: e.opts.create, Now: e.opts.now, Logger: e.opts.logger})
}

func (e sqliteEngine) reader(ctx context.Context) (ledger.Store, error) {
	return sqlite.Open(ctx, sqlite.Config{Path: e.path(), ReadOnly: true, Now: e.opts.now, Logger: e.opts.logger})
}

func (e sqliteEngine) path() string { return filepath.Join(e.dataDir, "ledger.db") }

func (e sqliteEngine) config() sqlite.RegistryConfig {
	return sqlite.RegistryConfig{Dir: e.dataDir, Now: e.opts.now}
}

func (e sqliteEngine) registry(ctx context.Context) (registryStore, error) {
	return sqlite.OpenRegistry(ctx, e.config())
}

func (e sqliteEngine) persons(ctx context.Context) (personStore, error) {
	return sqlite.OpenPersons(ctx, e.config())
}

func (e sqliteEngine) knownPersons(ctx context.Context) (personStore, error) {
	if _, err := os.Stat(filepath.Join(e.dataDir, "persons.db")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // not at hand
	} else if err != nil {
		return nil, err
	}
	return e.persons(ctx)
}

func (e sqliteEngine) proofs(ctx context.Context) (proofStore, error) {
	return sqlite.OpenProofs(ctx, e.config())
}

func (e sqliteEngine) pins(ctx context.Context) (pinStore, error) {
	return sqlite.OpenPins(ctx, e.config())
}

func (e sqliteEngine) logins(ctx context.Context) (loginStore, error) {
	return sqlite.OpenLogins(ctx, e.config())
}

// postgresEngine keeps each store in a schema of its own of one database, and
// the persons in another database.
type postgresEngine struct {
	cfg  config.Ledger
	opts engineOptions
}

// registryConns bounds the connections of a registry that write, and those that
// read; a process has up to four registries open. Calls share commits, so that
// one connection mostly does.
const registryConns = 3

func (e postgresEngine) ledger(ctx context.Context) (ledger.Store, error) {
	return postgres.Open(ctx, postgres.Config{
		URL: e.cfg.Store.Reveal(), Create: e.opts.create, Standby: e.cfg.RequireStandby, Logger: e.opts.logger,
	})
}

func (e postgresEngine) reader(ctx context.Context) (ledger.Store, error) {
	return postgres.Open(ctx, postgres.Config{URL: e.cfg.Store.Reveal(), ReadOnly: true, Logger: e.opts.logger})
}

func (e postgresEngine) config(url config.Secret) postgres.RegistryConfig {
	return postgres.RegistryConfig{
		URL: url.Reveal(), Create: e.opts.create, Standby: e.cfg.RequireStandby, Conns: registryConns,
		Now: e.opts.now, Logger: e.opts.logger,
	}
}

func (e postgresEngine) registry(ctx context.Context) (registryStore, error) {
	return postgres.OpenRegistry(ctx, e.config(e.cfg.Store))
}

func (e postgresEngine) persons(ctx context.Context) (personStore, error) {
	return postgres.OpenPersons(ctx, e.config(e.cfg.Persons))
}

func (e postgresEngine) knownPersons(ctx context.Context) (personStore, error) {
	if e.cfg.Persons == "" {
		return nil, nil //nolint:nilnil // not at hand
	}
	return e.persons(ctx)
}

func (e postgresEngine) proofs(ctx context.Context) (proofStore, error) {
	return postgres.OpenProofs(ctx, e.config(e.cfg.Store))
}

func (e postgresEngine) pins(ctx context.Context) (pinStore, error) {
	return postgres.OpenPins(ctx, e.config(e.cfg.Store))
}

func (e postgresEngine) logins(ctx context.Context) (loginStore, error) {
	return postgres.OpenLogins(ctx, e.config(e.cfg.Store))
}
