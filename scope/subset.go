package scope

import "fmt"

// WidenedError says where a child's grant is not within its parent's.
type WidenedError struct {
	// Detail is the index of the child's detail, -1 if the grants themselves are
	// unfit.
	Detail int
	// From is the index of the parent's detail it names, -1 if it names none.
	From int
	// Path is "locations", "actions", "names", "args", "from" or a JSON Pointer.
	Path string
	// Op is the child's operator at a pointer, "" where it has none there.
	Op string
	// Reason says what is wrong.
	Reason string
}

func (e *WidenedError) Error() string {
	s := fmt.Sprintf("scope widened: detail %d (from %d): %s", e.Detail, e.From, e.Path)
	if e.Op != "" {
		s += " (" + e.Op + ")"
	}
	return s + ": " + e.Reason
}

// Subsumes checks that child only narrows parent: every detail of child is
// within the detail of parent that its `from` names. The error is a
// *WidenedError. A nil error means that every call that child permits is
// permitted by parent (sound); the reverse does not hold (incomplete).
// It is reflexive but for `from`, and transitive.
func Subsumes(parent, child Grant) error {
	if parent.IsZero() || child.IsZero() {
		return &WidenedError{Detail: -1, From: -1, Path: "authorization_details", Reason: "no details"}
	}
	for i := range child.details {
		c := &child.details[i]
		if c.from < 0 || c.from >= len(parent.details) {
			return &WidenedError{Detail: i, From: c.from, Path: "from", Reason: "names no detail of the parent"}
		}
		if err := c.within(&parent.details[c.from]); err != nil {
			err.Detail, err.From = i, c.from
			return err
		}
	}
	return nil
}

// within checks c ⊑ p but for `from`.
func (c *Detail) within(p *Detail) *WidenedError {
	for _, s := range []struct {
		path          string
		child, parent set
	}{
		{"locations", c.locations, p.locations},
		{"actions", c.actions, p.actions},
		{"names", c.names, p.names},
	} {
		if x, ok := s.child.subsetOf(s.parent); !ok {
			return &WidenedError{Path: s.path, Reason: fmt.Sprintf("%q is not in the parent", x)}
		}
	}
	// ArgsNone below open arises only where the child dropped every action that
	// has arguments; a closed parent's /args is then missed below.
	if c.args == ArgsOpen && p.args != ArgsOpen {
		return &WidenedError{Path: "args", Reason: "closed arguments opened"}
	}
	return c.whereWithin(p)
}

// whereWithin checks that the child constrains every path that the parent does,
// at least as narrowly. Both lists are sorted.
func (c *Detail) whereWithin(p *Detail) *WidenedError {
	i := 0
	for j := range p.where {
		pb := &p.where[j]
		for i < len(c.where) && c.where[i].pointer < pb.pointer {
			i++ // an extra path only narrows
		}
		if i == len(c.where) || c.where[i].pointer != pb.pointer {
			return &WidenedError{Path: pb.pointer, Reason: "the parent's constraint is missing"}
		}
		if cb := &c.where[i]; !cb.c.within(pb.c) {
			return &WidenedError{Path: pb.pointer, Op: cb.c.op.String(), Reason: "not within the parent's " + pb.c.op.String()}
		}
	}
	return nil
}

// within decides c ⊑ p, that M(c) lies in M(p).
func (c *constraint) within(p *constraint) bool {
	if c.optional && !p.optional && p.op != opAbsent {
		return false
	}
	switch c.op {
	case opNone:
		return false
	case opAbsent:
		return p.op == opAbsent || p.optional
	case opOneOf:
		return c.valuesWithin(p)
	default:
	}
	switch {
	case p.op == opAny:
		return true
	case p.op != c.op:
		return false
	}
	switch c.op {
	case opPrefix:
		return len(c.value) >= len(p.value) && c.value[:len(p.value)] == p.value
	case opPath:
		return under(p.value, c.value)
	case opHost:
		return c.hostWithin(p)
	case opRange:
		return c.rangeWithin(p)
	case opCIDR:
		for _, n := range c.nets {
			if !inside(n, p.nets) {
				return false
			}
		}
		return true
	case opEach:
		return c.items <= p.items && (c.items == 0 || c.of.within(p.of))
	case opFields:
		_, ok := c.keys.subsetOf(p.keys)
		return ok
	default:
		return false
	}
}

func (c *constraint) valuesWithin(p *constraint) bool {
	for _, v := range c.values {
		if !p.match(v) {
			return false
		}
	}
	return true
}

func (c *constraint) hostWithin(p *constraint) bool {
	if !p.wild {
		return !c.wild && c.value == p.value
	}
	return subdomain(p.value, c.value) || (c.wild && c.value == p.value)
}

func (c *constraint) rangeWithin(p *constraint) bool {
	return boundWithin(c.min, p.min, 1) && boundWithin(c.max, p.max, -1)
}

// boundWithin compares lower ends if sign is 1, upper ends if it is -1.
func boundWithin(c, p bnd, sign int) bool {
	if !p.set {
		return true
	}
	if !c.set {
		return false
	}
	k := sign * c.n.Cmp(p.n)
	return k > 0 || (k == 0 && (c.exclusive || !p.exclusive))
}
