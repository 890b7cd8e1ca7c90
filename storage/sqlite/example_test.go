package sqlite_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// A ledger on one disk: append a record, publish a checkpoint over it, prove
// that it is in there, and check the whole log.
func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// durable: seq 0
	// published: 1 entries
	// proved: index 0 in a tree of 1
	// sound: 1 entries, 1 signed checkpoints
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	const family, origin = "ledger.example/std", "ledger.example/std/2027-03"
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "ledger.db"), Create: true})
	if err != nil {
		return err
	}
	defer func() { err = store.Close() }()
	tiles, err := disk.Open(disk.Config{Dir: filepath.Join(dir, "tiles"), Create: true})
	if err != nil {
		return err
	}
	if err := store.CreateLog(ctx, family, origin); err != nil {
		return err
	}

	seed := sha256.Sum256([]byte("an example, not a secret"))
	signer, verifier, err := ledger.NewCheckpointKey(origin, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		return err
	}
	sequencer, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{
		Store: store, Tiles: tiles, Log: family, Signer: signer, Verifier: verifier,
		Check: func(_ context.Context, _ int64, _ []ledger.Candidate) ([]error, error) { return nil, nil }, // the product verifies here
	})
	if err != nil {
		return err
	}
	defer func() { _ = sequencer.Close(ctx) }()
	writer, err := ledger.NewWriter(ctx, ledger.WriterConfig{Store: store, Log: family, GWID: "gw-1", Sealer: storagetest.NewSealer()})
	if err != nil {
		return err
	}
	defer func() { _ = writer.Close(ctx) }()

	ack, err := writer.Append(ctx, ledger.Draft{Body: storagetest.Draft{ID: "r1", Text: "permit"}})
	if err != nil {
		return err
	}
	fmt.Println("durable: seq", ack.Seq)
	c, err := sequencer.Flush(ctx)
	if err != nil {
		return err
	}
	fmt.Println("published:", c.Size, "entries")
	p, err := ledger.NewReader(store, tiles).Prove(ctx, "r1")
	if err != nil {
		return err
	}
	fmt.Println("proved: index", p.Index, "in a tree of", p.Checkpoint.Size)
	rep, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: store, Tiles: tiles, Log: family, Verifier: verifier})
	if err != nil {
		return err
	}
	fmt.Println("sound:", rep.Size, "entries,", rep.Checkpoints-1, "signed checkpoints") // and the empty one
	return rep.Err()
}
