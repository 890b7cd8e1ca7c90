package record

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"

	"github.com/gowebpki/jcs"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// Details is an authorization_details array as granted, in the form records
// have for it: what RFC 8785 or a record does not hold exactly stands in a
// marker, an object with one member,
//
//	{"$num":"0.10"}    a number that is no integer below 2^53, by its literal
//	{"$null":true}     null
//	{"$sd":"<digest>"} a value that was withheld, by the digest of its disclosure
//
// so that the grant can be had back exactly ([Details.Grant]). It is immutable
// and comparable; the zero value is the empty array.
type Details struct {
	raw string // canonical JSON; "" stands for []
	n   int
}

var detailsType = reflect.TypeFor[Details]()

const (
	markNumber   = "$num"
	markNull     = "$null"
	markWithheld = "$sd"
)

// ErrWithheld says that a value of the details is known by its digest only.
var ErrWithheld = errors.New("a value of the details was withheld")

// DetailsOf gives the recorded form of a grant.
func DetailsOf(g scope.Grant) (Details, error) {
	if g.IsZero() {
		return Details{}, errors.New("recording details: grant is not set")
	}
	return detailsFrom(g.Value())
}

// DetailsFrom gives the recorded form of an authorization_details array that
// was asked for and is perhaps no grant; it must be a JSON array of objects.
func DetailsFrom(raw []byte) (Details, error) {
	v, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return Details{}, fmt.Errorf("recording details: %w", err)
	}
	return detailsFrom(v)
}

func detailsFrom(v strictjson.Value) (Details, error) {
	marked, err := mark(v)
	if err != nil {
		return Details{}, fmt.Errorf("recording details: %w", err)
	}
	return canonicalDetails(marked)
}

func canonicalDetails(v strictjson.Value) (Details, error) {
	if v.Kind() != strictjson.KindArray {
		return Details{}, errors.New("recording details: not an array")
	}
	for _, d := range v.Items() {
		if d.Kind() != strictjson.KindObject {
			return Details{}, errors.New("recording details: not an array of objects")
		}
	}
	if v.Len() == 0 {
		return Details{}, nil
	}
	raw, err := jcs.Transform(v.AppendJSON(nil))
	if err != nil {
		return Details{}, fmt.Errorf("recording details: %w", err)
	}
	return Details{raw: string(raw), n: v.Len()}, nil
}

// Len is the number of details.
func (d Details) Len() int { return d.n }

func (d Details) text() string {
	if d.n == 0 {
		return "[]"
	}
	return d.raw
}

func (d Details) String() string { return d.text() }

// MarshalJSON gives the recorded form.
func (d Details) MarshalJSON() ([]byte, error) { return []byte(d.text()), nil }

// UnmarshalJSON reads the recorded form: every number an integer below 2^53 in
// absolute value, no null, and each marker the only way to write its value.
func (d *Details) UnmarshalJSON(b []byte) error {
	v, err := strictjson.Parse(b, strictjson.Limits{})
	if err != nil {
		return err
	}
	if _, err := unmark(v); err != nil && !errors.Is(err, ErrWithheld) {
		return err
	}
	*d, err = canonicalDetails(v)
	return err
}

// Grant parses the details again, markers undone; root says that they are of
// hop 0. It is [ErrWithheld] where a value is missing.
func (d Details) Grant(root bool) (scope.Grant, error) {
	v, err := strictjson.Parse([]byte(d.text()), strictjson.Limits{})
	if err != nil {
		return scope.Grant{}, fmt.Errorf("reading recorded details: %w", err)
	}
	if v, err = unmark(v); err != nil {
		return scope.Grant{}, fmt.Errorf("reading recorded details: %w", err)
	}
	return scope.ParseValue(v, root)
}

// Grant is the authority of the hop; root says that it is hop 0. It makes
// recorded hops comparable: scope.Subsumes, delegation.GaveUp.
func (h Hop) Grant(root bool) (scope.Grant, error) { return h.Details.Grant(root) }

// Equal compares two hops member by member.
func (h Hop) Equal(o Hop) bool {
	return h.ReceiptHash == o.ReceiptHash && h.TokenHash == o.TokenHash && h.Actor == o.Actor && h.Audience == o.Audience &&
		h.Scope == o.Scope && h.Details == o.Details && h.IssuedAt == o.IssuedAt && h.Expires == o.Expires && slices.Equal(h.Via, o.Via)
}

// isMark reports whether an object is, or could be taken for, a marker.
func isMark(name string) bool {
	return name == markNumber || name == markNull || name == markWithheld
}

func marker(name string, v strictjson.Value) strictjson.Value {
	return strictjson.Object(strictjson.Member{Name: name, Value: v})
}

// mark puts markers where they belong. A granted object that has a member of a
// marker's name is refused: it would be read back as something else.
func mark(v strictjson.Value) (strictjson.Value, error) {
	switch v.Kind() {
	case strictjson.KindNumber:
		if safeInteger(v.Literal()) {
			return v, nil
		}
		return marker(markNumber, strictjson.String(v.Literal())), nil
	case strictjson.KindNull:
		return marker(markNull, strictjson.Bool(true)), nil
	case strictjson.KindObject:
		for _, m := range v.Members() {
			if isMark(m.Name) {
				return strictjson.Value{}, fmt.Errorf("member %q is reserved", m.Name)
			}
		}
	case strictjson.KindInvalid, strictjson.KindBool, strictjson.KindString, strictjson.KindArray:
	}
	return each(v, mark)
}

// unmark undoes mark. It goes on after a withheld value, so that its error says
// whether that is all that is wrong.
func unmark(v strictjson.Value) (strictjson.Value, error) {
	switch v.Kind() {
	case strictjson.KindNumber:
		if !safeInteger(v.Literal()) {
			return strictjson.Value{}, fmt.Errorf("number %.40q is no integer below 2^53", v.Literal())
		}
		return v, nil
	case strictjson.KindNull:
		return strictjson.Value{}, errors.New("null")
	case strictjson.KindObject:
		if slices.ContainsFunc(v.Members(), func(m strictjson.Member) bool { return isMark(m.Name) }) {
			return readMarker(v)
		}
	case strictjson.KindInvalid, strictjson.KindBool, strictjson.KindString, strictjson.KindArray:
	}
	return each(v, unmark)
}

func readMarker(v strictjson.Value) (strictjson.Value, error) {
	if v.Len() != 1 {
		return strictjson.Value{}, errors.New("a marker has one member")
	}
	m := v.Member(0)
	s, isText := m.Value.Text()
	switch {
	case m.Name == markNull && m.Value.Bool():
		return strictjson.NullValue(), nil
	case m.Name == markNumber && isText && !safeInteger(s):
		n, err := strictjson.Parse([]byte(s), strictjson.Limits{})
		if err != nil || n.Literal() != s {
			return strictjson.Value{}, errors.New("marker holds no number")
		}
		return n, nil
	case m.Name == markWithheld && isText:
		if _, err := decode64(s, 32); err == nil {
			return strictjson.Value{}, ErrWithheld
		}
	}
	return strictjson.Value{}, fmt.Errorf("marker %q is malformed", m.Name)
}

// each applies f to what v holds. Of several errors it returns one that is not
// ErrWithheld, if there is one.
func each(v strictjson.Value, f func(strictjson.Value) (strictjson.Value, error)) (strictjson.Value, error) {
	if v.Kind() != strictjson.KindArray && v.Kind() != strictjson.KindObject {
		return v, nil
	}
	var failed error
	members := make([]strictjson.Member, v.Len())
	items := make([]strictjson.Value, v.Len())
	for i := range v.Len() {
		m := v.Member(i)
		x, err := f(m.Value)
		if err != nil && (failed == nil || errors.Is(failed, ErrWithheld)) {
			failed = err
		}
		members[i], items[i] = strictjson.Member{Name: m.Name, Value: x}, x
	}
	if failed != nil {
		return strictjson.Value{}, failed
	}
	if v.Kind() == strictjson.KindArray {
		return strictjson.Array(items...), nil
	}
	return strictjson.Object(members...), nil
}

// safeInteger reports whether a literal is an integer below 2^53 in absolute
// value, in the spelling that RFC 8785 gives it.
func safeInteger(literal string) bool {
	n, err := strconv.ParseInt(literal, 10, 64)
	return err == nil && n >= -maxInt && n <= maxInt && strconv.FormatInt(n, 10) == literal
}

// ChainOf gives every hop of a verified chain, root first. Its result depends
// on the chain alone, so that a cache of chains may keep it.
func ChainOf(chain delegation.Chain) ([]Hop, error) {
	hops := make([]Hop, chain.Len())
	for k := range hops {
		h := chain.Hop(k)
		details, err := DetailsOf(h.Details)
		if err != nil {
			return nil, fmt.Errorf("hop %d: %w", k, err)
		}
		hops[k] = Hop{
			Actor: h.Actor().Subject, Audience: h.Audience, Scope: h.Scope(), Details: details,
			IssuedAt: h.IssuedAt.Unix(), Expires: h.Expires.Unix(),
		}
		if k == 0 {
			for _, a := range h.Actors[1:] {
				hops[k].Via = append(hops[k].Via, Party{a.Issuer, a.Subject})
			}
		}
		if k < chain.Len()-1 {
			hops[k].ReceiptHash = chain.ReceiptHash(k)
		} else {
			hops[k].TokenHash = chain.LeafHash()
		}
	}
	return hops, nil
}

// PersonOf gives the person at the root of a verified chain, with the login:
// interactive if there was one, a standing grant if a partner's grant began the
// chain. The zero chain has no person.
func PersonOf(chain delegation.Chain) Person {
	p := Person{Presence: PresenceNone}
	if chain.IsZero() {
		return p
	}
	p.Ref = chain.Person().Ref()
	login := chain.Login()
	switch {
	case !login.IsZero():
		p.Issuer, p.Presence = login.Issuer, PresenceInteractive
		if !login.AuthTime.IsZero() {
			p.Auth = &Auth{AMR: login.AMR, Time: login.AuthTime.Unix(), ACR: login.ACR}
		}
	case !chain.Grant().IsZero():
		p.Issuer, p.Presence = chain.Grant().Issuer, PresenceStandingGrant
	}
	return p
}

// PolicyOf gives the rules that were asked and those that determined the
// answer; of rules on trial what they say otherwise. The digest of the input is
// the caller's to add.
func PolicyOf(d policy.Decision) Policy {
	p := Policy{
		BundleDigest: d.Version.Digest, Serial: d.Version.Serial, Engine: d.Version.Engine, Reader: d.Version.Reader,
		Rules: set(d.Rules), Errors: set(d.Errors),
	}
	if s := d.Shadow; s != nil && differs(d, *s) {
		p.Shadow = &Shadow{
			Effect: EffectOf(s.Effect), BundleDigest: s.Version.Digest, Serial: s.Version.Serial,
			Rules: set(s.Rules), Errors: set(s.Errors),
		}
	}
	return p
}

// differs reports whether two sets of rules answered otherwise, or by others of
// their rules.
func differs(a, b policy.Decision) bool {
	return a.Effect != b.Effect || !slices.Equal(set(a.Rules), set(b.Rules)) || !slices.Equal(set(a.Errors), set(b.Errors))
}

// EffectOf gives the recorded name of an effect.
func EffectOf(e policy.Effect) Effect {
	if e == policy.Permit {
		return Permit
	}
	return Deny
}
