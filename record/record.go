// Package record is the account of one decision, its canonical bytes and signed envelope.
//
//	Record ─NewDraft─▶ Draft ─Link(seq, prev)─▶ payload ─Sign─▶ envelope
//	 what happened      checked   who wrote it,    RFC 8785      DSSE, the
//	                    and sized  in which order   canonical     leaf of the log
//
//	envelope ─Open─▶ Envelope ─Verify(key)─▶ payload ─Parse─▶ Record
//
// A record is one of twelve kinds: a decision on a call, its outcome, a token
// issued or refused, a revocation, a change of policy, key or registry, a
// heartbeat, a gap, an erasure, a query, a period opened or sealed (ledger.md
// §3.2; the registry's kind is ours).
//
// It has exactly one sequence of bytes. [Record.Canonical] gives it, [Parse]
// accepts nothing else, and [Hash] covers all of it: a member that is not in
// the bytes does not exist, and a byte that is not of a member is refused
// (threat L4). The writer's position is in those bytes too: [Writer] names who
// wrote the record, in which run, at which place, and after which record, so
// that order is by sequence and never by clock (L6).
//
// A record holds no argument, body or result, and no unsalted digest of one,
// because small values can be guessed: only commitments under a salt
// ([Commit]) and the digests of disclosures ([Disclosure]).
//
// The package performs no I/O, reads no clock and draws no random number: ids,
// times and salts are arguments. It says what a writer signed, and not that it
// is true.
package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Version is `v` of every record this package writes and reads.
const Version = 1

// Kind is what a record is about.
type Kind string

// The kinds of record.
const (
	KindDecision   Kind = "decision"
	KindOutcome    Kind = "outcome"
	KindIssuance   Kind = "issuance"
	KindRevocation Kind = "revocation"
	KindPolicy     Kind = "policy"
	KindKey        Kind = "key"
	KindHeartbeat  Kind = "heartbeat"
	KindGap        Kind = "gap"
	KindErasure    Kind = "erasure"
	KindQuery      Kind = "query"
	KindPeriod     Kind = "period"
	KindRegistry   Kind = "registry"
)

// Record is one record: its header and the one body that its kind names. It is
// a plain value; nothing is checked before [Record.Validate], which every way
// out of the package runs.
type Record struct {
	Header

	// Exactly one of these is set, that of Header.Kind.
	Decision     *Decision
	Outcome      *Outcome
	Issuance     *Issuance
	Revocation   *Revocation
	PolicyChange *PolicyChange
	KeyChange    *KeyChange
	Heartbeat    *Heartbeat
	Gap          *Gap
	Erasure      *Erasure
	Query        *Query
	Period       *Period
	Registry     *Registry
}

// Header is what every kind has.
type Header struct {
	// Version is 1.
	Version int64 `json:"v"`
	Kind    Kind  `json:"kind"`
	// ID is a UUIDv7, unique in the log.
	ID string `json:"record_id"`
	// Log is the family the record belongs to, "ledger.example/std".
	Log    string `json:"log"`
	Writer Writer `json:"gw"`
	// Time is the writer's assertion. Heartbeats and cosignatures bound it.
	Time Timestamp `json:"time"`
	// DataClass, Region and NotAsserted are closed lists. NotAsserted is sorted
	// and says what this record makes no statement about.
	DataClass   DataClass     `json:"data_class"`
	Region      Region        `json:"region"`
	NotAsserted []NotAsserted `json:"not_asserted"`
}

// Writer says who wrote the record and at which place of its sequence.
type Writer struct {
	// ID is the configured name of the process, "gw-eu-1".
	ID string `json:"id"`
	// KeyID is the SHA-256 of the raw public key that signs the record.
	KeyID string `json:"keyid"`
	// Prev is the record_hash of this ID's previous record in the family, across
	// runs; "" if there is none. [Draft.Link] sets it.
	Prev string `json:"prev"`
	Role Role   `json:"role"`
	// Run is 128 random bits per start of the process, unpadded base64url.
	Run string `json:"run"`
	// Seq counts from 0 in each run and family. [Draft.Link] sets it.
	Seq int64 `json:"seq"`
}

// Role is what the writer is.
type Role string

// The roles of writers.
const (
	RoleGateway      Role = "gateway"
	RoleTokenService Role = "token_service"
	RoleSequencer    Role = "sequencer"
	RoleAdmin        Role = "admin"
)

// RoleIssuer is the role of a key that signs tokens and receipts, in key records
// alone: it writes nothing.
const RoleIssuer Role = "issuer"

// DataClass is the operator's classification of what the call handles.
type DataClass string

// The data classes.
const (
	DataPublic       DataClass = "public"
	DataInternal     DataClass = "internal"
	DataConfidential DataClass = "confidential"
	DataRestricted   DataClass = "restricted"
)

// Region is where the record is kept.
type Region string

// The regions. RegionLocal is a single machine, as `lineal dev` is one.
const (
	RegionLocal  Region = "local"
	RegionGlobal Region = "global"
	RegionEU     Region = "eu"
	RegionUK     Region = "uk"
	RegionCH     Region = "ch"
	RegionUS     Region = "us"
	RegionCA     Region = "ca"
	RegionBR     Region = "br"
	RegionIN     Region = "in"
	RegionJP     Region = "jp"
	RegionKR     Region = "kr"
	RegionSG     Region = "sg"
	RegionAU     Region = "au"
	RegionAE     Region = "ae"
	RegionZA     Region = "za"
)

// NotAsserted names a thing that a record makes no statement about.
type NotAsserted string

// What a record may declare outside of itself.
const (
	// NotCalleeEffect: what the callee did with the call.
	NotCalleeEffect NotAsserted = "callee_effect"
	// NotCallBody: what is in the body of the call, which a proxy sends on unseen.
	NotCallBody NotAsserted = "call_body"
	// NotCalleeIdentity: that the callee is who the route says.
	NotCalleeIdentity NotAsserted = "callee_identity"
	// NotPastGateway: calls that did not come through this gateway.
	NotPastGateway NotAsserted = "past_gateway"
)

// Timestamp is RFC 3339 in UTC with exactly three fraction digits,
// "2027-03-02T09:14:07.318Z". The zero value is no time.
type Timestamp string

const timeLayout = "2006-01-02T15:04:05.000Z"

// At gives t in UTC, cut to milliseconds.
func At(t time.Time) Timestamp { return Timestamp(t.UTC().Format(timeLayout)) }

// Time reads the timestamp; its error says what is wrong with the text.
func (ts Timestamp) Time() (time.Time, error) {
	t, err := time.Parse(timeLayout, string(ts))
	if err != nil || t.Format(timeLayout) != string(ts) {
		return time.Time{}, fmt.Errorf("timestamp %.40q is not RFC 3339 UTC with milliseconds", string(ts))
	}
	return t, nil
}

// Canonical checks the record and gives its payload: RFC 8785, at most
// [MaxPayload] bytes. The error is a [*LimitError] where a limit is exceeded.
func (r Record) Canonical() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	payload, _ := r.encode()
	if len(payload) > MaxPayload {
		return nil, &LimitError{What: "payload", Got: len(payload), Max: MaxPayload}
	}
	return payload, nil
}

// Hash is the record_hash of a payload: its SHA-256, unpadded base64url.
func Hash(payload []byte) string {
	sum := sha256.Sum256(payload)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Parse reads a payload. It accepts exactly what Canonical writes: an unknown,
// duplicate or miscased member, an unknown enum value, a float, a null, an
// integer outside ±(2^53−1), an empty optional member, white space or another
// order of members fail.
func Parse(payload []byte) (Record, error) {
	if len(payload) > MaxPayload {
		return Record{}, &LimitError{What: "payload", Got: len(payload), Max: MaxPayload}
	}
	r, err := decode(payload)
	if err != nil {
		return Record{}, fmt.Errorf("parsing record: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Record{}, fmt.Errorf("parsing record: %w", err)
	}
	// What the structs hold must be all there is: this one comparison is what
	// leaves no second spelling of a record.
	if again, _ := r.encode(); !bytes.Equal(again, payload) {
		return Record{}, errors.New("parsing record: not in canonical form")
	}
	return r, nil
}

// decode reads the members into the body of the record's kind.
func decode(payload []byte) (Record, error) {
	doc, err := strictjson.Parse(payload, strictjson.Limits{MaxBytes: MaxPayload})
	if err != nil {
		return Record{}, err
	}
	kind, ok := doc.Get("kind")
	if !ok {
		return Record{}, errors.New("kind is missing")
	}
	name, _ := kind.Text()
	r := Record{Header: Header{Kind: Kind(name)}}
	body := r.fresh()
	if body == nil {
		return Record{}, fmt.Errorf("kind %.40q is unknown", name)
	}
	var header, rest []strictjson.Member
	for _, m := range doc.Members() {
		if headerPlan.has(m.Name) {
			header = append(header, m)
		} else {
			rest = append(rest, m)
		}
	}
	if err := strictjson.Object(header...).Decode(&r.Header); err != nil {
		return Record{}, err
	}
	return r, strictjson.Object(rest...).Decode(body)
}
