package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"syscall"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

// Desk answers questions over an archive from the index beside it.
type Desk struct {
	*search.Desk

	// Kept says that the index stays for the next time; without it the directory
	// cannot be written, and the index is made anew each time.
	Kept bool

	index   *sqlite.Index
	scratch string // the directory of an index that does not stay
}

// ReportConfig says what a report looks for; see search.ReportConfig.
type ReportConfig = search.ReportConfig

// Reports are the names of the reports.
func Reports() []string { return search.Reports() }

// IsNoReport reports whether err says that there is no report of a name.
func IsNoReport(err error) bool { return errors.Is(err, search.ErrNoReport) }

// Close releases the index. The archive stays open.
func (d *Desk) Close() error {
	err := d.index.Close()
	if d.scratch != "" {
		err = errors.Join(err, os.RemoveAll(d.scratch))
	}
	return err
}

// Desk opens the index of the archive and follows the log up to its newest
// published checkpoint. It must be closed before the archive is.
func (a *Archive) Desk(ctx context.Context) (*Desk, error) { return a.desk(ctx, (*search.Desk).Follow) }

// RebuildIndex drops the index and makes it again from the log. It gives how
// many entries it holds. A file that is no index any more is removed first.
func (a *Archive) RebuildIndex(ctx context.Context) (int64, error) {
	if probe, err := a.openDesk(ctx); err == nil {
		if err := probe.Close(); err != nil {
			return 0, err
		}
	} else if err := sqlite.RemoveIndex(a.dataDir); err != nil {
		return 0, err
	}
	d, err := a.desk(ctx, (*search.Desk).Rebuild)
	if err != nil {
		return 0, err
	}
	asOf, _ := d.AsOf()
	return asOf.Size, d.Close()
}

func (a *Archive) desk(ctx context.Context, follow func(*search.Desk, context.Context, search.AsOf) error) (*Desk, error) {
	d, err := a.openDesk(ctx)
	if err != nil {
		return nil, err
	}
	to, err := a.asOf(ctx)
	if err == nil {
		err = follow(d.Desk, ctx, to)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openDesk opens the index in the data directory or, where that cannot be
// written, in one that goes again.
func (a *Archive) openDesk(ctx context.Context) (*Desk, error) {
	d := &Desk{Kept: true}
	dir := a.dataDir
	if a.former || !writable(dir) { // the one in the directory is of the open period
		var err error
		if dir, err = os.MkdirTemp("", "lineal-index-"); err != nil {
			return nil, fmt.Errorf("opening index: %w", err)
		}
		d.Kept, d.scratch = false, dir
	}
	var err error
	if d.index, err = sqlite.OpenIndex(ctx, sqlite.RegistryConfig{Dir: dir}); err != nil {
		if d.scratch != "" {
			err = errors.Join(err, os.RemoveAll(d.scratch))
		}
		return nil, err
	}
	if d.Desk, err = search.NewDesk(search.DeskConfig{
		Store: d.index, Read: a.payloads, Name: func(ref string) string { return a.name(ctx, ref) },
	}); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// writable says whether files can be made in a directory: by making one.
func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".index-*")
	if err != nil {
		return !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS)
	}
	return errors.Join(f.Close(), os.Remove(f.Name())) == nil
}

// asOf is the newest published checkpoint, up to which answers hold.
func (a *Archive) asOf(ctx context.Context) (search.AsOf, error) {
	c, err := a.store.LastCheckpoint(ctx, a.cfg.Origin(), true)
	if err != nil {
		return search.AsOf{}, fmt.Errorf("reading records: %w", err)
	}
	return asOf(c), nil
}

func asOf(c ledger.Checkpoint) search.AsOf {
	return search.AsOf{Origin: c.Origin, Size: c.Size, Root: base64.StdEncoding.EncodeToString(c.Root[:])}
}

// payloads reads records without their envelopes.
func (a *Archive) payloads(ctx context.Context, from, to int64) iter.Seq2[search.Payload, error] {
	return func(yield func(search.Payload, error) bool) {
		for e, err := range a.store.ReadRange(ctx, a.cfg.Origin(), from, to) {
			if err != nil {
				yield(search.Payload{}, fmt.Errorf("reading records: %w", err))
				return
			}
			if e.Pruned() {
				yield(search.Payload{}, fmt.Errorf("reading record %d: %w", e.Index, errPruned))
				return
			}
			envelope, err := record.Open(e.Envelope)
			if err != nil {
				yield(search.Payload{}, fmt.Errorf("reading record %d: %w", e.Index, err))
				return
			}
			if !yield(search.Payload{Index: e.Index, Bytes: envelope.Payload}, nil) {
				return
			}
		}
	}
}
