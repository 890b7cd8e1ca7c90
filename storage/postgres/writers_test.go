package postgres_test

import (
	"fmt"
	"testing"

	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// TestOlderTails: a schema of version 1 is brought up to date by whoever may
// create.
func TestOlderTails(t *testing.T) {
	storagetest.RunOlderTails(t, open, func(dir string) {
		s := schemaOf(dir)
		pgtest.Shared(t).Exec(t, "postgres", fmt.Sprintf(
			`ALTER TABLE %[1]s.writer DROP COLUMN last; ALTER TABLE %[1]s.intake DROP COLUMN gw_id; UPDATE %[1]s.layout SET version = 1`, s))
	})
}
