package record

// Outcome is what followed a decision. It never alters it.
type Outcome struct {
	// Of is the record_id of the decision.
	Of     string `json:"of"`
	CallID string `json:"call_id"`
	Status Status `json:"status"`
	// Reason is a code, `[a-z_]+`.
	Reason string `json:"reason,omitempty"`
	// Forwarded is true unless it is certain that no byte left for the callee.
	Forwarded bool `json:"forwarded"`
	// Code is the callee's status in its protocol; nil if there was no answer.
	Code *int64 `json:"code,omitempty"`
	// ResultCommit is the commitment to the bytes of the result.
	ResultCommit string `json:"result_commit,omitempty"`
	// Bytes is the length of the response body.
	Bytes int64     `json:"bytes"`
	Ended Timestamp `json:"ended"`
	Peer  *Peer     `json:"peer,omitempty"`
	// Redeemed is the token of another organisation that the call was sent on
	// with; nil if it was none.
	Redeemed *Redeemed `json:"redeemed,omitempty"`
	// Model is what a model provider said of the call; nil if the callee is no
	// model, or its answer was not read.
	Model *ModelReport `json:"model,omitempty"`
	// Card is the agent's card that the answer was; nil if it was none.
	Card *Card `json:"card,omitempty"`
}

// ModelReport is what a model provider reported with its answer. It is the
// provider's word, and not checked.
type ModelReport struct {
	// Name is the model that answered, which may be another than was asked for;
	// empty if the provider named none.
	Name string `json:"name,omitempty"`
	// Usage is nil if the provider did not report it.
	Usage *ModelUsage `json:"usage,omitempty"`
	// Tools are the names of the tools that the model asked for, sorted and each
	// once. Nothing was permitted by that.
	Tools []string `json:"tools,omitempty"`
}

// ModelUsage is in tokens, but for HostedTools, which counts requests that the
// provider made itself. What the provider did not report is 0.
type ModelUsage struct {
	Input       int64 `json:"input"`
	Output      int64 `json:"output"`
	CacheRead   int64 `json:"cache_read"`
	CacheWrite  int64 `json:"cache_write"`
	Reasoning   int64 `json:"reasoning"`
	HostedTools int64 `json:"hosted_tools"`
}

// Status is how a call ended.
type Status string

// The ways a call ends.
const (
	StatusCompleted    Status = "completed"
	StatusCalleeError  Status = "callee_error"
	StatusTimeout      Status = "timeout"
	StatusAborted      Status = "aborted"
	StatusNotForwarded Status = "not_forwarded"
	StatusWithheld     Status = "withheld"
	StatusUnknown      Status = "unknown"
)

// Peer is the peer organisation's countersigned answer.
type Peer struct {
	ExchangeReceiptHash string `json:"exchange_receipt_hash"`
	RecordHash          string `json:"record_hash"`
	Log                 string `json:"log"`
}

// Redeemed is what a partner's token service gave for a grant of ours (tokens.md
// §11). It is the partner's token: of it the record has a hash.
type Redeemed struct {
	// Issuer is the partner's.
	Issuer string `json:"iss"`
	// ID and Hash are of the grant, `jti` and H(grant).
	ID   string `json:"jti"`
	Hash string `json:"hash"`
	// TokenHash is the SHA-256 of the token as it was returned.
	TokenHash string `json:"token_hash"`
	// Scope is as the partner granted it, Expires in Unix seconds.
	Scope   string `json:"scope,omitempty"`
	Expires int64  `json:"exp"`
}

// Issuance is a token issued or refused. The members that only a token has are
// absent from a refusal; the others are what the request claimed.
type Issuance struct {
	Result IssuanceResult `json:"result"`
	// Reason is ReasonAllowed or a refusal code.
	Reason string `json:"reason"`
	Txn    string `json:"txn,omitempty"`
	JTI    string `json:"jti,omitempty"`
	// ReceiptHash and TokenHash are of what was issued, ParentHash of the token
	// it was exchanged for.
	ReceiptHash string `json:"receipt_hash,omitempty"`
	TokenHash   string `json:"token_hash,omitempty"`
	ParentHash  string `json:"parent_hash,omitempty"`
	// RequestHash is `req.hash` of the receipt.
	RequestHash string `json:"request_hash"`
	// ClientAuth is `req.auth` of the receipt (tokens.md §4).
	ClientAuth string  `json:"client_auth"`
	Person     Person  `json:"person"`
	Actor      string  `json:"actor"`
	Audience   string  `json:"aud"`
	Requested  Details `json:"requested"`
	// Granted is nil in a refusal.
	Granted *Details `json:"granted,omitempty"`
	// Expires is in Unix seconds.
	Expires int64 `json:"exp,omitempty"`
	// BundleDigest is of the policy that was asked, "" if none was.
	BundleDigest string `json:"bundle_digest"`
	// Partner is the grant of another organisation that a token was asked for by;
	// nil if there was none.
	Partner *PartnerGrant `json:"partner,omitempty"`
}

// PartnerGrant is another organisation's grant (tokens.md §11). Both sides know
// it by issuer, id and hash.
type PartnerGrant struct {
	Issuer string `json:"iss"`
	ID     string `json:"jti"`
	// Hash is H(grant); ReceiptHash is of the partner's receipt before it, if that
	// was sent.
	Hash        string `json:"hash"`
	ReceiptHash string `json:"receipt_hash,omitempty"`
	// Actors are the partner's, the last first, as far as it names them.
	Actors []Party `json:"actors,omitempty"`
}

// Party is somebody in the namespace of an issuer, which is its organisation's.
type Party struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
}

// IssuanceResult says whether a token was issued.
type IssuanceResult string

// The results.
const (
	Issued  IssuanceResult = "issued"
	Refused IssuanceResult = "refused"
)

// Revocation ends authority (tokens.md §10).
type Revocation struct {
	Target RevocationTarget `json:"target"`
	// Value is the jti, txn, reference, agent URI, kid or thumbprint.
	Value string `json:"value"`
	// Before bounds what is revoked to hops issued at or before it.
	Before Timestamp `json:"before,omitempty"`
	Cause  string    `json:"cause"`
	By     string    `json:"by"`
}

// RevocationTarget is the kind of thing revoked.
type RevocationTarget string

// The targets of a revocation.
const (
	RevokeHop    RevocationTarget = "hop"
	RevokeTxn    RevocationTarget = "txn"
	RevokePerson RevocationTarget = "person"
	RevokeAgent  RevocationTarget = "agent"
	RevokeKey    RevocationTarget = "key"
	RevokeCert   RevocationTarget = "cert"
)

// PolicyChange is a policy bundle that came into force.
type PolicyChange struct {
	BundleDigest   string `json:"bundle_digest"`
	PreviousDigest string `json:"previous_digest,omitempty"`
	Serial         int64  `json:"serial"`
	Engine         string `json:"engine"`
	// Approvals are the hashes of the approvals of this bundle.
	Approvals []string `json:"approvals"`
}

// KeyChange adds, retires or revokes a writer's key, or a key that signs tokens
// and receipts, valid by the index of this record. It is signed by the manifest
// key.
type KeyChange struct {
	Op KeyOp `json:"op"`
	// For is the gw.id of the writer; of RoleIssuer the URL of the token issuer.
	For  string `json:"for"`
	Role Role   `json:"role"`
	// KeyID is the SHA-256 of PublicKey.
	KeyID string `json:"keyid"`
	// PublicKey is the raw Ed25519 key, unpadded base64url. An issuer's may also be
	// on P-256, as its uncompressed point (SEC 1 §2.3.3).
	PublicKey string `json:"public_key"`
	// TokenKeyID is `kid` of an issuer's key.
	TokenKeyID string `json:"kid,omitempty"`
	// From is from when an issuer's key signs, where that is later than its
	// publication. The same key may be added again with another time.
	From Timestamp `json:"from,omitempty"`
	// Since is from when a revoked key is suspect, Cause why it was revoked.
	Since Timestamp `json:"since,omitempty"`
	Cause string    `json:"cause,omitempty"`
	// By is the operator who asked for it over the admin API, as the connection
	// proved; empty where the product itself or a command beside the log did it.
	By string `json:"by,omitempty"`
}

// KeyOp is what happens to a key.
type KeyOp string

// The operations on keys.
const (
	KeyAdd    KeyOp = "add"
	KeyRetire KeyOp = "retire"
	KeyRevoke KeyOp = "revoke"
)

// Heartbeat is written at start, every interval and at a clean stop, so that
// silence shows.
type Heartbeat struct {
	State BeatState `json:"state"`
	// Build is the digest of the running binary.
	Build string `json:"build"`
	// Interval is in seconds.
	Interval int64  `json:"interval_s"`
	Counts   Counts `json:"counts"`
	// Checkpoint is the last one seen, as the three lines of a C2SP checkpoint
	// body; "" if none was. See [CheckpointBody].
	Checkpoint string `json:"checkpoint"`
}

// BeatState is where in a run a heartbeat stands.
type BeatState string

// The states.
const (
	BeatStart BeatState = "start"
	Beat      BeatState = "beat"
	BeatStop  BeatState = "stop"
)

// Counts are the decisions of a run since its start.
type Counts struct {
	Permit      int64 `json:"permit"`
	Deny        int64 `json:"deny"`
	Unavailable int64 `json:"unavailable"`
}

// Gap is an interval in which a writer could not record everything.
type Gap struct {
	From  Timestamp `json:"from"`
	To    Timestamp `json:"to"`
	Cause string    `json:"cause"`
	// RefusedUnavailable counts calls refused because the ledger was.
	RefusedUnavailable int64 `json:"refused_unavailable"`
	// DenialsDropped counts denials without a record, by reason.
	DenialsDropped map[string]int64 `json:"denials_dropped"`
}

// Erasure orders that a person's or a record's data be destroyed.
type Erasure struct {
	Target ErasureTarget `json:"target"`
	// Ref is the person's reference or the record_id.
	Ref        string    `json:"ref"`
	Basis      string    `json:"basis"`
	CompleteBy Timestamp `json:"complete_by"`
}

// ErasureTarget is what is erased.
type ErasureTarget string

// The targets of an erasure.
const (
	ErasePerson ErasureTarget = "person"
	EraseRecord ErasureTarget = "record"
)

// Query is one look at the records: who read what.
type Query struct {
	By       string `json:"by"`
	Role     string `json:"role"`
	Question string `json:"question"`
	// AsOf is the checkpoint body the answer holds for, "" if there was none.
	AsOf string `json:"as_of"`
	// Count is how many records the answer cites.
	Count int64 `json:"count"`
}

// Period opens or seals one log of a family, prunes one that was sealed, or holds
// one against pruning.
type Period struct {
	Op PeriodOp `json:"op"`
	// Origin is of the log opened, sealed or pruned, "ledger.example/std/2027-03". A
	// hold may name the family instead, for all its logs.
	Origin string `json:"origin"`
	// Previous is the former log's last checkpoint body, "" for the first log; of a
	// pruning that of the pruned log, and of a hold "".
	Previous string      `json:"previous"`
	Cause    PeriodCause `json:"cause"`
	// Retention is that of the log; a hold has none.
	Retention *Retention `json:"retention,omitempty"`
	// StateDigest is of the blob with active keys and writer tails; of a pruning, of
	// the list of what stays. A hold has none.
	StateDigest string `json:"state_digest,omitempty"`
	// Hold is the id of a hold, and Basis why it is, in a word; else "".
	Hold  string `json:"hold,omitempty"`
	Basis string `json:"basis,omitempty"`
}

// PeriodOp is what happens to a period.
type PeriodOp string

// The operations on periods.
const (
	PeriodOpen PeriodOp = "open"
	PeriodSeal PeriodOp = "seal"
	// PeriodPrune: the bodies of a sealed log were deleted.
	PeriodPrune PeriodOp = "prune"
	// PeriodHold keeps bodies beyond their retention until PeriodRelease.
	PeriodHold    PeriodOp = "hold"
	PeriodRelease PeriodOp = "release"
)

// PeriodCause is why a period begins or ends.
type PeriodCause string

// The causes.
const (
	PeriodRoll      PeriodCause = "roll"
	PeriodRollback  PeriodCause = "rollback"
	PeriodRetention PeriodCause = "retention" // of a pruning
	PeriodOrder     PeriodCause = "order"     // of a hold: somebody's
)

// Retention is how long the bodies of a period are kept.
type Retention struct {
	NotBefore Timestamp `json:"not_before"`
	DeleteBy  Timestamp `json:"delete_by"`
}
