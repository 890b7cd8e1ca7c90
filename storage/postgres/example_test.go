package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/postgres"
)

// The owner makes the tables and the log once; gateways open it under a lesser
// role, each with a writer id of its own.
func Example() {
	ctx := context.Background()
	if err := initialise(ctx, "postgres://owner@db.example/lineal?sslmode=verify-full"); err != nil {
		fmt.Println(err)
		return
	}
	store, err := postgres.Open(ctx, postgres.Config{
		URL:     "postgres://gateway_a@db1.example,db2.example/lineal?sslmode=verify-full",
		Standby: true, // the two fail over: a commit waits for the other
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Println("run init first")
	case errors.Is(err, postgres.ErrUnsafe):
		fmt.Println("the server would lose what it confirms:", err)
	case err != nil:
		fmt.Println(err)
	default:
		defer func() { _ = store.Close() }()
		var _ ledger.Store = store // and on with ledger.NewWriter
	}
}

func initialise(ctx context.Context, owner string) (err error) {
	store, err := postgres.Open(ctx, postgres.Config{URL: owner, Create: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.CreateLog(ctx, "ledger.example/std", "ledger.example/std/2027-03"); err != nil {
		return err
	}
	return store.Roles(ctx)
}
