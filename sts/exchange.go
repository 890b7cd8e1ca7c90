package sts

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// exchange is one token request on its way through the rules of tokens.md §7.
// Each rule fills in what the next ones read.
type exchange struct {
	s   *Service
	r   *http.Request
	id  string // of the record
	now time.Time

	endpoint string // path below the issuer
	form     form
	workload identity.Workload       // rule 1
	client   registry.Agent          // rule 2: W
	subject  subject                 // rules 6, 7
	target   registry.Audience       // rule 9
	granted  scope.Grant             // rules 10, 11
	asSent   bool                    // granted is what was asked for, all of it
	issuedAt time.Time               // rule 12
	expires  time.Time               // rule 12
	proof    *token.Proof            // rule 14; nil if the request holds none
	bound    delegation.Confirmation // rule 14
	hop      delegation.Hop          // rules 13 to 15
	issued   issued                  // rule 16
	grant    *grant                  // of a person at a login; nil for an exchange
	service  token.ServiceToken      // of client_credentials
	out      *outgoing               // the grant for a partner that is asked for; nil if none is
	in       *foreignGrant           // the partner's grant that is redeemed; nil if none is
}

// rules are those of tokens.md §7, in their order. The first failure answers.
var rules = []func(*exchange, context.Context) error{
	(*exchange).authenticate,  // 1
	(*exchange).trustClient,   // 1, 2
	(*exchange).checkForm,     // 3
	(*exchange).checkTypes,    // 4, 5
	(*exchange).verifySubject, // 6, 7
	(*exchange).checkActor,    // 8
	(*exchange).findTarget,    // 9
	(*exchange).readDetails,   // 10
	(*exchange).checkScope,    // 11
	(*exchange).limitLife,     // 12
	(*exchange).checkDepth,    // 13
	(*exchange).bindKey,       // 14
	(*exchange).buildHop,      // the rules again, as a verifier has them
	(*exchange).sign,
	(*exchange).keep, // 16
	(*exchange).adopt,
}

// run applies the rules of the request's grant. A grant type that is not here
// is refused by those of the exchange.
func (x *exchange) run(ctx context.Context) error {
	rules := rules
	switch x.form.get("grant_type") {
	case grantService:
		rules = serviceRules
	case grantTokenExchange:
		if x.wantsGrant() {
			rules = grantOutRules
		}
	case grantJWTBearer:
		if x.s.partners.accepts() {
			rules = grantInRules
		}
	}
	if login, ok := loginRules[x.form.get("grant_type")]; ok && x.s.cfg.Login != nil {
		rules = login
	}
	for _, rule := range rules {
		if err := rule(x, ctx); err != nil {
			return err
		}
	}
	return nil
}

// authenticate is rule 1. The credential is the certificate of the connection,
// a platform's JWT in the form, or both, and then of one workload; anything else
// that claims to name the client must name it too, and what cannot be verified
// here names nobody.
func (x *exchange) authenticate(ctx context.Context) error {
	w, err := x.s.cfg.Source.Identify(x.r, x.now)
	asserts := x.sendsAssertion()
	switch {
	case errors.Is(err, identity.ErrNoCredential):
		if !asserts {
			return refuse(CodeClientUnauthenticated, "no credential on the connection")
		}
	case err != nil:
		return refuse(CodeClientUnauthenticated, "identifying the client: %w", err)
	case w.Agent.IsZero():
		return refuse(CodeClientUnauthenticated, "the identity source named nobody")
	default:
		x.workload = w
	}
	if len(x.r.Header["Authorization"]) > 0 {
		return refuse(CodeClientMismatch, "an Authorization header")
	}
	for _, name := range second {
		if x.form.get(name) != "" && (name == "client_secret" || !asserts) {
			return refuse(CodeClientMismatch, "a second credential, %s", name)
		}
	}
	if asserts {
		if err := x.assert(ctx); err != nil {
			return err
		}
	}
	for _, id := range x.form.values["client_id"] {
		if id != "" && id != x.workload.Agent.String() {
			return refuse(CodeClientMismatch, "client_id %.200q, the client is %s", id, x.workload.Agent)
		}
	}
	return nil
}

// trustClient is rule 2.
func (x *exchange) trustClient(ctx context.Context) (err error) {
	x.client, err = x.s.trustAgent(ctx, x.workload.Agent, CodeClientUnknown, CodeClientDisabled)
	return err
}

// checkForm is rule 3, with the grant type: there is one, and none to fall
// back to.
func (x *exchange) checkForm(context.Context) error {
	if err := x.form.checkParameters(); err != nil {
		return err
	}
	switch grant := x.form.get("grant_type"); grant {
	case grantTokenExchange:
		return nil
	case "":
		return refuse(CodeParameterInvalid, "no grant_type")
	default:
		return refuse(CodeGrantUnsupported, "grant type %.200q", grant)
	}
}

// checkTypes is rules 4 and 5.
func (x *exchange) checkTypes(context.Context) error {
	for _, name := range forbidden {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeParameterForbidden, "parameter %s", name)
		}
	}
	for _, name := range []string{"subject_token", "subject_token_type"} {
		if x.form.get(name) == "" {
			return refuse(CodeParameterInvalid, "no %s", name)
		}
	}
	if typ := x.form.get("subject_token_type"); typ != typeAccessToken && typ != typeIDToken {
		return refuse(CodeTypeUnsupported, "subject_token_type %.200q", typ)
	}
	if typ := x.form.get("requested_token_type"); typ != "" && typ != typeAccessToken {
		return refuse(CodeTypeUnsupported, "requested_token_type %.200q", typ)
	}
	return nil
}

// checkActor is rule 8. Who acts is who authenticated by rule 1; an actor token
// could only repeat that, and none is read here.
func (x *exchange) checkActor(context.Context) error {
	for _, name := range []string{"actor_token", "actor_token_type"} {
		if _, sent := x.form.values[name]; sent {
			return refuse(CodeActorTokenInvalid, "%s is set", name)
		}
	}
	return nil
}

// findTarget is rule 9. Absent is none, never any (threat X6).
func (x *exchange) findTarget(ctx context.Context) (err error) {
	targets := x.form.targets()
	if len(targets) != 1 {
		return refuse(CodeTargetInvalid, "%d targets named", len(targets))
	}
	if x.target, err = x.s.trustAudience(ctx, targets[0], CodeTargetUnknown); err != nil {
		return err
	}
	if !x.target.MayCall(x.client) {
		return refuse(CodeTargetDenied, "%s may not call %s", x.client.URI, x.target.URI)
	}
	return nil
}

// readDetails is rule 10: at most what the subject token holds, and at most
// what W may ever hold.
func (x *exchange) readDetails(context.Context) (err error) {
	sent := x.form.get("authorization_details")
	if sent == "" {
		return refuse(CodeDetailsMissing, "no authorization_details")
	}
	root := x.subject.isRoot()
	if x.granted, err = scope.Parse([]byte(sent), root); err != nil {
		return refuse(CodeDetailsMalformed, "%w", err)
	}
	x.asSent = true
	if !root {
		if err := scope.Subsumes(x.subject.chain.Leaf().Details, x.granted); err != nil {
			return refuse(CodeDetailsWidened, "%w", err)
		}
	}
	if err := scope.Within(x.client.Authority, x.granted); err != nil {
		return refuse(CodeAuthorityExceeded, "authority of %s: %w", x.client.URI, err)
	}
	return nil
}

// checkScope is rule 11.
func (x *exchange) checkScope(context.Context) error {
	if sent := x.form.get("scope"); sent != "" {
		if err := scope.CheckScope(sent, x.granted); err != nil {
			return refuse(CodeScopeMismatch, "%w", err)
		}
	}
	return nil
}

// limitLife is rule 12, the one computation of `exp`.
func (x *exchange) limitLife(context.Context) error {
	life := x.s.cfg.Lifetime
	if x.subject.isRoot() && x.client.RootLifetime > 0 {
		life = x.client.RootLifetime
	}
	if x.target.Lifetime > 0 {
		life = min(life, x.target.Lifetime)
	}
	if x.workload.Thumbprint == "" && !x.sendsProof() { // rule 14 refuses a proof that is none
		life = min(life, unboundLifetime)
	}
	x.issuedAt = x.now.Truncate(time.Second)
	x.expires = x.issuedAt.Add(life)
	for _, end := range []time.Time{x.subject.expires, x.workload.NotAfter} {
		if end = end.Truncate(time.Second); !end.IsZero() && end.Before(x.expires) {
			x.expires = end
		}
	}
	if x.expires.Before(x.now.Add(leastLifetime)) {
		return refuse(CodeLifetimeExhausted, "the token would end at %s", x.expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkDepth is rule 13.
func (x *exchange) checkDepth(context.Context) error {
	if x.subject.isRoot() {
		return nil
	}
	if parent := x.subject.chain.Leaf(); parent.Depth >= parent.MaxDepth {
		return refuse(CodeDepthExhausted, "del_depth %d of %d", parent.Depth, parent.MaxDepth)
	}
	return nil
}

// buildHop builds the new hop under the rules by which it will be verified.
// After the rules above none of them should fail; if one does, the two
// readings differ, and nothing is issued.
func (x *exchange) buildHop(context.Context) (err error) {
	id, err := x.s.cfg.NewID()
	if err != nil {
		return refuse(CodeSigningUnavailable, "making jti: %w", err)
	}
	self := x.self()
	next := delegation.Extension{
		Actor: self, Audience: x.target.URI, Details: x.granted,
		Bound: x.bound, ID: id, IssuedAt: x.issuedAt, Expires: x.expires,
	}
	if !x.target.Serves.IsZero() {
		next.MayAct = identity.Party{Issuer: x.s.cfg.Issuer, Subject: x.target.Serves.String()}
	}
	if !x.subject.isRoot() {
		x.hop, err = x.subject.chain.Extend(next)
		return x.refuseHop(err)
	}
	x.hop = delegation.Hop{
		Audience: next.Audience, Person: x.subject.person, Profile: delegation.ProfileUser, ClientID: self.Subject,
		Actors: []delegation.Actor{self}, MayAct: next.MayAct, Details: next.Details, Bound: next.Bound, ID: id,
		MaxDepth: x.target.Depth(), IssuedAt: x.issuedAt, Expires: x.expires,
	}
	if x.in != nil { // a partner's actors nest below ours
		x.hop.Actors = append(x.hop.Actors, x.in.actors...)
	}
	return x.refuseHop(delegation.CheckRoot(x.hop))
}

func (*exchange) refuseHop(err error) error {
	var broken *delegation.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return refuse(Code(broken.Code), "extending the chain: %w", err)
	default:
		return refuse(CodeSigningUnavailable, "extending the chain: %w", err)
	}
}

// issued is what rule 16 makes durable before it is given away.
type issued struct {
	txn            string
	token, receipt token.Signed
}

// sign signs Tn and Rn.
func (x *exchange) sign(ctx context.Context) error {
	if err := x.s.cfg.Keys.Refresh(ctx); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	leaf := delegation.Leaf{Issuer: x.s.cfg.Issuer, Txn: x.subject.txn, Hop: x.hop}
	if x.subject.isRoot() {
		leaf.AuthTime, leaf.ACR, leaf.AMR = x.subject.login.AuthTime, x.subject.login.ACR, x.subject.login.AMR
	} else {
		closed := x.subject.closed
		leaf.ParentHash = closed.LeafHash()
		leaf.ReceiptHash = closed.ReceiptHash(closed.Len() - 1)
		leaf.Ancestors = closed.Ancestors()
	}
	x.issued.txn = leaf.Txn
	var err error
	if x.issued.token, err = x.s.issuer.SignToken(leaf, x.subject.receipts); err != nil {
		if errors.Is(err, token.ErrTooLarge) {
			return refuse(CodeTokenTooLarge, "%w", err)
		}
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	receipt := delegation.Receipt{
		Issuer: leaf.Issuer, Txn: leaf.Txn, Hop: x.hop, TokenHash: x.issued.token.Hash,
		ParentHash: leaf.ParentHash, ReceiptHash: leaf.ReceiptHash,
	}
	if x.subject.isRoot() {
		receipt.Login = x.subject.login
	}
	if x.in != nil {
		receipt.Grant = x.in.begun
	}
	return x.signHopReceipt(receipt)
}

// signHopReceipt signs Rn.
func (x *exchange) signHopReceipt(receipt delegation.Receipt) (err error) {
	x.issued.receipt, err = x.s.issuer.SignReceipt(receipt, token.Request{
		Hash: x.form.hash, Auth: x.workload.Method, Source: x.workload.Source, Cred: x.workload.Credential, Proof: x.proofHash(),
	}, x.s.cfg.PolicyVersion())
	if err != nil {
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	return nil
}

// keep is rule 16: the tree first, because a record of a token that is in no
// tree would say what is not so. It goes on if the client hangs up: what is
// half durable helps nobody.
func (x *exchange) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.s.cfg.RecordTimeout)
	defer cancel()
	d := registry.Delegation{
		Txn: x.issued.txn, ID: x.hop.ID, Depth: x.hop.Depth, Audience: x.hop.Audience,
		Receipt: string(x.issued.receipt.Raw), Expires: x.hop.Expires,
	}
	if !x.subject.isRoot() {
		d.Parent = x.subject.chain.Leaf().ID
	}
	draft, err := x.s.draft(x.accountIssued(), x.id, x.now)
	if err != nil {
		return refuse(CodeSigningUnavailable, "%w", err)
	}
	if err := x.s.cfg.Issued.Put(ctx, d); err != nil {
		return refuse(CodeRegistryUnavailable, "%w", err)
	}
	if err := x.recheck(ctx); err != nil {
		return err
	}
	if err := x.s.cfg.Recorder.Record(ctx, draft); err != nil {
		return refuse(CodeLedgerUnavailable, "%w", err)
	}
	return nil
}

// adopt lets the exchange of the next hop find this one's receipt verified. A
// rule of no refusal: it comes last, when the token is in the tree.
func (x *exchange) adopt(ctx context.Context) error {
	x.s.verifier.Adopt(ctx, x.issued.receipt)
	return nil
}

// recheck asks again whether the parent is revoked, now that the new hop is in
// the tree: a revocation that was accepted since rule 6 must not be outrun.
func (x *exchange) recheck(ctx context.Context) error {
	switch {
	case x.grant != nil:
		return x.recheckGrant(ctx)
	case x.subject.isRoot():
		return nil
	}
	standing, err := x.s.revoked.Check(ctx, token.Presented{Chain: x.subject.chain, KeyIDs: x.subject.keyIDs})
	switch {
	case err != nil:
		return refuse(Code(token.CodeRevocationStale), "%w", err)
	case standing.Revoked != "":
		return refuse(Code("revoked_"+standing.Revoked), "revoked during the exchange")
	}
	return nil
}

// own reports whether p is W in this issuer's namespace; a party without
// namespace is nobody (threat X8).
func (x *exchange) own(p identity.Party) bool {
	return p == identity.Party{Issuer: x.s.cfg.Issuer, Subject: x.workload.Agent.String()}
}
