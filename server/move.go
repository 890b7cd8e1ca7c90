package server

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// errMoveUnlike says that what is in PostgreSQL is not what is in the files.
var errMoveUnlike = errors.New("the copy is not the same as the source")

// MoveReport is what a move did.
type MoveReport struct {
	Origin string
	Size   int64 // entries compared
	Root   ledger.Hash
	Tables int   // copied and compared
	Rows   int64 // in them
}

// Move takes a deployment from the SQLite files of its data directory to the
// PostgreSQL databases of cfg (ledger.md 5.5 step 6):
//
//	freeze ─▶ copy ─▶ compare rows, tree, tiles, checkpoints ─▶ switch ─▶ sign
//
// The ledger is held open meanwhile, so that no server runs on it. Up to the
// switch, which is one write of the note in the data directory, the files are the
// deployment, unchanged, and a move that ended anywhere is repeated. Nothing is
// signed before the copy was compared row by row, and the tree recomputed from
// its entries has the root of every checkpoint.
func Move(ctx context.Context, cfg config.Config, now func() time.Time, logger *slog.Logger) (rep MoveReport, err error) {
	was, err := movable(cfg)
	if err != nil {
		return rep, fmt.Errorf("moving: %w", err)
	}
	keys, err := loadKeys(cfg.DataDir)
	if err != nil {
		return rep, fmt.Errorf("moving: %w", err)
	}
	if keys.manifest == nil || keys.log == nil {
		return rep, fmt.Errorf("moving: %w", errNotHere("manifest or log"))
	}
	source := newEngine(cfg.DataDir, was, engineOptions{now: now, logger: logger})
	frozen, err := source.ledger(ctx) // its lock keeps the server out
	if err != nil {
		return rep, fmt.Errorf("moving: %w", err)
	}
	held := true
	defer func() {
		if held {
			err = errors.Join(err, frozen.Close())
		}
	}()
	if err := upToDate(ctx, source); err != nil {
		return rep, fmt.Errorf("moving: %w", err)
	}
	m := mover{MoveReport: rep, dataDir: cfg.DataDir, to: cfg.Ledger, keys: keys, logger: logger}
	if err := m.run(ctx); err != nil {
		return m.MoveReport, fmt.Errorf("moving: %w", err)
	}
	if err := saveLedger(cfg.DataDir, cfg.Ledger); err != nil {
		return m.MoveReport, fmt.Errorf("moving: %w", err)
	}
	held = false
	if err := frozen.Close(); err != nil {
		return m.MoveReport, fmt.Errorf("moving: the deployment is in PostgreSQL; closing its files: %w", err)
	}
	if err := signAfterMove(ctx, cfg, keys, now, logger); err != nil {
		return m.MoveReport, fmt.Errorf("moving: the deployment is in PostgreSQL; its next start signs: %w", err)
	}
	return m.MoveReport, nil
}

// movable reads where the deployment is, and refuses what is no move.
func movable(cfg config.Config) (config.Ledger, error) {
	was, err := readLedger(cfg.DataDir)
	switch to := cfg.Ledger; {
	case err != nil:
		return was, err
	case was.Store != "":
		return was, errors.New("the deployment is in PostgreSQL already")
	case to.Store == "" || to.Persons == "" || to.Store == to.Persons:
		return was, errors.New("ledger.store and ledger.persons must name two PostgreSQL databases")
	case was.Origin() != to.Origin() || was.Node != to.Node:
		return was, fmt.Errorf("%s is of node %q of %s, not of node %q of %s", cfg.DataDir, was.Node, was.Origin(), to.Node, to.Origin())
	}
	return was, nil
}

// upToDate opens every registry once, which makes what is missing and brings its
// tables to this version's.
func upToDate(ctx context.Context, e engine) error {
	for _, open := range []func() (io.Closer, error){
		func() (io.Closer, error) { return e.registry(ctx) },
		func() (io.Closer, error) { return e.persons(ctx) },
		func() (io.Closer, error) { return e.proofs(ctx) },
		func() (io.Closer, error) { return e.pins(ctx) },
		func() (io.Closer, error) { return e.logins(ctx) },
	} {
		c, err := open()
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// mover is one move under way.
type mover struct {
	MoveReport
	dataDir string
	to      config.Ledger
	keys    keyRing
	logger  *slog.Logger
}

// run fills and compares every schema, then takes the marks away, the ledger's
// last: who repeats a move that ended in between finds all others equal.
func (m *mover) run(ctx context.Context) (err error) {
	var moves []*postgres.Move
	defer func() {
		for _, p := range moves {
			err = errors.Join(err, p.Close())
		}
	}()
	for _, part := range []struct {
		file string
		kind postgres.Kind
		url  config.Secret
	}{
		{"persons.db", postgres.KindPersons, m.to.Persons},
		{"proofs.db", postgres.KindProofs, m.to.Store},
		{"pins.db", postgres.KindPins, m.to.Store},
		{"logins.db", postgres.KindLogins, m.to.Store},
		{"registry.db", postgres.KindRegistry, m.to.Store},
		{"ledger.db", postgres.KindLedger, m.to.Store},
	} {
		p, err := postgres.OpenMove(ctx, postgres.MoveConfig{URL: part.url.Reveal(), Kind: part.kind, Standby: m.to.RequireStandby, Logger: m.logger})
		if err != nil {
			return err
		}
		moves = append(moves, p)
		if err := m.part(ctx, filepath.Join(m.dataDir, part.file), p); err != nil {
			return fmt.Errorf("%s: %w", part.file, err)
		}
	}
	if err := m.compareTree(ctx, moves[len(moves)-1]); err != nil {
		return err
	}
	for _, p := range moves {
		if err := p.Finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// part copies one database, unless it was, and compares it.
func (m *mover) part(ctx context.Context, path string, to *postgres.Move) (err error) {
	from, err := sqlite.OpenDump(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	filled, err := to.Begin(ctx)
	if err != nil {
		return err
	}
	tables, err := to.Tables(ctx)
	if err != nil {
		return err
	}
	if err := sameTables(ctx, from, tables); err != nil {
		return err
	}
	for _, t := range tables {
		if !filled {
			if _, err := to.Copy(ctx, t, from.Rows(ctx, t.Name, t.Columns, t.Key)); err != nil {
				return err
			}
		}
		n, err := m.compare(ctx, from, to, t)
		if err != nil && filled {
			return fmt.Errorf("%w; the database holds data of another deployment: name one without", err)
		}
		if err != nil {
			return err
		}
		m.Tables, m.Rows = m.Tables+1, m.Rows+n
	}
	return nil
}

// sameTables refuses a source with a table that would stay behind.
func sameTables(ctx context.Context, from *sqlite.Dump, tables []postgres.Table) error {
	names, err := from.Tables(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(tables, func(t postgres.Table) bool { return t.Name == name }) {
			return fmt.Errorf("table %s has no place in PostgreSQL", name)
		}
	}
	return nil
}

// compare reads a table on both sides and gives how many rows it has.
func (m *mover) compare(ctx context.Context, from *sqlite.Dump, to *postgres.Move, t postgres.Table) (int64, error) {
	want, n, err := digestRows(from.Rows(ctx, t.Name, t.Columns, t.Key))
	if err != nil {
		return 0, err
	}
	got, copied, err := digestRows(to.Rows(ctx, t))
	if err != nil {
		return 0, err
	}
	if n != copied || want != got {
		return 0, fmt.Errorf("comparing table %s: %w: %d rows, %d copied", t.Name, errMoveUnlike, n, copied)
	}
	return n, nil
}

// digestRows hashes rows in their order, each value with its type and length.
func digestRows(rows iter.Seq2[[]any, error]) (sum [sha256.Size]byte, n int64, err error) {
	h := sha256.New()
	var b []byte
	for row, err := range rows {
		if err != nil {
			return sum, n, err
		}
		b = binary.BigEndian.AppendUint64(b[:0], uint64(len(row)))
		for _, v := range row {
			switch v := v.(type) {
			case nil:
				b = append(b, 'n')
			case int64:
				b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v)) //nolint:gosec // the same bits
			case string:
				b = append(binary.BigEndian.AppendUint64(append(b, 't'), uint64(len(v))), v...)
			case []byte:
				b = append(binary.BigEndian.AppendUint64(append(b, 'b'), uint64(len(v))), v...)
			default:
				return sum, n, fmt.Errorf("comparing rows: a value of type %T", v)
			}
		}
		_, _ = h.Write(b) // a hash never fails
		n++
	}
	return [sha256.Size]byte(h.Sum(nil)), n, nil
}

// compareTree recomputes the tree of each period from the copied entries, and holds
// it to every signed checkpoint and to the tiles, which were made from the source.
func (m *mover) compareTree(ctx context.Context, p *postgres.Move) error {
	src, err := p.Source()
	if err != nil {
		return err
	}
	tiles, err := disk.Open(disk.Config{Dir: tilesPath(m.dataDir, m.to), ReadOnly: true})
	if err != nil {
		return err
	}
	var verifier note.Verifier
	if verifier, err = logVerifier(m.keys, m.to.Origin()); err != nil {
		return err
	}
	found, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: src, Tiles: tiles, Log: m.to.Family, Verifier: verifier})
	if err != nil {
		return err
	}
	m.Origin, m.Size, m.Root = found.Origin, found.Size, found.Root
	if err := found.Err(); err != nil {
		return fmt.Errorf("comparing the tree: %w: %w", errMoveUnlike, err)
	}
	return m.compareFormer(ctx, src)
}

// compareFormer is compareTree for the periods that are closed.
func (m *mover) compareFormer(ctx context.Context, src ledger.Source) error {
	periods, err := chainOf(ctx, src, m.to.Family)
	if err != nil {
		return err
	}
	said, err := journalOf(ctx, src, m.to.Family)
	if err != nil {
		return err
	}
	for _, p := range periods {
		if !p.Sealed {
			continue
		}
		a := Archive{dataDir: m.dataDir, cfg: inPeriod(m.to, p.Origin), former: true}
		if at := said.prunings[p.Origin]; at != nil {
			if a.pruned, err = prunedBy(ctx, src, at); err != nil {
				return err
			}
		}
		_, verifier, err := a.logKey(m.keys)
		if err != nil {
			return err
		}
		tiles, err := a.openTiles()
		if err != nil {
			return err
		}
		found, err := ledger.Fsck(ctx, ledger.FsckConfig{
			Source: src, Tiles: tiles, Log: m.to.Family, Verifier: verifier, Closed: true, Lost: p.Lost > p.Size, Pruned: a.pruned.gone(),
		})
		if err == nil {
			err = found.Err()
		}
		if err != nil {
			return fmt.Errorf("comparing the tree of %s: %w: %w", p.Name, errMoveUnlike, err)
		}
	}
	return nil
}

// signAfterMove starts and stops the ledger on its new store: recovery compares
// it with everything that has seen the log, and a checkpoint goes beyond what the
// files hold, so that a start on those is a rollback.
func signAfterMove(ctx context.Context, cfg config.Config, keys keyRing, now func() time.Time, logger *slog.Logger) error {
	e := newEngine(cfg.DataDir, cfg.Ledger, engineOptions{now: now, logger: logger})
	l, err := newLedgerService(ctx, e, ledgerConfig{Ledger: cfg.Ledger, dataDir: cfg.DataDir, keys: keys, sequences: true, now: now, logger: logger})
	if err != nil {
		return err
	}
	err = l.openRecorders(ctx, func(r config.Role) bool { return r == config.RoleLedger }, buildDigest())
	return errors.Join(err, l.close(ctx))
}
