package record

// Decision is the verdict on one call, written before the call goes on. It has
// everything that is needed to see why, and to decide again: whose authority,
// through whom, asking for what, under which rules.
type Decision struct {
	Durability Durability `json:"durability"`
	// Txn is the transaction of the chain, a UUIDv7.
	Txn string `json:"txn,omitempty"`
	// CallID is a UUIDv7, kept on retry.
	CallID string `json:"call_id"`
	// Trace is a W3C trace id: 32 lower-case hex digits.
	Trace   string `json:"trace,omitempty"`
	Session string `json:"session,omitempty"`
	// ParentCall is the call that this caller says it is serving: a hint that
	// the agent carried, to be checked against that call's own record.
	ParentCall string    `json:"parent_call,omitempty"`
	Exchange   *Exchange `json:"exchange,omitempty"`
	Person     Person    `json:"person"`
	Caller     Caller    `json:"caller"`
	// Callee is nil if no route matched.
	Callee *Callee `json:"callee,omitempty"`
	// Issuer signed every hop of Chain.
	Issuer string `json:"issuer,omitempty"`
	// Chain is every hop, root first; empty if no chain was verified. The last
	// hop is the authority in force.
	Chain   []Hop   `json:"chain"`
	Request Request `json:"request"`
	Policy  Policy  `json:"policy"`
	Verdict Verdict `json:"decision"`
	// Oversight is the human approval of this call, Posture the caller's state.
	Oversight *Oversight `json:"oversight,omitempty"`
	Posture   *Posture   `json:"posture,omitempty"`
	// SD are the digests of the disclosures, sorted: one for each argument value
	// that policy read, and the salts of commitments.
	SD []string `json:"sd"`
}

// Durability is when the decision had to be durable.
type Durability string

// The durability modes of ledger.md §5.2.
const (
	Strict  Durability = "strict"
	Overlap Durability = "overlap"
)

// Exchange links the decision to the one of a peer organisation.
type Exchange struct {
	// ID is 128 random bits, unpadded base64url.
	ID            string       `json:"id"`
	Role          ExchangeRole `json:"role"`
	PeerOrg       string       `json:"peer_org"`
	BodyCommit    string       `json:"body_commit"`
	StatementHash string       `json:"statement_hash,omitempty"`
}

// ExchangeRole is our side of an exchange.
type ExchangeRole string

// The sides of an exchange.
const (
	RoleCaller ExchangeRole = "caller"
	RoleCallee ExchangeRole = "callee"
)

// Person is the natural person a call is made for, by reference only.
type Person struct {
	// Ref is the `sub` of our tokens, a random string.
	Ref string `json:"ref,omitempty"`
	// Issuer is the provider the person logged in at.
	Issuer   string   `json:"issuer,omitempty"`
	Auth     *Auth    `json:"auth,omitempty"`
	Presence Presence `json:"presence"`
}

// Auth is the login at the root of the chain.
type Auth struct {
	AMR []string `json:"amr,omitempty"`
	// Time is in Unix seconds.
	Time int64  `json:"time"`
	ACR  string `json:"acr,omitempty"`
}

// Presence is how the person stands behind the call.
type Presence string

// The kinds of presence.
const (
	PresenceInteractive   Presence = "interactive"
	PresenceApproved      Presence = "approved"
	PresenceStandingGrant Presence = "standing_grant"
	PresenceNone          Presence = "none"
)

// Caller is the workload that made the call: what its token claims and what its
// connection proved.
type Caller struct {
	Claimed string     `json:"claimed,omitempty"`
	Proven  string     `json:"proven,omitempty"`
	Proof   Proof      `json:"proof"`
	Auth    CallerAuth `json:"auth"`
	// Instance names one process of the agent; CredHash is the SHA-256 of its
	// credential; Attest is its attestation.
	Instance string `json:"instance,omitempty"`
	CredHash string `json:"cred_hash,omitempty"`
	Attest   string `json:"attest,omitempty"`
}

// Proof is how claimed and proven caller relate.
type Proof string

// The relations of claim and proof.
const (
	ProofMatch    Proof = "match"
	ProofMismatch Proof = "mismatch"
	ProofAbsent   Proof = "absent"
	ProofInvalid  Proof = "invalid"
)

// CallerAuth is by what means the caller proved itself on the call.
type CallerAuth string

// The means of proof.
const (
	AuthMTLS     CallerAuth = "mtls"
	AuthWIMSEWPT CallerAuth = "wimse_wpt"
	AuthHTTPSig  CallerAuth = "http_sig"
	AuthDPoP     CallerAuth = "dpop"
	AuthNone     CallerAuth = "none"
)

// Callee is what the call was for.
type Callee struct {
	Kind CalleeKind `json:"kind"`
	// ID is the resource identifier of the route.
	ID   string `json:"id"`
	Tool string `json:"tool,omitempty"`
	// Op is the action, "mcp:tools/call".
	Op string `json:"op"`
	// ServerKey is the SHA-256 of the public key the callee presented.
	ServerKey string `json:"server_key,omitempty"`
	// Card is what was last found of the agent's card; nil where the writer has not
	// seen it.
	Card *Card `json:"card,omitempty"`
}

// Card is what an agent says of itself, and what vouched for that.
type Card struct {
	// Digest is of the card's canonical form without its signatures; empty if there
	// was none that could be read.
	Digest  string      `json:"digest,omitempty"`
	Verdict CardVerdict `json:"verdict"`
	// Key is the id of the configured key that signed it.
	Key string `json:"key,omitempty"`
}

// CardVerdict is what vouched for an agent's card.
type CardVerdict string

// The verdicts. A refused card is served to nobody.
const (
	CardSigned  CardVerdict = "signed" // by a configured key
	CardPinned  CardVerdict = "pinned" // it has the configured digest
	CardRefused CardVerdict = "refused"
)

func (x *Card) check(c *checker, at string) {
	oneOf(c, at+".verdict", x.Verdict, CardSigned, CardPinned, CardRefused)
	c.optHash(at+".digest", x.Digest)
	c.text(at+".key", x.Key)
	c.require(x.Digest != "" || x.Verdict == CardRefused, at+".digest", "is missing")
	c.require((x.Key != "") == (x.Verdict == CardSigned), at+".key", "does not fit the verdict")
}

// CalleeKind is the kind of callee.
type CalleeKind string

// The kinds of callee.
const (
	CalleeMCPTool   CalleeKind = "mcp_tool"
	CalleeA2AAgent  CalleeKind = "a2a_agent"
	CalleeHTTPRoute CalleeKind = "http_route"
	CalleeModel     CalleeKind = "model"
)

// Hop is one hop of the chain: who held which authority, and the hash of the
// statement that says so.
type Hop struct {
	// ReceiptHash is of the receipt. The last hop has TokenHash instead, because
	// its receipt is not on the wire.
	ReceiptHash string `json:"receipt_hash,omitempty"`
	TokenHash   string `json:"token_hash,omitempty"`
	Actor       string `json:"actor"`
	Audience    string `json:"aud"`
	// Scope and Details are the authority, as granted.
	Scope   string  `json:"scope"`
	Details Details `json:"authorization_details"`
	// IssuedAt and Expires are in Unix seconds.
	IssuedAt int64 `json:"iat"`
	Expires  int64 `json:"exp"`
	// Via are the actors of another organisation by whose grant the chain began,
	// the last first; of the root alone.
	Via []Party `json:"via,omitempty"`
}

// Request is what the call asked for.
type Request struct {
	// Needed is the authority the call needs, as sorted atoms: action and name,
	// SQL table and column, arguments registered as atoms.
	Needed []string `json:"needed"`
	// CallCommit is the commitment to the call digest.
	CallCommit string `json:"call_commit,omitempty"`
	// Bytes is the length of the request body.
	Bytes int64 `json:"bytes"`
}

// Policy is which rules were asked and which determined the answer.
type Policy struct {
	// BundleDigest is of the bundle's manifest.
	BundleDigest string `json:"bundle_digest"`
	Serial       int64  `json:"serial"`
	Engine       string `json:"engine"`
	Reader       string `json:"reader"`
	// Rules and Errors are sorted.
	Rules  []string `json:"rules"`
	Errors []string `json:"errors,omitempty"`
	// InputDigest is of the policy's input, see [InputDigest].
	InputDigest string  `json:"input_digest,omitempty"`
	Shadow      *Shadow `json:"shadow,omitempty"`
}

// Shadow is the answer of rules on trial, which changed nothing.
type Shadow struct {
	Effect       Effect   `json:"effect"`
	BundleDigest string   `json:"bundle_digest"`
	Serial       int64    `json:"serial"`
	Rules        []string `json:"rules"`
	Errors       []string `json:"errors,omitempty"`
}

// Effect is the verdict on a call.
type Effect string

// The effects.
const (
	Permit Effect = "permit"
	Deny   Effect = "deny"
)

// Answer is what one of the two layers said.
type Answer string

// The answers of scope and policy.
const (
	Permitted    Answer = "permit"
	Denied       Answer = "deny"
	NotEvaluated Answer = "not_evaluated"
)

// ReasonAllowed is the reason of a permit and of an issued token; any other
// reason is a refusal code.
const ReasonAllowed = "allowed"

// ReasonLimitExceeded is the reason of a reduced record, see [Record.Reduced].
const ReasonLimitExceeded = "limit_exceeded"

// Verdict is the decision, with both layers' answers.
type Verdict struct {
	Effect Effect `json:"effect"`
	Scope  Answer `json:"scope"`
	Policy Answer `json:"policy"`
	// Reason is ReasonAllowed or a refusal code, `[a-z_]+`.
	Reason string `json:"reason"`
	// Details is per hop the index of the detail that permits, or -1; empty if
	// scope was not evaluated.
	Details []int64 `json:"details"`
	// Allowed are the last hop's details that policy's list set admits here.
	Allowed []int64 `json:"allowed"`
	// Exceeded is where the delegated scope ended; nil unless scope denied, and in
	// records of writers that did not state it.
	Exceeded *Exceeded `json:"exceeded,omitempty"`
	// Unavailable are the dependencies that could not be asked, sorted.
	Unavailable []string `json:"unavailable,omitempty"`
	// RevocationAgeMS is the age of the revocation feed, in milliseconds.
	RevocationAgeMS int64 `json:"revocation_age_ms"`
}

// Exceeded says where the delegated scope ended: the first hop that refuses, and
// of its grant the detail that came furthest. It quotes the grant, which the
// chain holds too, and of the call only whether something stood there: never
// its value, and no digest of it.
type Exceeded struct {
	// Hop is the index of the hop in the chain; every hop before it permits.
	Hop int64 `json:"hop"`
	// Detail is the index of the detail in the hop's grant; nil where the call is
	// one that no detail can permit.
	Detail *int64 `json:"detail,omitempty"`
	// Path is "location", "action", "name", or a JSON Pointer into the call
	// document (scope-and-policy.md §2.7).
	Path string `json:"path"`
	// Op is the operator that did not match, "range"; "in" for location, action
	// and name; "root" for facts that the action cannot have; "document" for a
	// broken document, which alone has no path.
	Op string `json:"op"`
	// Got is what the call has at Path.
	Got Got `json:"got"`
}

// Got is what stood where scope looked.
type Got string

// What scope finds at a path: a value that is not permitted, nothing, or a value
// that the path cannot lead through.
const (
	GotPresent     Got = "present"
	GotAbsent      Got = "absent"
	GotUnreachable Got = "unreachable"
)

// Oversight is a human's act on exactly this call.
type Oversight struct {
	Act          string    `json:"act"`
	ApproverRef  string    `json:"approver_ref"`
	ApprovalHash string    `json:"approval_hash"`
	At           Timestamp `json:"at"`
}

// Posture is the attested state of the caller's machine.
type Posture struct {
	State  string `json:"state"`
	Digest string `json:"digest"`
}
