package evidence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/token"
)

const (
	family     = "ledger.example/std"
	origin     = family + "/1"
	manifestID = "ledger.example/manifest"
	stsURL     = "https://sts.example"
	start      = 1803978838
)

// world is a small log made of real records, tokens and receipts. The Merkle
// tree and its proofs are x/mod's, the signatures of checkpoints too.
type world struct {
	t        testing.TB
	writers  map[string]*writer
	leaves   [][]byte
	tree     *tree
	chain    []record.Hop
	receipts []string
	tokens   []string // H
	jwks     []byte
	clock    int64
	ids      int
	rules    []byte
	sd       record.Disclosure
	decided  []string // record ids
	waited   []byte   // the last record of the period before
	issued   int      // chains before the one at hand

	sink   func(leaf []byte) // where records go instead, of a log that is not kept
	grants [2]string
}

type writer struct {
	id     string
	role   record.Role
	key    ed25519.PrivateKey
	run    string
	seq    int64
	prev   string
	signer record.Signer
}

func run(n byte) string { return base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{n}, 16)) }

func newWriter(t testing.TB, id string, role record.Role, key ed25519.PrivateKey) *writer {
	t.Helper()
	s, err := record.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return &writer{id: id, role: role, key: key, run: run(1), signer: s}
}

// newWorld writes the log: keys, the person's way over two hops to a database
// tool, one permitted call with its outcome, one refused.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, grant0, grant1)
}

// newWorldOf is newWorld with the authority of both hops.
func newWorldOf(t testing.TB, root, child string) *world {
	t.Helper()
	w := &world{t: t, grants: [2]string{root, child}, writers: map[string]*writer{}, clock: start, rules: []byte(`{"name":"rules"}`), tree: newTree(t, 0)}
	w.writers["admin"] = newWriter(t, "admin", record.RoleAdmin, testKey(manifestID))
	w.addWriter("sts-1", record.RoleTokenService)
	w.addWriter("gw-1", record.RoleGateway)
	w.heartbeat("sts-1", record.BeatStart)
	w.heartbeat("gw-1", record.BeatStart)
	w.issueChain()
	w.permit()
	w.deny()
	w.heartbeat("gw-1", record.BeatStop)
	return w
}

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("01a40584-b456-7aec-82b8-%012x", w.ids)
}

// put appends a record as its writer would.
func (w *world) put(id string, r record.Record) string {
	w.t.Helper()
	wr := w.writers[id]
	r.Version, r.ID, r.Log = record.Version, w.id(), family
	r.Writer = record.Writer{ID: wr.id, Role: wr.role, Run: wr.run, KeyID: wr.signer.KeyID()}
	r.Time = record.At(time.Unix(w.clock, 0))
	r.DataClass, r.Region = record.DataInternal, record.RegionEU
	if r.Kind == record.KindDecision {
		r.NotAsserted = []record.NotAsserted{record.NotCalleeEffect}
	}
	d, err := record.NewDraft(r)
	if err != nil {
		w.t.Fatalf("%s record: %v", r.Kind, err)
	}
	payload, hash, err := d.Link(wr.seq, wr.prev)
	if err != nil {
		w.t.Fatal(err)
	}
	wr.seq, wr.prev = wr.seq+1, hash
	w.clock++
	w.append(w.sign(wr, payload))
	return r.ID
}

func (w *world) sign(wr *writer, payload []byte) []byte {
	w.t.Helper()
	env, err := record.Sign(payload, wr.signer)
	if err != nil {
		w.t.Fatal(err)
	}
	return env
}

func (w *world) append(leaf []byte) {
	w.t.Helper()
	if w.sink != nil {
		w.sink(leaf)
		return
	}
	n := int64(len(w.leaves))
	hs, err := tlog.StoredHashes(n, leaf, w.tree)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tree.hashes = append(w.tree.hashes, hs...)
	w.tree.leaves = append(w.tree.leaves, LeafHash(leaf))
	root, err := tlog.TreeHash(n+1, w.tree)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tree.roots = append(w.tree.roots, Hash(root))
	w.leaves = append(w.leaves, leaf)
}

// rebuild is the log of an operator who changes history: other leaves, an own
// tree, new checkpoints.
func (w *world) rebuild(leaves [][]byte) {
	w.t.Helper()
	w.tree, w.leaves = newTree(w.t, 0), nil
	for _, l := range leaves {
		w.append(l)
	}
}

func (w *world) addWriter(id string, role record.Role) {
	w.t.Helper()
	wr := newWriter(w.t, id, role, testKey(id))
	w.writers[id] = wr
	w.keyRecord(record.KeyAdd, wr, "")
}

func (w *world) keyRecord(op record.KeyOp, wr *writer, since record.Timestamp) {
	w.t.Helper()
	pub := wr.key.Public().(ed25519.PublicKey)
	w.put("admin", record.Record{Header: record.Header{Kind: record.KindKey}, KeyChange: &record.KeyChange{
		Op: op, For: wr.id, Role: wr.role, KeyID: record.KeyID(pub), PublicKey: base64.RawURLEncoding.EncodeToString(pub), Since: since,
	}})
}

func (w *world) heartbeat(id string, state record.BeatState) {
	w.t.Helper()
	w.put(id, record.Record{Header: record.Header{Kind: record.KindHeartbeat}, Heartbeat: &record.Heartbeat{
		State: state, Build: digest([]byte("build")), Interval: 10,
	}})
}

const (
	txn       = "01a40584-8ff0-729d-af26-bce9f53b3325"
	personRef = "ZX59lizZ22qhhrGe3Wu5KA"
	grant0    = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","where":{"/args":{"op":"fields","keys":["table"]},"/args/table":{"op":"one_of","values":["customers","orders"]}}}]`
	grant1    = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"closed","from":0,"where":{"/args":{"op":"fields","keys":["table"]},"/args/table":{"op":"one_of","values":["orders"]}}}]`
)

func (w *world) hop(k int) delegation.Hop {
	w.t.Helper()
	person, err := identity.ParsePerson(stsURL, personRef)
	if err != nil {
		w.t.Fatal(err)
	}
	actor := func(name, profile string) delegation.Actor {
		return delegation.Actor{Party: identity.Party{Issuer: stsURL, Subject: "spiffe://example/" + name}, Profile: profile}
	}
	app, agent := actor("app", delegation.ProfileService), actor("agent", delegation.ProfileAgent)
	h := delegation.Hop{
		Audience: "https://agent.example", Person: person, Profile: delegation.ProfileUser, ClientID: app.Subject,
		Actors: []delegation.Actor{app}, MayAct: agent.Party, MaxDepth: 4,
		ID: fmt.Sprintf("01a20320-a5e8-7000-8000-%012x", 2*w.issued+k+1), IssuedAt: time.Unix(start, 0).UTC(), Expires: time.Unix(start+300, 0).UTC(),
	}
	if k == 1 {
		h.Audience, h.ClientID, h.MayAct = "https://db.example/mcp", agent.Subject, identity.Party{}
		h.Actors, h.Depth = []delegation.Actor{agent, app}, 1
		h.IssuedAt = time.Unix(start+2, 0).UTC()
	}
	if h.Details, err = scope.Parse([]byte(w.grants[k]), k == 0); err != nil {
		w.t.Fatal(err)
	}
	return h
}

// issueChain issues both hops, with receipts and issuance records.
func (w *world) issueChain() {
	w.t.Helper()
	signer, err := token.NewEdDSA("k1", testKey("sts"))
	if err != nil {
		w.t.Fatal(err)
	}
	pub, err := token.PublicKeyOf(signer)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.jwks, err = token.JWKS(pub); err != nil {
		w.t.Fatal(err)
	}
	issuer, err := token.NewIssuer(stsURL, signer)
	if err != nil {
		w.t.Fatal(err)
	}
	for k := range 2 {
		w.issueHop(issuer, k)
	}
}

func (w *world) issueHop(issuer *token.Issuer, k int) {
	w.t.Helper()
	h := w.hop(k)
	leaf := delegation.Leaf{Issuer: stsURL, Txn: txn, Hop: h}
	rc := delegation.Receipt{Issuer: stsURL, Txn: txn, Hop: h}
	if k == 0 {
		leaf.AuthTime = time.Unix(start-60, 0).UTC()
		rc.Login = delegation.Login{Issuer: "https://idp.example", Hash: digest([]byte("login")), AuthTime: leaf.AuthTime}
	} else {
		prev, err := token.HashOf(w.receipts[k-1])
		if err != nil {
			w.t.Fatal(err)
		}
		leaf.ParentHash, leaf.ReceiptHash, leaf.Ancestors = w.tokens[k-1], prev, []string{w.hop(0).ID}
		rc.ParentHash, rc.ReceiptHash = leaf.ParentHash, leaf.ReceiptHash
	}
	tok, err := issuer.SignToken(leaf, w.receipts)
	if err != nil {
		w.t.Fatal(err)
	}
	rc.TokenHash = tok.Hash
	signed, err := issuer.SignReceipt(rc, token.Request{Hash: digest([]byte{byte(k)}), Auth: identity.MethodSPIFFEX509}, digest(w.rules))
	if err != nil {
		w.t.Fatal(err)
	}
	details, err := record.DetailsOf(h.Details)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put("sts-1", record.Record{Header: record.Header{Kind: record.KindIssuance}, Issuance: &record.Issuance{
		Result: record.Issued, Reason: record.ReasonAllowed, Txn: txn, JTI: h.ID, ReceiptHash: signed.Hash, TokenHash: tok.Hash,
		ParentHash: leaf.ParentHash, RequestHash: digest([]byte{byte(k)}), ClientAuth: string(identity.MethodSPIFFEX509),
		Person: record.Person{Ref: personRef, Presence: record.PresenceInteractive}, Actor: h.Actor().Subject, Audience: h.Audience,
		Requested: details, Granted: &details, Expires: h.Expires.Unix(), BundleDigest: digest(w.rules),
	}})
	w.receipts, w.tokens = append(w.receipts, string(signed.Raw)), append(w.tokens, tok.Hash)
	hop := record.Hop{
		ReceiptHash: signed.Hash, Actor: h.Actor().Subject, Audience: h.Audience, Scope: h.Scope(), Details: details,
		IssuedAt: h.IssuedAt.Unix(), Expires: h.Expires.Unix(),
	}
	if k == 1 {
		hop.ReceiptHash, hop.TokenHash = "", tok.Hash
	}
	w.chain = append(w.chain, hop)
}

func (w *world) decision() record.Decision {
	return record.Decision{
		Durability: record.Strict, Txn: txn, CallID: w.id(),
		Person: record.Person{Ref: personRef, Issuer: "https://idp.example", Presence: record.PresenceInteractive},
		Caller: record.Caller{
			Claimed: "spiffe://example/agent", Proven: "spiffe://example/agent", Proof: record.ProofMatch, Auth: record.AuthMTLS,
		},
		Callee: &record.Callee{Kind: record.CalleeMCPTool, ID: "https://db.example/mcp", Tool: "query", Op: "mcp:tools/call"},
		Issuer: stsURL, Chain: append([]record.Hop(nil), w.chain...),
		Request: record.Request{Needed: []string{"/args/table=orders", "mcp:tools/call query"}, Bytes: 10},
		Policy: record.Policy{
			BundleDigest: digest(w.rules), Serial: 1, Engine: "cedar-go/1.9.0", Reader: "1", Rules: []string{"orders-eu"},
		},
		Verdict: record.Verdict{
			Effect: record.Permit, Scope: record.Permitted, Policy: record.Permitted, Reason: record.ReasonAllowed,
			Details: []int64{0, 0}, Allowed: []int64{0},
		},
	}
}

func (w *world) permit() {
	w.t.Helper()
	var err error
	w.sd, err = record.NewDisclosure(record.SaltText([32]byte{1}), "/args/table", strictjson.String("orders"))
	if err != nil {
		w.t.Fatal(err)
	}
	d := w.decision()
	d.SD = []string{w.sd.Digest()}
	id := w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: &d})
	w.decided = append(w.decided, id)
	w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
		Of: id, CallID: d.CallID, Status: record.StatusCompleted, Forwarded: true, Bytes: 88, Ended: record.At(time.Unix(w.clock, 0)),
	}})
}

func (w *world) deny() {
	w.t.Helper()
	d := w.decision()
	d.Request.Needed = []string{"/args/table=customers", "mcp:tools/call query"}
	d.Verdict.Effect, d.Verdict.Scope, d.Verdict.Reason = record.Deny, record.Denied, "scope_exceeded"
	d.Verdict.Details, d.Verdict.Allowed = []int64{0, -1}, nil
	w.decided = append(w.decided, w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: &d}))
}

// checkpoint is the signed note of the first n records.
func (w *world) checkpoint(n int) []byte {
	w.t.Helper()
	s := testSigner(w.t, origin)
	root := w.tree.roots[n]
	note, err := s.sign(fmt.Sprintf("%s\n%d\n%s\n", origin, n, base64.StdEncoding.EncodeToString(root[:])))
	if err != nil {
		w.t.Fatal(err)
	}
	return note
}

// contents are what an export of the whole log gives.
func (w *world) contents() Contents {
	w.t.Helper()
	n := len(w.leaves)
	c := Contents{
		Mode: ModeRange, Origin: origin, From: 0, To: int64(n), Query: "everything", Created: time.Unix(w.clock, 0),
		First: w.checkpoint(3), Last: w.checkpoint(n), Consistency: w.tree.consistency(w.t, 3, int64(n)),
		Receipts: w.receipts, IssuerKeys: [][]byte{w.jwks},
		Policies: []PolicyBundle{{digest(w.rules), w.rules}}, Disclosures: []string{w.sd.Encoded()},
		Signer: testSigner(w.t, manifestID), Proofs: map[int64][]Hash{},
	}
	for i, leaf := range w.leaves {
		c.Records = append(c.Records, Record{int64(i), leaf})
	}
	return c
}

func (w *world) trust() Trust {
	w.t.Helper()
	thumb, err := token.Thumbprint(testKey("sts").Public())
	if err != nil {
		w.t.Fatal(err)
	}
	return Trust{
		Logs: []Key{testSigner(w.t, origin).Key()}, Manifests: []Key{testSigner(w.t, manifestID).Key()},
		Issuers: []Issuer{{stsURL, thumb}},
	}
}

func (w *world) policy() Policy {
	w.t.Helper()
	return mustPolicy(w.t, w.trust())
}

func mustPolicy(t testing.TB, trust Trust) Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(policyText(t, trust)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func bundle(t testing.TB, c Contents) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(t testing.TB, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func unix(s int64) time.Time { return time.Unix(s, 0) }
