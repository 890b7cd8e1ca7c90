package record_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/record"
)

// Each row breaks one rule by replacing text in a golden payload; its twin makes
// another change in the same place, which passes. So a row cannot fail for the
// wrong reason unseen.
func TestParseRefuses(t *testing.T) {
	const same = "=" // the twin is the golden file itself
	rows := []struct {
		name, file, old, bad, good string
	}{
		{"P1 miscased member", "decision.json", `"call_id":`, `"Call_id":`, same},
		{"P1 folded member", "decision.json", `"kind":`, `"Kind":`, same}, // U+212A
		{"P1 folded body member", "gap.json", `"cause":"overload"`, `"cauſe":"overload"`, `"cause":"overflow"`},
		{"P2 duplicate", "gap.json", `"cause":"overload"`, `"cause":"overload","cause":"overload"`, `"cause":"overflow"`},
		{"P2 duplicate, escaped", "gap.json", `"cause":"overload"`, `"cause":"overload","caus\u0065":"overload"`, same},
		{"P3 bad UTF-8", "query.json", `"by":"auditor@example"`, "\"by\":\"\xff\"", `"by":"ÿ"`},
		{"P3 NUL", "query.json", `"by":"auditor@example"`, `"by":"\u0000"`, `"by":"\u0001"`},
		{"P3 lone surrogate", "query.json", `"by":"auditor@example"`, `"by":"\ud800"`, `"by":"𐀀"`},
		{"P5 trailing data", "period.json", `"v":1}`, `"v":1}{}`, same},
		{"P5 white space", "period.json", `"v":1}`, `"v":1} `, same},
		{"white space inside", "period.json", `"v":1}`, `"v": 1}`, same},
		{"unknown member", "period.json", `"v":1}`, `"v":1,"w":1}`, same},
		{"unknown member of gw", "period.json", `"seq":7}`, `"seq":7,"x":1}`, `"seq":8}`},
		{"member of another kind", "period.json", `"op":"open"`, `"of":"x","op":"open"`, `"op":"seal"`},
		{"order", "period.json", `"seq":7},"kind":"period"`, `"seq":7},"v":1`, same},
		{"another escape", "query.json", `"by":"auditor@example"`, `"by":"\u0061uditor@example"`, `"by":"\u001b"`},
		{"upper case escape", "query.json", `"by":"auditor@example"`, `"by":"\u001B"`, `"by":"\u001b"`},
		{"escaped slash", "query.json", `"by":"auditor@example"`, `"by":"a\/b"`, `"by":"a/b"`},
		{"null", "query.json", `"count":12`, `"count":null`, `"count":13`},
		{"null optional", "outcome.json", `"code":502`, `"code":null`, `"code":0`},
		{"float", "query.json", `"count":12`, `"count":12.5`, `"count":0`},
		{"integer as float", "query.json", `"count":12`, `"count":12.0`, same},
		{"integer with exponent", "query.json", `"count":12`, `"count":12e0`, same},
		{"minus zero", "query.json", `"count":12`, `"count":-0`, `"count":0`},
		{"negative", "query.json", `"count":12`, `"count":-1`, same},
		{"P6 2^53", "query.json", `"count":12`, `"count":9007199254740992`, `"count":9007199254740991`},
		{"2^63", "query.json", `"count":12`, `"count":9223372036854775808`, same},
		{"integer as text", "query.json", `"count":12`, `"count":"12"`, same},
		{"text as integer", "query.json", `"by":"auditor@example"`, `"by":1`, same},
		{"boolean as text", "outcome.json", `"forwarded":true`, `"forwarded":"true"`, same},
		{"object as array", "gap.json", `"denials_dropped":{"policy_denied":3,"scope_exceeded":4}`, `"denials_dropped":[]`, `"denials_dropped":{}`},
		{"missing member", "query.json", `"count":12,`, ``, same},
		{"missing member of the header", "query.json", `"region":"us",`, ``, same},
		{"empty optional member", "outcome.json", `"reason":"upstream_invalid",`, `"reason":"",`, ``},
		{"empty optional array", "decision.json", `"unavailable":["revocations"]`, `"unavailable":[]`, `"unavailable":["feed"]`},
		{"absent array that is not optional", "decision.json", `"allowed":[0],`, ``, `"allowed":[],`},
		{"version", "query.json", `"v":1}`, `"v":2}`, same},
		{"kind unknown", "query.json", `"kind":"query"`, `"kind":"look"`, same},
		{"kind of another body", "query.json", `"kind":"query"`, `"kind":"gap"`, same},
		{"kind no text", "query.json", `"kind":"query"`, `"kind":["query"]`, same},
		{"kind missing", "query.json", `"kind":"query",`, ``, same},

		{"enum: role", "query.json", `"role":"admin"`, `"role":"root"`, `"role":"gateway"`},
		{"enum: data class", "query.json", `"data_class":"confidential"`, `"data_class":"Confidential"`, `"data_class":"public"`},
		{"enum: region", "query.json", `"region":"us"`, `"region":"mars"`, `"region":"eu"`},
		{"enum: not asserted", "query.json", `"callee_effect","past_gateway"`, `"callee_effect","truth"`, `"callee_effect","callee_identity"`},
		{"not asserted unsorted", "query.json", `"callee_effect","past_gateway"`, `"past_gateway","callee_effect"`, `"past_gateway"`},
		{"not asserted twice", "query.json", `"callee_effect","past_gateway"`, `"callee_effect","callee_effect"`, `"callee_effect"`},
		{"enum: durability", "decision.json", `"durability":"overlap"`, `"durability":"none"`, `"durability":"strict"`},
		{"enum: presence", "decision.json", `"presence":"approved"`, `"presence":"maybe"`, `"presence":"none"`},
		{"enum: proof", "decision.json", `"proof":"match"`, `"proof":"likely"`, `"proof":"invalid"`},
		{"enum: caller auth", "decision.json", `"auth":"dpop"`, `"auth":"bearer"`, `"auth":"mtls"`},
		{"enum: callee kind", "decision.json", `"kind":"mcp_tool"`, `"kind":"mcp"`, `"kind":"model"`},
		{"enum: exchange role", "decision.json", `"role":"callee"`, `"role":"gateway"`, `"role":"caller"`},
		{"enum: effect", "decision.json", `"details":[0,0],"effect":"deny"`, `"details":[0,0],"effect":"allow"`, same},
		{"enum: answer", "decision.json", `"policy":"deny"`, `"policy":"maybe"`, `"policy":"not_evaluated"`},
		{"enum: shadow effect", "decision.json", `"effect":"permit","errors"`, `"effect":"yes","errors"`, `"effect":"deny","errors"`},
		{"enum: status", "outcome.json", `"status":"callee_error"`, `"status":"done"`, `"status":"unknown"`},
		{"enum: result", "issuance.json", `"result":"issued"`, `"result":"given"`, same},
		{"enum: client auth", "issuance.json", `"client_auth":"spiffe_x509"`, `"client_auth":"password"`, `"client_auth":"none"`},
		{"enum: revocation target", "revocation.json", `"target":"agent"`, `"target":"all"`, `"target":"person"`},
		{"enum: key op", "key.json", `"op":"revoke"`, `"op":"lose"`, same},
		{"enum: key role", "key.json", `"role":"gateway","since"`, `"role":"witness","since"`, `"role":"sequencer","since"`},
		{"enum: heartbeat state", "heartbeat.json", `"state":"beat"`, `"state":"pause"`, `"state":"stop"`},
		{"enum: erasure target", "erasure.json", `"target":"person"`, `"target":"log"`, same},
		{"enum: period op", "period.json", `"op":"open"`, `"op":"close"`, `"op":"seal"`},
		{"enum: period cause", "period.json", `"cause":"rollback"`, `"cause":"whim"`, `"cause":"roll"`},

		{"record id is UUIDv4", "query.json", uuid0, "01a40584-b456-4aec-82b8-58489825c952", uuid3},
		{"record id in upper case", "query.json", uuid0, strings.ToUpper(uuid0), uuid3},
		{"record id short", "query.json", uuid0, uuid0[:35], uuid3},
		{"log empty", "query.json", `"log":"ledger.example/std"`, `"log":""`, `"log":"x"`},
		{"run short", "query.json", run0, run0[:21], "AAECAwQFBgcICQoLDA0ODw"},
		{"run with spare bits", "query.json", run0, "AAECAwQFBgcICQoLDA0ODx", "AAECAwQFBgcICQoLDA0ODw"},
		{"hash with spare bits", "query.json", `UzN4"`, `UzN5"`, `UzN8"`},
		{"hash with padding", "query.json", `UzN4"`, `UzN4="`, same},
		{"L6 prev missing after the first", "query.json", `"prev":"` + h("previous") + `"`, `"prev":""`, `"prev":"` + h("x") + `"`},
		{"L6 seq negative", "query.json", `"seq":7`, `"seq":-7`, `"seq":0`},
		{"time without milliseconds", "query.json", `14:07.318Z`, `14:07Z`, `14:07.000Z`},
		{"time with offset", "query.json", `14:07.318Z`, `14:07.318+00:00`, same},
		{"time in microseconds", "query.json", `14:07.318Z`, `14:07.318001Z`, same},
		{"time of no day", "query.json", `2027-03-02T`, `2027-02-30T`, `2028-02-29T`},
		{"time in lower case", "query.json", `2027-03-02T`, `2027-03-02t`, same},

		{"trace id", "decision.json", `4bf92f3577b34da6a3ce929d0e0e4736`, strings.Repeat("0", 32), strings.Repeat("1", 32)},
		{"person's name", "decision.json", `"ref":"ZX59lizZ22qhhrGe3Wu5KA"`, `"ref":"alice@example"`, `"ref":"alice"`},
		{"match of two names", "decision.json", `"proven":"spiffe://example/pay"`, `"proven":"spiffe://example/pai"`, same},
		{"match without authentication", "decision.json", `"auth":"dpop"`, `"auth":"none"`, `"auth":"http_sig"`},
		{"chain without issuer", "decision.json", `"issuer":"https://sts.example",`, ``, `"issuer":"https://b.example",`},
		{"chain without txn", "decision.json", `,"txn":"` + uuid2 + `"`, ``, `,"txn":"` + uuid3 + `"`},
		{"last hop by receipt", "decision.json", `"token_hash"`, `"receipt_hash"`, same},
		{"expires before issue", "decision.json", `"exp":1803979138,"iat":1803978838`, `"exp":1803978838,"iat":1803978838`, `"exp":1803978839,"iat":1803978838`},
		{"no details", "decision-permit.json", `{"actions":["llm:chat"],"locations":["https://llm.example"],"names":["small"],"type":"urn:lineal:call:v1"}`, `7`, `{}`},
		{"details index", "decision.json", `"details":[0,0]`, `"details":[0,1]`, same},
		{"details of fewer hops", "decision.json", `"details":[0,0]`, `"details":[0]`, same},
		{"allowed index", "decision.json", `"allowed":[0]`, `"allowed":[1]`, `"allowed":[]`},
		{"needed unsorted", "decision.json", `"needed":["/args/amount=12.5","mcp:tools/call transfer"]`, `"needed":["mcp:tools/call transfer","/args/amount=12.5"]`, `"needed":[]`},
		{"sd unsorted", "decision.json", `"sd":["54gQPu`, `"sd":["z4gQPu`, `"sd":["55gQPu`},
		{"reason no code", "decision.json", `"reason":"revocation_stale"`, `"reason":"Revocation stale."`, `"reason":"x_y"`},
		{"reason allowed of a denial", "decision.json", `"reason":"revocation_stale"`, `"reason":"allowed"`, same},
		{"A4 permit against policy", "decision-permit.json", `"policy":"permit"`, `"policy":"not_evaluated"`, same},
		{"A4 permit against scope", "decision-permit.json", `"scope":"permit"}`, `"scope":"deny"}`, same},
		{"A4 permit with a hop that permits nothing", "decision-permit.json", `"details":[0,0,0]`, `"details":[0,-1,0]`, `"details":[1,0,0]`},
		{"A2 permit in spite of errors", "decision-permit.json", `"engine":"cedar-go/1.9.0"`, `"engine":"cedar-go/1.9.0","errors":["x"]`, `"engine":"cedar-go/2"`},
		{"permit with a denial's reason", "decision-permit.json", `"reason":"allowed"`, `"reason":"scope_exceeded"`, same},
		{"denial with allowed", "decision-deny.json", `"reason":"scope_exceeded"`, `"reason":"allowed"`, `"reason":"policy_denied"`},
		{"exceeded where scope permits", "decision-exceeded.json", `"details":[0,-1]`, `"details":[0,0]`, same},
		{"exceeded at a later hop than the first that refuses", "decision-exceeded.json", `"details":[0,-1]`, `"details":[-1,-1]`, same},
		{"exceeded at a hop that permits", "decision-exceeded.json", `"hop":1`, `"hop":0`, same},
		{"exceeded detail", "decision-exceeded.json", `"exceeded":{"detail":1`, `"exceeded":{"detail":2`, `"exceeded":{"detail":0`},
		{"exceeded operator", "decision-exceeded.json", `"hop":1,"op":"one_of"`, `"hop":1,"op":"regex"`, `"hop":1,"op":"range"`},
		{"exceeded path of another operator", "decision-exceeded.json", `"path":"/args/amount"`, `"path":"name"`, `"path":"/args"`},
		{"exceeded path", "decision-exceeded.json", `"path":"/args/amount"`, `"path":"amount"`, `"path":"/args/a"`},
		{"exceeded by a value", "decision-exceeded.json", `"got":"present"`, `"got":"501"`, `"got":"absent"`},
		{"completed, not forwarded", "outcome.json", `"forwarded":true`, `"forwarded":false`, same},
		{"not forwarded, forwarded", "outcome.json", `"status":"callee_error"`, `"status":"not_forwarded"`, `"status":"timeout"`},
		{"issued without receipt", "issuance.json", `"receipt_hash":"` + h("r1") + `",`, ``, same},
		{"issued for a refusal's reason", "issuance.json", `"reason":"allowed"`, `"reason":"invalid_scope"`, same},
		{"refused with a token", "issuance-refused.json", `"kind":"issuance"`, `"jti":"` + uuid3 + `","kind":"issuance"`, same},
		{"refused, allowed", "issuance-refused.json", `"reason":"invalid_authorization_details"`, `"reason":"allowed"`, `"reason":"invalid_target"`},
		{"agent revoked without bound", "revocation.json", `"before":"2027-03-02T09:14:07.318Z",`, ``, `"before":"2027-03-03T00:00:00.000Z",`},
		{"key of another id", "key.json", `"public_key":"11qY`, `"public_key":"12qY`, same},
		{"since of an added key", "key.json", `"op":"revoke"`, `"op":"add"`, same},
		{"interval zero", "heartbeat.json", `"interval_s":10`, `"interval_s":0`, `"interval_s":1`},
		{"checkpoint of two lines", "heartbeat.json", `4100000\n`, `4100000`, `4100001\n`},
		{"checkpoint size with zero", "heartbeat.json", `\n4100000\n`, `\n04100000\n`, `\n0\n`},
		{"checkpoint root", "heartbeat.json", `AQIDAAAA`, `AQID AAA`, `AQIDAAAB`},
		{"gap backwards", "gap.json", `"to":"2027-04-01T00:00:00.000Z"`, `"to":"2027-03-01T00:00:00.000Z"`, `"to":"2027-03-03T00:00:00.000Z"`},
		{"gap reason no code", "gap.json", `"policy_denied":3`, `"Policy":3`, `"policy":3`},
		{"erased person by name", "erasure.json", `"ref":"ZX59lizZ22qhhrGe3Wu5KA"`, `"ref":"alice@example"`, `"ref":"Q"`},
		{"erased record by reference", "erasure.json", `"target":"person"`, `"target":"record"`, same},
		{"enum: registry op", "registry.json", `"op":"change"`, `"op":"patch"`, same},
		{"enum: registry entry", "registry.json", `"entry":"agent"`, `"entry":"route"`, same},
		{"enum: registry result", "registry.json", `"result":"applied"`, `"result":"done"`, same},
		{"enum: registry authority", "registry.json", `"authority":"widened"`, `"authority":"more"`, `"authority":"narrowed"`},
		{"applied by nobody", "registry.json", `"by":"spiffe://example/ops/dana",`, ``, `"by":"spiffe://example/ops/lee",`},
		{"applied without role", "registry.json", `,"role":"operator"`, ``, `,"role":"any"`},
		{"applied for a refusal's reason", "registry.json", `"reason":"allowed"`, `"reason":"role_insufficient"`, same},
		{"agent changed, authority not compared", "registry.json", `"authority":"widened",`, ``, `"authority":"same",`},
		{"changed from nothing", "registry.json", `"before":"` + h("narrow") + `",`, ``, `"before":"` + h("x") + `",`},
		{"changed to nothing", "registry.json", `"after":"` + h("wide") + `",`, ``, `"after":"` + h("x") + `",`},
		{"changed without revision", "registry.json", `,"revision":7`, ``, `,"revision":1`},
		{"refused, allowed", "registry-refused.json", `"reason":"identity_missing"`, `"reason":"allowed"`, `"reason":"role_insufficient"`},
		{"a role of nobody", "registry-refused.json", `,"v":1}`, `,"role":"operator","v":1}`, same},
		{"a hold without a name", "period-hold.json", `"hold":"case-17",`, ``, `"hold":"case-18",`},
		{"a hold without a basis", "period-hold.json", `"basis":"litigation",`, ``, `"basis":"audit",`},
		{"a hold with a state", "period-hold.json", `"v":1}`, `"state_digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","v":1}`, `"v":1}`},
		{"a pruning with a name", "period-prune.json", `"kind":"period"`, `"hold":"case-17","kind":"period"`, `"kind":"period"`},
		{"a pruning for another cause", "period-prune.json", `"cause":"retention"`, `"cause":"roll"`, `"cause":"retention"`},
		{"a pruning without a state", "period-prune.json", `"state_digest":`, `"state_digest":"","x":`, `"state_digest":`},
		{"retention backwards", "period.json", `"not_before":"2027-03`, `"not_before":"2027-05`, `"not_before":"2027-02`},
	}
	for _, row := range rows {
		payload := golden(t, row.file)
		if n := bytes.Count(payload, []byte(row.old)); n == 0 {
			t.Errorf("%s: %q is not in %s", row.name, row.old, row.file)
			continue
		}
		replace := func(by string) []byte { return bytes.Replace(payload, []byte(row.old), []byte(by), 1) }
		if _, err := record.Parse(replace(row.bad)); err == nil {
			t.Errorf("%s: accepted", row.name)
		}
		if row.good == same {
			row.good = row.old
		}
		if _, err := record.Parse(replace(row.good)); err != nil {
			t.Errorf("%s: twin refused: %v", row.name, err)
		}
	}
	for _, junk := range []string{"", " ", "null", "[]", "{}", `"x"`, "\ufeff{}", strings.Repeat("[", 100)} {
		if _, err := record.Parse([]byte(junk)); err == nil {
			t.Errorf("%q accepted", junk)
		}
	}
}

func TestTimestamp(t *testing.T) {
	zone := time.FixedZone("", 3600)
	ts := record.At(time.Date(2027, 3, 2, 10, 14, 7, 318_999_999, zone))
	if ts != when {
		t.Errorf("got %s, want %s", ts, when)
	}
	if got, err := ts.Time(); err != nil || !got.Equal(time.Date(2027, 3, 2, 9, 14, 7, 318e6, time.UTC)) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := record.Timestamp("").Time(); err == nil {
		t.Error("the zero value is a time")
	}
}

// Whatever Canonical writes, Parse reads back as the same record; whatever it
// refuses to write, Parse would not read.
func TestRoundTrip(t *testing.T) {
	all := samples(t)
	var names []string
	for name := range all {
		names = append(names, name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		r := all[rapid.SampledFrom(names).Draw(rt, "kind")]
		text := rapid.StringN(1, 40, -1).Filter(func(s string) bool { return !strings.Contains(s, "\x00") }).Draw(rt, "text")
		n := rapid.Int64Range(0, 1<<53-1).Draw(rt, "n")
		r.Log, r.Writer.ID, r.Writer.Seq = text, text, n
		if r.Decision != nil {
			d := *r.Decision
			d.Session, d.Request.Bytes, d.Request.Needed = text, n, []string{text}
			if rapid.Bool().Draw(rt, "sparse") {
				d.Exchange, d.Oversight, d.Posture, d.Callee, d.Person.Auth, d.Policy.Shadow = nil, nil, nil, nil, nil, nil
			}
			r.Decision = &d
		}
		if r.Query != nil {
			q := *r.Query
			q.Question, q.Count = text, n
			r.Query = &q
		}
		payload, err := r.Canonical()
		if err != nil {
			rt.Fatal(err)
		}
		got, err := record.Parse(payload)
		if err != nil {
			rt.Fatalf("%v\n%s", err, payload)
		}
		if diff := cmp.Diff(r, got, equal); diff != "" {
			rt.Fatal(diff)
		}
		d, err := record.NewDraft(r)
		if err != nil {
			rt.Fatal(err)
		}
		linked, hash, err := d.Link(r.Writer.Seq, r.Writer.Prev)
		if err != nil || !bytes.Equal(linked, payload) || hash != record.Hash(payload) || len(linked) > d.Size() {
			rt.Fatalf("linked draft differs: %v\n%s\n%s", err, linked, payload)
		}
	})
}

func TestDraft(t *testing.T) {
	r := samples(t)["decision"]
	dec := *r.Decision
	dec.SD = []string{h("d2"), h("d1"), h("d2")}
	dec.Policy.Rules = []string{"small", "pay", "pay"}
	dec.Request.Needed = []string{"mcp:tools/call transfer", "/args/amount=12.5"}
	unsorted := r
	unsorted.Decision = &dec
	if _, err := unsorted.Canonical(); err == nil {
		t.Error("Canonical sorts")
	}
	d, err := record.NewDraft(unsorted)
	if err != nil {
		t.Fatal(err)
	}
	if d.Kind() != record.KindDecision || d.RecordID() != uuid0 || d.Log() != "ledger.example/std" {
		t.Error("draft names another record")
	}
	if dec.SD[0] != h("d2") || dec.Policy.Rules[0] != "small" {
		t.Error("NewDraft changed its argument")
	}
	payload, hash, err := d.Link(r.Writer.Seq, r.Writer.Prev)
	if err != nil || hash != record.Hash(golden(t, "decision.json")) {
		t.Errorf("linked to %s, %v: %s", hash, err, payload)
	}
	for _, c := range []struct {
		seq  int64
		prev string
		ok   bool
	}{
		{0, "", true},
		{0, h("x"), true}, // the first of a later run
		{1, h("x"), true},
		{1<<53 - 1, h("x"), true},
		{1, "", false},
		{-1, h("x"), false},
		{1 << 53, h("x"), false},
		{1, h("x")[1:], false},
		{1, `","role":"admin`, false},
	} {
		payload, _, err := d.Link(c.seq, c.prev)
		if (err == nil) != c.ok {
			t.Errorf("Link(%d, %q): %v", c.seq, c.prev, err)
		}
		if err != nil {
			continue
		}
		got, err := record.Parse(payload)
		if err != nil || got.Writer.Seq != c.seq || got.Writer.Prev != c.prev {
			t.Errorf("Link(%d, %q) gives seq %d, prev %q, %v", c.seq, c.prev, got.Writer.Seq, got.Writer.Prev, err)
		}
	}
	if _, _, err := (record.Draft{}).Link(0, ""); err == nil {
		t.Error("the zero draft links")
	}
}

// A call over a limit is refused with limit_exceeded, and its record still has
// the digests: in this order NewDraft, then NewDraft of the reduced record.
func TestLimitsAndReduced(t *testing.T) {
	long := strings.Repeat("\x01", 3000)
	many := make([]string, 300)
	hashes := make([]string, 300)
	for i := range many {
		many[i] = strings.Repeat("a", 1+i)
		hashes[i] = h(many[i])
	}
	over := map[string]func(r *record.Record){
		"hops": func(r *record.Record) {
			first := r.Decision.Chain[0]
			for len(r.Decision.Chain) < 9 {
				r.Decision.Chain = append([]record.Hop{first}, r.Decision.Chain...)
			}
			r.Decision.Verdict.Details = make([]int64, 9)
		},
		"text":    func(r *record.Record) { r.Decision.Callee.Tool = long },
		"array":   func(r *record.Record) { r.Decision.Request.Needed = many },
		"payload": func(r *record.Record) { r.Decision.SD = append(append([]string{}, hashes...), hashesOf(1000)...) },
		"details": func(r *record.Record) {
			r.Decision.Chain[0].Details = details(t, "["+strings.Repeat(rootDetail[1:len(rootDetail)-1]+",", 200)+"{}]")
		},
		"audience":        func(r *record.Record) { r.Decision.Chain[1].Audience = long },
		"errors":          func(r *record.Record) { r.Decision.Policy.Errors = []string{long} },
		"everything long": fill(long, many),
		// No string is over its own limit here, but each takes six bytes for one.
		"everything wide": fill(strings.Repeat("\x01", record.MaxText), slicesOf("x", 1)),
	}
	for name, grow := range over {
		r := samples(t)["decision"]
		d := *r.Decision
		x, y, z, v, w := *d.Exchange, *d.Callee, *d.Person.Auth, *d.Oversight, *d.Posture
		d.Exchange, d.Callee, d.Person.Auth, d.Oversight, d.Posture = &x, &y, &z, &v, &w
		r.Decision = &d
		if _, err := record.NewDraft(r); err != nil {
			t.Fatalf("%s: twin refused: %v", name, err)
		}
		grow(&r)
		_, err := record.NewDraft(r)
		var limit *record.LimitError
		if !errors.As(err, &limit) || limit.Code() != "limit_exceeded" || limit.Got <= limit.Max {
			t.Errorf("%s: %v, want a limit error", name, err)
		}
		if _, err := r.Canonical(); !errors.As(err, &limit) && err == nil {
			t.Errorf("%s: Canonical passes", name)
		}
		before := len(r.Decision.Chain)
		draft, err := record.NewDraft(r.Reduced())
		if err != nil {
			t.Errorf("%s: reduced: %v", name, err)
			continue
		}
		payload, _, err := draft.Link(1<<53-1, h("x"))
		if err != nil {
			t.Errorf("%s: reduced: %v", name, err)
			continue
		}
		got, err := record.Parse(payload)
		if err != nil {
			t.Errorf("%s: reduced: %v", name, err)
			continue
		}
		v2 := got.Decision.Verdict
		if v2.Effect != record.Deny || v2.Reason != record.ReasonLimitExceeded || bytes.Contains(payload, []byte(long)) {
			t.Errorf("%s: reduced to %+v", name, v2)
		}
		if got.Decision.CallID != uuid1 || got.Decision.Request.CallCommit != h("call") || got.Decision.Person.Ref != d.Person.Ref {
			t.Errorf("%s: reduced record lost the call", name)
		}
		if before <= 8 && (len(got.Decision.Chain) != before || got.Decision.Chain[before-1].TokenHash != h("t1")) {
			t.Errorf("%s: reduced record lost the chain's hashes", name)
		}
		if before > 8 && len(got.Decision.Chain) != 0 {
			t.Errorf("%s: reduced record holds a part of a chain", name)
		}
		if len(r.Decision.Chain) != before || r.Decision.Chain[0].Details.Len() == 0 {
			t.Errorf("%s: Reduced changed its argument", name)
		}
	}
	token := samples(t)["issuance"].Reduced()
	if _, err := token.Canonical(); err != nil || token.Issuance.Result != record.Refused || token.Issuance.TokenHash != "" {
		t.Errorf("reduced issuance: %v", err)
	}
	for name, r := range samples(t) {
		if _, err := r.Reduced().Canonical(); err != nil {
			t.Errorf("%s reduced: %v", name, err)
		}
	}
}

// fill sets every free text of a decision to s and its sets to many.
func fill(s string, many []string) func(r *record.Record) {
	return func(r *record.Record) {
		d := r.Decision
		first := d.Chain[0]
		for len(d.Chain) < 8 {
			d.Chain = append([]record.Hop{first}, d.Chain...)
		}
		for k := range d.Chain {
			d.Chain[k].Actor, d.Chain[k].Audience, d.Chain[k].Scope = s, s, s
		}
		d.Verdict.Details = make([]int64, 8)
		r.Log, r.Writer.ID, d.Session, d.Issuer = s, s, s, s
		d.Exchange.PeerOrg, d.Person.Issuer, d.Person.Auth.ACR, d.Person.Auth.AMR = s, s, s, slicesOf(s, 300)
		d.Caller = record.Caller{Claimed: s, Proven: s, Proof: record.ProofMatch, Auth: record.AuthMTLS, Instance: s, CredHash: h("x"), Attest: s}
		d.Callee.ID, d.Callee.Tool, d.Callee.Op = s, s, s
		d.Policy.Engine, d.Policy.Reader, d.Policy.Rules, d.Policy.Errors = s, s, many, many
		d.Verdict.Unavailable, d.Oversight.Act, d.Oversight.ApproverRef, d.Posture.State = many, s, s, s
	}
}

func hashesOf(n int) []string {
	return slicesOfFunc(n, func(i int) string { return h(strings.Repeat("b", i)) })
}

func slicesOf(s string, n int) []string { return slicesOfFunc(n, func(int) string { return s }) }

func slicesOfFunc(n int, f func(int) string) []string {
	ss := make([]string, n)
	for i := range ss {
		ss[i] = f(i)
	}
	return ss
}

func FuzzParse(f *testing.F) {
	for name := range samples(f) {
		f.Add(golden(f, name+".json"))
	}
	f.Add(golden(f, "decision-permit.json"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := record.Parse(payload)
		if err != nil {
			return
		}
		again, err := r.Canonical()
		if err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("accepted, but written again as %q, %v", again, err)
		}
	})
}
