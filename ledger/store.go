package ledger

import (
	"context"
	"iter"
	"time"
)

// Hash is a SHA-256 node of the RFC 6962 tree.
type Hash = [32]byte

// Store keeps the ledger's truth: bodies, intake, entries, checkpoints, blobs.
//
// Durability: a write that returned nil survives a power cut. A write that
// returned an error other than ErrAmbiguous changed nothing. After
// ErrAmbiguous it may have taken effect, whole or not at all.
//
// Consistency: each write is one transaction. A read that begins after a write
// returned sees it, in this process; a read-only store of another process sees
// some committed state that is not older than its own previous read.
//
// Concurrency: all methods may be called at once. A cancelled context ends
// waiting and reading; it never interrupts a commit.
//
// Errors: those of errors.go, wrapped. ErrEngine is final for the store.
// Times are those of the store's clock (the database's), in milliseconds.
type Store interface {
	Appender
	Orderer
	Source

	// CreateLog registers the log (a family) and its first origin. It is a
	// no-op if the log exists with this origin, ErrFork if with another, and
	// ErrReadOnly if the store was not opened to create.
	CreateLog(ctx context.Context, log, origin string) error

	// Shred deletes the data keys of a person: what they encrypt cannot be read
	// any more, here. It returns how many there were; again, there are none.
	Shred(ctx context.Context, personRef string) (keys int64, err error)

	// ResetWriters makes the rows of a log's writers what the log says: the last
	// record of each is in tails by its gwID, and who is not there has none. A
	// writer that is stopped may begin a run again. It leaves a writer alone whose
	// records wait for an index, and one whose row is right, and returns the ids
	// of the others, sorted. ErrEpochLost, and nothing changes, if the log has not
	// size entries.
	ResetWriters(ctx context.Context, log string, size int64, tails map[string]Tail) (reset []string, err error)

	// RetireWriter ends a writer whose keys end: from then on nothing it appends is
	// acknowledged, and no run of it begins (ErrRetired). What it appended before
	// keeps its place. It may be repeated, and may come before the writer's first
	// run.
	RetireWriter(ctx context.Context, log, gwID string) error

	// ReadmitWriter lets a writer begin a run again that was retired or stopped,
	// after the record that the log has as its last. Any other writer it leaves
	// alone. ErrUnavailable, and nothing changes, while records of the writer wait
	// for an index.
	ReadmitWriter(ctx context.Context, log, gwID string, last Tail) error

	// Prune deletes bodies of a log whose origin is closed, and blobs with their
	// data keys: see [Pruning]. It may be repeated, and is, after any error.
	Prune(ctx context.Context, p Pruning) error

	// Close releases the engine. It waits for calls under way.
	Close() error
}

// Appender is the part of a store that a writer uses (role "append").
type Appender interface {
	// OpenWriter begins a run of a writer: seq starts at 0 and earlier runs of
	// the same gwID are stale from now on. The tail (hash of this id's last
	// record, across runs) is kept and returned, with that record, so that the
	// caller can compare them. A run is used once: ErrWriterConflict if this run
	// appended already. ErrRejected if the writer is stopped, ErrRetired if it was
	// retired. ErrNotFound for an unknown log.
	OpenWriter(ctx context.Context, log, gwID, run string) (Tail, error)

	// Append stores one batch: bodies, blobs and intake rows, and moves the
	// writer's tail, in one transaction. It returns the time of intake.
	// The same batch sent again is recognised and acknowledged (idempotent).
	// ErrStaleWriter, ErrWriterConflict, ErrRejected, ErrRetired, ErrDuplicate:
	// nothing was written.
	Append(ctx context.Context, b Batch) (time.Time, error)

	// PutBlob stores a blob that belongs to no record of its own, such as a
	// policy bundle. The first one under a digest stays.
	PutBlob(ctx context.Context, b Blob) error

	// IntakeStats measures the backlog of a log: rows that wait for an index.
	IntakeStats(ctx context.Context, log string) (IntakeStats, error)
}

// Orderer is the part of a store that the sequencer uses (role "sequencer").
// Each write names its epoch; if the log has another one by now, it returns
// ErrEpochLost and changes nothing.
type Orderer interface {
	// AcquireLease takes the log for holder under the next epoch, unless the
	// lease of another has not run out: ErrLeaseHeld. The lease only keeps
	// two sequencers from fighting; safety is in epoch and size.
	AcquireLease(ctx context.Context, log, holder string, ttl time.Duration) (Head, error)
	// RenewLease extends the lease of this epoch, even one that has run out.
	RenewLease(ctx context.Context, log string, epoch int64, ttl time.Duration) error
	// ReleaseLease lets the next sequencer in at once.
	ReleaseLease(ctx context.Context, log string, epoch int64) error

	// ReadIntake gives up to limit waiting rows in the order of their ids.
	// Rows of one writer keep its order.
	ReadIntake(ctx context.Context, log string, limit int) ([]Candidate, error)
	// Sequence gives entries their indexes from s.Size on and removes their
	// intake rows and those of s.Rejected, in one transaction guarded by epoch
	// and size. It stops the writers that appended s.Rejected in the same
	// transaction: no batch of theirs is acknowledged after it (ErrRejected).
	// ErrClockBehind: nothing was written, wait and try again.
	Sequence(ctx context.Context, s Sequenced) (Head, error)

	// InsertCheckpoint stores an unpublished checkpoint under this epoch. The
	// same one again is a no-op. ErrFork: same size with another root, or a
	// smaller size than the last one, or larger than the log.
	InsertCheckpoint(ctx context.Context, log string, epoch int64, c Checkpoint) error
	// PublishCheckpoint marks a stored checkpoint as published, so that
	// readers see it, with the note of c, which may have gained cosignatures. Once
	// it is published, the same again is a no-op and the note stays. ErrNotFound
	// without a stored checkpoint of this size and root.
	PublishCheckpoint(ctx context.Context, log string, epoch int64, c Checkpoint) error

	// Roll closes the origin of a log and opens the next with these entries, in
	// one transaction guarded by epoch and size. From then on the log's indexes
	// are those of the new origin, and what waits in intake goes there.
	// ErrNotPublished unless a published checkpoint covers the whole origin, or
	// r.End says where it ended; ErrFork if the new one has been used before;
	// ErrNotFound if a record does not wait in intake.
	Roll(ctx context.Context, r Rolled) (Head, error)
	// Restore puts entries back that a restored backup lacks, at the indexes from
	// r.Size on, in one transaction guarded by epoch and size. One that waits in
	// intake leaves it. ErrFork, and nothing changes, if a record of its id has
	// other bytes or an index.
	Restore(ctx context.Context, r Restored) (Head, error)
}

// Source is the part of a store that readers use (role "reader").
type Source interface {
	// Head describes the log as it stands. ErrNotFound if there is none.
	Head(ctx context.Context, log string) (Head, error)
	// ReadRange yields the entries [a, b) of an origin in index order. It
	// stops with ErrCorrupt where an index or a body is missing. The sequence
	// ends early, without an error, at the end of the log. An entry may have been
	// pruned: see [Entry.Pruned].
	ReadRange(ctx context.Context, origin string, a, b int64) iter.Seq2[Entry, error]
	// Lookup finds a record by its id. A record that has no index yet has
	// Index -1. ErrNotFound if the id is unknown.
	Lookup(ctx context.Context, recordID string) (Entry, error)
	// Checkpoints gives up to limit checkpoints of an origin with a size of at
	// least minSize, ascending.
	Checkpoints(ctx context.Context, origin string, minSize int64, limit int) ([]Checkpoint, error)
	// LastCheckpoint gives the largest checkpoint of an origin, or the largest
	// published one. ErrNotFound if there is none.
	LastCheckpoint(ctx context.Context, origin string, published bool) (Checkpoint, error)
	// Blob reads a blob by digest. ErrNotFound if there is none.
	Blob(ctx context.Context, digest string) (Blob, error)
}

// Tail is where a writer's chain stands when its run begins.
type Tail struct {
	Prev string // hash of this id's last record in the log, "" if none

	RecordID string // of that record; "" if none, or if the row is older than this field
	Envelope []byte // its bytes; nil if they are not kept any more
	Placed   bool   // it has an index, or waits for one
}

// Batch is what one writer appends at once. Records have the seqs First,
// First+1, and so on.
type Batch struct {
	Log, GWID, Run string
	First          int64
	Prev           string // the writer's tail before the batch
	Tail           string // hash of the last record, the tail after it
	Records        []Record
}

// Record is one sealed record, opaque to the ledger.
type Record struct {
	RecordID string
	Envelope []byte // the leaf, at most MaxEntry bytes
	Blobs    []Blob // stored in the same transaction
}

// Blob is content kept beside the log under its digest: a policy bundle, a
// disclosure, a receipt. The first one stored under a digest stays; a reader
// checks the digest, since the ledger does not know what it covers.
type Blob struct {
	Digest string
	Class  string // what it is, such as "policy" or "disclosure"
	Bytes  []byte
	Key    *DataKey // if the bytes are encrypted, else nil
}

// DataKey is the wrapped key of one encrypted blob; deleting it shreds the
// blob.
type DataKey struct {
	PersonRef string // "" if the blob concerns no person
	Wrapped   []byte
}

// IntakeStats describes the backlog of a log.
type IntakeStats struct {
	Rows   int64
	MaxID  int64         // of the newest row, 0 if there is none
	Oldest time.Duration // age of the oldest row, 0 if there is none
}

// Candidate is an intake row: durable, without an index yet.
type Candidate struct {
	IntakeID int64
	RecordID string
	GWID     string // the writer that appended it; "" if the row is older than this field
	Envelope []byte
	At       time.Time // of intake
}

// Sequenced is one step of the sequencer: Entries get the indexes from Size on.
type Sequenced struct {
	Log, Origin string
	Epoch       int64
	Size        int64 // of the log before
	Entries     []NewEntry
	Rejected    []int64 // intake ids that leave without an index, and stop their writers
}

// NewEntry is an intake row that gets an index.
type NewEntry struct {
	IntakeID int64
	RecordID string
	LeafHash Hash
}

// Rolled is one step from a period to the next: Entries get the indexes of To
// from 0 on. Their IntakeID is not asked for.
type Rolled struct {
	Log, From, To string
	Epoch         int64
	Size          int64 // of From
	Entries       []NewEntry
	// End is the newest checkpoint that is known of From, where the database was
	// set back; its Note is nil otherwise. It becomes the last published one of
	// From if the database has its entries.
	End Checkpoint
}

// Restored is one step of putting back what a restored backup lacks: Entries get
// the indexes from Size on.
type Restored struct {
	Log, Origin string
	Epoch       int64
	Size        int64 // of the log before
	Entries     []RestoredEntry
}

// RestoredEntry is an entry that was in the log before.
type RestoredEntry struct {
	RecordID string
	Envelope []byte
	LeafHash Hash
}

// Pruning is what a period loses at the end of its retention. The entries keep
// their leaf hashes, so that the tree can be computed as before.
type Pruning struct {
	Log, Origin string   // Origin must not be the log's own: ErrFork
	Records     []string // ids of entries of Origin, whose bodies go
	Blobs       []string // digests
}

// Entry is a record at its index.
type Entry struct {
	Origin   string
	Index    int64
	RecordID string
	Envelope []byte    // nil if it was pruned
	LeafHash Hash      // as stored; Fsck compares it with the envelope
	At       time.Time // of sequencing, or of intake while Index is -1
}

// Pruned reports whether the body of the entry was deleted, at the end of its
// retention. Its leaf hash stays, and its place in the tree.
func (e Entry) Pruned() bool { return e.Envelope == nil }

// Head is the state of a log.
type Head struct {
	Log, Origin string
	Epoch       int64
	Size        int64     // entries with an index
	At          time.Time // of the last sequencing, zero if none
}

// Checkpoint is a signed statement of size and root (C2SP tlog-checkpoint).
type Checkpoint struct {
	Origin    string
	Size      int64
	Root      Hash
	Note      []byte    // the signed note
	Published time.Time // zero while unpublished
}
