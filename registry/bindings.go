package registry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// IDKind is what an id names. Ids of different kinds never meet.
type IDKind string

// The kinds of gateway.md §9.
const (
	KindTask         IDKind = "task"
	KindContext      IDKind = "context"
	KindResponse     IDKind = "response"
	KindConversation IDKind = "conversation"
)

// By is the kind of what name made known: the task of one tool.
func (k IDKind) By(name string) IDKind { return k + "/" + IDKind(name) }

// Bindings ties the id of a task, context, response or conversation to the
// principal it was made for, so that knowing an id gives nobody anything
// (threats S1, C8). The id itself is kept as a hash: the table is no list of
// credentials.
//
// Bindings is safe for concurrent use, also from several processes.
type Bindings interface {
	// Bind ties id to p; it is durable when Bind returns nil, and must be called
	// before the id is revealed. Binding it again for the same person and agent
	// changes nothing, the first binding stays; for another it is ErrExists.
	Bind(ctx context.Context, route string, kind IDKind, id string, p Principal) error
	// Lookup returns whose id it is, or ErrNotFound.
	Lookup(ctx context.Context, route string, kind IDKind, id string) (Principal, error)
}

// Principal is whom an id belongs to, and the call that made it known.
type Principal struct {
	Person string // reference
	Agent  string // URI of the caller
	Txn    string
	Record string // record_id of the decision
}

// Same reports whether p and o are the same person through the same agent.
func (p Principal) Same(o Principal) bool { return p.Person == o.Person && p.Agent == o.Agent }

// Check reports what every driver refuses in a binding by itself.
func (p Principal) Check(route string, kind IDKind, id string) error {
	if route == "" || kind == "" || id == "" || p.Person == "" || p.Agent == "" || p.Txn == "" || p.Record == "" {
		return errors.New("binding without route, kind, id, person, agent, txn or record")
	}
	return nil
}

// BindingKey is the key under which drivers keep a binding: SHA-256 over
// route, kind and id, each with its length, so that no two triples meet.
func BindingKey(route string, kind IDKind, id string) [sha256.Size]byte {
	var b []byte
	for _, s := range []string{route, string(kind), id} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}
