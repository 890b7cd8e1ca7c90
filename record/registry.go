package record

// Registry is what an operator changed in the registry over the network,
// or asked of the admin API and was refused. What an operator read is a
// [Query], what one revoked a [Revocation].
//
// A change is recorded before it is in force. One that could not be made after
// all is followed by a refusal of the same target and revision.
type Registry struct {
	Op RegistryOp `json:"op"`
	// Entry is what Target is the id of.
	Entry RegistryEntry `json:"entry"`
	// Target is the id of the entry, empty where the request named none.
	Target string `json:"target,omitempty"`
	// By is the workload that was proven on the connection, empty if none was;
	// Role is what the configuration lets it do, empty if nothing.
	By     string         `json:"by,omitempty"`
	Role   string         `json:"role,omitempty"`
	Result RegistryResult `json:"result"`
	// Reason is ReasonAllowed or the code of the refusal.
	Reason string `json:"reason"`
	// Before and After are the digests of the entry's documents, which are kept
	// beside the log: empty where there is none.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// Authority compares what the entry may ever hold before and after; empty for
	// entries that hold nothing.
	Authority AuthorityChange `json:"authority,omitempty"`
	// Revision is the number that the registry has with this change.
	Revision int64 `json:"revision,omitempty"`
}

// RegistryOp is what was asked for.
type RegistryOp string

// The operations of the admin API.
const (
	RegistryRead   RegistryOp = "read" // refused: what was read is a query
	RegistryAdd    RegistryOp = "add"
	RegistryChange RegistryOp = "change"
	RegistryRemove RegistryOp = "remove"
	RegistryRevoke RegistryOp = "revoke" // refused: what was revoked is a revocation
)

// RegistryEntry is a kind of entry.
type RegistryEntry string

// The kinds of entries; EntryNone is a request that named none of them.
const (
	EntryAgent      RegistryEntry = "agent"
	EntryResource   RegistryEntry = "resource"
	EntryIssuer     RegistryEntry = "issuer"
	EntryClient     RegistryEntry = "client"
	EntryRevocation RegistryEntry = "revocation"
	EntryStatus     RegistryEntry = "status"
	EntryWriter     RegistryEntry = "writer" // refused: what was done to its keys is a key record
	EntryNone       RegistryEntry = "none"
)

// RegistryResult says whether it was done.
type RegistryResult string

// The results.
const (
	RegistryApplied RegistryResult = "applied"
	RegistryRefused RegistryResult = "refused"
)

// AuthorityChange says how an authority differs from what it was.
type AuthorityChange string

// The ways. Narrowed includes an authority that ended; widened is everything
// that is not within what it was.
const (
	AuthoritySame     AuthorityChange = "same"
	AuthorityNarrowed AuthorityChange = "narrowed"
	AuthorityWidened  AuthorityChange = "widened"
)

func (x *Registry) check(c *checker) {
	oneOf(c, "op", x.Op, RegistryRead, RegistryAdd, RegistryChange, RegistryRemove, RegistryRevoke)
	oneOf(c, "entry", x.Entry, EntryAgent, EntryResource, EntryIssuer, EntryClient, EntryRevocation, EntryStatus, EntryWriter, EntryNone)
	oneOf(c, "result", x.Result, RegistryApplied, RegistryRefused)
	c.text("target", x.Target)
	c.text("by", x.By)
	c.text("role", x.Role)
	c.require(x.Role == "" || x.By != "", "role", "stands without a holder")
	c.code("reason", x.Reason)
	c.require((x.Result == RegistryApplied) == (x.Reason == ReasonAllowed), "reason", "does not fit the result")
	c.optHash("before", x.Before)
	c.optHash("after", x.After)
	if x.Authority != "" {
		oneOf(c, "authority", x.Authority, AuthoritySame, AuthorityNarrowed, AuthorityWidened)
	}
	c.count("revision", x.Revision)
	if x.Result != RegistryApplied {
		return
	}
	c.require(x.By != "" && x.Role != "" && x.Target != "" && x.Revision > 0, "result", "is applied, but who, what or when is missing")
	oneOf(c, "entry", x.Entry, EntryAgent, EntryResource, EntryIssuer, EntryClient)
	oneOf(c, "op", x.Op, RegistryAdd, RegistryChange, RegistryRemove)
	c.require((x.Before == "") == (x.Op == RegistryAdd), "before", "does not fit the operation")
	c.require((x.After == "") == (x.Op == RegistryRemove), "after", "does not fit the operation")
	c.require((x.Authority == "") == (x.Entry != EntryAgent), "authority", "does not fit the entry")
}
