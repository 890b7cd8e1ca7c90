package token

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

// TestRandomChainsPass builds exchange chains the way the token service does,
// each hop extending the verified chain of its parent: every one verifies, and
// keeps person, depth, scope and times on the way down.
func TestRandomChainsPass(t *testing.T) {
	signers := []Signer{newES256(t, "es"), must(NewEdDSA("ed", rfc8037Key(t)))(t)}
	rapid.Check(t, func(rt *rapid.T) {
		signer := rapid.SampledFrom(signers).Draw(rt, "signer")
		f := &forge{name: testIssuer, signer: signer}
		issuer := must(NewIssuer(testIssuer, signer))(t)
		var receipts []string
		w := newWorld(t, f, func(cfg *Config) {
			cfg.Chains = chainFunc(func(string, string) ([]string, error) { return receipts, nil })
		})
		n := rapid.IntRange(1, delegation.MaxHops).Draw(rt, "hops")
		granted := rapid.SliceOfNDistinct(rapid.IntRange(0, 40), 1, 20, rapid.ID[int]).Draw(rt, "tools")
		iat, exp := start, start.Add(time.Duration(rapid.IntRange(60, 3600).Draw(rt, "life"))*time.Second)
		var parent Verified
		var leaf delegation.Leaf
		for k := range n {
			if k > 0 {
				granted = granted[:rapid.IntRange(1, len(granted)).Draw(rt, "kept")]
				iat = iat.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "wait")) * time.Second)
				exp = exp.Add(-time.Duration(rapid.IntRange(0, 3).Draw(rt, "shorter")) * time.Second)
			}
			w.now = iat
			leaf = nextLeaf(t, rt, parent, k, granted, iat, exp)
			if k > 0 {
				last := must(HashOf(receipts[k-1]))(t)
				leaf.ParentHash, leaf.ReceiptHash = parent.Leaf.Hash, last
			}
			tok, err := issuer.SignToken(leaf, receipts)
			if err != nil {
				rt.Fatalf("hop %d: %v", k, err)
			}
			rc := delegation.Receipt{
				Issuer: testIssuer, Txn: leaf.Txn, Hop: leaf.Hop, TokenHash: tok.Hash, ParentHash: leaf.ParentHash, ReceiptHash: leaf.ReceiptHash,
			}
			if k == 0 {
				rc.Login = delegation.Login{Issuer: "https://idp.test", Hash: thumb(9)}
			}
			signed, err := issuer.SignReceipt(rc, Request{Hash: thumb(8), Auth: identity.MethodNone}, thumb(7))
			if err != nil {
				rt.Fatalf("hop %d: %v", k, err)
			}
			receipts = append(receipts, string(signed.Raw))
			got, err := w.Verify(t.Context(), string(tok.Raw), want(k))
			if err != nil {
				rt.Fatalf("hop %d of %d: %v", k, n, err)
			}
			checkMonotone(rt, got, k)
			if _, err := w.VerifyClosed(t.Context(), receipts, tok.Hash); err != nil {
				rt.Fatalf("closed at hop %d: %v", k, err)
			}
			parent = got
		}
	})
}

// nextLeaf is hop k: a root, or the extension of the parent's chain.
func nextLeaf(t *testing.T, rt *rapid.T, parent Verified, k int, tools []int, iat, exp time.Time) delegation.Leaf {
	var quoted []string
	for _, n := range tools {
		quoted = append(quoted, fmt.Sprintf(`"tool-%d"`, n))
	}
	details := grantOf(t, k, strings.Join(quoted, ","))
	bound := delegation.Confirmation{CertThumbprint: thumb(k)}
	if k == 0 {
		hop := delegation.Hop{
			Audience: audience(0), Person: must(identity.ParsePerson(testIssuer, "person"))(t), Profile: delegation.ProfileUser,
			ClientID: agentName(0), Actors: []delegation.Actor{{Party: partyOf(0), Profile: delegation.ProfileService}}, MayAct: partyOf(1),
			Details: details, Bound: bound, ID: uuid(1, 0), MaxDepth: delegation.MaxHops - 1, IssuedAt: iat, Expires: exp,
		}
		if err := delegation.CheckRoot(hop); err != nil {
			rt.Fatal(err)
		}
		return delegation.Leaf{Issuer: testIssuer, Txn: uuid(1, 0xf00), Hop: hop}
	}
	hop, err := parent.Chain.Extend(delegation.Extension{
		Actor: delegation.Actor{Party: partyOf(k), Profile: delegation.ProfileAgent}, Audience: audience(k), MayAct: partyOf(k + 1),
		Details: details, Bound: bound, ID: uuid(1, k), IssuedAt: iat, Expires: exp,
	})
	if err != nil {
		rt.Fatal(err)
	}
	return delegation.Leaf{Issuer: testIssuer, Txn: parent.Chain.Txn(), Hop: hop, Ancestors: parent.Chain.Ancestors()}
}

func checkMonotone(rt *rapid.T, got Verified, k int) {
	c := got.Chain
	if c.Len() != k+1 || c.Person().Ref() != "person" || c.Leaf().Depth != k {
		rt.Fatalf("chain of %d hops at depth %d for %s", c.Len(), k, c.Person())
	}
	for i := 1; i < c.Len(); i++ {
		p, h := c.Hop(i-1), c.Hop(i)
		if err := scope.Subsumes(p.Details, h.Details); err != nil {
			rt.Fatalf("hop %d: %v", i, err)
		}
		if h.Depth != p.Depth+1 || h.MaxDepth > p.MaxDepth || h.Expires.After(p.Expires) || h.IssuedAt.Before(p.IssuedAt) ||
			h.Person != p.Person || h.Actor().Party != p.MayAct {
			rt.Fatalf("hop %d does not follow from its parent", i)
		}
	}
}
