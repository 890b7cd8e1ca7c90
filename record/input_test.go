package record_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// asked is a question about a call with these roots.
func asked(t testing.TB, roots string) policy.Input {
	t.Helper()
	const issuer, agent, location = "https://sts.example", "spiffe://example/pay", "https://pay.example"
	person, err := identity.ParsePerson(issuer, "ZX59lizZ22qhhrGe3Wu5KA")
	if err != nil {
		t.Fatal(err)
	}
	caller, err := identity.ParseAgent(agent)
	if err != nil {
		t.Fatal(err)
	}
	grant, err := scope.Parse([]byte(rootDetail), true)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1803978842, 0)
	chain, err := delegation.Verify(nil, delegation.Leaf{
		Issuer: issuer, Txn: uuid2, AuthTime: at.Add(-time.Minute), Hash: h("leaf"),
		Hop: delegation.Hop{
			Audience: location, Person: person, Profile: delegation.ProfileUser, ClientID: agent, ID: uuid1, MaxDepth: 3, Details: grant,
			Actors:   []delegation.Actor{{Party: identity.Party{Issuer: issuer, Subject: agent}, Profile: delegation.ProfileAgent}},
			IssuedAt: at, Expires: at.Add(time.Hour),
		},
	}, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	doc, err := strictjson.Parse([]byte(roots), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	call := scope.Call{Location: location, Action: scope.MCPToolsCall, Name: "transfer", Doc: scope.NewDocument()}
	for _, m := range doc.Members() {
		call.Doc.Set("/"+m.Name, m.Value)
	}
	return policy.Input{
		Chain: chain, Caller: caller, Call: call, Now: at, Address: netip.MustParseAddr("203.0.113.9"),
		Resource: policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "transfer"},
	}
}

// salts gives other salts each time.
func salts() func() string {
	n := byte(0)
	return func() string {
		n++
		return record.SaltText([32]byte{n})
	}
}

func disclosedValues(ds []record.Disclosure) map[string]string {
	out := map[string]string{}
	for _, d := range ds {
		out[d.Name()] = string(d.Value().AppendJSON(nil))
	}
	return out
}

// TestCommitInput: what an engine was given of a call is disclosed value by
// value, the rest is not kept; and the digest can be made again without the
// call, from its disclosures, and from no others.
func TestCommitInput(t *testing.T) {
	const roots = `{"args":{"amount":12.50,"currency":"EUR","memo":"CANARY","to":{"iban":"DE1","name":"CANARY"},"tags":[],"empty":{}},"mcp":{"version":"2026-07-28"}}`
	const address = `"203.0.113.9"`
	many := map[string]int{}
	for i := range 100 {
		many[fmt.Sprintf("a%d", i)] = i
	}
	wide, err := json.Marshal(map[string]any{"args": many})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		roots string
		reads []string
		want  map[string]string
	}{
		{"what the schema has", roots, []string{"/args/amount", "/args/to/iban", "/args/missing"}, map[string]string{
			"/args/amount": "12.50", "/args/to/iban": `"DE1"`,
		}},
		{"nothing of an object that is there", roots, []string{"/args/none", "/args/to/", "/args/empty/x"}, map[string]string{"/args/to": "{}", "/args/empty": "{}"}},
		{"all", roots, nil, map[string]string{
			"/args/amount": "12.50", "/args/currency": `"EUR"`, "/args/memo": `"CANARY"`, "/args/to": `{"iban":"DE1","name":"CANARY"}`,
			"/args/tags": "[]", "/args/empty": "{}", "/mcp/version": `"2026-07-28"`,
		}},
		{"a null", `{"args":{"amount":null}}`, []string{"/args/amount"}, map[string]string{"/args/amount": "null"}},
		{"no more than there may be", string(wide), nil, map[string]string{"/args": string(wide[len(`{"args":`) : len(wide)-1])}},
		{"nothing", roots, []string{}, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := asked(t, c.roots)
			digest, ds, err := record.CommitInput(in, c.reads, salts())
			if err != nil {
				t.Fatal(err)
			}
			got := disclosedValues(ds)
			c.want[record.NameAddress] = address
			if c.name == "no more than there may be" { // members in another order
				if len(got) != 2 || len(got["/args"]) != len(c.want["/args"]) {
					t.Errorf("disclosed %v", got)
				}
			} else if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(digest, h(c.roots)) {
				t.Error("a plain digest")
			}

			again := in // the call itself is gone
			again.Call.Doc, again.Address = scope.NewDocument(), netip.Addr{}
			if got, err := record.InputDigestOf(again, ds); err != nil || got != digest {
				t.Errorf("made again: %s, %v, want %s", got, err, digest)
			}
			slices.Reverse(ds)
			if got, err := record.InputDigestOf(again, ds); err != nil || got != digest {
				t.Errorf("in another order: %s, %v", got, err)
			}
			if got, err := record.InputDigestOf(again, ds[1:]); err == nil && got == digest {
				t.Error("one disclosure less gives the same digest")
			}
			later := again
			later.Now = later.Now.Add(time.Minute)
			if got, err := record.InputDigestOf(later, ds); err != nil || got == digest {
				t.Errorf("another moment gives the same digest: %v", err)
			}
			// Guessing right is not enough: the salts are missing.
			_, guessed, err := record.CommitInput(in, c.reads, func() string { return record.SaltText([32]byte{0xff}) })
			if err != nil {
				t.Fatal(err)
			}
			if got, err := record.InputDigestOf(again, guessed); err != nil || got == digest {
				t.Errorf("the same values under other salts give the same digest: %v", err)
			}
			doc, err := record.DocumentOf(ds)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				if v, p := doc.Lookup(name); name != record.NameAddress && c.name != "no more than there may be" && (p != scope.Present || string(v.AppendJSON(nil)) != want) {
					t.Errorf("%s is %s, %v", name, v.AppendJSON(nil), p)
				}
			}
		})
	}
	if _, _, err := record.CommitInput(policy.Input{}, nil, salts()); err == nil {
		t.Error("no question has a digest")
	}
}

// TestCommitCall: the commitment opens to the digest that the upstream got, and
// to no other.
func TestCommitCall(t *testing.T) {
	commit, d, err := record.CommitCall(h("call"), [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := record.CheckCall(commit, d); err != nil || got != h("call") {
		t.Errorf("opens as %s, %v", got, err)
	}
	if commit == h("call") || commit == record.Hash([]byte(h("call"))) {
		t.Error("the commitment is a plain digest")
	}
	_, other, err := record.CommitCall(h("other"), [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	_, salted, err := record.CommitCall(h("call"), [32]byte{8})
	if err != nil {
		t.Fatal(err)
	}
	named, err := record.NewDisclosure(d.Salt(), "/args/x", d.Value())
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]record.Disclosure{"another call": other, "another salt": salted, "another name": named, "none": {}} {
		if got, err := record.CheckCall(commit, d); err == nil {
			t.Errorf("%s opens as %s", name, got)
		}
	}
}
