package search

import (
	"context"
	"errors"
)

// Store keeps the rows of an index on disk. What it holds is derived, so it may
// lose the newest rows at a crash, but never rows without the cursor that
// counted them: rows and cursor change in one transaction.
//
// Several processes may have one store open. Add says [ErrMoved] to the one
// that was late. Methods are safe for concurrent use; an error other than
// ErrMoved means that nothing was changed, or that the store is broken.
type Store interface {
	// Cursor is how far the index has come; the zero Cursor in an empty store.
	Cursor(ctx context.Context) (Cursor, error)
	// Add puts in rows, which begin at at.Next and have no hole, and moves the
	// cursor behind them with tail. ErrMoved if the cursor is not at.
	Add(ctx context.Context, at Cursor, rows []Row, tail string) (Cursor, error)
	// Drop empties the store for the log of an origin.
	Drop(ctx context.Context, origin string) error
	// Bulk says that many rows follow: the store may put off ordering them until
	// Ready. In between it answers slowly.
	Bulk(ctx context.Context) error
	// Ready returns when every answer is found by order and not by looking at
	// every row. It costs nothing if that is so.
	Ready(ctx context.Context) error
	// Find gives the indexes of the records that an id may name, ascending, at
	// most limit. Others may be among them.
	Find(ctx context.Context, id string, limit int) ([]int64, error)
	// Select gives the indexes of the records that may match, in the order of f,
	// at most f.Limit of them: every record that matches, up to the last one that
	// is given, and perhaps others.
	Select(ctx context.Context, f Filter) ([]int64, error)
	// Times gives the times and verdicts of what Select would give, in any order.
	Times(ctx context.Context, f Filter) ([]Moment, error)
	Close() error
}

// Cursor is how far an index has come.
type Cursor struct {
	Origin string
	Next   int64 // the first index that is not in it
	// Tail is the record_hash of entry Next-1, by which a log that is not the one
	// that was indexed is known; "" before the first.
	Tail string
	// Generation changes with every Drop.
	Generation int64
}

// ErrMoved says that another process has moved the cursor.
var ErrMoved = errors.New("the index was moved by another process")

// Row is what an index keeps of a record: what it is asked by. A member that
// the record lacks is zero.
type Row struct {
	Index  int64
	At     int64 // milliseconds since 1970, asserted
	Kind   string
	Writer string
	// RecordID, CallID, Txn and ParentCall are UUIDs.
	RecordID, CallID, Txn, ParentCall string
	Person                            string
	// Resource and Tool are of the callee, a model's name among tools; of a token
	// Resource is the audience.
	CalleeKind, Resource, Tool, Op string
	Effect, Reason                 string
	// Policies are the digest of the rules and the ids of those that determined.
	Bundle   string
	Policies []string
	// Parties are the hops of the chain, numbered from 0, and behind them, from
	// -1 downwards, who else or what other hash the record names.
	Parties  []Party
	Issuance *IssuanceRow
	Outcome  *OutcomeRow
}

// Party is an agent that a record names, with what it may call and by which
// statement.
type Party struct {
	Hop                   int64
	Actor, Audience, Hash string
}

// IssuanceRow is of a token issued or refused.
type IssuanceRow struct {
	Result, JTI            string
	Receipt, Token, Parent string
}

// OutcomeRow is of what followed a decision.
type OutcomeRow struct {
	Decision  string // its record_id
	Status    string
	Forwarded bool
}
