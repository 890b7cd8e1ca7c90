package delegation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

const issuer = "https://sts.test"

var start = time.Unix(1795348800, 0).UTC()

// chain is receipts R0 … Rn over the leaf Tn, with names for hashes.
type chain struct {
	receipts []delegation.Receipt
	leaf     delegation.Leaf
}

func grant(t testing.TB, hop int, names ...string) scope.Grant {
	t.Helper()
	from := ""
	if hop > 0 {
		from = `,"from":0`
	}
	g, err := scope.Parse([]byte(`[{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["`+
		strings.Join(names, `","`)+`"],"args":"open"`+from+`}]`), hop == 0)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func party(k int) identity.Party {
	return identity.Party{Issuer: issuer, Subject: fmt.Sprintf("spiffe://acme/%d", k)}
}

func actor(k int) delegation.Actor {
	return delegation.Actor{Party: party(k), Profile: delegation.ProfileAgent}
}

// build makes a valid closed chain of n hops.
func build(t testing.TB, n int) chain {
	t.Helper()
	person, err := identity.ParsePerson(issuer, "q5QmPzR0vN2cYx8LkT3wBA")
	if err != nil {
		t.Fatal(err)
	}
	hop := delegation.Hop{
		Audience: "https://1.test", Person: person, Profile: delegation.ProfileUser, ClientID: party(0).Subject,
		Actors: []delegation.Actor{actor(0)}, MayAct: party(1), Details: grant(t, 0, "find", "sum", "put"),
		ID: "jti-0", MaxDepth: delegation.MaxHops - 1, IssuedAt: start, Expires: start.Add(5 * time.Minute),
	}
	if err := delegation.CheckRoot(hop); err != nil {
		t.Fatal(err)
	}
	login := delegation.Login{Issuer: "https://idp.test", Hash: "login", ACR: "phr"}
	c := chain{leaf: delegation.Leaf{Issuer: issuer, Txn: "txn", Hop: hop, ACR: "phr", Hash: "H(T0)"}}
	c.receipts = []delegation.Receipt{{Issuer: issuer, Txn: "txn", Hop: hop, TokenHash: "H(T0)", Login: login, Hash: "H(R0)"}}
	for k := 1; k < n; k++ {
		verified, err := delegation.Verify(c.receipts[:k-1], c.leaf, signed)
		if err != nil {
			t.Fatal(err)
		}
		hop, err := verified.Extend(delegation.Extension{
			Actor: actor(k), Audience: fmt.Sprintf("https://%d.test", k+1), MayAct: party(k + 1), Details: grant(t, k, "find", "sum"),
			ID: fmt.Sprintf("jti-%d", k), IssuedAt: start.Add(time.Duration(k) * time.Second), Expires: start.Add(5 * time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
		prev := c.receipts[k-1]
		c.leaf = delegation.Leaf{
			Issuer: issuer, Txn: "txn", Hop: hop, ParentHash: prev.TokenHash, ReceiptHash: prev.Hash,
			Ancestors: verified.Ancestors(), Hash: fmt.Sprintf("H(T%d)", k),
		}
		c.receipts = append(c.receipts, delegation.Receipt{
			Issuer: issuer, Txn: "txn", Hop: hop, TokenHash: c.leaf.Hash, ParentHash: prev.TokenHash, ReceiptHash: prev.Hash,
			Hash: fmt.Sprintf("H(R%d)", k),
		})
	}
	return c
}

func signed(int) error { return nil }

func (c chain) open() (delegation.Chain, error) {
	return delegation.Verify(c.receipts[:len(c.receipts)-1], c.leaf, signed)
}

func (c chain) closed() (delegation.Chain, error) {
	return delegation.VerifyClosed(c.receipts, c.leaf, signed)
}

func wantCode(t *testing.T, err error, code delegation.Code, hop int) {
	t.Helper()
	var e *delegation.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %s", err, code)
	}
	if e.Code != code || e.Hop != hop {
		t.Errorf("refused with %s at hop %d (%v), want %s at hop %d", e.Code, e.Hop, e.Err, code, hop)
	}
}

func TestValidChains(t *testing.T) {
	for n := 1; n <= delegation.MaxHops; n++ {
		c := build(t, n)
		for name, verify := range map[string]func() (delegation.Chain, error){"open": c.open, "closed": c.closed} {
			got, err := verify()
			if err != nil {
				t.Fatalf("%s chain of %d hops: %v", name, n, err)
			}
			if got.Len() != n || got.Leaf().ID != c.leaf.Hop.ID || got.LeafHash() != c.leaf.Hash || got.IsZero() {
				t.Errorf("%s chain of %d hops came back with %d", name, n, got.Len())
			}
		}
	}
}

// TestRules breaks a valid closed chain of three hops in one place each; the
// unbroken chain is TestValidChains.
func TestRules(t *testing.T) {
	other, err := identity.ParsePerson(issuer, "someone-else")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*chain)
		code delegation.Code
		hop  int
	}{
		{"V1 depth of a receipt", func(c *chain) { c.receipts[1].Hop.Depth = 2 }, delegation.CodeDepth, 1},
		{"V1 tail cut", func(c *chain) { c.receipts = c.receipts[:2] }, delegation.CodeDepth, 2},
		{"V1 head cut", func(c *chain) { c.receipts = c.receipts[1:] }, delegation.CodeDepth, 2},
		{"V1 reordered", func(c *chain) { c.receipts[0], c.receipts[1] = c.receipts[1], c.receipts[0] }, delegation.CodeDepth, 0},
		{"V1 repeated", func(c *chain) { c.receipts[1] = c.receipts[0] }, delegation.CodeDepth, 1},
		{"V1 negative depth", func(c *chain) { c.leaf.Hop.Depth, c.receipts = -1, nil }, delegation.CodeDepth, 0},
		{"V3 issuer", func(c *chain) { c.receipts[1].Issuer = "https://other.test" }, delegation.CodeSigner, 1},
		{"V4 no login", func(c *chain) { c.receipts[0].Login = delegation.Login{} }, delegation.CodeRoot, 0},
		{"V4 login and grant", func(c *chain) { c.receipts[0].Grant.ID = "x" }, delegation.CodeRoot, 0},
		{"V4 second login", func(c *chain) { c.receipts[1].Login = c.receipts[0].Login }, delegation.CodeRoot, 1},
		{"V4 root with par_hash", func(c *chain) { c.receipts[0].ParentHash = "x" }, delegation.CodeRoot, 0},
		{"V4 root with rcpt_hash", func(c *chain) { c.receipts[0].ReceiptHash = "x" }, delegation.CodeRoot, 0},
		{"V4 hop without par_hash", func(c *chain) { c.receipts[1].ParentHash = "" }, delegation.CodeRoot, 1},
		{"V5 rcpt_hash", func(c *chain) { c.receipts[1].ReceiptHash = "x" }, delegation.CodeLink, 1},
		{"V5 par_hash", func(c *chain) { c.leaf.ParentHash = "x" }, delegation.CodeLink, 2},
		{"V5 receipt replaced", func(c *chain) { c.receipts[0].Hash = "x" }, delegation.CodeLink, 1},
		{"V5 anc", func(c *chain) { c.leaf.Ancestors[1] = "x" }, delegation.CodeLink, 2},
		{"V5 anc too long", func(c *chain) { c.leaf.Ancestors = append(c.leaf.Ancestors, "x") }, delegation.CodeLink, 2},
		{"V5 jti repeated", func(c *chain) { c.leaf.Hop.ID = "jti-0" }, delegation.CodeLink, 2},
		{"V6 txn", func(c *chain) { c.receipts[0].Txn = "x" }, delegation.CodePerson, 0},
		{"V6 sub of a receipt", func(c *chain) { c.receipts[1].Hop.Person = other }, delegation.CodePerson, 1},
		{"V6 sub of the leaf", func(c *chain) { c.leaf.Hop.Person = other }, delegation.CodePerson, 0},
		{"V6 sub_profile", func(c *chain) { c.receipts[0].Hop.Profile = "x" }, delegation.CodePerson, 0},
		{"V7 actor", func(c *chain) { c.receipts[1].Hop.Actors[0].Party = party(9) }, delegation.CodeActor, 1},
		{"V7 namespace of the actor", func(c *chain) { c.receipts[1].Hop.Actors[0].Issuer = "x" }, delegation.CodeActor, 1},
		{"V7 earlier actors", func(c *chain) { c.leaf.Hop.Actors = c.leaf.Hop.Actors[:2] }, delegation.CodeActor, 2},
		{"V7 no may_act", func(c *chain) { c.receipts[0].Hop.MayAct = identity.Party{} }, delegation.CodeActor, 1},
		{"V7 nobody acts", func(c *chain) { c.receipts[0].Hop.Actors = nil }, delegation.CodeActor, 0},
		{"V8 widened, narrowed after", func(c *chain) { c.receipts[1].Hop.Details = grant(t, 1, "find", "sum", "drop") }, delegation.CodeWidened, 1},
		{"V8 widened again", func(c *chain) { c.leaf.Hop.Details = grant(t, 1, "put") }, delegation.CodeWidened, 2},
		{"V8 scope beyond the details", func(c *chain) { c.leaf.Hop = c.leaf.Hop.WithScope("mcp:call mcp:read") }, delegation.CodeWidened, 2},
		{"V8 no details", func(c *chain) { c.leaf.Hop.Details = scope.Grant{} }, delegation.CodeWidened, 2},
		{"V9 outlives the parent", func(c *chain) { c.leaf.Hop.Expires = start.Add(time.Hour) }, delegation.CodeTimes, 2},
		{"V9 before the parent", func(c *chain) { c.receipts[1].Hop.IssuedAt = start.Add(-time.Second) }, delegation.CodeTimes, 1},
		{"V9 when the parent ended", func(c *chain) { c.receipts[0].Hop.Expires = start.Add(time.Second) }, delegation.CodeTimes, 1},
		{"V9 ends before it begins", func(c *chain) { c.receipts[0].Hop.Expires = start }, delegation.CodeTimes, 0},
		{"V10 ceiling passed", func(c *chain) { c.leaf.Hop.MaxDepth = 1 }, delegation.CodeDepth, 2},
		{"V10 ceiling raised", func(c *chain) { c.receipts[0].Hop.MaxDepth = 3 }, delegation.CodeDepth, 1},
		{"V10 ceiling above eight hops", func(c *chain) { c.receipts[0].Hop.MaxDepth = delegation.MaxHops }, delegation.CodeDepth, 0},
		{"V10 more levels of act than hops", func(c *chain) {
			c.receipts[0].Hop.Actors = append(c.receipts[0].Hop.Actors, actor(9))
			c.receipts[1].Hop.Actors = append(c.receipts[1].Hop.Actors, actor(9))
			c.leaf.Hop.Actors = append(c.leaf.Hop.Actors, actor(9))
		}, delegation.CodeDepth, 0},
		{"V11 another token", func(c *chain) { c.leaf.Hash = "x" }, delegation.CodeLeaf, 2},
		{"V11 another audience", func(c *chain) { c.leaf.Hop.Audience = "https://x.test" }, delegation.CodeLeaf, 2},
		{"V11 another key", func(c *chain) { c.leaf.Hop.Bound.CertThumbprint = "x" }, delegation.CodeLeaf, 2},
		{"V11 narrower than the receipt", func(c *chain) { c.leaf.Hop.Details = grant(t, 1, "find") }, delegation.CodeLeaf, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := build(t, 3)
			tt.edit(&c)
			_, err := c.closed()
			wantCode(t, err, tt.code, tt.hop)
		})
	}
}

// TestPartnerActorsNest is the twin of "more levels of act than hops": a
// partner's grant may bring levels of its own.
func TestPartnerActorsNest(t *testing.T) {
	c := build(t, 2)
	c.receipts[0].Login, c.receipts[0].Grant = delegation.Login{}, delegation.PartnerGrant{Issuer: "https://b.test", ID: "x"}
	foreign := delegation.Actor{Party: identity.Party{Issuer: "https://b.test", Subject: "b"}, Profile: delegation.ProfileAgent}
	for i := range c.receipts {
		c.receipts[i].Hop.Actors = append(c.receipts[i].Hop.Actors[:i+1:i+1], foreign)
	}
	c.leaf.Hop.Actors = c.receipts[1].Hop.Actors
	got, err := c.closed()
	if err != nil {
		t.Fatal(err)
	}
	if got.Grant().ID != "x" || !got.Login().IsZero() {
		t.Errorf("root is %+v, %+v", got.Grant(), got.Login())
	}
}

func TestC5SignerIsAsked(t *testing.T) {
	c := build(t, 3)
	bad := errors.New("bad signature")
	for k := range 3 {
		_, err := delegation.VerifyClosed(c.receipts, c.leaf, func(i int) error {
			if i == k {
				return bad
			}
			return nil
		})
		wantCode(t, err, delegation.CodeSigner, k)
		if !errors.Is(err, bad) {
			t.Errorf("%v does not wrap the signer's error", err)
		}
	}
	c.receipts[2].Hop.Depth = 9 // V1 comes before any signature
	c.receipts[0].Hop.Depth = 9
	_, err := delegation.VerifyClosed(c.receipts, c.leaf, func(int) error { t.Error("asked for a signature before V1"); return nil })
	wantCode(t, err, delegation.CodeDepth, 0)
}

func TestC4NineHops(t *testing.T) {
	c := build(t, delegation.MaxHops)
	last := c.receipts[7]
	next := c.leaf
	next.Hop.Depth = 8
	_, err := delegation.Verify(c.receipts, next, signed)
	wantCode(t, err, delegation.CodeDepth, 8)
	if got, err := delegation.Verify(c.receipts[:7], c.leaf, signed); err != nil {
		t.Errorf("eight hops: %v", err)
	} else if _, err := got.Extend(delegation.Extension{
		Actor: actor(8), MayAct: party(9), Details: grant(t, 8, "find"), ID: "jti-8", IssuedAt: last.Hop.IssuedAt, Expires: last.Hop.Expires,
	}); err == nil {
		t.Error("a ninth hop was minted")
	}
}

// TestExtendAgrees: what Extend refuses, Verify refuses for the same hop with
// the same code, and the other way round.
func TestExtendAgrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(rt, "hops")
		c := build(t, n)
		parent, err := c.open()
		if err != nil {
			rt.Fatal(err)
		}
		e := delegation.Extension{
			Actor:    actor(rapid.SampledFrom([]int{n, n, n, 9}).Draw(rt, "actor")),
			MayAct:   party(n + 1),
			Details:  grant(t, n, rapid.SampledFrom([]string{"find", "sum", "drop"}).Draw(rt, "name")),
			ID:       "new",
			IssuedAt: start.Add(time.Duration(rapid.IntRange(n-2, 301).Draw(rt, "iat")) * time.Second),
			Expires:  start.Add(time.Duration(rapid.IntRange(1, 301).Draw(rt, "exp")) * time.Second),
		}
		hop, extendErr := parent.Extend(e)
		prev := c.receipts[n-1]
		if extendErr != nil { // what the issuer would have signed without its check
			leaf := parent.Leaf()
			hop = delegation.Hop{
				Person: leaf.Person, Profile: leaf.Profile, ClientID: e.Actor.Subject,
				Actors: append([]delegation.Actor{e.Actor}, leaf.Actors...), MayAct: e.MayAct, Details: e.Details,
				ID: e.ID, Depth: n, MaxDepth: leaf.MaxDepth, IssuedAt: e.IssuedAt, Expires: e.Expires,
			}
		}
		_, verifyErr := delegation.Verify(c.receipts, delegation.Leaf{
			Issuer: issuer, Txn: "txn", Hop: hop, ParentHash: prev.TokenHash, ReceiptHash: prev.Hash, Ancestors: parent.Ancestors(), Hash: "new",
		}, signed)
		if (extendErr == nil) != (verifyErr == nil) {
			rt.Fatalf("Extend says %v, Verify says %v", extendErr, verifyErr)
		}
		var a, b *delegation.Error
		if errors.As(extendErr, &a) && errors.As(verifyErr, &b) && a.Code != b.Code {
			rt.Fatalf("Extend says %v, Verify says %v", extendErr, verifyErr)
		}
	})
}

func TestZeroChain(t *testing.T) {
	if !(delegation.Chain{}).IsZero() {
		t.Error("the zero chain is not zero")
	}
	if _, err := (delegation.Chain{}).Extend(delegation.Extension{Actor: actor(0)}); err == nil {
		t.Error("the zero chain was extended")
	}
	if _, err := delegation.Verify(nil, delegation.Leaf{}, signed); err == nil {
		t.Error("the zero leaf was verified")
	}
	if _, err := delegation.VerifyClosed(nil, delegation.Leaf{}, signed); err == nil {
		t.Error("no receipts were a closed chain")
	}
}

func TestGaveUp(t *testing.T) {
	two := func(hop int, from0, from1 string) scope.Grant {
		one := `{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":[%s],"args":"open"%s}`
		f := []string{"", ""}
		if hop > 0 {
			f = []string{`,"from":0`, `,"from":1`}
		}
		var ds []string
		for i, names := range []string{from0, from1} {
			if names != "" {
				ds = append(ds, fmt.Sprintf(one, names, f[i]))
			}
		}
		g, err := scope.Parse([]byte("["+strings.Join(ds, ",")+"]"), hop == 0)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	parent := two(0, `"a","b"`, `"c"`)
	for _, tt := range []struct {
		name  string
		child scope.Grant
		want  string
	}{
		{"nothing", two(1, `"a","b"`, `"c"`), "{[] []}"},
		{"narrowed", two(1, `"a"`, `"c"`), "{[] [0]}"},
		{"dropped", two(1, `"a","b"`, ""), "{[1] []}"},
		{"both", two(1, "", `"c"`), "{[0] []}"},
		{"all", scope.Grant{}, "{[0 1] []}"},
	} {
		if got := fmt.Sprint(delegation.GaveUp(parent, tt.child)); got != tt.want {
			t.Errorf("%s: gave up %s, want %s", tt.name, got, tt.want)
		}
	}
}
