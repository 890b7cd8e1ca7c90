package row

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/registry"
)

// The columns of rows that are read as a list, and its order.
const (
	Hop        = `depth, receipt`                 // by depth
	Revocation = `seq, kind, value, before, ends` // by seq
	IssuerKey  = `kid, version, statement`        // by kid
	// Entry begins with the revision of the whole catalog, h, so that a catalog
	// without an entry, c, has one row of it alone. By kind and id.
	Entry = `h.revision, c.kind, c.id, c.revision, c.document`
)

// list reads every row by one function.
func list[T any](rows Rows, read func(*T) []any) ([]T, error) {
	var all []T
	for rows.Next() {
		var one T
		if err := rows.Scan(read(&one)...); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// Receipts reads rows of Hop: R0…Rn without a gap, or ErrNotFound if there is
// none.
func Receipts(rows Rows) ([]string, error) {
	type hop struct {
		depth   int
		receipt string
	}
	hops, err := list(rows, func(h *hop) []any { return []any{&h.depth, &h.receipt} })
	if err != nil {
		return nil, err
	}
	receipts := make([]string, len(hops))
	for i, h := range hops {
		if h.depth != i {
			return nil, fmt.Errorf("hop %d is missing", i)
		}
		receipts[i] = h.receipt
	}
	if len(receipts) == 0 {
		return nil, registry.ErrNotFound
	}
	return receipts, nil
}

// Revoked reads rows of Revocation, of which at most limit were asked for. last
// is the number of the newest entry, read before.
func Revoked(rows Rows, last int64, limit int) (registry.Revoked, error) {
	entries, err := list(rows, func(e *registry.Revocation) []any {
		return []any{&e.Seq, &e.Kind, &e.Value, unix(&e.Before), unix(&e.Ends)}
	})
	if err != nil {
		return registry.Revoked{}, err
	}
	out := registry.Revoked{Entries: entries, Through: last, Last: last}
	if len(entries) == limit {
		out.Through = entries[limit-1].Seq // there may be more
	}
	return out, nil
}

// IssuerKeys reads rows of IssuerKey.
func IssuerKeys(rows Rows, issuer string) ([]registry.IssuerKey, error) {
	return list(rows, func(k *registry.IssuerKey) []any {
		k.Issuer = issuer
		return []any{&k.KeyID, &k.Version, &k.Statement}
	})
}

// Catalog reads rows of Entry.
func Catalog(rows Rows) (entries []registry.Entry, revision int64, err error) {
	type row struct {
		whole              int64
		kind, id, document *string
		changed            *int64
	}
	all, err := list(rows, func(r *row) []any { return []any{&r.whole, &r.kind, &r.id, &r.changed, &r.document} })
	if err != nil {
		return nil, 0, err
	}
	if len(all) == 0 {
		return nil, 0, errors.New("it has no revision")
	}
	for _, r := range all {
		if r.kind != nil {
			entries = append(entries, registry.Entry{Kind: registry.EntryKind(*r.kind), ID: *r.id, Revision: *r.changed, Document: []byte(*r.document)})
		}
	}
	return entries, all[0].whole, nil
}
