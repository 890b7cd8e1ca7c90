package scenario

import (
	"github.com/lineal-auth/lineal/record"
)

const (
	application  = "spiffe://example/app"
	orchestrator = "https://orchestrator.example"
	issuerURL    = "https://sts.example"
	// family is the log of every record.
	family = "ledger.example/std"
	run    = "w6OmQytQZpj0U70whtFbuA"
)

// shape is a record of a Bulk with marks in the places that differ.
func shape(k int) record.Record {
	r := record.Record{Header: record.Header{
		Version: record.Version, ID: markID, Log: family, Time: record.Timestamp(markTime), DataClass: record.DataInternal, Region: record.RegionEU,
		Writer: record.Writer{ID: "gw-eu-1", Role: record.RoleGateway, Run: run, KeyID: digest("key", 0), Seq: 1111111111113, Prev: markPrev},
	}}
	switch k {
	case 0, 2:
		r.Kind, r.Issuance = record.KindIssuance, issuanceShape(k)
	case 1:
		r.Kind, r.Decision = record.KindDecision, decisionShape(hops(1))
		r.Decision.Callee = &record.Callee{Kind: record.CalleeA2AAgent, ID: orchestrator, Op: "a2a:send"}
		r.Decision.Request.Needed = []string{"a2a:send"}
	case 3, 5, 7, refusedCall:
		r.Kind, r.Decision = record.KindDecision, decisionShape(hops(2))
		r.Decision.ParentCall = markCall1
		if k == refusedCall {
			refuse(r.Decision)
		}
	case 4, 6, 8, 9:
		of := map[int][2]string{4: {markOf3, markCall3}, 6: {markOf5, markCall5}, 8: {markOf7, markCall7}, 9: {markOf1, markCall1}}[k]
		r.Kind, r.Outcome = record.KindOutcome, &record.Outcome{
			Of: of[0], CallID: of[1], Status: record.StatusCompleted, Forwarded: true, Bytes: 88, Ended: record.Timestamp(markTime),
		}
	case heartbeat:
		r.Kind, r.Heartbeat = record.KindHeartbeat, &record.Heartbeat{State: record.Beat, Build: digest("build", 0), Interval: 10}
	}
	return r
}

// refuse makes of a call one that its second hop does not permit.
func refuse(d *record.Decision) {
	d.Request.Needed = []string{"/args/table=customers", "mcp:tools/call query"}
	d.Verdict.Effect, d.Verdict.Scope, d.Verdict.Reason = record.Deny, record.Denied, "scope_exceeded"
	d.Verdict.Details, d.Verdict.Allowed = []int64{0, -1}, nil
	detail := int64(0)
	d.Verdict.Exceeded = &record.Exceeded{Hop: 1, Detail: &detail, Path: "/args/table", Op: "one_of", Got: record.GotPresent}
}

const (
	wideGrant   = `[{"type":"urn:lineal:call:v1","locations":["https://rmarked.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table"]},"/args/table":{"op":"one_of","values":["customers","orders"]}}},{"type":"urn:lineal:call:v1","locations":["https://orchestrator.example"],"actions":["a2a:send"],"names":["*"]}]`
	narrowGrant = `[{"type":"urn:lineal:call:v1","from":0,"locations":["https://rmarked.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table"]},"/args/table":{"op":"one_of","values":["orders"]}}}]`
)

// details reads a grant that is ours; nothing else is given to it.
func details(raw string) record.Details {
	d, err := record.DetailsFrom([]byte(raw))
	if err != nil {
		panic(err)
	}
	return d
}

// hops are the chain of n hops; the last has a token.
func hops(n int) []record.Hop {
	all := []record.Hop{
		{ReceiptHash: markReceipt0, TokenHash: markToken0, Actor: application, Audience: orchestrator, Scope: "mcp:call", Details: details(wideGrant), IssuedAt: 1111111117, Expires: 1111111119},
		{ReceiptHash: markReceipt1, TokenHash: markToken1, Actor: markAgent, Audience: markResource, Scope: "mcp:call", Details: details(narrowGrant), IssuedAt: 1111111117, Expires: 1111111119},
	}[:n]
	for k := range all {
		if k == n-1 {
			all[k].ReceiptHash = ""
		} else {
			all[k].TokenHash = ""
		}
	}
	return all
}

func issuanceShape(k int) *record.Issuance {
	i := &record.Issuance{
		Result: record.Issued, Reason: record.ReasonAllowed, Txn: markTxn, JTI: markJTI, RequestHash: digest("request", 0), ClientAuth: "spiffe_x509",
		Person:  record.Person{Ref: markPerson, Issuer: "https://idp.example", Presence: record.PresenceInteractive},
		Expires: 1111111119, BundleDigest: digest("rules", 0),
	}
	h := hops(2)[1]
	i.ReceiptHash, i.TokenHash, i.ParentHash = markReceipt1, markToken1, markToken0
	if k == 0 {
		h = hops(1)[0]
		i.ReceiptHash, i.TokenHash, i.ParentHash = markReceipt0, markToken0, ""
	}
	i.Actor, i.Audience, i.Requested, i.Granted = h.Actor, h.Audience, h.Details, &h.Details
	return i
}

func decisionShape(chain []record.Hop) *record.Decision {
	last := chain[len(chain)-1]
	d := &record.Decision{
		Durability: record.Strict, Txn: markTxn, CallID: markCall, Issuer: issuerURL,
		Person: record.Person{
			Ref: markPerson, Issuer: "https://idp.example", Presence: record.PresenceInteractive,
			Auth: &record.Auth{AMR: []string{"hwk", "user"}, Time: 1111111117},
		},
		Caller:  record.Caller{Claimed: last.Actor, Proven: last.Actor, Proof: record.ProofMatch, Auth: record.AuthMTLS},
		Callee:  &record.Callee{Kind: record.CalleeMCPTool, ID: last.Audience, Tool: "query", Op: "mcp:tools/call"},
		Chain:   chain,
		Request: record.Request{Needed: []string{"/args/table=orders", "mcp:tools/call query"}, Bytes: 412},
		Policy:  record.Policy{BundleDigest: digest("rules", 0), Serial: 41, Engine: "cedar-go/1.9.0", Reader: "1", Rules: []string{"orders-eu"}},
		Verdict: record.Verdict{
			Effect: record.Permit, Scope: record.Permitted, Policy: record.Permitted, Reason: record.ReasonAllowed,
			Details: make([]int64, len(chain)), Allowed: []int64{0},
		},
	}
	return d
}
