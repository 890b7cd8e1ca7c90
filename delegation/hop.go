package delegation

import (
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// MaxHops is the most hops a chain may have (tokens.md §3: eight).
const MaxHops = 8

// DefaultMaxDepth is `del_max_depth` of a root where the audience sets none.
const DefaultMaxDepth = 4

// Actor is one level of `act` (RFC 8693 §4.1): a party and what kind of
// workload it is (`sub_profile`, draft-mcguinness-oauth-actor-profile-00).
type Actor struct {
	identity.Party
	Profile string // ProfileAgent or ProfileService
}

// The values of `sub_profile`.
const (
	ProfileUser    = "user"
	ProfileAgent   = "ai_agent"
	ProfileService = "service"
)

// Confirmation is `cnf`: the key that the presenter must prove. At most one
// member is set; the zero value is an unbound token.
type Confirmation struct {
	CertThumbprint string // x5t#S256, RFC 8705 §3.1
	KeyThumbprint  string // jkt, RFC 9449 §6.1
}

// IsZero reports whether no key is bound.
func (c Confirmation) IsZero() bool { return c == Confirmation{} }

// Hop is one delegation: the members `aud` to `exp` of a delegation token,
// which its receipt repeats in `del` (tokens.md §3, §4). Depth 0 is the root,
// given by the person's login to the application.
type Hop struct {
	Audience   string          // one URI: the receiver
	Person     identity.Person // `sub` in the namespace of the issuer
	Profile    string          // `sub_profile` of the person: ProfileUser
	ClientID   string          // the workload the token was issued to
	Actors     []Actor         // `act`, outermost (the one acting) first
	MayAct     identity.Party  // who may exchange it; zero if nobody
	Details    scope.Grant     // `authorization_details`; `scope` follows from it
	Bound      Confirmation    // `cnf`
	ID         string          // `jti`
	Depth      int             // `del_depth`
	MaxDepth   int             // `del_max_depth`, the absolute ceiling
	IssuedAt   time.Time       // `iat`, whole seconds
	Expires    time.Time       // `exp`, whole seconds
	ownScope   string          // `scope` as claimed, if it was read from a token
	scopeKnown bool
}

// WithScope returns h with the `scope` value as a token claimed it, so that a
// disagreement with the details can be refused.
func (h Hop) WithScope(claimed string) Hop {
	h.ownScope, h.scopeKnown = claimed, true
	return h
}

// Scope is the hop's `scope`: the verbs its details imply, sorted, or what
// the token claimed where it was read from one.
func (h Hop) Scope() string {
	if h.scopeKnown {
		return h.ownScope
	}
	return h.Details.Scope()
}

// Actor is the workload that acts at this hop, the outermost `act`. The zero
// value of Hop has none.
func (h Hop) Actor() Actor {
	if len(h.Actors) == 0 {
		return Actor{}
	}
	return h.Actors[0]
}

// equal compares two hops member by member, as V11 asks for `Rn.del` and the leaf.
func (h Hop) equal(o Hop) bool {
	return h.Details.Equal(o.Details) && h.Audience == o.Audience && h.Person == o.Person &&
		h.Profile == o.Profile && h.ClientID == o.ClientID && slices.Equal(h.Actors, o.Actors) &&
		h.MayAct == o.MayAct && h.Scope() == o.Scope() && h.Bound == o.Bound &&
		h.ID == o.ID && h.Depth == o.Depth && h.MaxDepth == o.MaxDepth &&
		h.IssuedAt.Equal(o.IssuedAt) && h.Expires.Equal(o.Expires)
}

// Login is what the upstream OpenID provider said of the person (`login` of
// the root receipt).
type Login struct {
	Issuer   string // the upstream provider
	Hash     string // H(ID token)
	AuthTime time.Time
	ACR      string
	AMR      []string
}

// IsZero reports whether there was no login.
func (l Login) IsZero() bool {
	return l.Issuer == "" && l.Hash == "" && l.AuthTime.IsZero() && l.ACR == "" && len(l.AMR) == 0
}

// PartnerGrant is a root that another organisation's grant began (`grant` of
// the root receipt, tokens.md §11).
type PartnerGrant struct {
	Issuer, Subject, ID string
	Hash                string // H(grant)
	ReceiptHash         string // of the partner's receipt, if it was sent
}

// IsZero reports whether there was no grant.
func (g PartnerGrant) IsZero() bool { return g == PartnerGrant{} }

// Receipt is the issuer's statement about one hop, read but not yet verified.
type Receipt struct {
	Issuer      string
	Txn         string
	Hop         Hop
	TokenHash   string // tok_hash = H(Tn)
	ParentHash  string // par_hash = H(Tn-1); "" at the root
	ReceiptHash string // rcpt_hash = H(Rn-1); "" at the root
	Login       Login
	Grant       PartnerGrant
	Hash        string // H of this receipt
}

// Leaf is the delegation token presented on a call, read but not yet verified.
type Leaf struct {
	Issuer      string
	Txn         string
	Hop         Hop
	ParentHash  string
	ReceiptHash string
	Ancestors   []string // `anc`: jti of hops 0…n−1
	AuthTime    time.Time
	ACR         string
	AMR         []string
	Hash        string // H of this token
}

// Surrendered is what a hop gave up of its parent's authority.
type Surrendered struct {
	Dropped  []int // parent details that no child detail narrows
	Narrowed []int // parent details that live on, smaller
}

// GaveUp compares the grants of two neighbouring hops. It does not judge: the
// pair is a hop of a verified chain, or a record of one.
func GaveUp(parent, child scope.Grant) Surrendered {
	before, after := members(parent), members(child)
	kept := make(map[int]bool)
	whole := make(map[int]bool)
	for i, d := range child.Details() {
		from, ok := d.From()
		if !ok || from >= len(before) {
			continue
		}
		kept[from] = true
		if sameBut(before[from], after[i], "from") {
			whole[from] = true
		}
	}
	var s Surrendered
	for i := range before {
		switch {
		case !kept[i]:
			s.Dropped = append(s.Dropped, i)
		case !whole[i]:
			s.Narrowed = append(s.Narrowed, i)
		}
	}
	return s
}

// members gives the details of a grant as JSON objects.
func members(g scope.Grant) []strictjson.Value {
	raw, err := g.MarshalJSON()
	if err != nil {
		return nil
	}
	v, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return nil
	}
	return v.Items()
}

// sameBut compares two objects by name, without regard to one member.
func sameBut(a, b strictjson.Value, ignored string) bool {
	n := 0
	for _, m := range a.Members() {
		if m.Name == ignored {
			continue
		}
		n++
		other, ok := b.Get(m.Name)
		if !ok || !m.Value.Equal(other) {
			return false
		}
	}
	for _, m := range b.Members() {
		if m.Name != ignored {
			n--
		}
	}
	return n == 0
}

func sameActors(a, b []Actor) bool { return slices.Equal(a, b) }

func describe(a []Actor) string {
	names := make([]string, len(a))
	for i, x := range a {
		names[i] = x.Subject
	}
	return strings.Join(names, " < ")
}
