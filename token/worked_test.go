package token

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/scope"
)

// rfc8037Key is the private key of RFC 8037 A.1.
func rfc8037Key(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	seed, err := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

const workedIssuer = "https://sts.test"

// workedExample is the chain of tokens.md §16: three hops that may go on to db.
type workedExample struct {
	leaves   []delegation.Leaf
	tokens   []string
	receipts []string
	hashes   []string // H(Tn)
	rcpt     []string // H(Rn)
	inline   []bool
}

func workedHops(t testing.TB) []delegation.Hop {
	t.Helper()
	const (
		d0 = `[{"type":"urn:lineal:call:v1","locations":["https://orchestrator.test","https://research.test","https://db.test"],"actions":["a2a:send"],"names":["orchestrator","research","db"]},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find","sum"],"args":"open"}]`
		d1 = `[{"type":"urn:lineal:call:v1","locations":["https://research.test","https://db.test"],"actions":["a2a:send"],"names":["research","db"],"from":0},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"open","from":1}]`
		d2 = `[{"type":"urn:lineal:call:v1","locations":["https://db.test"],"actions":["a2a:send"],"names":["db"],"from":0},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"closed","from":1,"where":{"/args":{"op":"fields","keys":["customer_id"]},"/args/customer_id":{"op":"one_of","values":["C-4711"]}}}]`
	)
	person := must(identity.ParsePerson(workedIssuer, "q5QmPzR0vN2cYx8LkT3wBA"))(t)
	actor := func(sub, profile string) delegation.Actor {
		return delegation.Actor{Party: identity.Party{Issuer: workedIssuer, Subject: sub}, Profile: profile}
	}
	app := actor("spiffe://acme/app", delegation.ProfileService)
	orchestrator := actor("spiffe://acme/orchestrator", delegation.ProfileAgent)
	research := actor("spiffe://acme/research", delegation.ProfileAgent)
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	return []delegation.Hop{{
		Audience: "https://orchestrator.test", Person: person, Profile: delegation.ProfileUser, ClientID: app.Subject,
		Actors: []delegation.Actor{app}, MayAct: orchestrator.Party, Details: must(scope.Parse([]byte(d0), true))(t),
		Bound: delegation.Confirmation{CertThumbprint: "hxFcBR4L6I7j2NExxnhpzUNTivEtvPKH2SiEjEZjp0g"},
		ID:    "01a20320-a5e8-7000-8000-000000000001", MaxDepth: 4, IssuedAt: at(1795348800), Expires: at(1795349100),
	}, {
		Audience: "https://research.test", Person: person, Profile: delegation.ProfileUser, ClientID: orchestrator.Subject,
		Actors: []delegation.Actor{orchestrator, app}, MayAct: research.Party, Details: must(scope.Parse([]byte(d1), false))(t),
		Bound: delegation.Confirmation{CertThumbprint: "xqHmaJ-yUUJ0XXQIOaeOINWon-xhNQ34ffzv2L0g7mU"},
		ID:    "01a20320-a9d0-7000-8000-000000000002", Depth: 1, MaxDepth: 4, IssuedAt: at(1795348804), Expires: at(1795349100),
	}, {
		Audience: "https://db.test", Person: person, Profile: delegation.ProfileUser, ClientID: research.Subject,
		Actors:  []delegation.Actor{research, orchestrator, app},
		MayAct:  identity.Party{Issuer: workedIssuer, Subject: "spiffe://acme/db"},
		Details: must(scope.Parse([]byte(d2), false))(t),
		Bound:   delegation.Confirmation{CertThumbprint: "U8r2RcRrKQF6nIGv0EcIe_0xSlN8rNSxNjDdPR1K4Ks"},
		ID:      "01a20320-adb8-7000-8000-000000000003", Depth: 2, MaxDepth: 4, IssuedAt: at(1795348806), Expires: at(1795349100),
	}}
}

func buildWorkedExample(t testing.TB) workedExample {
	t.Helper()
	issuer := must(NewIssuer(workedIssuer, must(NewEdDSA("k1", rfc8037Key(t)))(t)))(t)
	requests := []string{
		"A9nMdBoNw26HUrnlwJuq7XQxqbzkAdxxAZmiOi8BqtM", "6StmfrQ41m9CnjfBqrdlE8GVNma3y3mX9zm_p4ZyPP0",
		"GZfr5-6YAOn-jhZTJDLlPK9kEwswF71N2LxGmOiz7R8",
	}
	login := delegation.Login{
		Issuer: "https://idp.test", Hash: "B1oM5zUeu4CFzUpJzaeG9BwB7x8IAHTNWu2i9AyZKRg",
		AuthTime: time.Unix(1795348740, 0).UTC(), ACR: "phr", AMR: []string{"hwk", "user"},
	}
	var w workedExample
	var ids []string
	for n, hop := range workedHops(t) {
		leaf := delegation.Leaf{Issuer: workedIssuer, Txn: "01a20320-a200-7000-8000-000000000000", Hop: hop}
		receipt := delegation.Receipt{Issuer: leaf.Issuer, Txn: leaf.Txn, Hop: hop}
		if n == 0 {
			leaf.AuthTime, leaf.ACR, leaf.AMR = login.AuthTime, login.ACR, login.AMR
			receipt.Login = login
		} else {
			leaf.ParentHash, leaf.ReceiptHash, leaf.Ancestors = w.hashes[n-1], w.rcpt[n-1], slices.Clone(ids)
			receipt.ParentHash, receipt.ReceiptHash = leaf.ParentHash, leaf.ReceiptHash
		}
		tok := must(issuer.SignToken(leaf, w.receipts))(t)
		receipt.TokenHash = tok.Hash
		rc := must(issuer.SignReceipt(receipt, Request{Hash: requests[n], Auth: identity.MethodSPIFFEX509},
			"Lb7GbUV7zGqn6CXrF9UINALrP30ip_okuOSiNNkEYLM"))(t)
		w.leaves, w.tokens, w.hashes = append(w.leaves, leaf), append(w.tokens, string(tok.Raw)), append(w.hashes, tok.Hash)
		w.receipts, w.rcpt = append(w.receipts, string(rc.Raw)), append(w.rcpt, rc.Hash)
		w.inline = append(w.inline, tok.Inline)
		ids = append(ids, hop.ID)
	}
	return w
}

// TestWorkedExample holds every number that tokens.md §16 gives.
func TestWorkedExample(t *testing.T) {
	w := buildWorkedExample(t)
	if diff := cmp.Diff([]string{
		"3htAKjz6xDnMuvLwl2iAh77PtRleokm8HI-uyDx0mOo", "22AVx5_tbzSax09vborYTvaCT5mpimFX7DipOwe6jGM",
		"3qvR3trSwWCcZOtnNei3OpS4ErA6U83qitvq8uw8C0Q",
	}, w.hashes); diff != "" {
		t.Errorf("H(Tn) (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"j6AjQwCXalOZYR3vm1XYDw-ZCBF5DxEYANgltYhCAfI", "n0vrp0veesJMZvu-hxiL4k9Q8wf20-jkIH3EoMQGVC4", "dCpS1pfhIa",
	}, []string{w.rcpt[0], w.rcpt[1], w.rcpt[2][:10]}); diff != "" {
		t.Errorf("H(Rn) (-want +got):\n%s", diff)
	}
	lengths := func(ss []string) (n []int) {
		for _, s := range ss {
			n = append(n, len(s))
		}
		return n
	}
	if diff := cmp.Diff([][]int{{1397, 4043, 1878}, {1800, 1846, 2050}}, [][]int{lengths(w.tokens), lengths(w.receipts)}); diff != "" {
		t.Errorf("lengths (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]bool{false, true, false}, w.inline); diff != "" {
		t.Errorf("inline (-want +got):\n%s", diff)
	}
}

// TestWorkedExampleBytes compares with the payloads written out, which a
// program of another language made from the document.
func TestWorkedExampleBytes(t *testing.T) {
	w := buildWorkedExample(t)
	want, err := os.ReadFile("testdata/worked.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(want, &doc); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"T0": w.tokens[0], "T1": w.tokens[1], "T2": w.tokens[2], "R0": w.receipts[0], "R1": w.receipts[1], "R2": w.receipts[2],
	} {
		var compacted bytes.Buffer
		if err := json.Compact(&compacted, doc[name]); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(compacted.String(), string(payload)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWorkedExampleVerifies(t *testing.T) {
	w := buildWorkedExample(t)
	v := workedVerifier(t, nil)
	got, err := v.Verify(t.Context(), w.tokens[1], Want{
		Audience: "https://research.test",
		Workload: &identity.Workload{
			Agent:      identity.MustParseAgent("spiffe://acme/orchestrator"),
			Thumbprint: "xqHmaJ-yUUJ0XXQIOaeOINWon-xhNQ34ffzv2L0g7mU",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Chain.Len() != 2 || got.Chain.Person().Ref() != "q5QmPzR0vN2cYx8LkT3wBA" || got.Chain.Login().ACR != "phr" || got.Unbound {
		t.Errorf("chain of %d hops from %s", got.Chain.Len(), got.Chain.Person())
	}
	closed, err := v.VerifyClosed(t.Context(), w.receipts, w.hashes[2])
	if err != nil {
		t.Fatal(err)
	}
	if closed.Chain.Len() != 3 || closed.Chain.ReceiptHash(2) != w.rcpt[2] || closed.Fields[1].Request.Auth != identity.MethodSPIFFEX509 {
		t.Errorf("closed chain of %d hops", closed.Chain.Len())
	}
}

func workedVerifier(t testing.TB, chains ChainSource) *Verifier {
	t.Helper()
	signer := must(NewEdDSA("k1", rfc8037Key(t)))(t)
	return must(NewVerifier(Config{
		Issuers:     []TrustedIssuer{{workedIssuer, must(NewStaticKeys(must(PublicKeyOf(signer))(t)))(t)}},
		Chains:      chains,
		Revocations: NoRevocations{},
		Now:         func() time.Time { return time.Unix(1795348810, 0) },
	}))(t)
}
