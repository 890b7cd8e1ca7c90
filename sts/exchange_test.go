package sts_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/token"
)

func TestRootAndTwoHops(t *testing.T) {
	w := newWorld(t)
	got := w.post(w.as(app), w.rootForm(), nil)
	issued := w.accepted(got)
	if got.TokenType != "Bearer" || got.IssuedType != accessToken || got.Scope != "a2a:send mcp:call" || got.ExpiresIn < 295 || got.ExpiresIn > 300 {
		t.Errorf("answer %+v", got)
	}
	if diff := cmp.Diff(json.RawMessage(everything()), got.Details); diff != "" {
		t.Error(diff)
	}
	c := claims(t, got.Token)
	ref, err := w.persons.Reference(t.Context(), w.provider.url, "alice")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"iss": w.issuer, "aud": audience(1), "sub": ref, "sub_profile": "user", "client_id": app.String(),
		"act":     map[string]any{"iss": w.issuer, "sub": app.String(), "sub_profile": "service"},
		"may_act": map[string]any{"iss": w.issuer, "sub": agent(1).String()},
		"scope":   "a2a:send mcp:call", "del_depth": 0.0, "del_max_depth": 7.0, "acr": "phr", "amr": []any{"hwk", "user"},
		"authorization_details": c["authorization_details"], "cnf": c["cnf"], "jti": issued.JTI, "txn": issued.Txn,
		"iat": c["iat"], "exp": float64(issued.Expires), "auth_time": c["auth_time"],
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if issued.Person.Ref != ref || issued.Person.Issuer != w.provider.url || issued.Person.Presence != record.PresenceInteractive ||
		issued.Actor != app.String() || issued.Audience != audience(1) || issued.ClientAuth != "spiffe_x509" || issued.BundleDigest != policyVersion {
		t.Errorf("record %+v", issued)
	}

	form := hopForm(got.Token, audience(2))
	one := w.post(w.as(agent(1)), form, nil)
	hop1 := w.accepted(one)
	if hop1.RequestHash != digest(form.Encode()) || hop1.ParentHash != issued.TokenHash || hop1.Txn != issued.Txn || hop1.Person.Ref != ref {
		t.Errorf("record %+v", hop1)
	}
	two := w.post(w.as(agent(2)), hopForm(one.Token, toolURI), nil)
	hop2 := w.accepted(two)

	v := w.inspect(two.Token)
	if v.Chain.Len() != 3 || v.Chain.Person().Ref() != ref || v.Chain.Leaf().MayAct != (identity.Party{}) {
		t.Errorf("chain %+v", v.Chain)
	}
	for k, actor := range []identity.Agent{app, agent(1), agent(2)} {
		if v.Chain.Hop(k).Actor().Subject != actor.String() {
			t.Errorf("hop %d by %s", k, v.Chain.Hop(k).Actor().Subject)
		}
	}
	if v.Leaf.ParentHash != hop1.TokenHash || v.Leaf.ReceiptHash != hop1.ReceiptHash || v.Leaf.Hash != hop2.TokenHash {
		t.Error("the leaf is not linked to what the records say")
	}
	if f := v.Fields[1]; f.Request.Hash != hop1.RequestHash || f.Request.Source != "spiffe" || f.Policy != policyVersion {
		t.Errorf("receipt %+v", f)
	}
	if login := v.Chain.Login(); login.Issuer != w.provider.url || login.Hash == "" || login.ACR != "phr" {
		t.Errorf("login %+v", login)
	}
}

// Eight hops are the most; the last token can be used but not exchanged. Its
// receipts come over /chains, to a gateway that has never seen them.
func TestEightHops(t *testing.T) {
	w := newWorld(t)
	tok := w.root()
	inline := map[bool]bool{}
	for n := 1; n <= 7; n++ {
		tok = w.hop(agent(n), tok, audience(n+1))
		v := w.inspect(tok)
		if v.Chain.Len() != n+1 || v.Chain.Leaf().MaxDepth != 7 {
			t.Fatalf("hop %d: %d hops of %d", n, v.Chain.Len(), v.Chain.Leaf().MaxDepth)
		}
		_, has := claims(t, tok)["receipts"]
		inline[has] = true
		if len(tok) > token.InlineLimit {
			t.Errorf("hop %d: %d bytes", n, len(tok))
		}
	}
	if !inline[true] || !inline[false] {
		t.Errorf("inline %v: the chain should have been carried both ways", inline)
	}
	w.recorder.take()
	got := w.post(w.as(agent(8)), hopForm(tok, toolURI), nil)
	w.refused(got, http.StatusBadRequest, "invalid_request", "depth_exhausted") // C4
}

// The chain may visit an agent twice; the ceiling ends a loop (C4).
func TestC4LoopEndsAtTheCeiling(t *testing.T) {
	w := newWorld(t)
	tok := w.root()
	for k := 1; ; k++ {
		from, to := 1+(k-1)%2, 1+k%2
		got := w.post(w.as(agent(from)), hopForm(tok, audience(to)), nil)
		if got.Token == "" {
			if k != delegation.MaxHops {
				t.Errorf("the loop ended at hop %d: %+v", k, got)
			}
			return
		}
		tok = got.Token
	}
}

func TestSubjectTokenMayBeExchangedOften(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	a, b := w.hop(agent(1), root, audience(2)), w.hop(agent(1), root, audience(3))
	if x, y := claims(t, a), claims(t, b); x["jti"] == y["jti"] || x["txn"] != y["txn"] || x["par_hash"] != y["par_hash"] {
		t.Error("two branches of one root")
	}
	if w.inspect(b).Chain.Leaf().Audience != audience(3) {
		t.Error("the second branch has another audience than asked")
	}
}

// mint signs a root by the service's own key, past its checks.
func (w *world) mint(edit func(*delegation.Hop)) (tok, receipt token.Signed, hop delegation.Hop) {
	w.t.Helper()
	ref, err := w.persons.Reference(w.t.Context(), w.provider.url, "alice")
	if err != nil {
		w.t.Fatal(err)
	}
	person, err := identity.ParsePerson(w.issuer, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	hop = delegation.Hop{
		Audience: audience(1), Person: person, Profile: delegation.ProfileUser, ClientID: app.String(),
		Actors:  []delegation.Actor{{Party: identity.Party{Issuer: w.issuer, Subject: app.String()}, Profile: delegation.ProfileService}},
		MayAct:  identity.Party{Issuer: w.issuer, Subject: agent(1).String()},
		Details: parse(w.t, everything(), true), ID: newID(w.t), MaxDepth: 4,
		IssuedAt: w.now().Truncate(1e9), Expires: w.now().Truncate(1e9).Add(200e9),
	}
	edit(&hop)
	issuer, err := token.NewIssuer(w.issuer, w.signer)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf := delegation.Leaf{Issuer: w.issuer, Txn: newID(w.t), Hop: hop}
	if tok, err = issuer.SignToken(leaf, nil); err != nil {
		w.t.Fatal(err)
	}
	rc := delegation.Receipt{
		Issuer: w.issuer, Txn: leaf.Txn, Hop: hop, TokenHash: tok.Hash,
		Login: delegation.Login{Issuer: w.provider.url, Hash: digest("id token")},
	}
	if receipt, err = issuer.SignReceipt(rc, token.Request{Hash: digest("request"), Auth: identity.MethodSPIFFEX509}, policyVersion); err != nil {
		w.t.Fatal(err)
	}
	return tok, receipt, hop
}
