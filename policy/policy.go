// Package policy is the question put for every call (Input) and its answer (Decision).
//
// Scope says what was delegated; policy says what the organisation accepts.
// Neither can widen the other: a call goes on only if both permit it. The
// package knows no engine. A [Decider] is one: Cedar embedded by default,
// remote decision points as drivers.
//
// The package performs no I/O and reads no clock; the time of the question is
// part of the question, so that a recorded call can be decided again.
package policy

import (
	"context"
	"net/netip"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

// Kind is the entity type of a resource in the policy schema
// (scope-and-policy.md §4.1).
type Kind string

// The kinds of resource.
const (
	KindService   Kind = "Service"
	KindTool      Kind = "Tool"
	KindPrompt    Kind = "Prompt"
	KindDocument  Kind = "Document"
	KindModel     Kind = "Model"
	KindPeer      Kind = "Peer"
	KindOperation Kind = "Operation"
)

// Resource is what a call is for. Service is the name of the route; Name is
// the tool, prompt, document, model, peer or operation below it, and empty for
// the service itself (discovery).
type Resource struct {
	Kind    Kind
	Service string
	Name    string
}

// ID is the entity id of the resource: `<service>/<name>`, or the service
// alone; a model is known by its name alone, because operators name models
// and not the route that leads to them.
func (r Resource) ID() string {
	switch {
	case r.Name == "":
		return r.Service
	case r.Kind == KindModel:
		return r.Name
	default:
		return r.Service + "/" + r.Name
	}
}

// Input is everything a decision may depend on. A member that policy cannot
// read does not belong here: the schema is generated from the same list and a
// test fails while they differ.
type Input struct {
	Chain    delegation.Chain // verified; its leaf is the authority in force
	Caller   identity.Agent   // proven on this connection
	Resource Resource
	Call     scope.Call // action, location, name and the call document
	Now      time.Time
	ArgsOpen bool       // a permitting detail leaves the arguments open
	Address  netip.Addr // unverified.address; policy may forbid by it, never permit
}

// Person is the natural person the call is made for.
func (in Input) Person() identity.Person { return in.Chain.Person() }

// Narrowed reports whether the leaf holds less authority than the root: whether
// some hop dropped or narrowed a detail of the hop before. A grant that was
// passed on whole is not narrowed, though its details name their parents. The
// answer takes a comparison of all grants; ask once.
func (in Input) Narrowed() bool {
	for k := 1; k < in.Chain.Len(); k++ {
		gave := delegation.GaveUp(in.Chain.Hop(k-1).Details, in.Chain.Hop(k).Details)
		if len(gave.Dropped)+len(gave.Narrowed) > 0 {
			return true
		}
	}
	return false
}

// Effect is the verdict. The zero value is Deny.
type Effect int

// The effects.
const (
	Deny Effect = iota
	Permit
)

func (e Effect) String() string {
	if e == Permit {
		return "permit"
	}
	return "deny"
}

// Decision is the answer, with what is needed to reproduce it.
type Decision struct {
	Effect Effect
	// Rules are the ids of the determining policies, sorted.
	Rules []string
	// Errors are evaluation errors, sorted; any one of them means Deny.
	Errors []string
	// Version names the rules that were asked.
	Version Version
	// Reads are the JSON Pointers into the call document of the values that the
	// engine was given, sorted; nil if it was given all of it. One that ends in a
	// slash names an object that is there, and nothing in it. A record keeps these
	// values as disclosures, so that the decision can be made again.
	Reads []string
	// Unavailable says that the engine could not be asked: a Deny that says nothing
	// about the call, which may be tried again.
	Unavailable bool
	// Shadow is the answer of a second set on trial, nil if there is none. It
	// changes nothing.
	Shadow *Decision
}

// Version names one set of rules and the code that read it.
type Version struct {
	Digest string // of the bundle's manifest, base64url SHA-256
	Serial int64
	Engine string // "cedar-go/1.9.0"
	Reader string // version of the input's meaning
}

// ReaderVersion is the version of Input's meaning; it changes when an
// extractor or the mapping to entities does.
const ReaderVersion = "1"

// Decider answers. Decide is called once per call, must not block on anything
// but its own evaluation (a remote driver: within ctx's deadline), and never
// permits on an error: it has no error result because an error is a Deny with
// its text in Errors. It is safe for concurrent use and reads one version of
// the rules per call.
type Decider interface {
	Decide(ctx context.Context, in Input) Decision
}

// Lister says whether an entry of a list may be shown. The guarantee is
// Allow ⇒ listed: what Decide would permit for some arguments, Listed shows
// (scope-and-policy.md §4.5).
type Lister interface {
	Listed(ctx context.Context, in Input) bool
}
