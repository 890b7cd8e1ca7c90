package record

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// Draft is a record without its place in the writer's sequence: checked,
// within the limits and already encoded, so that the one goroutine that
// assigns places does little. It is immutable and safe for concurrent use.
type Draft struct {
	kind    Kind
	id, log string
	refusal string // the reason, of a record that refuses something
	payload []byte // canonical, with prev "" and seq 0
	keyAt   int    // where in payload the text of keyid is, so many bytes
	keyLen  int
	prevAt  int // where in payload the text of prev goes
	seqAt   int // where the digit of seq is
}

// placeRoom is the most that prev and seq add to a payload.
const placeRoom = 43 + len("9007199254740991") - 1

// NewDraft checks and encodes r. It ignores r.Writer.Seq and r.Writer.Prev, and
// sorts, in a copy, the arrays that are sets. The error is a [*LimitError] where
// a limit is exceeded, at whatever place the record would get; then
// r.Reduced() fits.
func NewDraft(r Record) (Draft, error) {
	r = r.sorted()
	r.Writer.Seq, r.Writer.Prev = 0, ""
	if err := r.Validate(); err != nil {
		return Draft{}, err
	}
	payload, gwAt := r.encode()
	if n := len(payload) + placeRoom; n > MaxPayload {
		return Draft{}, &LimitError{What: "payload", Got: n, Max: MaxPayload}
	}
	// gw is {"id":…,"keyid":…,"prev":"","role":…,"run":…,"seq":0}; what precedes
	// the two places has the length that the encoder gives it.
	head := len(appendString(nil, r.Writer.ID)) + len(appendString(nil, r.Writer.KeyID))
	tail := len(appendString(nil, string(r.Writer.Role))) + len(appendString(nil, r.Writer.Run))
	prevAt := gwAt + len(`{"id":,"keyid":,"prev":"`) + head
	return Draft{
		kind: r.Kind, id: r.ID, log: r.Log, refusal: r.refusal(), payload: payload,
		keyAt: gwAt + len(`{"id":,"keyid":"`) + len(appendString(nil, r.Writer.ID)), keyLen: len(r.Writer.KeyID),
		prevAt: prevAt, seqAt: prevAt + len(`","role":,"run":,"seq":`) + tail,
	}, nil
}

// Kind is the kind of the record.
func (d Draft) Kind() Kind { return d.kind }

// Refusal is the reason of a record that refuses something: a call that was
// denied, or a token. "" for every other record.
func (d Draft) Refusal() string { return d.refusal }

func (r Record) refusal() string {
	switch {
	case r.Decision != nil && r.Decision.Verdict.Effect == Deny:
		return r.Decision.Verdict.Reason
	case r.Issuance != nil && r.Issuance.Result == Refused:
		return r.Issuance.Reason
	default:
		return ""
	}
}

// RecordID is the record's id.
func (d Draft) RecordID() string { return d.id }

// Log is the family the record belongs to.
func (d Draft) Log() string { return d.log }

// Size is the most bytes the payload can have.
func (d Draft) Size() int { return len(d.payload) + placeRoom }

// Link gives the draft its place and returns the payload and its record_hash,
// which is the prev of the writer's next record. It does not sign, so that a
// batch links first and signs in parallel.
func (d Draft) Link(seq int64, prev string) (payload []byte, recordHash string, err error) {
	return d.LinkAs("", seq, prev)
}

// LinkAs is Link for a record that is signed by another key than the draft was
// made for: its writer's key was changed meanwhile. An empty id keeps the key.
func (d Draft) LinkAs(keyID string, seq int64, prev string) (payload []byte, recordHash string, err error) {
	if d.payload == nil {
		return nil, "", errors.New("linking record: draft is not set")
	}
	if keyID != "" {
		if _, err := decode64(keyID, 32); err != nil || len(keyID) != d.keyLen {
			return nil, "", fmt.Errorf("linking record: %q is no id of a key", keyID)
		}
	}
	c := &checker{}
	c.position(seq, prev)
	if c.err != nil {
		return nil, "", c.err
	}
	payload = make([]byte, 0, d.Size())
	payload = append(payload, d.payload[:d.prevAt]...)
	payload = append(payload, prev...)
	payload = append(payload, d.payload[d.prevAt:d.seqAt]...)
	payload = strconv.AppendInt(payload, seq, 10)
	payload = append(payload, d.payload[d.seqAt+1:]...)
	copy(payload[d.keyAt:], keyID)
	return payload, Hash(payload), nil
}

// sorted is r with the arrays that are sets sorted, duplicates dropped.
func (r Record) sorted() Record {
	r.NotAsserted = set(r.NotAsserted)
	if r.Decision != nil {
		d := *r.Decision
		d.Request.Needed, d.SD = set(d.Request.Needed), set(d.SD)
		d.Policy.Rules, d.Policy.Errors = set(d.Policy.Rules), set(d.Policy.Errors)
		d.Verdict.Unavailable, d.Verdict.Allowed = set(d.Verdict.Unavailable), set(d.Verdict.Allowed)
		if d.Policy.Shadow != nil {
			s := *d.Policy.Shadow
			s.Rules, s.Errors = set(s.Rules), set(s.Errors)
			d.Policy.Shadow = &s
		}
		r.Decision = &d
	}
	if r.PolicyChange != nil {
		p := *r.PolicyChange
		p.Approvals = set(p.Approvals)
		r.PolicyChange = &p
	}
	return r
}

func set[T ~string | ~int64](xs []T) []T {
	if ascending(xs) {
		return xs
	}
	xs = slices.Clone(xs)
	slices.Sort(xs)
	return slices.Compact(xs)
}

// shortText is the longest string that a reduced record keeps, in bytes as
// encoded, shortItems the most items of an array.
const (
	shortText  = 256
	shortItems = 16
)

// Reduced is the record of a call that exceeded a limit, with digests only: a
// denial for `limit_exceeded` (a refusal, if r is an issuance). The chain keeps
// the hash of every receipt and of the token, and with them everything the hops
// say; a chain of more than MaxHops hops goes, since it was never verified.
// Details, atoms, rules, errors and disclosures go; a string of more than 256
// encoded bytes becomes "sha-256:" and its hash. The result fits in every limit.
func (r Record) Reduced() Record {
	r = shorten(reflect.ValueOf(r)).Interface().(Record)
	if d := r.Decision; d != nil {
		v := &d.Verdict
		v.Effect, v.Reason, v.Exceeded = Deny, ReasonLimitExceeded, nil
		if len(d.Chain) > MaxHops {
			d.Chain, d.Issuer, v.Details, v.Scope = nil, "", nil, NotEvaluated
		}
		for k := range d.Chain {
			d.Chain[k].Details = Details{}
		}
		d.Request.Needed, d.SD = nil, nil
		d.Policy.Rules, d.Policy.Errors, d.Policy.Shadow = nil, nil, nil
	}
	if i := r.Issuance; i != nil {
		*i = Issuance{
			Result: Refused, Reason: ReasonLimitExceeded, Txn: i.Txn, ParentHash: i.ParentHash, RequestHash: i.RequestHash,
			ClientAuth: i.ClientAuth, Person: i.Person, Actor: i.Actor, Audience: i.Audience, BundleDigest: i.BundleDigest,
		}
	}
	return r
}

// shorten copies v deeply, with long strings as hashes and long arrays cut. The
// chain is not cut here: half a chain would be another one.
func shorten(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		if len(appendString(nil, s)) > shortText {
			s = "sha-256:" + Hash([]byte(s))
		}
		out.SetString(s)
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(shorten(v.Elem()))
		}
	case reflect.Struct:
		if v.Type() == detailsType {
			return v
		}
		for i := range v.NumField() {
			out.Field(i).Set(shorten(v.Field(i)))
		}
	case reflect.Slice:
		n := v.Len()
		if n > shortItems && v.Type() != reflect.TypeFor[[]Hop]() {
			n = shortItems
		}
		for i := range n {
			out.Set(reflect.Append(out, shorten(v.Index(i))))
		}
	case reflect.Map:
		out.Set(reflect.ValueOf(maps.Clone(v.Interface().(map[string]int64))))
	default:
		out.Set(v)
	}
	return out
}
