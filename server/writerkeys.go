package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// writerKey is a key that a record of the log added for a writer, by index.
type writerKey struct {
	Writer string      `json:"writer"`
	Role   record.Role `json:"role,omitempty"` // "" in the state of an older period
	Public []byte      `json:"public"`
	Since  place       `json:"from"` // of the record that added it; it holds after that
	End    *keyEnd     `json:"end,omitempty"`
}

// keyEnd says how a key ended.
type keyEnd struct {
	Op    record.KeyOp `json:"op"`
	At    place        `json:"at"` // of the record that ended it
	Cause string       `json:"cause,omitempty"`
	// Stolen is from when records under the key are suspect, "" if none is.
	Stolen record.Timestamp `json:"stolen,omitempty"`
}

// place is an index of a period; Origin is "" if that is the one spoken of.
type place struct {
	Origin string `json:"origin,omitempty"`
	Index  int64  `json:"index"`
}

// in gives the place as another period sees it.
func (p place) in(origin string) place {
	if p.Origin == "" {
		p.Origin = origin
	}
	return p
}

// in gives the key as the period after origin sees it.
func (k writerKey) in(origin string) writerKey {
	k.Since = k.Since.in(origin)
	if k.End != nil {
		end := *k.End
		end.At = end.At.in(origin)
		k.End = &end
	}
	return k
}

// keyOf is the key that signs a record of w at the next index.
func (a *admission) keyOf(w record.Writer) (ed25519.PublicKey, error) {
	if w.KeyID == a.manifest {
		return a.public, nil
	}
	k, known := a.keys[w.KeyID]
	switch {
	case !known:
		return nil, fmt.Errorf("key %s is not a writer's", w.KeyID)
	case k.Writer != w.ID:
		return nil, fmt.Errorf("the key of %q signs for %q", k.Writer, w.ID)
	case k.Role != "" && k.Role != w.Role:
		return nil, fmt.Errorf("the key of %q is for role %s, not %s", w.ID, k.Role, w.Role)
	case k.End != nil:
		return nil, fmt.Errorf("the key of %q was ended (%s) at index %d", w.ID, k.End.Op, k.End.At.Index)
	}
	return k.Public, nil
}

// change takes in a key record of a writer.
func (a *admission) change(c *record.KeyChange) error {
	have, known := a.keys[c.KeyID]
	at := place{Index: a.next}
	switch {
	case c.Op == record.KeyAdd && known && have.End == nil && have.Writer == c.For && (have.Role == c.Role || have.Role == ""):
		have.Role = c.Role // the beginning of a period says it again
		a.keys[c.KeyID] = have
		return nil
	case c.Op == record.KeyAdd && known:
		return fmt.Errorf("the key of %q is added again, for %q", have.Writer, c.For)
	case c.Op == record.KeyAdd:
		raw, err := base64.RawURLEncoding.Strict().DecodeString(c.PublicKey)
		if err != nil || len(raw) != ed25519.PublicKeySize || record.KeyID(raw) != c.KeyID {
			return errors.New("a key record with a malformed key")
		}
		a.keys[c.KeyID] = writerKey{Writer: c.For, Role: c.Role, Public: raw, Since: at}
		return nil
	case !known || have.Writer != c.For:
		return fmt.Errorf("it ends a key of %q that was never added", c.For)
	}
	a.keys[c.KeyID] = have.ended(c, at)
	return nil
}

// ended is the key after a record that ends it. The first one ends it; one that
// was retired may be known as stolen later, and as stolen earlier than was thought.
func (k writerKey) ended(c *record.KeyChange, at place) writerKey {
	end := keyEnd{Op: c.Op, At: at}
	if k.End != nil {
		end = *k.End
	}
	if c.Op == record.KeyRevoke {
		end.Op, end.Cause = c.Op, c.Cause
		if end.Stolen == "" || c.Since < end.Stolen {
			end.Stolen = c.Since
		}
	}
	k.End = &end
	return k
}

// active are the keys under which a writer may sign, by id, the one that was
// added first before the others.
func (a *admission) active(writer string) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		if k := a.keys[id]; k.Writer == writer && k.End == nil {
			ids = append(ids, id)
		}
	}
	slices.SortStableFunc(ids, func(x, y string) int { return a.keys[x].Since.compare(a.keys[y].Since) })
	return ids
}

// compare orders two places of one period, or of this one and an earlier one.
func (p place) compare(q place) int {
	switch {
	case p.Origin == q.Origin:
		return int(min(max(p.Index-q.Index, -1), 1))
	case q.Origin == "":
		return -1
	case p.Origin == "":
		return 1
	default: // of two earlier periods: their order is not kept
		return 0
	}
}
