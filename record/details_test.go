package record_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

func grant(t testing.TB, raw string, root bool) scope.Grant {
	t.Helper()
	g, err := scope.Parse([]byte(raw), root)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A grant comes back from its recorded form with the same authority, number
// literals and null included: each subsumes the other, and each value is equal.
func TestDetailsComeBack(t *testing.T) {
	for _, c := range []struct {
		raw  string
		root bool
	}{{rootDetail, true}, {hopDetail, false}} {
		g := grant(t, c.raw, c.root)
		d, err := record.DetailsOf(g)
		if err != nil {
			t.Fatal(err)
		}
		if d.Len() != g.Len() {
			t.Errorf("%d details, want %d", d.Len(), g.Len())
		}
		var again record.Details
		if err := json.Unmarshal([]byte(d.String()), &again); err != nil || again != d {
			t.Errorf("recorded form does not parse to itself: %v", err)
		}
		back, err := (record.Hop{Details: again}).Grant(c.root)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := g.MarshalJSON()
		b, errB := back.MarshalJSON()
		va, errVA := strictjson.Parse(a, strictjson.Limits{})
		vb, errVB := strictjson.Parse(b, strictjson.Limits{})
		if err := errors.Join(errA, errB, errVA, errVB); err != nil {
			t.Fatal(err)
		}
		if !va.Equal(vb) || back.Scope() != g.Scope() {
			t.Errorf("granted %s, came back %s", a, b)
		}
		if _, err := d.Grant(!c.root); err == nil {
			t.Error("read as a hop of the other kind")
		}
	}
	if _, err := record.DetailsOf(scope.Grant{}); err == nil {
		t.Error("the zero grant has a recorded form")
	}
	if _, err := (record.Details{}).Grant(true); err == nil {
		t.Error("no details are a grant")
	}
}

func TestDetailsMarkers(t *testing.T) {
	for raw, want := range map[string]string{
		`[]`:                             `[]`,
		`[{"b":1,"a":2}]`:                `[{"a":2,"b":1}]`,
		`[{"n":9007199254740991}]`:       `[{"n":9007199254740991}]`,
		`[{"n":-9007199254740991}]`:      `[{"n":-9007199254740991}]`,
		`[{"n":9007199254740992}]`:       `[{"n":{"$num":"9007199254740992"}}]`,
		`[{"n":9007199254740993}]`:       `[{"n":{"$num":"9007199254740993"}}]`,
		`[{"n":1.0}]`:                    `[{"n":{"$num":"1.0"}}]`,
		`[{"n":1e0}]`:                    `[{"n":{"$num":"1e0"}}]`,
		`[{"n":-0}]`:                     `[{"n":{"$num":"-0"}}]`,
		`[{"n":0}]`:                      `[{"n":0}]`,
		`[{"n":[null,true,"\u0041\n"]}]`: `[{"n":[{"$null":true},true,"A\n"]}]`,
	} {
		d, err := record.DetailsFrom([]byte(raw))
		if err != nil || d.String() != want {
			t.Errorf("%s is recorded as %s, %v; want %s", raw, d, err, want)
		}
		var again record.Details
		if err := json.Unmarshal([]byte(d.String()), &again); err != nil || again != d {
			t.Errorf("%s does not parse: %v", d, err)
		}
	}
	// What has a marker's name already would come back as something else.
	for _, raw := range []string{
		``, `{}`, `null`, `[1]`, `[[]]`, `[{"$num":"1.5"}]`, `[{"a":{"$null":true}}]`, `[{"a":{"$sd":"x","b":1}}]`, `[{"a":1,"a":2}]`,
	} {
		if d, err := record.DetailsFrom([]byte(raw)); err == nil {
			t.Errorf("%s is recorded as %s", raw, d)
		}
	}
	digest := h("x")
	for raw, ok := range map[string]bool{
		`[{"n":{"$num":"1.5"}}]`:                             true,
		`[{"n":{"$num":"1"}}]`:                               false, // a second spelling of 1
		`[{"n":{"$num":" 1.5"}}]`:                            false,
		`[{"n":{"$num":"01"}}]`:                              false,
		`[{"n":{"$num":"NaN"}}]`:                             false,
		`[{"n":{"$num":"\"x\""}}]`:                           false,
		`[{"n":{"$num":""}}]`:                                false,
		`[{"n":{"$num":1}}]`:                                 false,
		`[{"n":{"$num":"1.5","x":1}}]`:                       false,
		`[{"n":{"$null":true}}]`:                             true,
		`[{"n":{"$null":false}}]`:                            false,
		`[{"n":{"$sd":"` + digest + `"}}]`:                   true,
		`[{"n":{"$sd":"` + digest[1:] + `"}}]`:               false,
		`[{"n":[{"$sd":"` + digest + `"},1.5]}]`:             false, // more is wrong than a withheld value
		`[{"n":[{"$sd":"` + digest + `"},{"$null":"yes"}]}]`: false,
		`[{"n":1.5}]`:                                        false,
		`[{"n":9007199254740992}]`:                           false,
		`[{"n":null}]`:                                       false,
	} {
		var d record.Details
		if err := json.Unmarshal([]byte(raw), &d); (err == nil) != ok {
			t.Errorf("%s: %v, want accepted %t", raw, err, ok)
		}
	}
	var withheld record.Details
	if err := json.Unmarshal([]byte(`[{"type":{"$sd":"`+digest+`"}}]`), &withheld); err != nil {
		t.Fatal(err)
	}
	if _, err := withheld.Grant(true); !errors.Is(err, record.ErrWithheld) {
		t.Errorf("got %v, want ErrWithheld", err)
	}
}

// twoHops is a verified chain: a person, an application, an agent.
func twoHops(t testing.TB) delegation.Chain {
	t.Helper()
	const iss = "https://sts.example"
	person, err := identity.ParsePerson(iss, "ZX59lizZ22qhhrGe3Wu5KA")
	if err != nil {
		t.Fatal(err)
	}
	party := func(s string) identity.Party { return identity.Party{Issuer: iss, Subject: s} }
	app := delegation.Actor{Party: party("spiffe://example/app"), Profile: delegation.ProfileService}
	agent := delegation.Actor{Party: party("spiffe://example/pay"), Profile: delegation.ProfileAgent}
	at := func(s int64) time.Time { return time.Unix(1803978838+s, 0) }
	parent := grant(t, rootDetail, true)
	child := grant(t, `[{"type":"urn:lineal:call:v1","locations":["https://pay.example"],"actions":["mcp:tools/call"],"names":["transfer"],`+
		`"from":0,"args":"closed","where":{"/args":{"op":"fields","keys":["amount"]},"/args/amount":{"op":"range","min":0.10,"max":5e2}}}]`, false)
	root := delegation.Hop{
		Audience: "https://agent.example", Person: person, Profile: delegation.ProfileUser, ClientID: app.Subject,
		Actors: []delegation.Actor{app}, MayAct: agent.Party, Details: parent, ID: uuid0, MaxDepth: 4, IssuedAt: at(0), Expires: at(300),
	}
	leaf := root
	leaf.Audience, leaf.ClientID, leaf.Actors, leaf.MayAct = "https://pay.example", agent.Subject, []delegation.Actor{agent, app}, identity.Party{}
	leaf.Details, leaf.ID, leaf.Depth, leaf.IssuedAt = child, uuid1, 1, at(4)
	chain, err := delegation.Verify(
		[]delegation.Receipt{{
			Issuer: iss, Txn: uuid2, Hop: root, TokenHash: h("t0"), Hash: h("r0"),
			Login: delegation.Login{Issuer: "https://idp.example", Hash: h("id"), AuthTime: at(-60), ACR: "phr", AMR: []string{"hwk", "user"}},
		}},
		delegation.Leaf{Issuer: iss, Txn: uuid2, Hop: leaf, ParentHash: h("t0"), ReceiptHash: h("r0"), Ancestors: []string{uuid0}, Hash: h("t1")},
		func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestChainOfAndBack(t *testing.T) {
	chain := twoHops(t)
	hops, err := record.ChainOf(chain)
	if err != nil {
		t.Fatal(err)
	}
	want := []record.Hop{
		{
			ReceiptHash: h("r0"), Actor: "spiffe://example/app", Audience: "https://agent.example", Scope: "mcp:call",
			IssuedAt: 1803978838, Expires: 1803979138,
		},
		{
			TokenHash: h("t1"), Actor: "spiffe://example/pay", Audience: "https://pay.example", Scope: "mcp:call",
			IssuedAt: 1803978842, Expires: 1803979138,
		},
	}
	for k := range want {
		want[k].Details = hops[k].Details
	}
	if diff := cmp.Diff(want, hops, equal); diff != "" {
		t.Error(diff)
	}
	parent, err := hops[0].Grant(true)
	if err != nil {
		t.Fatal(err)
	}
	child, err := hops[1].Grant(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := scope.Subsumes(parent, child); err != nil {
		t.Errorf("recorded hops do not narrow: %v", err)
	}
	if gave := delegation.GaveUp(parent, child); !slices.Equal(gave.Narrowed, []int{0}) || len(gave.Dropped) != 0 {
		t.Errorf("gave up %+v, want detail 0 narrowed", gave)
	}
	person := record.Person{
		Ref: "ZX59lizZ22qhhrGe3Wu5KA", Issuer: "https://idp.example", Presence: record.PresenceInteractive,
		Auth: &record.Auth{AMR: []string{"hwk", "user"}, Time: 1803978778, ACR: "phr"},
	}
	if diff := cmp.Diff(person, record.PersonOf(chain)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(record.Person{Presence: record.PresenceNone}, record.PersonOf(delegation.Chain{})); diff != "" {
		t.Error(diff)
	}
	if hops, err := record.ChainOf(delegation.Chain{}); err != nil || len(hops) != 0 {
		t.Errorf("the zero chain has hops %v, %v", hops, err)
	}
	// What the builders make is a record.
	r := samples(t)["decision"]
	d := *r.Decision
	d.Chain, d.Person, d.Issuer, d.Txn = hops, record.PersonOf(chain), chain.Issuer(), chain.Txn()
	r.Decision = &d
	if _, err := record.NewDraft(r); err != nil {
		t.Error(err)
	}
}

func TestPolicyOf(t *testing.T) {
	d := policy.Decision{
		Effect: policy.Deny, Rules: []string{"b", "a", "b"}, Errors: []string{"z", "y"},
		Version: policy.Version{Digest: h("bundle"), Serial: 41, Engine: "cedar-go/1.9.0", Reader: policy.ReaderVersion},
		Shadow:  &policy.Decision{Effect: policy.Permit, Rules: []string{"d", "c"}, Version: policy.Version{Digest: h("trial"), Serial: 42}},
	}
	want := record.Policy{
		BundleDigest: h("bundle"), Serial: 41, Engine: "cedar-go/1.9.0", Reader: "1", Rules: []string{"a", "b"}, Errors: []string{"y", "z"},
		Shadow: &record.Shadow{Effect: record.Permit, BundleDigest: h("trial"), Serial: 42, Rules: []string{"c", "d"}},
	}
	if diff := cmp.Diff(want, record.PolicyOf(d), equal); diff != "" {
		t.Error(diff)
	}
	if d.Rules[0] != "b" {
		t.Error("PolicyOf changed its argument")
	}
	if record.EffectOf(policy.Deny) != record.Deny || record.EffectOf(policy.Permit) != record.Permit {
		t.Error("effects are swapped")
	}
}

// Any JSON numbers at all come back by their literal.
func TestDetailsKeepNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lit := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		raw := `[{"n":` + lit + `}]`
		d, err := record.DetailsFrom([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := record.Undo(t, d); got != raw {
			t.Fatalf("%s came back as %s", raw, got)
		}
	})
}

func FuzzDetails(f *testing.F) {
	f.Add([]byte(rootDetail))
	f.Add([]byte(`[{"n":{"$num":"1.5"}},{"a":[null,{"$sd":"` + h("x") + `"}]}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, err := record.DetailsFrom(raw); err == nil {
			var again record.Details
			if err := again.UnmarshalJSON([]byte(d.String())); err != nil || again != d {
				t.Fatalf("%s does not parse to itself: %v", d, err)
			}
		}
		var d, again record.Details
		if d.UnmarshalJSON(raw) == nil {
			if err := again.UnmarshalJSON([]byte(d.String())); err != nil || again != d {
				t.Fatalf("%s does not parse to itself: %v", d, err)
			}
		}
	})
}
