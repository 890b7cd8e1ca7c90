package search

import "fmt"

// view is what a lineage is told from: whatever finds records by their names.
// Its err is the first that finding met; what was told after it is worth nothing.
type view struct {
	// find gives the entries of an id, as [Index.Find] does, nil if there are none.
	find     func(id string) []*Entry
	name     func(ref string) string
	asOf     AsOf
	complete bool
	err      error
}

// view is x as it is; the caller holds the lock while it is used.
func (x *Index) view() *view {
	return &view{
		find: func(id string) []*Entry { return x.keys[id] },
		name: x.name, asOf: x.asOf, complete: x.complete(),
	}
}

func (x *view) trace(id string) (Lineage, error) {
	e, err := x.decisionOf(id)
	if x.err != nil {
		err = x.err
	}
	if err != nil {
		return Lineage{}, fmt.Errorf("tracing %.80q: %w", id, err)
	}
	l := x.lineage(e)
	return l, x.err
}
