package record_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lineal-auth/lineal/record"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	uuid0 = "01a40584-b456-7aec-82b8-58489825c952"
	uuid1 = "01a40584-b456-7f42-af53-55424a7cb119"
	uuid2 = "01a40584-8ff0-729d-af26-bce9f53b3325"
	uuid3 = "01a40584-b462-742e-8f8a-612217b94f70"
	run0  = "w6OmQytQZpj0U70whtFbuA"
	when  = record.Timestamp("2027-03-02T09:14:07.318Z")
	later = record.Timestamp("2027-04-01T00:00:00.000Z")
)

// h makes a hash of its argument.
func h(s string) string { return record.Hash([]byte(s)) }

func ptr[T any](v T) *T { return &v }

func checkpoint() string {
	return record.CheckpointBody("ledger.example/std/2027-03", 4100000, [32]byte{1, 2, 3})
}

func details(t testing.TB, raw string) record.Details {
	t.Helper()
	d, err := record.DetailsFrom([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func header(k record.Kind, role record.Role) record.Header {
	return record.Header{
		Version: 1, Kind: k, ID: uuid0, Log: "ledger.example/std",
		Writer: record.Writer{
			ID: "gw-eu-1", Role: role, Run: run0, Seq: 7, Prev: h("previous"),
			KeyID: "CXpZFbMNLV_khwJj-qa793ieD_4RqQ6xN7plBr2UzN4",
		},
		Time: when, DataClass: record.DataConfidential, Region: record.RegionUS,
		NotAsserted: []record.NotAsserted{record.NotCalleeEffect, record.NotPastGateway},
	}
}

const (
	rootDetail = `[{"type":"urn:lineal:call:v1","locations":["https://pay.example"],"actions":["mcp:tools/call"],"names":["transfer"],` +
		`"args":"closed","where":{"/args":{"op":"fields","keys":["amount"]},"/args/amount":{"op":"range","min":0.10,"max":1e3}}}]`
	hopDetail = `[{"type":"urn:lineal:call:v1","locations":["https://pay.example"],"actions":["mcp:tools/call"],"names":["transfer"],` +
		`"from":0,"args":"closed","where":{"/args":{"op":"fields","keys":["amount"]},"/args/amount":{"op":"one_of","values":[12.50,null,7]}}}]`
)

// samples holds one record of every kind with every member set, and of those
// kinds where members exclude each other as many as it takes.
func samples(t testing.TB) map[string]record.Record {
	person := record.Person{
		Ref: "ZX59lizZ22qhhrGe3Wu5KA", Issuer: "https://idp.example", Presence: record.PresenceApproved,
		Auth: &record.Auth{AMR: []string{"hwk", "user"}, Time: 1803978131, ACR: "phr"},
	}
	decision := record.Decision{
		Durability: record.Overlap, Txn: uuid2, CallID: uuid1, Trace: "4bf92f3577b34da6a3ce929d0e0e4736", Session: "s-1", ParentCall: uuid3,
		Exchange: &record.Exchange{
			ID: "AAECAwQFBgcICQoLDA0ODw", Role: record.RoleCallee, PeerOrg: "partner.example",
			BodyCommit: h("body"), StatementHash: h("statement"),
		},
		Person: person,
		Caller: record.Caller{
			Claimed: "spiffe://example/pay", Proven: "spiffe://example/pay", Proof: record.ProofMatch, Auth: record.AuthDPoP,
			Instance: "pod-7", CredHash: h("svid"), Attest: "k8s:pod",
		},
		Callee: &record.Callee{
			Kind: record.CalleeMCPTool, ID: "https://pay.example", Tool: "transfer", Op: "mcp:tools/call", ServerKey: h("server"),
		},
		Issuer: "https://sts.example",
		Chain: []record.Hop{
			{
				ReceiptHash: h("r0"), Actor: "spiffe://example/app", Audience: "https://agent.example", Scope: "mcp:call",
				Details: details(t, rootDetail), IssuedAt: 1803978838, Expires: 1803979138,
			},
			{
				TokenHash: h("t1"), Actor: "spiffe://example/pay", Audience: "https://pay.example", Scope: "mcp:call",
				Details: details(t, hopDetail), IssuedAt: 1803978842, Expires: 1803979138,
			},
		},
		Request: record.Request{Needed: []string{"/args/amount=12.5", "mcp:tools/call transfer"}, CallCommit: h("call"), Bytes: 412},
		Policy: record.Policy{
			BundleDigest: h("bundle"), Serial: 41, Engine: "cedar-go/1.9.0", Reader: "1", Rules: []string{"pay", "small"},
			InputDigest: h("input"),
			Shadow: &record.Shadow{
				Effect: record.Permit, BundleDigest: h("trial"), Serial: 42, Rules: []string{"new"}, Errors: []string{"old: type error"},
			},
		},
		Verdict: record.Verdict{
			Effect: record.Deny, Scope: record.Permitted, Policy: record.Denied, Reason: "revocation_stale", Details: []int64{0, 0},
			Allowed: []int64{0}, Unavailable: []string{"revocations"}, RevocationAgeMS: 218,
		},
		Oversight: &record.Oversight{Act: "approved", ApproverRef: "bQ59lizZ22qhhrGe3Wu5KA", ApprovalHash: h("approval"), At: when},
		Posture:   &record.Posture{State: "healthy", Digest: h("posture")},
		SD:        set(h("d1"), h("d2")),
	}
	decision.Policy.Errors = []string{"rule pay: overflow"}
	withCard, callee := decision, *decision.Callee
	callee.Kind, callee.Card = record.CalleeA2AAgent, &record.Card{Digest: h("card"), Verdict: record.CardSigned, Key: "agent-1"}
	withCard.Callee = &callee
	exceeded := decision
	exceeded.Chain = slices.Clone(decision.Chain)
	exceeded.Chain[1].Details = details(t, strings.TrimSuffix(hopDetail, "]")+","+hopDetail[1:])
	exceeded.Verdict = record.Verdict{
		Effect: record.Deny, Scope: record.Denied, Policy: record.Denied, Reason: "scope_exceeded", Details: []int64{0, -1}, Allowed: []int64{0},
		Unavailable: []string{"revocations"}, RevocationAgeMS: 218,
		Exceeded: &record.Exceeded{Hop: 1, Detail: ptr(int64(1)), Path: "/args/amount", Op: "one_of", Got: record.GotPresent},
	}
	token := record.Issuance{
		Result: record.Issued, Reason: record.ReasonAllowed, Txn: uuid2, JTI: uuid3, ReceiptHash: h("r1"), TokenHash: h("t1"), ParentHash: h("t0"),
		RequestHash: h("request"), ClientAuth: "spiffe_x509", Person: person, Actor: "spiffe://example/pay", Audience: "https://pay.example",
		Requested: details(t, hopDetail), Granted: ptr(details(t, hopDetail)), Expires: 1803979138, BundleDigest: h("bundle"),
	}
	foreign := token
	foreign.Person.Presence, foreign.ParentHash = record.PresenceStandingGrant, h("g0")
	foreign.Partner = &record.PartnerGrant{
		Issuer: "https://sts.partner.example", ID: "grant-1", Hash: h("g0"), ReceiptHash: h("g1"),
		Actors: []record.Party{{Issuer: "https://sts.partner.example", Subject: "spiffe://partner/desk"}},
	}
	partner := decision
	partner.Chain = slices.Clone(decision.Chain)
	partner.Chain[0].Via = foreign.Partner.Actors
	refusal := record.Issuance{
		Result: record.Refused, Reason: "invalid_authorization_details", RequestHash: h("request"), ClientAuth: "none",
		Person: record.Person{Presence: record.PresenceNone},
	}
	p256, err := base64.RawURLEncoding.DecodeString("BH_Nzidw9sRdQYPL7m_bS3tYBzM1e-nvE7rPbjx70VRFx_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0")
	if err != nil {
		t.Fatal(err)
	}
	pub := "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" // RFC 8037 A.2
	return map[string]record.Record{
		"decision":          {Header: header(record.KindDecision, record.RoleGateway), Decision: &decision},
		"decision-exceeded": {Header: header(record.KindDecision, record.RoleGateway), Decision: &exceeded},
		"outcome": {Header: header(record.KindOutcome, record.RoleGateway), Outcome: &record.Outcome{
			Of: uuid0, CallID: uuid1, Status: record.StatusCalleeError, Reason: "upstream_invalid", Forwarded: true, Code: ptr(int64(502)),
			ResultCommit: h("result"), Bytes: 88, Ended: when,
			Peer: &record.Peer{ExchangeReceiptHash: h("x"), RecordHash: h("y"), Log: "ledger.partner.example/std"},
		}},
		"outcome-card-refused": {Header: header(record.KindOutcome, record.RoleGateway), Outcome: &record.Outcome{
			Of: uuid0, CallID: uuid1, Status: record.StatusCalleeError, Reason: "upstream_invalid", Forwarded: true, Ended: when,
			Card: &record.Card{Digest: h("card"), Verdict: record.CardRefused},
		}},
		"decision-card-refused": {Header: header(record.KindDecision, record.RoleGateway), Decision: &withCard},
		"outcome-model": {Header: header(record.KindOutcome, record.RoleGateway), Outcome: &record.Outcome{
			Of: uuid0, CallID: uuid1, Status: record.StatusCompleted, Forwarded: true, Code: ptr(int64(200)), Bytes: 88, Ended: when,
			Model: &record.ModelReport{
				Name: "small-2026-10-01", Tools: set("find", "send"),
				Usage: &record.ModelUsage{Input: 9, Output: 12, CacheRead: 4, CacheWrite: 2, Reasoning: 1, HostedTools: 3},
			},
		}},
		"decision-partner": {Header: header(record.KindDecision, record.RoleGateway), Decision: &partner},
		"issuance-partner": {Header: header(record.KindIssuance, record.RoleTokenService), Issuance: &foreign},
		"outcome-partner": {Header: header(record.KindOutcome, record.RoleGateway), Outcome: &record.Outcome{
			Of: uuid0, CallID: uuid1, Status: record.StatusCompleted, Forwarded: true, Code: ptr(int64(200)), Bytes: 88, Ended: when,
			Redeemed: &record.Redeemed{Issuer: "https://sts.partner.example", ID: uuid3, Hash: h("g0"), TokenHash: h("t9"), Scope: "mcp:call", Expires: 1803979138},
		}},
		"issuance":         {Header: header(record.KindIssuance, record.RoleTokenService), Issuance: &token},
		"issuance-refused": {Header: header(record.KindIssuance, record.RoleTokenService), Issuance: &refusal},
		"revocation": {Header: header(record.KindRevocation, record.RoleAdmin), Revocation: &record.Revocation{
			Target: record.RevokeAgent, Value: "spiffe://example/pay", Before: when, Cause: "key stolen", By: "admin@example",
		}},
		"policy": {Header: header(record.KindPolicy, record.RoleAdmin), PolicyChange: &record.PolicyChange{
			BundleDigest: h("bundle"), PreviousDigest: h("before"), Serial: 41, Engine: "cedar-go/1.9.0", Approvals: set(h("a1"), h("a2")),
		}},
		"key": {Header: header(record.KindKey, record.RoleAdmin), KeyChange: &record.KeyChange{
			Op: record.KeyRevoke, For: "gw-eu-1", Role: record.RoleGateway,
			KeyID: "If4x36FUomFia_hUBG_SJxt77UtqvkWqWId-9H-XIbk", PublicKey: pub, Since: when,
		}},
		"key-revoked": {Header: header(record.KindKey, record.RoleAdmin), KeyChange: &record.KeyChange{
			Op: record.KeyRevoke, For: "gw-eu-1", Role: record.RoleGateway,
			KeyID: "If4x36FUomFia_hUBG_SJxt77UtqvkWqWId-9H-XIbk", PublicKey: pub, Since: when, Cause: "stolen", By: "spiffe://example/ops/dana",
		}},
		"key-issuer": {Header: header(record.KindKey, record.RoleAdmin), KeyChange: &record.KeyChange{
			Op: record.KeyAdd, For: "https://sts.example", Role: record.RoleIssuer, KeyID: record.Hash(p256), // RFC 7515 A.3
			PublicKey: base64.RawURLEncoding.EncodeToString(p256), TokenKeyID: "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", From: later,
		}},
		"heartbeat": {Header: header(record.KindHeartbeat, record.RoleGateway), Heartbeat: &record.Heartbeat{
			State: record.Beat, Build: h("build"), Interval: 10, Counts: record.Counts{Permit: 5, Deny: 2, Unavailable: 1}, Checkpoint: checkpoint(),
		}},
		"gap": {Header: header(record.KindGap, record.RoleGateway), Gap: &record.Gap{
			From: when, To: later, Cause: "overload", RefusedUnavailable: 9, DenialsDropped: map[string]int64{"policy_denied": 3, "scope_exceeded": 4},
		}},
		"erasure": {Header: header(record.KindErasure, record.RoleAdmin), Erasure: &record.Erasure{
			Target: record.ErasePerson, Ref: "ZX59lizZ22qhhrGe3Wu5KA", Basis: "GDPR 17(1)(b)", CompleteBy: later,
		}},
		"query": {Header: header(record.KindQuery, record.RoleAdmin), Query: &record.Query{
			By: "auditor@example", Role: "auditor", Question: "report disclosure\nperson=ZX59", AsOf: checkpoint(), Count: 12,
		}},
		"period": {Header: header(record.KindPeriod, record.RoleSequencer), Period: &record.Period{
			Op: record.PeriodOpen, Origin: "ledger.example/std/2027-04", Previous: checkpoint(), Cause: record.PeriodRollback,
			Retention: &record.Retention{NotBefore: when, DeleteBy: later}, StateDigest: h("state"),
		}},
		"period-prune": {Header: header(record.KindPeriod, record.RoleAdmin), Period: &record.Period{
			Op: record.PeriodPrune, Origin: "ledger.example/std/2027-03", Previous: checkpoint(), Cause: record.PeriodRetention,
			Retention: &record.Retention{NotBefore: when, DeleteBy: later}, StateDigest: h("kept"),
		}},
		"period-hold": {Header: header(record.KindPeriod, record.RoleAdmin), Period: &record.Period{
			Op: record.PeriodHold, Origin: "ledger.example/std/2027-03", Cause: record.PeriodOrder, Hold: "case-17", Basis: "litigation",
		}},
		"registry": {Header: header(record.KindRegistry, record.RoleAdmin), Registry: &record.Registry{
			Op: record.RegistryChange, Entry: record.EntryAgent, Target: "spiffe://example/pay", By: "spiffe://example/ops/dana", Role: "operator",
			Result: record.RegistryApplied, Reason: record.ReasonAllowed, Before: h("narrow"), After: h("wide"),
			Authority: record.AuthorityWidened, Revision: 7,
		}},
		"registry-refused": {Header: header(record.KindRegistry, record.RoleAdmin), Registry: &record.Registry{
			Op: record.RegistryRead, Entry: record.EntryNone, Result: record.RegistryRefused, Reason: "identity_missing",
		}},
	}
}

func set(ss ...string) []string {
	slices.Sort(ss)
	return ss
}

var equal = cmp.Options{cmpopts.EquateEmpty(), cmp.AllowUnexported(record.Details{})}

// Old records must parse for ever: a golden file is only ever added. With
// -update it is written once, and never over an existing one.
func TestGolden(t *testing.T) {
	kinds := map[record.Kind]bool{}
	for name, want := range samples(t) {
		payload, err := want.Canonical()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join("testdata", name+".json")
		if _, err := os.Stat(file); *update && err != nil {
			if err := os.WriteFile(file, payload, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(golden(t, name+".json")), string(payload)); diff != "" {
			t.Errorf("%s: bytes differ from the golden file:\n%s", name, diff)
		}
		kinds[want.Kind] = true
	}
	if len(kinds) != 12 {
		t.Errorf("samples of %d kinds, want all 12", len(kinds))
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 14 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		payload := golden(t, filepath.Base(file))
		r, err := record.Parse(payload)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		again, err := r.Canonical()
		if err != nil || !bytes.Equal(again, payload) {
			t.Errorf("%s: does not round trip: %v", file, err)
		}
		if want, ok := samples(t)[strings.TrimSuffix(filepath.Base(file), ".json")]; ok {
			if diff := cmp.Diff(want, r, equal); diff != "" {
				t.Errorf("%s: parsed otherwise (-want +got):\n%s", file, diff)
			}
		}
	}
}

// A member that no sample sets would be tested by nothing here.
func TestSamplesSetEveryMember(t *testing.T) {
	var walk func(at string, v reflect.Value)
	walk = func(at string, v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[record.Details]():
			if v.Interface().(record.Details).Len() == 0 {
				t.Errorf("%s is not set", at)
			}
		case v.Kind() == reflect.Pointer && !v.IsNil():
			walk(at, v.Elem())
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				walk(at+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case v.Kind() == reflect.Slice && v.Len() > 0 && v.Index(0).Kind() == reflect.Struct && v.Len() > 1:
			// Receipt hash and token hash exclude each other; both hops count.
		case at == "key.TokenKeyID" || at == "key.From" || at == "key-issuer.Since" || at == "key-revoked.TokenKeyID" || at == "key-revoked.From" ||
			(strings.HasSuffix(at, ".Cause") || strings.HasSuffix(at, ".By")) && strings.HasPrefix(at, "key") && !strings.HasPrefix(at, "key-revoked"): // a writer's key that is revoked, an issuer's that is added
		case at == "outcome.Model" || at == "outcome-model.Peer" || at == "outcome-model.Reason" || at == "outcome-model.ResultCommit": // one has what the other lacks
		case at == "outcome.Redeemed" || at == "outcome-model.Redeemed" || at == "issuance.Partner":
		case strings.HasPrefix(at, "outcome-partner.") && !strings.HasPrefix(at, "outcome-partner.Redeemed.") || strings.HasSuffix(at, ".Exceeded") || strings.HasSuffix(at, ".Via") || strings.HasSuffix(at, ".Card"):
		case strings.HasPrefix(at, "period") && (strings.HasSuffix(at, ".Hold") || strings.HasSuffix(at, ".Basis")) && at[:11] != "period-hold": // of holds
		case strings.HasPrefix(at, "period-hold."): // it has neither state nor retention
		case at == "decision.Verdict.Exceeded": // scope permits there; decision-exceeded has it
		case v.IsZero() || (v.Kind() == reflect.Slice && v.Len() == 0):
			t.Errorf("%s is not set", at)
		}
	}
	for name, r := range samples(t) {
		if strings.HasSuffix(name, "-refused") { // they hold little on purpose
			continue
		}
		walk(name, reflect.ValueOf(r.Header))
		rv := reflect.ValueOf(r)
		for i := 1; i < rv.NumField(); i++ {
			if !rv.Field(i).IsNil() {
				walk(name, rv.Field(i))
			}
		}
	}
}
