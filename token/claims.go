package token

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// Request is `req` of a receipt: the token request that the hop answers, and
// how its sender proved itself (tokens.md §4).
type Request struct {
	Hash   string          // base64url(SHA-256(body of the token request))
	Auth   identity.Method // how the client was authenticated
	Source string          // the configured identity source, "" if it has no name
	Cred   string          // H of the JWT credential, "" if it was none
	Proof  string          // H of the DPoP proof, "" if there was none
}

// ReceiptFields is what a receipt says beside the delegation itself.
type ReceiptFields struct {
	Request Request
	Policy  string // `pol`: digest of the policy in force
}

// The members of §3 and §4, in their order on the wire.
var (
	hopNames = []string{
		"aud", "sub", "sub_profile", "client_id", "act", "may_act", "scope", "authorization_details", "cnf", "jti",
		"del_depth", "del_max_depth", "iat", "exp",
	}
	tokenNames = slices.Concat([]string{"iss"}, hopNames,
		[]string{"txn", "par_hash", "rcpt_hash", "anc", "auth_time", "acr", "amr", "receipts"})
	receiptNames = []string{"iss", "txn", "del", "tok_hash", "par_hash", "rcpt_hash", "req", "pol", "login", "grant"}
)

// A partner's chain may nest below our own actors; the sum is bounded.
const maxActors = 32

const maxAMR = 16

// readToken reads the claims of a token whose signature was checked. It
// returns the leaf and the inline receipts, nil if there are none.
func readToken(v strictjson.Value, hash string) (delegation.Leaf, []string, error) {
	r := reader{where: "token"}
	r.object(v, "claims", tokenNames...)
	leaf := delegation.Leaf{
		Issuer:      r.text(v, "iss", name),
		Txn:         r.text(v, "txn", uuidV7),
		ParentHash:  r.optionalText(v, "par_hash", digest),
		ReceiptHash: r.optionalText(v, "rcpt_hash", digest),
		Ancestors:   r.optionalTexts(v, "anc", delegation.MaxHops-1, uuidV7),
		AuthTime:    r.optionalTime(v, "auth_time"),
		ACR:         r.optionalText(v, "acr", anyText),
		AMR:         r.optionalTexts(v, "amr", maxAMR, anyText),
		Hash:        hash,
	}
	leaf.Hop = readHop(&r, v, leaf.Issuer)
	receipts := r.optionalTexts(v, "receipts", delegation.MaxHops, func(string) error { return nil })
	if r.err != nil {
		return delegation.Leaf{}, nil, r.err
	}
	return leaf, receipts, checkLeaf(leaf, receipts != nil)
}

// checkLeaf is what step 3 asks of one token alone: who acts is whom it was
// issued to, and the levels of `act`, `del_depth` and `anc` agree.
func checkLeaf(leaf delegation.Leaf, inline bool) error {
	h := leaf.Hop
	root := h.Depth == 0
	switch {
	case h.Actor().Subject != h.ClientID:
		return fmt.Errorf("act.sub %q is not client_id %q", h.Actor().Subject, h.ClientID)
	case len(leaf.Ancestors) != h.Depth:
		return fmt.Errorf("anc names %d hops at del_depth %d", len(leaf.Ancestors), h.Depth)
	case len(h.Actors) <= h.Depth:
		return fmt.Errorf("%d levels of act at del_depth %d", len(h.Actors), h.Depth)
	case root && inline:
		return errors.New("a root carries receipts")
	case !root && (!leaf.AuthTime.IsZero() || leaf.ACR != "" || leaf.AMR != nil):
		return errors.New("a hop after the root speaks of a login")
	}
	for _, a := range h.Actors[h.Depth+1:] { // a partner's actors nest below ours
		if a.Issuer == leaf.Issuer {
			return fmt.Errorf("%d levels of act at del_depth %d", len(h.Actors), h.Depth)
		}
	}
	return nil
}

// readReceipt reads the members of a receipt.
func readReceipt(v strictjson.Value, hash string) (delegation.Receipt, ReceiptFields, error) {
	r := reader{where: "receipt"}
	r.object(v, "members", receiptNames...)
	rc := delegation.Receipt{
		Issuer:      r.text(v, "iss", name),
		Txn:         r.text(v, "txn", uuidV7),
		TokenHash:   r.text(v, "tok_hash", digest),
		ParentHash:  r.optionalText(v, "par_hash", digest),
		ReceiptHash: r.optionalText(v, "rcpt_hash", digest),
		Hash:        hash,
	}
	if del, ok := r.member(v, "del", true); ok {
		rc.Hop = readHop(&r, r.object(del, "del", hopNames...), rc.Issuer)
	}
	if login, ok := r.member(v, "login", false); ok {
		r.object(login, "login", "iss", "hash", "auth_time", "acr", "amr")
		rc.Login = delegation.Login{
			Issuer:   r.text(login, "iss", name),
			Hash:     r.text(login, "hash", digest),
			AuthTime: r.optionalTime(login, "auth_time"),
			ACR:      r.optionalText(login, "acr", anyText),
			AMR:      r.optionalTexts(login, "amr", maxAMR, anyText),
		}
	}
	if grant, ok := r.member(v, "grant", false); ok {
		r.object(grant, "grant", "iss", "sub", "jti", "hash", "rcpt_hash")
		rc.Grant = delegation.PartnerGrant{
			Issuer:      r.text(grant, "iss", name),
			Subject:     r.text(grant, "sub", anyText),
			ID:          r.text(grant, "jti", anyText),
			Hash:        r.text(grant, "hash", digest),
			ReceiptHash: r.optionalText(grant, "rcpt_hash", digest),
		}
	}
	fields := readFields(&r, v)
	return rc, fields, r.err
}

func readFields(r *reader, v strictjson.Value) ReceiptFields {
	f := ReceiptFields{Policy: r.text(v, "pol", name)}
	if req, ok := r.member(v, "req", true); ok {
		r.object(req, "req", "hash", "auth", "source", "cred", "proof")
		f.Request = Request{
			Hash:   r.text(req, "hash", digest),
			Auth:   identity.Method(r.text(req, "auth", method)),
			Source: r.optionalText(req, "source", name),
			Cred:   r.optionalText(req, "cred", digest),
			Proof:  r.optionalText(req, "proof", digest),
		}
	}
	return f
}

func method(s string) error {
	return oneOf(string(identity.MethodSPIFFEX509), string(identity.MethodSPIFFEJWT), string(identity.MethodWorkloadJWT),
		string(identity.MethodPrivateKeyJWT), string(identity.MethodNone))(s)
}

// readHop reads `aud` to `exp` of a token or of `del`, which have one form.
// issuer is the namespace of `sub`.
func readHop(r *reader, o strictjson.Value, issuer string) delegation.Hop {
	h := delegation.Hop{
		Audience: r.text(o, "aud", name),
		Profile:  r.text(o, "sub_profile", oneOf(delegation.ProfileUser)),
		ClientID: r.text(o, "client_id", name),
		ID:       r.text(o, "jti", uuidV7),
		Depth:    int(r.integer(o, "del_depth", delegation.MaxHops-1)),
		MaxDepth: int(r.integer(o, "del_max_depth", delegation.MaxHops-1)),
		IssuedAt: r.time(o, "iat"),
		Expires:  r.time(o, "exp"),
	}
	if sub := r.text(o, "sub", name); r.err == nil {
		person, err := identity.ParsePerson(issuer, sub)
		if err != nil {
			r.fail("sub", "%w", err)
		}
		h.Person = person
	}
	if act, ok := r.member(o, "act", true); ok {
		h.Actors = readActors(r, act)
	}
	if may, ok := r.member(o, "may_act", false); ok {
		r.object(may, "may_act", "iss", "sub")
		h.MayAct = identity.Party{Issuer: r.text(may, "iss", name), Subject: r.text(may, "sub", name)}
	}
	if details, ok := r.member(o, "authorization_details", false); ok && r.err == nil {
		grant, err := scope.ParseValue(details, h.Depth == 0)
		if err != nil {
			r.fail("authorization_details", "%w", err)
		}
		h.Details = grant
	}
	h = h.WithScope(r.optionalText(o, "scope", scopeValue))
	h.Bound = r.confirmation(o)
	return h
}

// confirmation reads `cnf`, the zero value if it is absent.
func (r *reader) confirmation(o strictjson.Value) (c delegation.Confirmation) {
	cnf, ok := r.member(o, "cnf", false)
	if !ok {
		return c
	}
	r.object(cnf, "cnf", "x5t#S256", "jkt")
	c.CertThumbprint, c.KeyThumbprint = r.optionalText(cnf, "x5t#S256", digest), r.optionalText(cnf, "jkt", digest)
	if cnf.Len() != 1 {
		r.fail("cnf", "not exactly one key")
	}
	return c
}

// readActors reads `act`, outermost first.
func readActors(r *reader, act strictjson.Value) []delegation.Actor {
	var actors []delegation.Actor
	for {
		if len(actors) == maxActors {
			r.fail("act", "more than %d levels", maxActors)
			return nil
		}
		r.object(act, "act", "iss", "sub", "sub_profile", "act")
		actors = append(actors, delegation.Actor{
			Party:   identity.Party{Issuer: r.text(act, "iss", name), Subject: r.text(act, "sub", name)},
			Profile: r.text(act, "sub_profile", oneOf(delegation.ProfileAgent, delegation.ProfileService)),
		})
		inner, ok := act.Get("act")
		if !ok || r.err != nil {
			return actors
		}
		act = inner
	}
}

// scopeValue accepts an OAuth scope value (RFC 6749 §3.3): names, one space between.
func scopeValue(s string) error {
	for i, c := range []byte(s) {
		if c < ' ' || c >= 0x7f || c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return errors.New("not a list of names with one space between")
		}
	}
	return anyText(s)
}

// members collects the members of an object in the order of the calls; what is
// absent is left out.
type members []strictjson.Member

func member(name string, v strictjson.Value) strictjson.Member {
	return strictjson.Member{Name: name, Value: v}
}

func (m *members) value(name string, v strictjson.Value) { *m = append(*m, member(name, v)) }

func (m *members) text(name, s string) {
	if s != "" {
		m.value(name, strictjson.String(s))
	}
}

func (m *members) texts(name string, ss []string) {
	if len(ss) > 0 {
		m.value(name, strictjson.Strings(ss...))
	}
}

func (m *members) time(name string, t time.Time) {
	if !t.IsZero() {
		m.value(name, strictjson.Int(t.Unix()))
	}
}

func (m *members) object(name string, of members) {
	if len(of) > 0 {
		m.value(name, strictjson.Object(of...))
	}
}

// tokenClaims writes the claims in the order of §3.
func tokenClaims(leaf delegation.Leaf, receipts []string) members {
	var m members
	m.text("iss", leaf.Issuer)
	m.hop(leaf.Hop)
	m.text("txn", leaf.Txn)
	m.text("par_hash", leaf.ParentHash)
	m.text("rcpt_hash", leaf.ReceiptHash)
	m.texts("anc", leaf.Ancestors)
	m.time("auth_time", leaf.AuthTime)
	m.text("acr", leaf.ACR)
	m.texts("amr", leaf.AMR)
	m.texts("receipts", receipts)
	return m
}

// receiptMembers writes the members in the order of §4.
func receiptMembers(rc delegation.Receipt, f ReceiptFields) members {
	var m, del, req, login, grant members
	del.hop(rc.Hop)
	req.text("hash", f.Request.Hash)
	req.text("auth", string(f.Request.Auth))
	req.text("source", f.Request.Source)
	req.text("cred", f.Request.Cred)
	req.text("proof", f.Request.Proof)
	login.text("iss", rc.Login.Issuer)
	login.text("hash", rc.Login.Hash)
	login.time("auth_time", rc.Login.AuthTime)
	login.text("acr", rc.Login.ACR)
	login.texts("amr", rc.Login.AMR)
	grant.text("iss", rc.Grant.Issuer)
	grant.text("sub", rc.Grant.Subject)
	grant.text("jti", rc.Grant.ID)
	grant.text("hash", rc.Grant.Hash)
	grant.text("rcpt_hash", rc.Grant.ReceiptHash)

	m.text("iss", rc.Issuer)
	m.text("txn", rc.Txn)
	m.object("del", del)
	m.text("tok_hash", rc.TokenHash)
	m.text("par_hash", rc.ParentHash)
	m.text("rcpt_hash", rc.ReceiptHash)
	m.object("req", req)
	m.text("pol", f.Policy)
	m.object("login", login)
	m.object("grant", grant)
	return m
}

// hop writes `aud` to `exp`.
func (m *members) hop(h delegation.Hop) {
	var mayAct members
	mayAct.text("iss", h.MayAct.Issuer)
	mayAct.text("sub", h.MayAct.Subject)

	m.text("aud", h.Audience)
	m.text("sub", h.Person.Ref())
	m.text("sub_profile", h.Profile)
	m.text("client_id", h.ClientID)
	m.object("act", actMembers(h.Actors))
	m.object("may_act", mayAct)
	m.text("scope", h.Scope())
	if h.Details.Len() > 0 {
		m.value("authorization_details", h.Details.Value())
	}
	m.confirmation(h.Bound)
	m.text("jti", h.ID)
	m.value("del_depth", strictjson.Int(int64(h.Depth)))
	m.value("del_max_depth", strictjson.Int(int64(h.MaxDepth)))
	m.time("iat", h.IssuedAt)
	m.time("exp", h.Expires)
}

func (m *members) confirmation(c delegation.Confirmation) {
	var cnf members
	cnf.text("x5t#S256", c.CertThumbprint)
	cnf.text("jkt", c.KeyThumbprint)
	m.object("cnf", cnf)
}

func actMembers(actors []delegation.Actor) members {
	var m members
	for _, a := range slices.Backward(actors) {
		outer := members{}
		outer.text("iss", a.Issuer)
		outer.text("sub", a.Subject)
		outer.text("sub_profile", a.Profile)
		outer.object("act", m)
		m = outer
	}
	return m
}

// encode is the payload; a string that JSON cannot hold exactly is an error.
func (m members) encode() ([]byte, error) {
	b, err := strictjson.Object(m...).MarshalJSON()
	if err != nil {
		return nil, errors.New("a member is not well-formed text")
	}
	return b, nil
}
