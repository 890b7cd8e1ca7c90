package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/lineal-auth/lineal/storage/groupcommit"
)

// RegistryConfig says where a registry lives. URL is required.
//
// Registries may share the ledger's database. That of the persons should be
// another, with a login and backups of its own (ledger.md section 4): whoever
// reads it knows who is behind every record.
type RegistryConfig struct {
	URL    string // as in [Config]
	Schema string // "" means the one that the Open function names

	Create  bool // make or upgrade the tables
	Standby bool // as in [Config]
	Conns   int  // connections that write, and as many that read; 0 means 8

	// Now is the clock of creation times and of forgetting; nil: time.Now.
	Now    func() time.Time
	Logger *slog.Logger // nil discards
}

// open opens the schema of a registry.
func (c *RegistryConfig) open(ctx context.Context, schema string, l layout) (*database, error) {
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if c.Schema == "" {
		c.Schema = schema
	}
	db, err := connect(ctx, access{url: c.URL, schema: c.Schema, conns: c.Conns, standby: c.Standby, logger: c.Logger})
	if err != nil {
		return nil, err
	}
	if err := db.prepare(ctx, l, c.Create); err != nil {
		db.close()
		return nil, err
	}
	return db, nil
}

// reading judges an error of a registry's read.
func (d *database) reading(what string, err error) error {
	if err == nil {
		return nil
	}
	if uerr := d.usable(); uerr != nil {
		err = uerr
	}
	return fmt.Errorf("%s: %w", what, d.judge(err))
}

// grouped shares commits, each of which has its own time.
func grouped[T any](commit func(context.Context, []*T) error) *groupcommit.Group[T] {
	return groupcommit.New(func(ctx context.Context, items []*T) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return commit(ctx, items)
	})
}
