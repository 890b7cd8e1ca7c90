package gateway_test

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

// detail is one authorization_details object.
type detail map[string]any

func (w *world) mcpDetail(tools ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPToolsCall}, "names": tools, "args": "open"}
}

func (w *world) promptDetail(names ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPPromptsGet}, "names": names, "args": "open"}
}

func (w *world) resourceDetail(names ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/mcp/orders"}, "actions": []string{scope.MCPResourcesRead}, "names": names}
}

func (w *world) a2aDetail() detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/a2a/peer"}, "actions": []string{scope.A2ASend}, "names": []string{"peer"}}
}

func (w *world) llmDetail(models ...string) detail {
	return detail{"type": scope.Type, "locations": []string{w.url + "/openai/v1"}, "actions": []string{scope.LLMChat}, "names": models}
}

func (d detail) where(paths map[string]any) detail {
	out := maps.Clone(d)
	out["where"] = paths
	return out
}

// mint says which chain a token ends. The zero value of a field stands for
// what fits: the chain app → orchestrator → research, bound, unexpired.
type mint struct {
	actors   []identity.Agent
	audience string
	grants   [][]detail // per hop; the last one stands for the rest
	mayAct   identity.Agent
	unbound  bool
	proofKey string // thumbprint of the key it is bound to, instead of the certificate
	issued   time.Time
	life     time.Duration
	person   string
}

func (w *world) everything() []detail {
	return []detail{w.mcpDetail("find", "copy", "erase"), w.a2aDetail(), w.llmDetail("small", "large")}
}

// token signs the chain and returns the leaf.
func (w *world) token(m mint) string {
	w.t.Helper()
	if m.actors == nil {
		m.actors = []identity.Agent{app, orch, research}
	}
	if m.audience == "" {
		m.audience = w.url + "/mcp/orders"
	}
	if m.grants == nil {
		m.grants = [][]detail{w.everything()}
	}
	if m.life == 0 {
		m.life = 5 * time.Minute
	}
	if m.issued.IsZero() {
		m.issued = time.Now()
	}
	if m.person == "" {
		m.person = "q5QmPzR0vN2cYx8LkT3wBA"
	}
	person, err := identity.ParsePerson(issuerURL, m.person)
	must(w.t, err)
	issued := m.issued.Truncate(time.Second)
	party := func(a identity.Agent) identity.Party { return identity.Party{Issuer: issuerURL, Subject: a.String()} }
	txn := newID()
	var (
		receipts  []string
		ancestors []string
		actors    []delegation.Actor
		parent    delegation.Receipt
		compact   string
	)
	for k, a := range m.actors {
		last := k == len(m.actors)-1
		actors = append([]delegation.Actor{{Party: party(a), Profile: delegation.ProfileAgent}}, actors...)
		hop := delegation.Hop{
			Audience: "https://next.test", Person: person, Profile: delegation.ProfileUser, ClientID: a.String(), Actors: actors,
			Details: w.grant(m.grants[min(k, len(m.grants)-1)], k == 0), ID: newID(), Depth: k, MaxDepth: 7,
			IssuedAt: issued, Expires: issued.Add(m.life),
			Bound: delegation.Confirmation{CertThumbprint: shared.sources[a].Current().Thumbprint},
		}
		if !last {
			hop.MayAct = party(m.actors[k+1])
		} else {
			hop.Audience = m.audience
			if !m.mayAct.IsZero() {
				hop.MayAct = party(m.mayAct)
			}
			if m.unbound || m.proofKey != "" {
				hop.Bound = delegation.Confirmation{KeyThumbprint: m.proofKey}
			}
		}
		leaf := delegation.Leaf{Issuer: issuerURL, Txn: txn, Hop: hop, Ancestors: ancestors, ParentHash: parent.TokenHash, ReceiptHash: parent.Hash}
		if k == 0 {
			leaf.AuthTime = issued.Add(-time.Minute)
		}
		signed, err := shared.issuer.SignToken(leaf, receipts)
		must(w.t, err)
		r := delegation.Receipt{Issuer: issuerURL, Txn: txn, Hop: hop, TokenHash: signed.Hash, ParentHash: parent.TokenHash, ReceiptHash: parent.Hash}
		if k == 0 {
			r.Login = delegation.Login{Issuer: "https://idp.test", Hash: record.Hash([]byte("id token")), AuthTime: leaf.AuthTime}
		}
		receipt, err := shared.issuer.SignReceipt(r, token.Request{Hash: record.Hash([]byte("request")), Auth: identity.MethodSPIFFEX509}, record.Hash([]byte("policy")))
		must(w.t, err)
		r.Hash = receipt.Hash
		receipts, ancestors, parent = append(receipts, string(receipt.Raw)), append(ancestors, hop.ID), r
		if last {
			w.chains.keep(hop.ID, receipts)
			compact = string(signed.Raw)
		}
	}
	return compact
}

func (w *world) grant(details []detail, root bool) scope.Grant {
	w.t.Helper()
	out := make([]detail, len(details))
	for i, d := range details {
		out[i] = maps.Clone(d)
		if _, says := d["from"]; !root && !says {
			out[i]["from"] = i
		}
	}
	raw, err := json.Marshal(out)
	must(w.t, err)
	g, err := scope.Parse(raw, root)
	must(w.t, err)
	return g
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
