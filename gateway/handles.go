package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/registry"
)

// Handles says whom an id belongs to that outlives its call: a task, a context,
// a stored response (gateway.md §9).
type Handles string

// The rules, from the one that most may pass to the strictest.
const (
	// HandlesPerson: the same person, through whichever agent.
	HandlesPerson Handles = "person"
	// HandlesAgent: the same person through the same agent. It is the default.
	HandlesAgent Handles = "agent"
	// HandlesDelegation: in the very delegation that made the id known. It ends
	// with that: a person who logs in again begins anew.
	HandlesDelegation Handles = "delegation"
)

// Handle is an id that a call names and that was made known by an earlier one.
// It is authority for nobody but its owner (threats S1, C8).
type Handle struct {
	Kind registry.IDKind
	ID   string
	// Chosen is set for an id that clients choose: it is bound to the first that
	// uses it in a permitted call.
	Chosen bool
}

// Made is an id that a call of one of several names made known, revealed as
// Kind.By(name). The call that brings it back takes that name.
type Made struct {
	Kind registry.IDKind
	ID   string
	By   []string
}

var (
	errForeignHandle = errors.New("it is bound to another principal")
	errUnknownHandle = errors.New("it is not bound")
)

// principal is whom ids of this call belong to.
func (c *call) principal() registry.Principal {
	return registry.Principal{
		Person: c.verified.Chain.Person().String(), Agent: c.caller().String(), Txn: c.verified.Chain.Txn(), Record: c.recordID,
	}
}

// owns reports whether p owns what is bound to owner, by the route's rule.
func (r *Route) owns(owner, p registry.Principal) bool {
	switch r.Handles {
	case HandlesPerson:
		return owner.Person == p.Person
	case HandlesDelegation:
		return owner.Same(p) && owner.Txn == p.Txn
	default:
		return owner.Same(p)
	}
}

// checkHandles refuses a call that names an id of somebody else, or one that
// nobody knows: both are one answer. Those that clients choose wait for the
// decision.
func (c *call) checkHandles() error {
	for _, h := range c.request.Handles {
		switch err := c.holds(c.r.Context(), h.Kind, h.ID); {
		case errors.Is(err, errUnknownHandle) && h.Chosen && c.g.cfg.Bindings != nil:
			c.chosen = append(c.chosen, h)
		case err != nil:
			return handleRefusal(h, err)
		}
	}
	return c.nameOf(c.request.Made)
}

// nameOf gives the call the name of what made its id known. Where nothing did
// for this caller, the id is unknown.
func (c *call) nameOf(m *Made) error {
	if m == nil {
		return nil
	}
	err := errUnknownHandle
	for _, name := range m.By {
		held := c.holds(c.r.Context(), m.Kind.By(name), m.ID)
		if held == nil {
			c.request.Name, c.request.Resource.Name, c.request.Tool = name, name, name
			c.request.Needed = append(c.request.Needed, c.request.Action+" "+name)
			return nil
		}
		if err = held; !errors.Is(err, errUnknownHandle) {
			break
		}
	}
	return handleRefusal(Handle{Kind: m.Kind, ID: m.ID}, err)
}

func handleRefusal(h Handle, err error) error {
	if errors.Is(err, errUnknownHandle) || errors.Is(err, errForeignHandle) {
		return &Refusal{Code: CodeHandleUnknown, Err: fmt.Errorf("%s: %w", h.Kind, err)}
	}
	return &Refusal{Code: CodeHandleUnavailable, Err: fmt.Errorf("%s: %w", h.Kind, err)}
}

// holds is nil if the id is the caller's.
func (c *call) holds(ctx context.Context, kind registry.IDKind, id string) error {
	if c.g.cfg.Bindings == nil {
		return errUnknownHandle
	}
	owner, err := c.g.cfg.Bindings.Lookup(ctx, c.route.audience, kind, id)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return errUnknownHandle
	case err != nil:
		return err
	case !c.route.owns(owner, c.principal()):
		return errForeignHandle
	}
	return nil
}

// bindChosen binds what the client chose, once the call is permitted and
// recorded and before it goes on.
func (c *call) bindChosen() error {
	for _, h := range c.chosen {
		if err := c.bind(c.r.Context(), h.Kind, h.ID); err != nil {
			return handleRefusal(h, err)
		}
	}
	return nil
}

// bind ties an id to the caller. One that is somebody else's stays theirs.
func (c *call) bind(ctx context.Context, kind registry.IDKind, id string) error {
	err := c.holds(ctx, kind, id)
	if !errors.Is(err, errUnknownHandle) || c.g.cfg.Bindings == nil {
		return err
	}
	err = c.g.cfg.Bindings.Bind(ctx, c.route.audience, kind, id, c.principal())
	if errors.Is(err, registry.ErrExists) { // somebody was quicker
		return c.holds(ctx, kind, id)
	}
	return err
}

// Reveal implements Exchange.
func (x *exchange) Reveal(kind registry.IDKind, id string) error {
	h := Handle{Kind: kind, ID: id}
	if x.c.g.cfg.Bindings == nil || x.revealed[h] {
		return nil
	}
	err := x.c.bind(x.c.r.Context(), kind, id)
	switch {
	case errors.Is(err, errForeignHandle): // threat S2
		return &Refusal{Code: CodeUpstreamInvalid, Err: fmt.Errorf("the answer names a %s of somebody else", kind)}
	case err != nil:
		return handleRefusal(h, err)
	}
	if x.revealed == nil {
		x.revealed = make(map[Handle]bool)
	}
	if len(x.revealed) < maxRevealed {
		x.revealed[h] = true
	}
	return nil
}

// maxRevealed bounds what one call remembers of the ids that it revealed.
const maxRevealed = 1024

// Owns implements Exchange.
func (x *exchange) Owns(kind registry.IDKind, id string) (bool, error) {
	switch err := x.c.holds(x.c.r.Context(), kind, id); {
	case err == nil:
		return true, nil
	case errors.Is(err, errUnknownHandle), errors.Is(err, errForeignHandle):
		return false, nil
	default:
		return false, handleRefusal(Handle{Kind: kind, ID: id}, err)
	}
}
