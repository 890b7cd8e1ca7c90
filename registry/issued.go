package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/delegation"
)

// Issued is the tree of delegations that were issued: the receipt of each hop
// under its `jti`, with its parent. It serves the chains of tokens that carry
// their receipts by reference (tokens.md §5), and later revocation by subtree.
//
// Issued is safe for concurrent use, also from several processes.
type Issued interface {
	// Put adds a delegation. It is durable when Put returns nil; on an error it
	// may be there or not, and the caller must not give the token away.
	// The parent must be there, one hop above and of the same transaction
	// (ErrNotFound); a second delegation of one `jti` is ErrExists.
	Put(ctx context.Context, d Delegation) error
	// Get returns one delegation, or ErrNotFound.
	Get(ctx context.Context, id string) (Delegation, error)
	// Receipts returns R0…Rn of the chain that ends at id, or ErrNotFound.
	Receipts(ctx context.Context, id string) ([]string, error)
}

// Delegation is one issued hop.
type Delegation struct {
	Txn      string
	ID       string // `jti`
	Parent   string // `jti` of the hop before; "" at the root
	Depth    int    // 0 at the root
	Audience string
	Receipt  string // Rn, compact, as signed
	Expires  time.Time
}

// Check reports what every driver refuses in a Delegation by itself.
func (d Delegation) Check() error {
	switch {
	case d.Txn == "" || d.ID == "" || d.Audience == "" || d.Receipt == "":
		return errors.New("delegation without txn, jti, audience or receipt")
	case d.Depth < 0 || d.Depth >= delegation.MaxHops:
		return fmt.Errorf("delegation of depth %d", d.Depth)
	case (d.Depth == 0) != (d.Parent == ""):
		return errors.New("exactly a root has no parent")
	case d.Expires.IsZero():
		return errors.New("delegation without expiry")
	}
	return nil
}
