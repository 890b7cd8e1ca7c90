package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/groupcommit"
	"github.com/lineal-auth/lineal/storage/row"
)

// The number of revocations stands apart from the entries, so that it outlives
// them. before is 0 where there is none, ends where there is no end; both are
// Unix seconds.
var registryLayout = layout{kind: "registry", steps: []string{`
CREATE TABLE issued (
  jti      TEXT COLLATE "C" PRIMARY KEY,
  txn      TEXT COLLATE "C" NOT NULL,
  parent   TEXT COLLATE "C" NOT NULL,
  depth    INT NOT NULL,
  audience TEXT COLLATE "C" NOT NULL,
  exp      BIGINT NOT NULL,
  receipt  TEXT COLLATE "C" NOT NULL
);
CREATE TABLE binding (
  key    BYTEA PRIMARY KEY,
  person TEXT COLLATE "C" NOT NULL,
  agent  TEXT COLLATE "C" NOT NULL,
  txn    TEXT COLLATE "C" NOT NULL,
  record TEXT COLLATE "C" NOT NULL
);
CREATE TABLE revocation (
  seq    BIGINT PRIMARY KEY,
  kind   TEXT COLLATE "C" NOT NULL,
  value  TEXT COLLATE "C" NOT NULL,
  before BIGINT NOT NULL,
  ends   BIGINT NOT NULL
);
CREATE TABLE revocation_head (
  one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
  seq BIGINT NOT NULL
) WITH (fillfactor = 50);
INSERT INTO revocation_head (seq) VALUES (0);`, schemaCatalog, schemaKeys}}

// Registry keeps issued delegations, revocations, issuer keys, bound ids and the
// catalog. It implements registry.Issued, registry.Revocations, registry.Keys,
// registry.Bindings and registry.Catalog, for any number of processes.
type Registry struct {
	db   *database
	puts *groupcommit.Group[put]

	closing sync.Once
}

type put struct {
	d                registry.Delegation
	parent, inserted bool // results
}

var (
	_ registry.Issued      = (*Registry)(nil)
	_ registry.Revocations = (*Registry)(nil)
	_ registry.Bindings    = (*Registry)(nil)
	_ registry.Catalog     = (*Registry)(nil)
)

// OpenRegistry opens the schema lineal_registry.
func OpenRegistry(ctx context.Context, cfg RegistryConfig) (*Registry, error) {
	db, err := cfg.open(ctx, "lineal_registry", registryLayout)
	if err != nil {
		return nil, fmt.Errorf("opening registry: %w", err)
	}
	r := &Registry{db: db}
	r.puts = grouped(r.putAll)
	return r, nil
}

// Close closes all connections, when calls under way have ended.
func (r *Registry) Close() error {
	r.closing.Do(r.db.close)
	return nil
}

// Put implements registry.Issued. Delegations share commits.
func (r *Registry) Put(ctx context.Context, d registry.Delegation) error {
	err := d.Check()
	if err == nil {
		var p put
		p, err = r.puts.Do(ctx, put{d: d})
		switch {
		case err != nil:
		case !p.parent:
			err = fmt.Errorf("parent one hop above, of the same transaction: %w", registry.ErrNotFound)
		case !p.inserted:
			err = registry.ErrExists
		}
	}
	if err != nil {
		return fmt.Errorf("adding delegation: %w", err)
	}
	return nil
}

// putAll adds delegations in one transaction. One that is refused does not
// touch the others. All processes insert in one order, so that none waits for
// another that waits for it.
func (r *Registry) putAll(ctx context.Context, puts []*put) error {
	slices.SortFunc(puts, func(a, b *put) int { return cmp.Or(cmp.Compare(a.d.Depth, b.d.Depth), cmp.Compare(a.d.ID, b.d.ID)) })
	return r.db.transact(ctx, func(ctx context.Context, t *tx) error {
		for _, p := range puts {
			t.one([]any{&p.parent, &p.inserted}, `WITH judged AS (
				SELECT $3::text = '' OR EXISTS (SELECT FROM issued WHERE jti = $3 AND depth = $4 - 1 AND txn = $2) AS parent
			), inserted AS (
				INSERT INTO issued (jti, txn, parent, depth, audience, exp, receipt) SELECT $1, $2, $3, $4, $5, $6, $7 FROM judged WHERE parent
				ON CONFLICT (jti) DO NOTHING RETURNING 1
			) SELECT parent, EXISTS (SELECT FROM inserted) FROM judged`,
				p.d.ID, p.d.Txn, p.d.Parent, int32(p.d.Depth), p.d.Audience, p.d.Expires.Unix(), p.d.Receipt) //nolint:gosec // Check bounds it
		}
		return nil
	})
}

// Get implements registry.Issued.
func (r *Registry) Get(ctx context.Context, id string) (registry.Delegation, error) {
	d := registry.Delegation{ID: id}
	err := r.db.read.QueryRow(ctx, `SELECT `+row.Issued+` FROM issued WHERE jti = $1`, id).Scan(row.ScanIssued(&d)...)
	if err != nil {
		return registry.Delegation{}, r.db.reading("reading delegation", notFound(err))
	}
	return d, nil
}

// Receipts implements registry.Issued.
func (r *Registry) Receipts(ctx context.Context, id string) ([]string, error) {
	rows, err := r.db.read.Query(ctx, `
		WITH RECURSIVE hop (parent, depth, receipt) AS (
		  SELECT parent, depth, receipt FROM issued WHERE jti = $1
		  UNION ALL
		  SELECT i.parent, i.depth, i.receipt FROM issued i JOIN hop ON i.jti = hop.parent AND i.depth = hop.depth - 1
		) SELECT `+row.Hop+` FROM hop ORDER BY depth`, id)
	if err != nil {
		return nil, r.db.reading("reading receipts", err)
	}
	defer rows.Close()
	receipts, err := row.Receipts(rows)
	return receipts, r.db.reading("reading receipts", err)
}

// Bind implements registry.Bindings.
func (r *Registry) Bind(ctx context.Context, route string, kind registry.IDKind, id string, p registry.Principal) error {
	err := p.Check(route, kind, id)
	if err == nil {
		key := registry.BindingKey(route, kind, id)
		err = r.db.transact(ctx, func(ctx context.Context, t *tx) error {
			t.add(`INSERT INTO binding (key, person, agent, txn, record) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING`,
				key[:], p.Person, p.Agent, p.Txn, p.Record)
			var have registry.Principal
			t.one(row.ScanBinding(&have), readBinding, key[:])
			if err := t.run(ctx); err != nil {
				return err
			}
			if !have.Same(p) {
				return registry.ErrExists
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("binding id: %w", err)
	}
	return nil
}

const readBinding = `SELECT ` + row.Binding + ` FROM binding WHERE key = $1`

// Lookup implements registry.Bindings.
func (r *Registry) Lookup(ctx context.Context, route string, kind registry.IDKind, id string) (registry.Principal, error) {
	key := registry.BindingKey(route, kind, id)
	var p registry.Principal
	if err := r.db.read.QueryRow(ctx, readBinding, key[:]).Scan(row.ScanBinding(&p)...); err != nil {
		return registry.Principal{}, r.db.reading("reading binding", notFound(err))
	}
	return p, nil
}

// Revoke implements registry.Revocations. The lock of the number is held until
// the entry is committed: numbers become visible in their order, and there is
// none without its entry.
func (r *Registry) Revoke(ctx context.Context, e registry.Revocation) (seq int64, err error) {
	if err := e.Check(); err != nil {
		return 0, fmt.Errorf("revoking: %w", err)
	}
	err = r.db.transact(ctx, func(ctx context.Context, t *tx) error {
		t.one([]any{&seq}, `UPDATE revocation_head SET seq = seq + 1 RETURNING seq`)
		if err := t.run(ctx); err != nil {
			return err
		}
		t.add(`INSERT INTO revocation (seq, kind, value, before, ends) VALUES ($1, $2, $3, $4, $5)`,
			seq, e.Kind, e.Value, registry.ToUnix(e.Before), registry.ToUnix(e.Ends))
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("revoking: %w", err)
	}
	return seq, nil
}

// RevokedSince implements registry.Revocations. The head is read first: every
// entry up to it was committed by then.
func (r *Registry) RevokedSince(ctx context.Context, after int64, limit int) (registry.Revoked, error) {
	limit = max(limit, 1)
	last, err := r.LastRevoked(ctx)
	if err != nil || last <= after {
		return registry.Revoked{Through: last, Last: last}, err
	}
	rows, err := r.db.read.Query(ctx, `SELECT `+row.Revocation+` FROM revocation WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3`, after, last, limit)
	if err != nil {
		return registry.Revoked{}, r.db.reading("reading revocations", err)
	}
	defer rows.Close()
	out, err := row.Revoked(rows, last, limit)
	return out, r.db.reading("reading revocations", err)
}

// LastRevoked implements registry.Revocations.
func (r *Registry) LastRevoked(ctx context.Context) (seq int64, err error) {
	err = r.db.read.QueryRow(ctx, `SELECT seq FROM revocation_head`).Scan(&seq)
	return seq, r.db.reading("reading the number of revocations", err)
}

// PruneRevoked implements registry.Revocations.
func (r *Registry) PruneRevoked(ctx context.Context, now time.Time) error {
	err := r.db.transact(ctx, func(_ context.Context, t *tx) error {
		t.add(`DELETE FROM revocation WHERE ends > 0 AND ends < $1`, now.Unix())
		return nil
	})
	if err != nil {
		return fmt.Errorf("pruning revocations: %w", err)
	}
	return nil
}

// notFound makes an answer of "no row".
func notFound(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return registry.ErrNotFound
	}
	return err
}
