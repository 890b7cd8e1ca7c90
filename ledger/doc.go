// Package ledger appends opaque signed entries to a tile log and publishes signed checkpoints.
//
//	draft ──Writer──▶ body + intake ──Sequencer──▶ entry, tiles ──▶ checkpoint
//	          │          durable,         index        derived        signed
//	          ▼          unordered
//	         ack  (the call may go on)
//
// A [Writer] gives each draft its place in the writer's own chain (seq, prev),
// has it signed, and returns once a batch is durable: one transaction, one
// sync, for all who queued meanwhile. One [Sequencer] per log gives entries
// their index, extends the Merkle tree, writes C2SP tlog-tiles, and signs a
// C2SP checkpoint. A [Reader] proves inclusion and consistency. [Fsck]
// recomputes everything from the entries and names the first thing that is
// wrong.
//
// The promise: an acknowledged entry is in the log exactly once; indexes have
// no holes; a published checkpoint is never contradicted; normal start is
// recovery, so the code that runs after a crash is the code that runs each
// day. What is not known to be durable is not acknowledged.
//
// What it does not do: it does not know what an entry says (the caller seals
// and checks entries through [Sealer] and [Check]); it does not prove that a
// writer told the truth; and a tree that no witness has cosigned proves
// nothing against the operator who holds its key.
//
// Engines implement [Store] and [TileStore] below storage/; storage/storagetest
// is their contract in executable form.
package ledger
