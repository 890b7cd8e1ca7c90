package search

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lineal-auth/lineal/record"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	app          = "spiffe://example/app"
	orchestrator = "spiffe://example/orchestrator"
	research     = "spiffe://example/research"
	txn          = "01a40584-8ff0-729d-af26-bce9f53b3325"
	person       = "ZX59lizZ22qhhrGe3Wu5KA"
	start        = 1803978838
)

func hash(s string) string { return record.Hash([]byte(s)) }

// book is a log without signatures: what a reader of the ledger hands on.
type book struct {
	t       testing.TB
	x       *Index
	n       int64
	payload [][]byte
}

func newBook(t testing.TB, cfg Config) *book { return &book{t: t, x: New(cfg)} }

func id(n int64) string { return fmt.Sprintf("01a40584-b456-7aec-82b8-%012x", n) }

func (b *book) add(r record.Record) string {
	b.t.Helper()
	r.Version, r.ID, r.Log = record.Version, id(b.n), "ledger.example/std"
	r.Writer = record.Writer{ID: "gw-eu-1", Role: record.RoleGateway, Run: "w6OmQytQZpj0U70whtFbuA", KeyID: hash("key"), Seq: b.n, Prev: hash("prev")}
	r.Time, r.DataClass, r.Region = record.At(time.Unix(start+8+b.n, 318e6)), record.DataInternal, record.RegionEU
	payload, err := r.Canonical()
	if err != nil {
		b.t.Fatalf("%s: %v", r.Kind, err)
	}
	if err := b.x.Add(b.n, payload); err != nil {
		b.t.Fatal(err)
	}
	b.payload = append(b.payload, payload)
	b.n++
	return r.ID
}

func details(t testing.TB, raw string) record.Details {
	t.Helper()
	d, err := record.DetailsFrom([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const (
	wide   = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table","where","limit"]},"/args/table":{"op":"one_of","values":["customers","orders"]}}},{"type":"urn:lineal:call:v1","locations":["https://llm.example"],"actions":["llm:chat"],"names":["small"]}]`
	middle = `[{"type":"urn:lineal:call:v1","from":0,"locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table","where","limit"]},"/args/table":{"op":"one_of","values":["customers"]},"/args/limit":{"op":"range","max":100}}}]`
	narrow = `[{"type":"urn:lineal:call:v1","from":0,"locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table","where","limit"]},"/args/table":{"op":"one_of","values":["customers"]},"/args/where/region":{"op":"one_of","values":["EU"]},"/args/limit":{"op":"range","max":100}}}]`
)

var grants = []string{wide, middle, narrow}

func (b *book) hop(k int, last bool) record.Hop {
	h := record.Hop{
		ReceiptHash: hash(fmt.Sprint("receipt", k)), Actor: []string{app, orchestrator, research}[k],
		Audience: []string{"https://orchestrator.example", "https://research.example", "https://db.example/mcp"}[k],
		Scope:    "mcp:call", Details: details(b.t, grants[k]), IssuedAt: start + int64(4*k), Expires: start + 300,
	}
	if last {
		h.ReceiptHash, h.TokenHash = "", hash(fmt.Sprint("token", k))
	}
	return h
}

func (b *book) issue(k int) {
	h := b.hop(k, false)
	parent := ""
	if k > 0 {
		parent = hash(fmt.Sprint("token", k-1))
	}
	b.add(record.Record{Header: record.Header{Kind: record.KindIssuance}, Issuance: &record.Issuance{
		Result: record.Issued, Reason: record.ReasonAllowed, Txn: txn, JTI: id(int64(0x100 + k)), ReceiptHash: h.ReceiptHash,
		TokenHash: hash(fmt.Sprint("token", k)), ParentHash: parent, RequestHash: hash("request"), ClientAuth: "spiffe_x509",
		Person: record.Person{Ref: person, Presence: record.PresenceInteractive}, Actor: h.Actor, Audience: h.Audience,
		Requested: h.Details, Granted: &h.Details, Expires: h.Expires, BundleDigest: hash("rules"),
	}})
}

// decide is a permitted call of the actor of hop n.
func (b *book) decide(n int, change func(*record.Decision)) (recordID, callID string) {
	d := record.Decision{
		Durability: record.Strict, Txn: txn, CallID: id(0x200 + b.n), Issuer: "https://sts.example",
		Person: record.Person{
			Ref: person, Issuer: "https://idp.example", Presence: record.PresenceInteractive,
			Auth: &record.Auth{AMR: []string{"hwk", "user"}, Time: start - 707},
		},
		Request: record.Request{Needed: []string{"mcp:tools/call query"}, Bytes: 412},
		Policy: record.Policy{
			BundleDigest: hash("rules"), Serial: 41, Engine: "cedar-go/1.9.0", Reader: "1", Rules: []string{"orders-eu"},
		},
		Verdict: record.Verdict{
			Effect: record.Permit, Scope: record.Permitted, Policy: record.Permitted, Reason: record.ReasonAllowed, Allowed: []int64{0},
		},
	}
	for k := range n + 1 {
		d.Chain = append(d.Chain, b.hop(k, k == n))
		d.Verdict.Details = append(d.Verdict.Details, 0)
	}
	last := d.Chain[n]
	d.Caller = record.Caller{Claimed: last.Actor, Proven: last.Actor, Proof: record.ProofMatch, Auth: record.AuthMTLS}
	d.Callee = &record.Callee{Kind: record.CalleeA2AAgent, ID: last.Audience, Op: "a2a:send"}
	if n == 2 {
		d.Callee = &record.Callee{Kind: record.CalleeMCPTool, ID: last.Audience, Tool: "query", Op: "mcp:tools/call"}
	}
	if change != nil {
		change(&d)
	}
	call := d.CallID
	return b.add(record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: &d}), call
}

func (b *book) outcome(of, call string) string {
	return b.add(record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
		Of: of, CallID: call, Status: record.StatusCompleted, Forwarded: true, Bytes: 88, Ended: record.At(time.Unix(start+30, 0)),
	}})
}

func refuse(d *record.Decision) {
	d.Request.Needed = []string{"/args/table=orders", "mcp:tools/call query"}
	d.Verdict.Effect, d.Verdict.Scope, d.Verdict.Reason = record.Deny, record.Denied, "scope_exceeded"
	d.Verdict.Details, d.Verdict.Allowed = []int64{0, -1, -1}, nil
	detail := int64(0)
	d.Verdict.Exceeded = &record.Exceeded{Hop: 1, Detail: &detail, Path: "/args/table", Op: "one_of", Got: record.GotPresent}
}

// story is the whole of a transaction: three hops, three calls, the last one
// permitted and then, with another table, refused.
func story(t testing.TB, cfg Config) (b *book, permitted, refused string) {
	b = newBook(t, cfg)
	b.issue(0)
	call0, id0 := b.decide(0, nil)
	b.outcome(call0, id0)
	b.issue(1)
	call1, id1 := b.decide(1, func(d *record.Decision) { d.ParentCall = id0 })
	b.issue(2)
	permitted, callID := b.decide(2, func(d *record.Decision) { d.ParentCall = id1 })
	b.outcome(permitted, callID)
	refused, _ = b.decide(2, refuse)
	b.outcome(call1, id1)
	b.x.SetAsOf(AsOf{Origin: "ledger.example/std/2027-03", Size: b.n, Root: "8F3ybtyZP3aPoYHzRDMURQllFSkXQSpvGxMG5mJQDCo="})
	return b, permitted, refused
}

func alice(ref string) string {
	if ref == person {
		return "Alice Example"
	}
	return ""
}

func textOf(t testing.TB, l Lineage) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestLineageText compares the two stories, permitted and refused, with what a
// person should read.
func TestLineageText(t *testing.T) {
	b, permitted, refused := story(t, Config{Name: alice})
	for name, id := range map[string]string{"permitted": permitted, "refused": refused} {
		l, err := b.x.Trace(id)
		if err != nil {
			t.Fatal(err)
		}
		got := textOf(t, l)
		file := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestTrace(t *testing.T) {
	b, permitted, refused := story(t, Config{})
	l, err := b.x.Trace(permitted)
	if err != nil {
		t.Fatal(err)
	}
	if l.Verdict.Effect != "permit" || len(l.Hops) != 3 || len(l.Outcomes) != 1 || l.Person.Name != "" || l.Person.Ref != person || !l.Complete {
		t.Errorf("%+v", l)
	}
	if d := cmp.Diff([]int64{0, 3, 5}, []int64{l.Hops[0].IssuanceIndex, l.Hops[1].IssuanceIndex, l.Hops[2].IssuanceIndex}); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"narrowed: limit ≤ 100 (before: limit is anything)", "narrowed: table = customers (before: table is customers or orders)",
		"gave up: llm:chat small at https://llm.example",
	}, l.Hops[1].GaveUp); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"narrowed: where.region = EU (before: no such condition)"}, l.Hops[2].GaveUp); d != "" {
		t.Error(d)
	}
	for _, byOther := range []string{l.CallID, b.outcomeID(permitted)} {
		other, err := b.x.Trace(byOther)
		if err != nil || other.RecordID != permitted {
			t.Errorf("by %s: %v", byOther, err)
		}
	}

	l, err = b.x.Trace(refused)
	if err != nil {
		t.Fatal(err)
	}
	if l.Verdict.RefusedAt == nil || *l.Verdict.RefusedAt != 1 || l.Hops[0].Permits != "permit" || l.Hops[1].Permits != "deny" ||
		!strings.Contains(l.Verdict.Explanation, orchestrator) || !strings.Contains(l.Verdict.Explanation, app) {
		t.Errorf("refusal: %+v", l.Verdict)
	}

	var ambiguous *AmbiguousError
	if _, err := b.x.Trace(txn); !errors.As(err, &ambiguous) || len(ambiguous.Calls) != 4 {
		t.Errorf("transaction: %v", err)
	}
	if _, err := b.x.Trace(id(0x999)); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := b.x.Trace(hash("receipt0")); !errors.Is(err, ErrNotFound) {
		t.Errorf("an issuance has a lineage: %v", err)
	}
}

func (b *book) outcomeID(of string) string {
	b.t.Helper()
	es, err := b.x.Find(of)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range es {
		if e.Record.Outcome != nil {
			return e.Record.ID
		}
	}
	b.t.Fatal("no outcome")
	return ""
}

func TestCallsTree(t *testing.T) {
	b, _, refused := story(t, Config{})
	l, err := b.x.Trace(refused)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var walk func([]Call, string)
	walk = func(cs []Call, at string) {
		for _, c := range cs {
			got = append(got, fmt.Sprintf("%s%d %s %v", at, c.Index, c.Link, c.This))
			walk(c.Children, at+">")
		}
	}
	walk(l.Calls, "")
	want := []string{"1  false", ">4 parent_call false", ">>6 parent_call false", ">>8 chain true"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestParentCallIsAHint names as parent a call that the chain does not come
// from: the tree says so and does not believe it.
func TestParentCallIsAHint(t *testing.T) {
	b := newBook(t, Config{})
	b.issue(0)
	_, first := b.decide(0, nil)
	second, _ := b.decide(0, func(d *record.Decision) { d.ParentCall = first })
	l, err := b.x.Trace(second)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Calls) != 2 || l.Calls[1].ClaimedParent != first || l.Calls[1].Link != "" {
		t.Errorf("%+v", l.Calls)
	}
	if got := textOf(t, l); !strings.Contains(got, "which the records do not bear out") {
		t.Error(got)
	}
}

func TestRecords(t *testing.T) {
	b, permitted, refused := story(t, Config{})
	indexes := func(f Filter) []int64 {
		out := []int64{}
		for _, e := range b.x.Records(f) {
			out = append(out, e.Index)
		}
		return out
	}
	for name, c := range map[string]struct {
		f    Filter
		want []int64
	}{
		"all":         {Filter{}, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"page":        {Filter{From: 4, Limit: 2}, []int64{4, 5}},
		"kind":        {Filter{Kind: record.KindOutcome}, []int64{2, 7, 9}},
		"person":      {Filter{Person: person, Kind: record.KindDecision}, []int64{1, 4, 6, 8}},
		"stranger":    {Filter{Person: "nobody"}, []int64{}},
		"agent":       {Filter{Agent: research}, []int64{5, 6, 8}},
		"callee":      {Filter{Callee: "query"}, []int64{6, 8}},
		"effect":      {Filter{Effect: record.Deny}, []int64{8}},
		"reason":      {Filter{Reason: "scope_exceeded"}, []int64{8}},
		"receipt":     {Filter{Receipt: hash("receipt1")}, []int64{3, 6, 8}},
		"rule":        {Filter{Policy: "orders-eu", Agent: orchestrator}, []int64{4, 6, 8}},
		"writer":      {Filter{Writer: "gw-2"}, []int64{}},
		"time":        {Filter{Since: record.At(time.Unix(start+10, 0)), Until: record.At(time.Unix(start+12, 0))}, []int64{2, 3}},
		"two at once": {Filter{Effect: record.Permit, Callee: "query"}, []int64{6}},
	} {
		if d := cmp.Diff(c.want, indexes(c.f)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	es, err := b.x.Find(permitted)
	if err != nil || len(es) != 2 || es[0].Index != 6 || es[1].Index != 7 {
		t.Errorf("find: %v, %v", es, err)
	}
	if es, err := b.x.Find(txn); err != nil || len(es) != 7 {
		t.Errorf("find transaction: %d, %v", len(es), err)
	}
	if es, err := b.x.Find(refused); err != nil || len(es) != 1 {
		t.Errorf("find refusal: %d, %v", len(es), err)
	}
}

// TestIndexIsDerived adds the entries backwards and twice: the same index comes
// out, and what contradicts it is refused.
func TestIndexIsDerived(t *testing.T) {
	b, permitted, _ := story(t, Config{})
	want, err := b.x.Trace(permitted)
	if err != nil {
		t.Fatal(err)
	}
	y := New(Config{})
	for i := len(b.payload) - 1; i >= 0; i-- {
		for range 2 {
			if err := y.Add(int64(i), b.payload[i]); err != nil {
				t.Fatal(err)
			}
		}
		y.SetAsOf(b.x.asOf)
		if _, complete := y.AsOf(); complete != (i == 0) {
			t.Errorf("after entry %d: complete is %v", i, complete)
		}
	}
	got, err := y.Trace(permitted)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if y.Add(3, b.payload[4]) == nil {
		t.Error("another record at the same index is taken")
	}
	if y.Add(99, b.payload[4]) == nil {
		t.Error("a record id is taken twice")
	}
	if y.Add(100, []byte("{}")) == nil || y.Add(-1, b.payload[0]) == nil {
		t.Error("what is no record, or has no index, is taken")
	}
	if y.Len() != len(b.payload) {
		t.Errorf("%d entries", y.Len())
	}
}

func TestLineageJSON(t *testing.T) {
	b, _, refused := story(t, Config{Name: alice})
	l, err := b.x.Trace(refused)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var back Lineage
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(l, back, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// TestL7LineageEscapes puts what a terminal acts on into every text of a
// decision that a peer can influence.
func TestL7LineageEscapes(t *testing.T) {
	b := newBook(t, Config{Name: func(string) string { return "Mallory\x1b]0;x\a\nPERMITTED" }})
	b.issue(0)
	evil := "x\x1b[2J\r\nPERMITTED\u202e"
	got, _ := b.decide(0, func(d *record.Decision) {
		d.Caller.Claimed, d.Caller.Proven = evil, evil
		d.Callee.ID, d.Callee.Tool, d.Callee.Op = evil, evil, evil
		d.Chain[0].Actor, d.Chain[0].Audience = evil, evil
		d.Request.Needed = []string{evil}
		d.Policy.Rules = []string{evil}
		d.Person.Issuer, d.Person.Auth.AMR = evil, []string{evil}
		d.Chain[0].Details = details(t, `[{"type":"urn:lineal:call:v1","locations":["a\u001b\n"],"actions":["\u202e"],"names":["n"],"where":{"/args/\u001b":{"op":"\u001b"},"/args/b":{"op":"one_of","values":["\u001b\u202e"]}}}]`)
	})
	l, err := b.x.Trace(got)
	if err != nil {
		t.Fatal(err)
	}
	text := textOf(t, l)
	if strings.ContainsAny(text, "\x1b\a\r\u202e") || strings.Contains(text, "\nPERMITTED\u202e") {
		t.Errorf("not escaped:\n%q", text)
	}
	if n := strings.Count(text, "\nPERMITTED"); n != 0 {
		t.Errorf("a line that a record made up:\n%s", text)
	}
	if !strings.Contains(text, `\x1b[2J\x0d\x0aPERMITTED\u202e`) {
		t.Errorf("the text is gone instead of escaped:\n%s", text)
	}
}

func TestWords(t *testing.T) {
	one := func(where string) string {
		return `[{"type":"urn:lineal:call:v1","locations":["https://x.example"],"actions":["mcp:tools/call"],"names":["t"],"args":"closed","where":` + where + `}]`
	}
	for where, want := range map[string]string{
		`{}`: "",
		`{"/args":{"op":"fields","keys":["a","b"]},"/args/a":{"op":"any"}}`:                                         " where a is anything, b is anything",
		`{"/args/a":{"op":"one_of","values":["x"]}}`:                                                                " where a = x",
		`{"/args/a":{"op":"one_of","values":["x y",2,true,null]}}`:                                                  ` where a is "x y", 2, null or true`,
		`{"/args/a":{"op":"range","min":0,"min_exclusive":true,"max":500}}`:                                         " where a > 0 and ≤ 500",
		`{"/args/a":{"op":"range","min":0.10,"max":1e3,"max_exclusive":true}}`:                                      " where a ≥ 0.10 and < 1e3",
		`{"/args/a":{"op":"prefix","value":"C-"}}`:                                                                  " where a begins with C-",
		`{"/args/a":{"op":"path","value":"/data"}}`:                                                                 " where a is within /data",
		`{"/a2a/fetch_hosts":{"op":"each","max_items":4,"optional":true,"of":{"op":"host","value":"*.f.example"}}}`: " where a2a.fetch_hosts has at most 4 items, each of which is at host *.f.example (or is left out)",
		`{"/sql/tables":{"op":"each","max_items":0,"of":{"op":"any"}}}`:                                             " where sql.tables is empty",
		`{"/args/a":{"op":"cidr","prefixes":["10.0.0.0/8","::/0"]}}`:                                                " where a is within 10.0.0.0/8 or ::/0",
		`{"/args/a":{"op":"absent"}}`:                                                                               " where a is left out",
		`{"/args/a":{"op":"fields","keys":["k"]}}`:                                                                  " where a has no members but k",
		`{"/args/a~1b":{"op":"one_of","values":[{"$sd":"q6Fz7BoyAUmdfi7rkYORDx747rKQWiwGFTWcHHKzLpk"}]}}`:           "",
		`{"/args/a":{"op":"magic"}}`:                                                                                " where a meets a condition that is not known here (magic)",
	} {
		d, err := record.DetailsFrom([]byte(one(where)))
		if err != nil {
			continue // a marker may not be written by hand
		}
		got := inWords(readAuthority(d))
		if len(got) != 1 || got[0] != "mcp:tools/call t at https://x.example"+want {
			t.Errorf("%s:\n%q\nwant …%q", where, got, want)
		}
	}
}

func TestGaveUp(t *testing.T) {
	parent := readAuthority(details(t, `[{"actions":["http:GET","http:POST"],"names":["a","b"],"locations":["https://x.example"],"args":"open"},{"actions":["llm:chat"],"names":["m"],"locations":["https://l.example"]}]`))
	child := readAuthority(details(t, `[{"from":0,"actions":["http:GET"],"names":["a"],"locations":["https://x.example"],"args":"closed","where":{"/args":{"op":"fields","keys":["q"]}}},{"from":0,"actions":["http:GET"],"names":["b"],"locations":["https://x.example"],"args":"open"}]`))
	want := []string{
		"gave up: http:POST", "narrowed: q is anything (before: no such condition)", "gave up: llm:chat m at https://l.example",
	}
	if d := cmp.Diff(want, gaveUp(parent, child)); d != "" {
		t.Error(d)
	}
	if got := gaveUp(parent, withFrom(parent)); len(got) != 0 {
		t.Errorf("nothing was given up: %q", got)
	}
}

func withFrom(as []authority) []authority {
	out := append([]authority(nil), as...)
	for i := range out {
		out[i].from = int64(i)
	}
	return out
}

func FuzzAdd(f *testing.F) {
	b, _, _ := story(f, Config{})
	for _, p := range b.payload {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		x := New(Config{})
		if x.Add(0, payload) != nil {
			return
		}
		for _, e := range x.Records(Filter{}) {
			if e.Record.Decision == nil {
				continue
			}
			l, err := x.Trace(e.Record.ID)
			if err != nil {
				t.Fatal(err)
			}
			if strings.ContainsFunc(strings.ReplaceAll(textOf(t, l), "\n", " "), hidden) {
				t.Fatal("not escaped")
			}
		}
	})
}
