// Package delegation is the chain from the person, through each actor, to the caller, with what each hop gave up.
//
//	person ──login──▶ R0 ──may_act──▶ R1 ──may_act──▶ … ──▶ leaf ──▶ call
//	                  app            orchestrator           caller
//
// Each receipt Rk is the issuer's signed statement about hop k; it holds the
// hash of the receipt and of the token before it, and the delegation itself.
// The leaf is the token on the wire; it speaks for its own hop and names its
// predecessors' receipts by hash.
//
// A [Chain] exists only if [Verify] or [VerifyClosed] accepted every link of
// it, so whoever holds one need not ask again. [Chain.Extend] builds the next
// hop under the same rules, from the same code: what the issuer would mint is
// exactly what a verifier would accept.
//
// The package checks no signature (its caller passes that in, as the rule V2),
// no revocation, no connection and no clock.
package delegation

import (
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

// Code says which rule of tokens.md §6 a chain broke.
type Code string

// The codes of V1 to V11.
const (
	CodeDepth   Code = "chain_depth"
	CodeSigner  Code = "chain_signer"
	CodeRoot    Code = "chain_root"
	CodeLink    Code = "chain_link"
	CodePerson  Code = "chain_person"
	CodeActor   Code = "chain_actor"
	CodeWidened Code = "chain_widened"
	CodeTimes   Code = "chain_times"
	CodeLeaf    Code = "chain_leaf"
)

// Error is a refused chain: the rule, the hop that broke it and why.
type Error struct {
	Code Code
	Hop  int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s at hop %d: %v", e.Code, e.Hop, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

func refuse(code Code, hop int, format string, args ...any) error {
	return &Error{Code: code, Hop: hop, Err: fmt.Errorf(format, args...)}
}

// Chain is a verified delegation chain. It is immutable and safe for
// concurrent use; the zero value holds no hop and answers [Chain.IsZero].
type Chain struct {
	issuer   string
	txn      string
	hops     []Hop
	receipts []string
	leafHash string
	login    Login
	grant    PartnerGrant
}

// IsZero reports whether c was never verified.
func (c Chain) IsZero() bool { return len(c.hops) == 0 }

// Issuer is the one issuer that signed every hop.
func (c Chain) Issuer() string { return c.issuer }

// Txn is the transaction, equal in every hop.
func (c Chain) Txn() string { return c.txn }

// Len is the number of hops: leaf depth + 1.
func (c Chain) Len() int { return len(c.hops) }

// Hop returns hop k, 0 ≤ k < Len; 0 is the root. The caller must not change
// the slices it holds.
func (c Chain) Hop(k int) Hop { return c.hops[k] }

// Leaf is the last hop, the authority in force.
func (c Chain) Leaf() Hop { return c.hops[len(c.hops)-1] }

// ReceiptHash is H(Rk), or "" for the last hop of an open chain, whose
// receipt is not on the wire.
func (c Chain) ReceiptHash(k int) string {
	if k >= len(c.receipts) {
		return ""
	}
	return c.receipts[k]
}

// LeafHash is H(leaf).
func (c Chain) LeafHash() string { return c.leafHash }

// Person is the natural person at the root.
func (c Chain) Person() identity.Person { return c.hops[0].Person }

// Login is the login at the root. For a root token it has no Issuer and no
// Hash, because those stand in the receipt only.
func (c Chain) Login() Login { return c.login }

// Grant is the partner's grant at the root, if the root is one.
func (c Chain) Grant() PartnerGrant { return c.grant }

// Verify is the open chain of a call: receipts R0…Rn−1 and the leaf of depth
// n. It runs V1 to V10 of tokens.md §6, each over all hops before the next,
// and returns the first failure as an [*Error].
//
// signer is rule V2 for receipt k: type, signature and key validity at `iat`.
// It is called once per receipt, after V1 held for all, and its error becomes
// `chain_signer`.
func Verify(receipts []Receipt, leaf Leaf, signer func(k int) error) (Chain, error) {
	if len(receipts) != leaf.Hop.Depth {
		return Chain{}, refuse(CodeDepth, leaf.Hop.Depth, "%d receipts for a token of depth %d", len(receipts), leaf.Hop.Depth)
	}
	return verify(receipts, leaf, signer, false)
}

// VerifyClosed is the closed chain of an audit: receipts R0…Rn and the leaf of
// depth n. It adds V11: the last receipt describes exactly this leaf.
func VerifyClosed(receipts []Receipt, leaf Leaf, signer func(k int) error) (Chain, error) {
	if len(receipts) != leaf.Hop.Depth+1 {
		return Chain{}, refuse(CodeDepth, leaf.Hop.Depth, "%d receipts for a closed chain of depth %d", len(receipts), leaf.Hop.Depth)
	}
	return verify(receipts, leaf, signer, true)
}

func verify(receipts []Receipt, leaf Leaf, signer func(k int) error, closed bool) (Chain, error) {
	if leaf.Hop.Depth < 0 { // else zero receipts would be a closed chain of depth -1
		return Chain{}, refuse(CodeDepth, 0, "del_depth is %d", leaf.Hop.Depth)
	}
	links := make([]link, 0, len(receipts)+1)
	for _, r := range receipts[:leaf.Hop.Depth] {
		links = append(links, link{r.Issuer, r.Txn, r.Hop, r.ParentHash, r.ReceiptHash, r.TokenHash, r.Hash})
	}
	links = append(links, link{leaf.Issuer, leaf.Txn, leaf.Hop, leaf.ParentHash, leaf.ReceiptHash, leaf.Hash, ""})

	if len(links) > MaxHops {
		return Chain{}, refuse(CodeDepth, len(links)-1, "%d hops, at most %d", len(links), MaxHops)
	}
	for k, l := range links { // V1
		if l.hop.Depth != k {
			return Chain{}, refuse(CodeDepth, k, "del_depth is %d", l.hop.Depth)
		}
	}
	for k := range receipts { // V2
		if err := signer(k); err != nil {
			return Chain{}, &Error{Code: CodeSigner, Hop: k, Err: err}
		}
	}
	for _, rule := range rules { // V3 … V10
		for k := range links {
			if err := rule(receipts, links, leaf, k); err != nil {
				return Chain{}, err
			}
		}
	}
	c := Chain{issuer: leaf.Issuer, txn: leaf.Txn, leafHash: leaf.Hash}
	for _, l := range links {
		c.hops = append(c.hops, l.hop)
	}
	for _, r := range receipts {
		c.receipts = append(c.receipts, r.Hash)
	}
	c.login = Login{AuthTime: leaf.AuthTime, ACR: leaf.ACR, AMR: leaf.AMR}
	if len(receipts) > 0 {
		c.login, c.grant = receipts[0].Login, receipts[0].Grant
	}
	if closed { // V11
		last := receipts[len(receipts)-1]
		if !last.Hop.equal(leaf.Hop) || last.TokenHash != leaf.Hash || last.Txn != leaf.Txn || last.Issuer != leaf.Issuer ||
			last.ParentHash != leaf.ParentHash || last.ReceiptHash != leaf.ReceiptHash {
			return Chain{}, refuse(CodeLeaf, leaf.Hop.Depth, "the last receipt does not describe this token")
		}
	}
	return c, nil
}

// link is what the rules read of a receipt or of the leaf.
type link struct {
	issuer, txn             string
	hop                     Hop
	parentHash, receiptHash string
	tokenHash               string
	hash                    string // H of the receipt; "" for the leaf
}

type rule func(receipts []Receipt, links []link, leaf Leaf, k int) error

// rules are V3 to V10 in their order.
var rules = []rule{
	ruleIssuer, ruleRoot, ruleLink, rulePerson,
	step(stepActor), step(stepNarrowed), step(stepTimes), step(stepDepth), ruleLevels,
}

// ruleIssuer is V3.
func ruleIssuer(_ []Receipt, links []link, leaf Leaf, k int) error {
	if links[k].issuer != leaf.Issuer {
		return refuse(CodeSigner, k, "issuer %q is not the token's", links[k].issuer)
	}
	return nil
}

// ruleRoot is V4. The root leaf itself has no receipt on the wire; that it
// came from a login is then what the issuer's signature says.
func ruleRoot(receipts []Receipt, links []link, _ Leaf, k int) error {
	l := links[k]
	if k == 0 && (l.parentHash != "" || l.receiptHash != "") {
		return refuse(CodeRoot, k, "the root names a predecessor")
	}
	if k > 0 && (l.parentHash == "" || l.receiptHash == "") {
		return refuse(CodeRoot, k, "a hop after the root names no predecessor")
	}
	if k >= len(receipts) {
		return nil
	}
	begun := !receipts[k].Login.IsZero() || !receipts[k].Grant.IsZero()
	if begun != (k == 0) {
		return refuse(CodeRoot, k, "a login or a grant stands at the root and nowhere else")
	}
	if !receipts[k].Login.IsZero() && !receipts[k].Grant.IsZero() {
		return refuse(CodeRoot, k, "the root has both a login and a grant")
	}
	return nil
}

// ruleLink is V5.
func ruleLink(_ []Receipt, links []link, leaf Leaf, k int) error {
	for j := range k {
		if links[j].hop.ID == links[k].hop.ID {
			return refuse(CodeLink, k, "jti repeats hop %d", j)
		}
	}
	if k == 0 {
		if len(leaf.Ancestors) != len(links)-1 {
			return refuse(CodeLink, len(links)-1, "anc names %d hops, the chain has %d before the leaf", len(leaf.Ancestors), len(links)-1)
		}
		return nil
	}
	switch prev, l := links[k-1], links[k]; {
	case l.receiptHash != prev.hash:
		return refuse(CodeLink, k, "rcpt_hash is not the hash of receipt %d", k-1)
	case l.parentHash != prev.tokenHash:
		return refuse(CodeLink, k, "par_hash is not the token of receipt %d", k-1)
	case leaf.Ancestors[k-1] != prev.hop.ID:
		return refuse(CodeLink, k, "anc does not name hop %d", k-1)
	}
	return nil
}

// rulePerson is V6.
func rulePerson(_ []Receipt, links []link, leaf Leaf, k int) error {
	l := links[k]
	if l.txn != leaf.Txn || l.hop.Person != leaf.Hop.Person || l.hop.Profile != leaf.Hop.Profile || l.hop.Person.IsZero() {
		return refuse(CodePerson, k, "txn, sub or sub_profile differs from the token's")
	}
	return nil
}

// step makes a rule between neighbours one of all links; the root has no
// parent and is checked alone.
func step(check func(parent *Hop, child Hop) error) rule {
	return func(_ []Receipt, links []link, _ Leaf, k int) error {
		if k == 0 {
			return check(nil, links[0].hop)
		}
		return check(&links[k-1].hop, links[k].hop)
	}
}

// stepActor is V7.
func stepActor(parent *Hop, child Hop) error {
	if len(child.Actors) == 0 {
		return refuse(CodeActor, child.Depth, "no actor")
	}
	if parent == nil {
		return nil
	}
	if parent.MayAct.IsZero() {
		return refuse(CodeActor, child.Depth, "the parent lets nobody act")
	}
	if child.Actors[0].Party != parent.MayAct {
		return refuse(CodeActor, child.Depth, "actor %s is not the parent's may_act %s", child.Actors[0].Subject, parent.MayAct.Subject)
	}
	if !sameActors(child.Actors[1:], parent.Actors) {
		return refuse(CodeActor, child.Depth, "earlier actors are %q, not %q", describe(child.Actors[1:]), describe(parent.Actors))
	}
	return nil
}

// stepNarrowed is V8. `scope` is part of it: the verbs must be those the
// details imply, at every hop.
func stepNarrowed(parent *Hop, child Hop) error {
	if err := scope.CheckScope(child.Scope(), child.Details); err != nil {
		return &Error{Code: CodeWidened, Hop: child.Depth, Err: err}
	}
	if parent == nil {
		return nil
	}
	if err := scope.Subsumes(parent.Details, child.Details); err != nil {
		return &Error{Code: CodeWidened, Hop: child.Depth, Err: err}
	}
	return nil
}

// stepTimes is V9.
func stepTimes(parent *Hop, child Hop) error {
	if !child.Expires.After(child.IssuedAt) {
		return refuse(CodeTimes, child.Depth, "expires at or before its issue")
	}
	if parent == nil {
		return nil
	}
	switch {
	case child.IssuedAt.Before(parent.IssuedAt):
		return refuse(CodeTimes, child.Depth, "issued before its parent")
	case !child.IssuedAt.Before(parent.Expires):
		return refuse(CodeTimes, child.Depth, "issued after its parent ended")
	case child.Expires.After(parent.Expires):
		return refuse(CodeTimes, child.Depth, "outlives its parent")
	}
	return nil
}

// ruleLevels belongs to V10: `act` has one level per hop, so that the chain of
// actors is as long as the chain of hops. Only a partner's grant brings levels
// of its own, below the root. V7 carries this to every later hop.
func ruleLevels(receipts []Receipt, links []link, _ Leaf, k int) error {
	if k == 0 && len(receipts) > 0 && receipts[0].Grant.IsZero() && len(links[0].hop.Actors) != 1 {
		return refuse(CodeDepth, 0, "%d levels of act at a root begun by a login", len(links[0].hop.Actors))
	}
	return nil
}

// stepDepth is V10.
func stepDepth(parent *Hop, child Hop) error {
	if child.Depth < 0 || child.MaxDepth >= MaxHops || child.Depth > child.MaxDepth {
		return refuse(CodeDepth, child.Depth, "del_depth %d, del_max_depth %d", child.Depth, child.MaxDepth)
	}
	if parent != nil && child.MaxDepth > parent.MaxDepth {
		return refuse(CodeDepth, child.Depth, "del_max_depth rises from %d to %d", parent.MaxDepth, child.MaxDepth)
	}
	return nil
}

// Extension is the part of the next hop that a token exchange decides; the
// rest follows from the chain.
type Extension struct {
	Actor    Actor          // the authenticated workload, who must be the leaf's `may_act`
	Audience string         // the next receiver
	MayAct   identity.Party // who serves the audience; zero if nobody may go on
	Details  scope.Grant    // parsed as a hop after the root
	Bound    Confirmation
	ID       string // jti
	IssuedAt time.Time
	Expires  time.Time // at most the leaf's
}

// Extend builds the hop after the leaf and checks it by the rules V7 to V10,
// the same functions that verify a chain. The error is an [*Error].
func (c Chain) Extend(e Extension) (Hop, error) {
	if c.IsZero() {
		return Hop{}, errors.New("extending a chain that was never verified")
	}
	parent := c.Leaf()
	child := Hop{
		Audience: e.Audience, Person: parent.Person, Profile: parent.Profile, ClientID: e.Actor.Subject,
		Actors: append([]Actor{e.Actor}, parent.Actors...), MayAct: e.MayAct, Details: e.Details, Bound: e.Bound,
		ID: e.ID, Depth: parent.Depth + 1, MaxDepth: parent.MaxDepth, IssuedAt: e.IssuedAt, Expires: e.Expires,
	}
	for _, check := range []func(*Hop, Hop) error{stepActor, stepNarrowed, stepTimes, stepDepth} {
		if err := check(&parent, child); err != nil {
			return Hop{}, err
		}
	}
	return child, nil
}

// Ancestors is `anc` of the next hop: the jti of every hop so far, root first.
func (c Chain) Ancestors() []string {
	ids := make([]string, len(c.hops))
	for i, h := range c.hops {
		ids[i] = h.ID
	}
	return ids
}

// CheckRoot checks a root hop before it is signed, by the rules V7 to V10 that
// need no parent.
func CheckRoot(h Hop) error {
	if h.Depth != 0 {
		return refuse(CodeDepth, h.Depth, "the root has del_depth 0")
	}
	for _, check := range []func(*Hop, Hop) error{stepActor, stepNarrowed, stepTimes, stepDepth} {
		if err := check(nil, h); err != nil {
			return err
		}
	}
	return nil
}
