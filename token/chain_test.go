package token

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// TestValidChains is the twin of every refusal here: each length, each way the
// receipts can come, and the closed chain.
func TestValidChains(t *testing.T) {
	f := newForge(t)
	for n := 1; n <= delegation.MaxHops; n++ {
		c := f.chain(t, n)
		var got Verified
		var err error
		if n <= maxInline+1 {
			got, err = newWorld(t, f).Verify(t.Context(), c.last(), want(n-1))
			wantPass(t, err)
			if got.Chain.Len() != n || len(got.Receipts) != n-1 || len(got.KeyIDs) != n || got.Leaf.Hash != c.leafHash() {
				t.Errorf("%d hops: got %d, %d receipts, %d key ids", n, got.Chain.Len(), len(got.Receipts), len(got.KeyIDs))
			}
		}
		byRef := f.byReference(t, c)
		w := newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(byRef) })
		got, err = w.Verify(t.Context(), byRef.last(), want(n-1))
		wantPass(t, err)
		if got.Chain.Len() != n || got.Chain.ReceiptHash(n-1) != "" {
			t.Errorf("%d hops by reference: got %d", n, got.Chain.Len())
		}
		closed, err := w.VerifyClosed(t.Context(), byRef.receipts, byRef.leafHash())
		wantPass(t, err)
		if closed.Chain.Len() != n || len(closed.Fields) != n || closed.Fields[0].Request.Source != "mesh" {
			t.Errorf("%d hops closed: got %d", n, closed.Chain.Len())
		}
	}
}

// byReference is the chain again with another last token, which carries no
// receipts.
func (f *forge) byReference(t testing.TB, c forged, edits ...func(*delegation.Hop)) forged {
	t.Helper()
	n := len(c.leaves) - 1
	leaf := c.leaves[n]
	for _, e := range edits {
		e(&leaf.Hop)
	}
	raw := f.token(t, leaf, nil)
	leaf.Hash = must(HashOf(raw))(t)
	rc := delegation.Receipt{
		Issuer: leaf.Issuer, Txn: leaf.Txn, Hop: leaf.Hop, TokenHash: leaf.Hash, ParentHash: leaf.ParentHash, ReceiptHash: leaf.ReceiptHash,
	}
	if n == 0 {
		rc.Login = delegation.Login{Issuer: "https://idp.test", Hash: thumb(99), ACR: "phr"}
	}
	return forged{
		leaves:   append(slices.Clone(c.leaves[:n]), leaf),
		tokens:   append(slices.Clone(c.tokens[:n]), raw),
		receipts: append(slices.Clone(c.receipts[:n]), f.receipt(t, rc)),
	}
}

// serving is `/chains` for these chains.
func serving(cs ...forged) ChainSource {
	return chainFunc(func(issuer, jti string) ([]string, error) {
		for _, c := range cs {
			if issuer == c.leaves[0].Issuer && jti == c.hop().ID {
				return c.receipts, nil
			}
		}
		return nil, errors.New("not found")
	})
}

// verify verifies a forged token of the last hop with the receipts given.
func (f *forge) verify(t *testing.T, c forged, receipts []string) error {
	t.Helper()
	n := len(c.leaves) - 1
	_, err := newWorld(t, f).Verify(t.Context(), f.token(t, c.leaves[n], receipts), want(n))
	return err
}

func TestC1aSplice(t *testing.T) {
	f := newForge(t)
	c, other := f.chain(t, 3), f.chainNo(t, 3, 2)
	wantPass(t, f.verify(t, c, c.inline()))
	wantCode(t, f.verify(t, c, []string{other.receipts[0], c.receipts[1]}), CodeChainLink)
	wantCode(t, f.verify(t, c, []string{c.receipts[0], other.receipts[1]}), CodeChainLink)
	branch := f.chain(t, 3, at(1, func(h *delegation.Hop) { h.ID = uuid(1, 0xb) })) // the same root, another child
	wantPass(t, f.verify(t, branch, branch.inline()))
	wantCode(t, f.verify(t, c, []string{c.receipts[0], branch.receipts[1]}), CodeChainLink)
}

func TestC1bHeadCut(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	wantCode(t, f.verify(t, c, c.receipts[1:2]), CodeChainDepth)
	noLogin := f.chain(t, 3, func(_ int, _ *delegation.Leaf, rc *delegation.Receipt) { rc.Login = delegation.Login{} })
	wantCode(t, f.verify(t, noLogin, noLogin.inline()), CodeChainRoot)
	begun := f.chain(t, 3, func(_ int, _ *delegation.Leaf, rc *delegation.Receipt) {
		rc.Login = delegation.Login{Issuer: "https://idp.test", Hash: thumb(99)}
	})
	wantCode(t, f.verify(t, begun, begun.inline()), CodeChainRoot)
}

func TestC1cTailCut(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	for _, receipts := range [][]string{
		c.receipts[:1], c.receipts, {c.receipts[1], c.receipts[0]}, {c.receipts[0], c.receipts[0]}, {c.receipts[1], c.receipts[1]},
	} {
		wantCode(t, f.verify(t, c, receipts), CodeChainDepth)
	}
}

// TestForgedHops is the test issuer that skips one check: each chain is signed
// and linked as the edit left it.
func TestForgedHops(t *testing.T) {
	other := must(identity.ParsePerson(testIssuer, "someone-else"))(t)
	for _, tt := range []struct {
		name string
		edit edit
		code Code
	}{
		{"C2 widened at hop 1, narrowed at 2", at(1, func(h *delegation.Hop) { h.Details = grantOf(t, 1, names(0, 12)) }), CodeChainWidened},
		{"C2 widened at the leaf", at(2, func(h *delegation.Hop) { h.Details = grantOf(t, 2, names(0, 9)) }), CodeChainWidened},
		{"C2 scope beyond the details", at(1, func(h *delegation.Hop) { *h = h.WithScope("mcp:call mcp:read") }), CodeChainWidened},
		{"C3 outlives the parent", at(1, func(h *delegation.Hop) { h.Expires = h.Expires.Add(time.Second) }), CodeChainTimes},
		{"C3 leaf outlives the parent", at(2, func(h *delegation.Hop) { h.Expires = h.Expires.Add(time.Hour) }), CodeChainTimes},
		{"C3 minted before the parent", at(2, func(h *delegation.Hop) { h.IssuedAt = start }), CodeChainTimes},
		{"C3 minted after the parent ended", at(0, func(h *delegation.Hop) { h.Expires = start.Add(time.Second) }), CodeChainTimes},
		{"C4 ceiling passed", at(2, func(h *delegation.Hop) { h.MaxDepth = 1 }), CodeChainDepth},
		{"C4 ceiling raised", at(0, func(h *delegation.Hop) { h.MaxDepth = 3 }), CodeChainDepth},
		{"C4 levels of act at the leaf", at(2, func(h *delegation.Hop) { h.Actors = h.Actors[:2] }), CodeTokenMalformed},
		{"C4 a level too many", at(2, func(h *delegation.Hop) { h.Actors = append(h.Actors[:3:3], h.Actors[0]) }), CodeTokenMalformed},
		{"C4 levels of act in a receipt", at(1, func(h *delegation.Hop) { h.Actors = h.Actors[:1] }), CodeChainActor},
		{"C4 a foreign level at a login", func(_ int, leaf *delegation.Leaf, rc *delegation.Receipt) {
			foreign := delegation.Actor{Party: identity.Party{Issuer: "https://b.test", Subject: "b"}, Profile: delegation.ProfileAgent}
			leaf.Hop.Actors = append(slices.Clone(leaf.Hop.Actors), foreign)
			rc.Hop.Actors = leaf.Hop.Actors
		}, CodeChainDepth},
		{"C7 actor is not may_act", at(1, func(h *delegation.Hop) { h.MayAct = partyOf(7) }), CodeChainActor},
		{"C7 nobody may act", at(1, func(h *delegation.Hop) { h.MayAct = identity.Party{} }), CodeChainActor},
		{"C7 may_act in another namespace", at(0, func(h *delegation.Hop) { h.MayAct.Issuer = "https://b.test" }), CodeChainActor},
		{"C7 another actor at hop 1", at(1, func(h *delegation.Hop) {
			h.Actors = append([]delegation.Actor{{Party: partyOf(7), Profile: delegation.ProfileAgent}}, h.Actors[1:]...)
		}), CodeChainActor},
		{"C10 person of the root", at(0, func(h *delegation.Hop) { h.Person = other }), CodeChainPerson},
		{"C10 person of hop 1", at(1, func(h *delegation.Hop) { h.Person = other }), CodeChainPerson},
		{"C10 person of the leaf", at(2, func(h *delegation.Hop) { h.Person = other }), CodeChainPerson},
		{"C10 another transaction", func(k int, leaf *delegation.Leaf, _ *delegation.Receipt) {
			if k == 2 {
				leaf.Txn = uuid(7, 7)
			}
		}, CodeChainPerson},
		{"V5 jti of an ancestor", at(2, func(h *delegation.Hop) { h.ID = uuid(1, 0) }), CodeChainLink},
		{"V5 anc names another", func(k int, leaf *delegation.Leaf, _ *delegation.Receipt) {
			if k == 2 {
				leaf.Ancestors = []string{uuid(1, 0), uuid(7, 7)}
			}
		}, CodeChainLink},
		{"V5 par_hash of another", func(k int, leaf *delegation.Leaf, _ *delegation.Receipt) {
			if k == 2 {
				leaf.ParentHash = thumb(5)
			}
		}, CodeChainLink},
		{"V5 receipt of another token", func(k int, _ *delegation.Leaf, rc *delegation.Receipt) {
			if k == 1 {
				rc.TokenHash = thumb(5)
			}
		}, CodeChainLink},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newForge(t)
			c := f.chain(t, 3, tt.edit)
			wantCode(t, f.verify(t, c, c.inline()), tt.code)
			twin := f.chain(t, 3)
			wantPass(t, f.verify(t, twin, twin.inline()))
		})
	}
}

func TestC4TooManyHops(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2, at(1, func(h *delegation.Hop) { h.Depth, h.MaxDepth = 8, 8 }))
	wantCode(t, f.verify(t, c, c.inline()), CodeTokenMalformed)
	_, err := newWorld(t, f).VerifyClosed(t.Context(), slices.Repeat(c.receipts[:1], 9), c.leafHash())
	wantCode(t, err, CodeChainDepth)
	_, err = newWorld(t, f).VerifyClosed(t.Context(), nil, c.leafHash())
	wantCode(t, err, CodeChainDepth)
}

// TestC5Signer: a receipt by anyone but the leaf's issuer, under a key that was
// not in use or under none.
func TestC5Signer(t *testing.T) {
	f := newForge(t)
	partner := &forge{name: "https://b.test", signer: newES256(t, "k1")} // trusted too, and the same kid
	both := func(cfg *Config) {
		cfg.Issuers = append(cfg.Issuers, TrustedIssuer{partner.name, partner.keys(t)})
	}
	c := f.chain(t, 2)
	verify := func(raw string, change ...func(*Config)) error {
		_, err := newWorld(t, f, change...).Verify(t.Context(), raw, want(1))
		return err
	}
	wantPass(t, verify(c.last(), both))

	rc := delegation.Receipt{
		Issuer: f.name, Txn: c.leaves[0].Txn, Hop: c.leaves[0].Hop, TokenHash: c.leaves[0].Hash,
		Login: delegation.Login{Issuer: "https://idp.test", Hash: thumb(99)},
	}
	over := func(receipt string) string { // a leaf of the true issuer over another root receipt
		leaf := c.leaves[1]
		leaf.ReceiptHash = must(HashOf(receipt))(t)
		return f.token(t, leaf, []string{receipt})
	}
	wantPass(t, verify(over(f.receipt(t, rc)), both))
	wantCode(t, verify(over(partner.receipt(t, rc)), both), CodeChainSigner) // says it is the issuer's
	theirs := rc
	theirs.Issuer = partner.name
	wantCode(t, verify(over(partner.receipt(t, theirs)), both), CodeChainSigner) // says whose it is
	wantCode(t, verify(over(f.receipt(t, theirs)), both), CodeChainSigner)       // ours, in their name
	stranger := &forge{name: f.name, signer: newES256(t, "k2")}
	wantCode(t, verify(over(stranger.receipt(t, rc))), CodeChainSigner)

	retired := must(PublicKeyOf(f.signer))(t)
	retired.NotAfter = start.Add(-time.Second)
	current := &forge{name: f.name, signer: newES256(t, "k2")}
	keys := must(NewStaticKeys(retired, must(PublicKeyOf(current.signer))(t)))(t)
	leaf := c.leaves[1]
	rotated := func(cfg *Config) { cfg.Issuers[0].Keys = keys }
	wantCode(t, verify(current.token(t, leaf, c.inline()), rotated), CodeChainSigner)
	retired.NotAfter = start
	keys = must(NewStaticKeys(retired, must(PublicKeyOf(current.signer))(t)))(t)
	wantPass(t, verify(current.token(t, leaf, c.inline()), rotated))
}

// TestC5ForeignClosed: the last receipt of a closed chain is asked for its
// issuer too.
func TestC5ForeignClosed(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2)
	_, err := newWorld(t, f).VerifyClosed(t.Context(), c.receipts, c.leafHash())
	wantPass(t, err)
	partner := &forge{name: "https://b.test", signer: f.signer}
	_, err = newWorld(t, partner).VerifyClosed(t.Context(), c.receipts, c.leafHash())
	wantCode(t, err, CodeIssuerUnknown)
	w := newWorld(t, f, func(cfg *Config) { cfg.Issuers = append(cfg.Issuers, TrustedIssuer{partner.name, partner.keys(t)}) })
	theirs := partner.chain(t, 2)
	_, err = w.VerifyClosed(t.Context(), []string{c.receipts[0], theirs.receipts[1]}, theirs.leafHash())
	wantCode(t, err, CodeChainSigner)
}

// TestC6EveryReceiptMember changes every member of every receipt, signs it again with the
// issuer's own key and leaves the rest of the chain as it is.
func TestC6EveryReceiptMember(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	tried := 0
	for k := range 2 {
		for path, changed := range mutations(payloadOf(t, c.receipts[k]), "") {
			receipts := slices.Clone(c.inline())
			receipts[k] = must(seal(f.signer, typeReceipt, changed.AppendJSON(nil)))(t)
			err := f.verify(t, c, receipts)
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("receipt %d with %s changed passed", k, path)
				continue
			}
			// A rule before V5, or the reader, may see some changes first.
			early := e.Code == CodeChainSigner || e.Code == CodeChainRoot && strings.HasPrefix(path, "/login") ||
				e.Code == CodeChainDepth && strings.HasPrefix(path, "/del/del_depth") ||
				e.Code == CodeChainRoot && (strings.HasPrefix(path, "/par_hash") || strings.HasPrefix(path, "/rcpt_hash"))
			if e.Code != CodeChainLink && !early {
				t.Errorf("receipt %d with %s changed: %v", k, path, err)
			}
			tried++
		}
	}
	if tried < 100 {
		t.Errorf("only %d changes were tried", tried)
	}
	wantPass(t, f.verify(t, c, c.inline()))
}

// TestC6EveryClaim: each claim changed without the key is a bad signature; and
// signed again by the issuer it is no longer the token of its receipt.
func TestC6EveryClaim(t *testing.T) {
	f := newForge(t)
	c := f.byReference(t, f.chain(t, 3))
	header, _, _ := strings.Cut(c.last(), ".")
	_, sig, _ := strings.Cut(c.last()[len(header)+1:], ".")
	tried := 0
	for path, changed := range mutations(payloadOf(t, c.last()), "") {
		resigned := must(seal(f.signer, typeToken, changed.AppendJSON(nil)))(t)
		unsigned := strings.Join(strings.SplitN(resigned, ".", 3)[:2], ".") + "." + sig
		w := newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(c) })
		lax := Want{Audience: AnyAudience, Binding: BindingUnchecked}
		if _, err := w.Verify(t.Context(), unsigned, lax); err == nil {
			t.Errorf("%s changed without the key passed", path)
		}
		if _, err := w.Verify(t.Context(), resigned, lax); err == nil {
			t.Errorf("%s changed passed over the receipt of the true token", path)
		}
		tried++
	}
	if tried < 60 {
		t.Errorf("only %d changes were tried", tried)
	}
	w := newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(c) })
	_, err := w.Verify(t.Context(), c.last(), want(2))
	wantPass(t, err)
}

// mutations yields v with one member changed, removed or added, at any depth.
func mutations(v strictjson.Value, at string) func(yield func(string, strictjson.Value) bool) {
	return func(yield func(string, strictjson.Value) bool) {
		mutate(v, at, yield)
	}
}

func mutate(v strictjson.Value, at string, yield func(string, strictjson.Value) bool) bool {
	switch v.Kind() {
	case strictjson.KindObject:
		for i := range v.Len() {
			m := v.Member(i)
			rest := slices.Delete(v.Members(), i, i+1)
			if !yield(at+"/"+m.Name+" removed", strictjson.Object(rest...)) {
				return false
			}
			if !mutate(m.Value, at+"/"+m.Name, func(p string, x strictjson.Value) bool { return yield(p, v.With(m.Name, x)) }) {
				return false
			}
		}
		return yield(at+"/x added", v.With("x", strictjson.Int(1)))
	case strictjson.KindArray:
		for i := range v.Len() {
			items := v.Items()
			if !mutate(items[i], at+"/-", func(p string, x strictjson.Value) bool {
				changed := slices.Clone(items)
				changed[i] = x
				return yield(p, strictjson.Array(changed...))
			}) {
				return false
			}
		}
		return yield(at+" shortened", strictjson.Array(v.Items()[:v.Len()-1]...))
	case strictjson.KindString:
		s, _ := v.Text()
		last := s[len(s)-1:]
		flipped := map[string]string{"A": "E", "0": "1"}[last] // stays base64url without spare bits
		if flipped == "" {
			flipped = map[bool]string{true: "A", false: "0"}[strings.HasSuffix(at, "hash") || strings.HasSuffix(at, "S256") || strings.HasSuffix(at, "pol")]
		}
		return yield(at+" changed", strictjson.String(s[:len(s)-1]+flipped)) && yield(at+" nulled", strictjson.NullValue())
	case strictjson.KindNumber:
		n, _ := v.Int64()
		return yield(at+" raised", strictjson.Int(n+1))
	case strictjson.KindInvalid, strictjson.KindNull, strictjson.KindBool:
	}
	return true
}

func TestC8aReceiptIsNoToken(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 2)
	lax := Want{Audience: AnyAudience, Binding: BindingUnchecked}
	for _, receipt := range c.receipts {
		_, err := newWorld(t, f).Verify(t.Context(), receipt, lax)
		wantCode(t, err, CodeTokenType)
	}
	// Also with the other's type: a receipt lacks what a token has.
	dressed := must(seal(f.signer, typeToken, payloadOf(t, c.receipts[0]).AppendJSON(nil)))(t)
	_, err := newWorld(t, f).Verify(t.Context(), dressed, lax)
	wantCode(t, err, CodeTokenMalformed)
	wantCode(t, f.verify(t, c, []string{c.tokens[0]}), CodeChainSigner)
	dressed = must(seal(f.signer, typeReceipt, payloadOf(t, c.tokens[0]).AppendJSON(nil)))(t)
	wantCode(t, f.verify(t, c, []string{dressed}), CodeChainSigner)
	wantPass(t, f.verify(t, c, c.inline()))
}

// TestC8bFetched: what `/chains` answers is accepted only closed over the leaf.
func TestC8bFetched(t *testing.T) {
	f := newForge(t)
	c, other := f.byReference(t, f.chain(t, 3)), f.byReference(t, f.chainNo(t, 3, 2))
	longer, shorter := f.chain(t, 4), f.chain(t, 2)
	sibling := f.byReference(t, c, func(h *delegation.Hop) { h.ID = uuid(1, 0xb) })
	for _, tt := range []struct {
		name     string
		receipts []string
		err      error
		code     Code
	}{
		{"of another jti", other.receipts, nil, CodeChainLink},
		{"longer", longer.receipts, nil, CodeChainDepth},
		{"shorter", shorter.receipts, nil, CodeChainDepth},
		{"open", c.inline(), nil, CodeChainDepth},
		{"none", nil, nil, CodeChainDepth},
		{"of a sibling", sibling.receipts, nil, CodeChainLeaf},
		{"tokens", []string{c.tokens[0], c.tokens[1], c.tokens[2]}, nil, CodeChainSigner},
		{"not there", nil, errors.New("404"), CodeChainUnavailable},
	} {
		w := newWorld(t, f, func(cfg *Config) {
			cfg.Chains = chainFunc(func(string, string) ([]string, error) { return tt.receipts, tt.err })
		})
		_, err := w.Verify(t.Context(), c.last(), want(2))
		t.Run(tt.name, func(t *testing.T) { wantCode(t, err, tt.code) })
	}
	_, err := newWorld(t, f).Verify(t.Context(), c.last(), want(2))
	wantCode(t, err, CodeChainUnavailable)
	_, err = newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(c) }).Verify(t.Context(), c.last(), want(2))
	wantPass(t, err)
}

func TestV11ClosedOverAnotherToken(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	w := newWorld(t, f)
	_, err := w.VerifyClosed(t.Context(), c.receipts, c.leaves[1].Hash)
	wantCode(t, err, CodeChainLeaf)
	_, err = w.VerifyClosed(t.Context(), c.receipts, c.leaves[2].Hash)
	wantPass(t, err)
}

// TestReceiptsComeFromTheCache: a sibling by reference needs no fetch once the
// receipts were seen; one whose chain was not seen does.
func TestReceiptsComeFromTheCache(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	sibling := f.byReference(t, c)
	stranger := f.byReference(t, f.chainNo(t, 3, 2))
	w := newWorld(t, f)
	_, err := w.Verify(t.Context(), sibling.last(), want(2))
	wantCode(t, err, CodeChainUnavailable)
	_, err = w.Verify(t.Context(), c.last(), want(2))
	wantPass(t, err)
	got, err := w.Verify(t.Context(), sibling.last(), want(2))
	wantPass(t, err)
	if got.Chain.Len() != 3 || len(got.Receipts) != 2 || got.Receipts[1] != c.receipts[1] {
		t.Errorf("chain of %d hops, %d receipts", got.Chain.Len(), len(got.Receipts))
	}
	_, err = w.Verify(t.Context(), stranger.last(), want(2))
	wantCode(t, err, CodeChainUnavailable)
}

// TestCachedReceiptsAreTheSame: a cached receipt stands in only for the same
// string, and only while no key changed. Whether a chain passes must not depend
// on what was seen before.
func TestCachedReceiptsAreTheSame(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 3)
	keys := &countingKeys{StaticKeys: f.keys(t)}
	w := newWorld(t, f, func(cfg *Config) { cfg.Issuers[0].Keys = keys })
	_, err := w.Verify(t.Context(), c.last(), want(2))
	wantPass(t, err)
	dot := strings.LastIndexByte(c.receipts[0], '.')
	unsigned := c.receipts[0][:dot+1] + strings.Repeat("A", 86) // the same H, no signature
	_, err = w.Verify(t.Context(), f.token(t, c.leaves[2], []string{unsigned, c.receipts[1]}), want(2))
	wantCode(t, err, CodeChainSigner)

	byRef := f.byReference(t, c)
	_, err = w.Verify(t.Context(), byRef.last(), want(2))
	wantPass(t, err)
	keys.mu.Lock()
	keys.generation++
	keys.mu.Unlock()
	_, err = w.Verify(t.Context(), byRef.last(), want(2))
	wantCode(t, err, CodeChainUnavailable) // asked for again, and there is no source
}

// TestC5Adopt: a receipt is taken over unverified only from an issuer that this
// verifier trusts, by a key that is that issuer's.
func TestC5Adopt(t *testing.T) {
	f := newForge(t)
	c := f.chain(t, 1)
	receipt := delegation.Receipt{
		Issuer: f.name, Txn: c.leaves[0].Txn, Hop: c.leaves[0].Hop, TokenHash: c.leafHash(),
		Login: delegation.Login{Issuer: "https://idp.test", Hash: thumb(9)},
	}
	for name, test := range map[string]struct {
		signer Signer
		edit   func(*delegation.Receipt)
		taken  int
	}{
		"the issuer's own":             {f.signer, func(*delegation.Receipt) {}, 1},
		"another key of the same kid":  {newES256(t, f.signer.KeyID()), func(*delegation.Receipt) {}, 0},
		"a key that nobody published":  {newES256(t, "other"), func(*delegation.Receipt) {}, 0},
		"an issuer that nobody trusts": {f.signer, func(r *delegation.Receipt) { elsewhereIssuer(t, r) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := receipt
			test.edit(&r)
			signed := must(must(NewIssuer(r.Issuer, test.signer))(t).SignReceipt(r, Request{Hash: thumb(8), Auth: identity.MethodNone}, thumb(7)))(t)
			w := newWorld(t, f)
			w.Adopt(t.Context(), signed)
			if n := w.receipts.len(); n != test.taken {
				t.Errorf("%d receipts taken over, want %d", n, test.taken)
			}
			_, err := w.VerifyClosed(t.Context(), []string{string(signed.Raw)}, c.leafHash())
			if (err == nil) != (test.taken == 1) {
				t.Error(err)
			}
			adopted := w.receipts.len()
			w.Adopt(t.Context(), Signed{})
			if w.receipts.len() != adopted {
				t.Error("a token was taken for a receipt")
			}
		})
	}
}

// elsewhereIssuer makes r one of another issuer, its person too.
func elsewhereIssuer(t *testing.T, r *delegation.Receipt) {
	t.Helper()
	r.Issuer = "https://elsewhere.test"
	r.Hop.Person = must(identity.ParsePerson(r.Issuer, r.Hop.Person.Ref()))(t)
}

// TestC10OtherPerson: whoever renames the person, in one receipt, in the leaf or
// in all that is after a hop, at any hop of any chain, is refused as just that.
func TestC10OtherPerson(t *testing.T) {
	f := newForge(t)
	other := must(identity.ParsePerson(testIssuer, "somebody-else"))(t)
	rename := func(h *delegation.Hop) { h.Person = other }
	for n := 2; n <= delegation.MaxHops; n++ {
		verify := func(c forged) error {
			_, err := newWorld(t, f, func(cfg *Config) { cfg.Chains = serving(c) }).Verify(t.Context(), c.last(), want(n-1))
			return err
		}
		for k := range n {
			wantCode(t, verify(f.byReference(t, f.chain(t, n, at(k, rename)))), CodeChainPerson)
			if k == 0 {
				continue
			}
			var after []edit
			for i := k; i < n; i++ {
				after = append(after, at(i, rename))
			}
			wantCode(t, verify(f.byReference(t, f.chain(t, n, after...))), CodeChainPerson)
		}
		wantPass(t, verify(f.byReference(t, f.chain(t, n))))
	}
}
