package cedar

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

const (
	issuer       = "https://sts.example"
	orchestrator = "spiffe://acme/orchestrator"
	research     = "spiffe://acme/research"
	maker        = "spiffe://acme/payment-maker"
	approver     = "spiffe://acme/payment-checker"
)

// monday is a Monday, 10:30 in Berlin, 09:30 in UTC.
var monday = time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)

var testKey = ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))

func publicKey() ed25519.PublicKey { return testKey.Public().(ed25519.PublicKey) }

// sixPolicies are those of scope-and-policy.md §4.6, and two that let a payment
// and a discovery through.
const sixPolicies = `// Six policies.
@id("finance-db-read") // by default deny, the only way
permit (principal, action == Action::"mcp:tools/call#crm-db/run_sql", resource in Service::"crm-db")
when { context.chain.root in Group::"finance" && context has sql && context.sql.kind == "select" &&
       context.chain.agents.contains(Agent::"spiffe://acme/research") };

// No chain longer than this.
@id("depth-limit")
forbid (principal, action, resource) when { context.chain.depth > 3 };

@id("no-production-writes")
forbid (principal, action in Action::"write", resource) when { resource.service.environment == "production" };

@id("model-allow-list")
permit (principal in Group::"agents", action == Action::"llm:chat", resource)
when { [Model::"eu/large", Model::"eu/small"].contains(resource) && context.llm.hosted_tools.isEmpty() };

@id("business-hours")
forbid (principal, action in Action::"use", resource) when { resource.service.environment == "production" }
unless { context.env.weekday <= 5 && context.env.minute >= 480 && context.env.minute < 1080 };

@id("two-hands")
forbid (principal, action, resource) when { context.chain.agents.containsAll(
  [Agent::"spiffe://acme/payment-maker", Agent::"spiffe://acme/payment-checker"]) };

@id("small-payments")
permit (principal, action == Action::"mcp:tools/call#pay/transfer", resource)
when { context.args.amount.lessThanOrEqual(decimal("500.0")) };

@id("discovery")
permit (principal in Group::"agents", action in Action::"discover", resource);
`

const testEntities = `[
 {"uid":{"type":"Service","id":"crm-db"},"parents":[],"attrs":{"environment":"production"}},
 {"uid":{"type":"Service","id":"pay"},"parents":[],"attrs":{"environment":"staging"}},
 {"uid":{"type":"Service","id":"pay-live"},"parents":[],"attrs":{"environment":"production"}},
 {"uid":{"type":"Service","id":"llm"},"parents":[],"attrs":{"environment":"production"}},
 {"uid":{"type":"Service","id":"orch"},"parents":[],"attrs":{"environment":"production"}},
 {"uid":{"type":"Group","id":"finance"},"parents":[],"attrs":{}},
 {"uid":{"type":"Person","id":"https://sts.example#ada"},"parents":[{"type":"Group","id":"finance"}],"attrs":{}},
 {"uid":{"type":"Agent","id":"spiffe://acme/orchestrator"},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":"acme"}},
 {"uid":{"type":"Agent","id":"spiffe://acme/research"},"parents":[{"type":"Group","id":"agents"}],"attrs":{"trust_domain":"acme"}}
]`

var testTools = []Tool{
	{Service: "crm-db", Name: "run_sql", Effect: Read, SQL: true, InputSchema: []byte(
		`{"type":"object","properties":{"query":{"type":"string"}},"required":["query"],"additionalProperties":false}`)},
	{Service: "pay", Name: "transfer", InputSchema: []byte(
		`{"type":"object","properties":{"amount":{"type":"number"},"currency":{"type":"string"},
		 "note":{"type":["string","null"]}},"required":["amount","currency","note"]}`)},
	{Service: "pay-live", Name: "transfer", InputSchema: []byte(
		`{"type":"object","properties":{"amount":{"type":"number"},"currency":{"type":"string"}},"required":["amount","currency"]}`)},
}

func mustSchema(t testing.TB, tools []Tool) string {
	t.Helper()
	s, err := GenerateSchema(tools)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testInput(t testing.TB) BundleInput {
	return BundleInput{
		Name: "test", Serial: 7, Zone: "Europe/Berlin", Schema: mustSchema(t, testTools), Entities: []byte(testEntities),
		Policies: map[string]string{"six.cedar": sixPolicies}, Key: testKey,
	}
}

func mustBuild(t testing.TB, in BundleInput) []byte {
	t.Helper()
	b, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustLoad(t testing.TB, in BundleInput) *Engine {
	t.Helper()
	e, err := Load(mustBuild(t, in), publicKey(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// withPolicies is testInput with other policies.
func withPolicies(t testing.TB, text string) BundleInput {
	in := testInput(t)
	in.Policies = map[string]string{"p.cedar": text}
	return in
}

// uncheckedBundle signs what Build would refuse, so that Load must.
func uncheckedBundle(t testing.TB, in BundleInput) []byte {
	t.Helper()
	files := map[string][]byte{pathSchema: []byte(in.Schema), pathEntities: in.Entities}
	for name, text := range in.Policies {
		files[dirPolicies+name] = []byte(text)
	}
	b, err := seal(manifest{Name: in.Name, Serial: in.Serial, Engine: EngineVersion, Zone: in.Zone}, files, in.Key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// repack changes the files of a bundle without signing again.
func repack(t testing.TB, archive []byte, change func(map[string][]byte)) []byte {
	t.Helper()
	files, err := unpack(archive)
	if err != nil {
		t.Fatal(err)
	}
	files = maps.Clone(files)
	change(files)
	b, err := pack(files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// chainOf is a verified chain of these actors, entry first, who all pass on
// what they hold.
func chainOf(t testing.TB, person string, login time.Time, agents ...string) delegation.Chain {
	t.Helper()
	return chainFrom(t, `["research"]`, person, login, agents...)
}

const grantFor = `[{"type":"urn:lineal:call:v1","locations":["https://x.example"],"actions":["a2a:send"],"names":%s%s}]`

// chainFrom is chainOf with another grant at the root.
func chainFrom(t testing.TB, rootNames, person string, login time.Time, agents ...string) delegation.Chain {
	t.Helper()
	who, err := identity.ParsePerson(issuer, person)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	party := func(a string) identity.Party { return identity.Party{Issuer: issuer, Subject: a} }
	var receipts []delegation.Receipt
	var actors []delegation.Actor
	var ancestors []string
	hop := delegation.Hop{}
	for k, a := range agents {
		names, from := rootNames, ""
		if k > 0 {
			names, from = `["research"]`, `,"from":0`
		}
		grant, err := scope.Parse(fmt.Appendf(nil, grantFor, names, from), k == 0)
		if err != nil {
			t.Fatal(err)
		}
		actors = append([]delegation.Actor{{Party: party(a), Profile: delegation.ProfileAgent}}, actors...)
		hop = delegation.Hop{
			Audience: "https://x.example", Person: who, Profile: delegation.ProfileUser, ClientID: a,
			Actors: actors, Details: grant, ID: fmt.Sprintf("jti-%d", k), Depth: k, MaxDepth: 7,
			IssuedAt: login.Truncate(time.Second), Expires: login.Add(time.Hour).Truncate(time.Second),
		}
		if k+1 < len(agents) {
			hop.MayAct = party(agents[k+1])
			r := delegation.Receipt{Issuer: issuer, Txn: "txn", Hop: hop, TokenHash: hash(fmt.Sprint("tok", k)), Hash: hash(fmt.Sprint("rcpt", k))}
			if k == 0 {
				r.Login = delegation.Login{Issuer: "https://idp.example", Hash: hash("id"), AuthTime: login}
			} else {
				r.ParentHash, r.ReceiptHash = receipts[k-1].TokenHash, receipts[k-1].Hash
			}
			receipts = append(receipts, r)
			ancestors = append(ancestors, hop.ID)
		}
	}
	leaf := delegation.Leaf{Issuer: issuer, Txn: "txn", Hop: hop, Ancestors: ancestors, AuthTime: login, Hash: hash("leaf")}
	if n := len(receipts); n > 0 {
		leaf.ParentHash, leaf.ReceiptHash = receipts[n-1].TokenHash, receipts[n-1].Hash
	}
	c, err := delegation.Verify(receipts, leaf, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask is one call by the last of agents.
func ask(t testing.TB, action string, r policy.Resource, doc map[string]string, agents ...string) policy.Input {
	t.Helper()
	if len(agents) == 0 {
		agents = []string{orchestrator, research}
	}
	d := scope.NewDocument()
	for p, text := range doc {
		v, err := strictjson.Parse([]byte(text), strictjson.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		d.Set(p, v)
	}
	return policy.Input{
		Chain: chainOf(t, "ada", monday.Add(-10*time.Minute), agents...), Caller: identity.MustParseAgent(agents[len(agents)-1]),
		Resource: r, Call: scope.Call{Location: "https://x.example", Action: action, Name: r.Name, Doc: d}, Now: monday,
	}
}

func sqlCall(t testing.TB, agents ...string) policy.Input {
	return ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "crm-db", Name: "run_sql"}, map[string]string{
		"/args":        `{"query":"SELECT id FROM crm.orders"}`,
		"/sql/kind":    `"select"`,
		"/sql/tables":  `["crm.orders"]`,
		"/sql/columns": `{"crm.orders":["id"]}`,
	}, agents...)
}

func payCall(t testing.TB, args string, agents ...string) policy.Input {
	return ask(t, scope.MCPToolsCall, policy.Resource{Kind: policy.KindTool, Service: "pay", Name: "transfer"},
		map[string]string{"/args": args}, agents...)
}

func modelCall(t testing.TB, model, llm string, agents ...string) policy.Input {
	return ask(t, scope.LLMChat, policy.Resource{Kind: policy.KindModel, Service: "llm", Name: model},
		map[string]string{"/llm": llm}, agents...)
}

// answered compares what was decided, and not what was read for it.
var answered = cmpopts.IgnoreFields(policy.Decision{}, "Reads")
