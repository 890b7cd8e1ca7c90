package server

import (
	"io"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/export/parquet"
)

// ParquetWriter writes pages of an answer as one Parquet file; see
// export/parquet for its columns.
type ParquetWriter struct{ w *parquet.Writer }

// NewParquetWriter begins a file. It must be closed.
func NewParquetWriter(w io.Writer) *ParquetWriter { return &ParquetWriter{parquet.NewWriter(w)} }

// Write adds the records of a page.
func (w *ParquetWriter) Write(p Page) error {
	for _, e := range p.Entries {
		payload, err := e.Record.Canonical()
		if err != nil {
			return err
		}
		if err := w.w.Write(export.Entry{Origin: p.AsOf.Origin, Index: e.Index, Hash: e.Hash, Record: e.Record, Payload: payload}); err != nil {
			return err
		}
	}
	return nil
}

// Close writes the end of the file.
func (w *ParquetWriter) Close() error { return w.w.Close() }
