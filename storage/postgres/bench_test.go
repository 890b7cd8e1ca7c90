package postgres_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/storage/postgres"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

func BenchmarkAppend(b *testing.B) { storagetest.BenchAppend(b, open) }

// BenchmarkRawCeiling sends BEGIN, one insert of all rows and COMMIT in one
// round trip, to the same server; the bytes are stored as the ledger's are.
func BenchmarkRawCeiling(b *testing.B) { storagetest.BenchCeiling(b, ceiling) }

// BenchmarkShare is the first as a share of the second.
func BenchmarkShare(b *testing.B) { storagetest.BenchShare(b, open, ceiling) }

func ceiling(b *testing.B, env []byte) func(int) error {
	server := pgtest.Shared(b)
	conn, err := pgx.Connect(b.Context(), server.URL(server.Database(b)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, sql := range []string{
		`CREATE TABLE raw (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, envelope BYTEA NOT NULL) WITH (toast_tuple_target = 8160)`,
		`ALTER TABLE raw ALTER COLUMN envelope SET STORAGE EXTERNAL`,
	} {
		if _, err := conn.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	return func(n int) error {
		rows := make([][]byte, n)
		for i := range rows {
			rows[i] = env
		}
		var batch pgx.Batch
		batch.Queue(`BEGIN`)
		batch.Queue(`INSERT INTO raw (envelope) SELECT * FROM unnest($1::bytea[])`, rows)
		batch.Queue(`COMMIT`)
		return conn.SendBatch(b.Context(), &batch).Close()
	}
}

// BenchmarkUse is what the store of used proofs adds to a call, with many at
// once.
func BenchmarkUse(b *testing.B) {
	p := opened(b, postgres.OpenProofs, registryConfig(b, b.TempDir(), "proofs", nil))
	until := time.Now().Add(time.Minute)
	var n atomic.Int64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if first, err := p.Use(b.Context(), "jkt", fmt.Sprint(n.Add(1)), until); err != nil || !first {
				b.Error(first, err)
			}
		}
	})
}
