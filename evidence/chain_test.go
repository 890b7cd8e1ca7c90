package evidence

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// decide appends a decision that was changed from the permitted one.
func (w *world) decide(change func(*record.Decision)) {
	w.t.Helper()
	d := w.decision()
	change(&d)
	w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: &d})
}

func grantDetails(t testing.TB, raw string) record.Details {
	t.Helper()
	d, err := record.DetailsFrom([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestL4ChainAgainstReceipts is a gateway that writes another chain into a
// record than the issuer's receipts tell. It signs the record itself, so that
// everything but the chain holds.
func TestL4ChainAgainstReceipts(t *testing.T) {
	wider := grantDetails(t, strings.Replace(grant1, `["orders"]`, `["orders","customers","salaries"]`, 1))
	other := grantDetails(t, strings.Replace(grant1, `["orders"]`, `["customers"]`, 1))
	for name, c := range map[string]struct {
		change  func(*record.Decision)
		problem string
	}{
		"widened":         {func(d *record.Decision) { d.Chain[1].Details = wider }, "more authority than the hop before"},
		"another grant":   {func(d *record.Decision) { d.Chain[1].Details = other }, "hop 1 is not what its receipt says"},
		"another actor":   {func(d *record.Decision) { d.Chain[0].Actor = "spiffe://example/other" }, "hop 0 is not what its receipt says"},
		"another person":  {func(d *record.Decision) { d.Person.Ref = "AAAAlizZ22qhhrGe3Wu5KA" }, "another person"},
		"another txn":     {func(d *record.Decision) { d.Txn = "01a40584-8ff0-729d-af26-000000000000" }, "transaction"},
		"another scope":   {func(d *record.Decision) { d.Chain[1].Scope = "mcp:call a2a:send" }, "hop 1"},
		"longer life":     {func(d *record.Decision) { d.Chain[1].Expires += 600 }, "not within the time of the hop before"},
		"earlier life":    {func(d *record.Decision) { d.Chain[1].IssuedAt++ }, "hop 1 is not what its receipt says"},
		"another token":   {func(d *record.Decision) { d.Chain[1].TokenHash = digest([]byte("other")) }, "hop 1 was never issued in this log"},
		"another receipt": {func(d *record.Decision) { d.Chain[0].ReceiptHash = digest([]byte("other")) }, "hop 0 was never issued in this log"},
		"a hop cut off": {func(d *record.Decision) {
			d.Chain, d.Verdict.Details = d.Chain[1:], d.Verdict.Details[1:]
		}, ""},
		"another caller": {func(d *record.Decision) {
			d.Caller.Claimed, d.Caller.Proven = "spiffe://example/other", "spiffe://example/other"
		}, "the last hop's actor"},
	} {
		w := newWorld(t)
		w.decide(c.change)
		r := judged(t, bundle(t, w.contents()), w.policy())
		f := r.Finding(Chain)
		if r.ExitCode() != 1 || f.Status != Fail || !strings.Contains(strings.Join(f.Problems, "\n"), c.problem) {
			t.Errorf("%s:\n%s", name, text(t, r))
		}
		if got := r.Finding(Signature).Status; got != Pass {
			t.Errorf("%s: signature is %s", name, got)
		}
	}
	w := newWorld(t)
	w.decide(func(*record.Decision) {})
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.Finding(Chain).Status != Pass {
		t.Errorf("twin:\n%s", text(t, r))
	}
}

func TestChainExpired(t *testing.T) {
	w := newWorld(t)
	w.clock = start + 300 + 29
	w.decide(func(*record.Decision) {})
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.Finding(Chain).Status != Pass {
		t.Errorf("within the leeway:\n%s", text(t, r))
	}
	w.clock = start + 300 + 31
	w.decide(func(*record.Decision) {})
	expect(t, bundle(t, w.contents()), w.policy(), 1, Chain, Fail, "when the token was not in force")
}

func TestReceipts(t *testing.T) {
	w := newWorld(t)
	strict := w.trust()
	strict.Require = []Dimension{Chain}

	c := w.contents()
	c.Receipts = c.Receipts[:1]
	b := bundle(t, c)
	expect(t, b, w.policy(), 0, Chain, NotProven, "the receipt of hop 1 is not in the bundle")
	expect(t, b, mustPolicy(t, strict), 2, Chain, NotProven, "the receipt of hop 1")

	// Another spelling of the signature: same name, since H covers what is
	// signed, but not the issuer's bytes.
	c = w.contents()
	forged := []byte(c.Receipts[1])
	forged[len(forged)-20] ^= 1
	c.Receipts = []string{c.Receipts[0], string(forged)}
	expect(t, bundle(t, c), w.policy(), 1, Chain, Fail, "receipts: ")

	// A receipt under the name of another.
	b = repackSigned(t, w, func(m map[string][]byte) {
		var names []string
		for name := range m {
			if strings.HasPrefix(name, receiptsDir) {
				names = append(names, name)
			}
		}
		m[names[0]], m[names[1]] = m[names[1]], m[names[0]]
	})
	expect(t, b, w.policy(), 1, Chain, Fail, "does not have the hash it is kept under")

	c = w.contents()
	c.IssuerKeys = nil
	expect(t, bundle(t, c), w.policy(), 0, Chain, NotProven, "no key of issuer")
	c.IssuerKeys = [][]byte{[]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"k1"}]}`)}
	expect(t, bundle(t, c), w.policy(), 1, Chain, Fail, "issuer keys")
}

// repackSigned changes files of a bundle and signs a new manifest, as the
// operator could.
func repackSigned(t *testing.T, w *world, change func(map[string][]byte)) []byte {
	t.Helper()
	return repack(t, bundle(t, w.contents()), func(m map[string][]byte) {
		var man manifest
		if err := json.Unmarshal(m[manifestFile], &man); err != nil {
			t.Fatal(err)
		}
		delete(m, manifestFile)
		delete(m, manifestNote)
		change(m)
		man.Files = map[string]string{}
		for name, data := range m {
			man.Files[name] = digest(data)
		}
		raw, err := man.bytes()
		if err != nil {
			t.Fatal(err)
		}
		sig, err := testSigner(t, manifestID).sign(manifestText(man.Origin, sha256.Sum256(raw)))
		if err != nil {
			t.Fatal(err)
		}
		m[manifestFile], m[manifestNote] = raw, sig
	})
}

// TestC11UseBeforeIssue is a hop whose issuance record stands after its use, or
// nowhere: so a stolen issuer key shows.
func TestC11UseBeforeIssue(t *testing.T) {
	w := newWorld(t)
	leaves := append([][]byte(nil), w.leaves...)
	// 0 1 keys, 2 3 heartbeats, 4 5 issued, 6 permit: the gateway's first.
	moved := append(append(append([][]byte(nil), leaves[:4]...), leaves[6], leaves[4], leaves[5]), leaves[7:]...)
	w.rebuild(moved)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Chain, Fail, "record 4: hop 0 was issued after its use, at index 5")

	w = newWorld(t)
	w.decide(func(d *record.Decision) { d.Chain[1].TokenHash = digest([]byte("minted")) })
	expect(t, bundle(t, w.contents()), w.policy(), 1, Chain, Fail, "record 10: hop 1 was never issued in this log")
}

func TestPoliciesInBundle(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	c.Policies = nil
	expect(t, bundle(t, c), w.policy(), 0, Policies, NotProven, "not in the bundle")
	c.Policies = []PolicyBundle{{digest(w.rules), []byte("permit all")}}
	expect(t, bundle(t, c), w.policy(), 1, Policies, Fail, "hash")

	archive := func(files map[string]string) []byte {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for name, data := range files {
			if err := tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := tw.Write([]byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	rules := `{"name":"x","files":[{"path":"policies/a.cedar","sha256":"` + digest([]byte("permit")) + `"}]}`
	good := map[string]string{"manifest.json": rules, "manifest.dsse.json": "sig", "policies/a.cedar": "permit"}
	if err := checkRules(digest([]byte(rules)), archive(good)); err != nil {
		t.Errorf("twin: %v", err)
	}
	for name, bad := range map[string]map[string]string{
		"another manifest": {"manifest.json": rules + " ", "policies/a.cedar": "permit"},
		"no manifest":      {"policies/a.cedar": "permit"},
		"another rule":     {"manifest.json": rules, "policies/a.cedar": "forbid"},
		"a rule less":      {"manifest.json": rules},
		"a rule more":      {"manifest.json": rules, "policies/a.cedar": "permit", "policies/b.cedar": "permit"},
	} {
		if err := checkRules(digest([]byte(rules)), archive(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOutcomes(t *testing.T) {
	put := func(w *world, of, call string, forwarded bool) {
		status := record.StatusNotForwarded
		if forwarded {
			status = record.StatusCompleted
		}
		w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
			Of: of, CallID: call, Status: status, Forwarded: forwarded, Ended: record.At(unix(w.clock)),
		}})
	}
	callOf := func(w *world, i int) string {
		env, err := record.Open(w.leaves[i])
		if err != nil {
			t.Fatal(err)
		}
		r, err := env.Record()
		if err != nil {
			t.Fatal(err)
		}
		return r.Decision.CallID
	}
	w := newWorld(t)
	put(w, w.decided[1], callOf(w, 8), true)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Outcomes, Fail, "a call was forwarded that decision 8 refused")
	w = newWorld(t)
	put(w, w.id(), w.id(), false)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Outcomes, Fail, "does not stand before it")
	w = newWorld(t)
	put(w, w.decided[0], callOf(w, 8), false)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Outcomes, Fail, "another call")
	w = newWorld(t)
	w.decide(func(*record.Decision) {})
	expect(t, bundle(t, w.contents()), w.policy(), 0, Outcomes, NotProven, "what followed 1 permitted calls is not known")
}

func TestDisclosures(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	c.Disclosures = nil
	expect(t, bundle(t, c), w.policy(), 0, Disclosures, NotProven, "1 values erased")
	other, err := record.NewDisclosure(record.SaltText([32]byte{1}), "/args/table", strictjson.String("customers"))
	if err != nil {
		t.Fatal(err)
	}
	c.Disclosures = []string{w.sd.Encoded(), other.Encoded()}
	expect(t, bundle(t, c), w.policy(), 1, Disclosures, Fail, "belongs to no record")
	b := repackSigned(t, w, func(m map[string][]byte) { m[disclosuresDir+w.sd.Digest()] = []byte(other.Encoded()) })
	expect(t, b, w.policy(), 1, Disclosures, Fail, "another value")
}

func TestExchangeIsNotProven(t *testing.T) {
	w := newWorld(t)
	w.decide(func(d *record.Decision) {
		d.Exchange = &record.Exchange{ID: run(7), Role: record.RoleCaller, PeerOrg: "partner.example", BodyCommit: digest([]byte("b"))}
	})
	strict := w.trust()
	strict.Require = []Dimension{Exchange}
	expect(t, bundle(t, w.contents()), mustPolicy(t, strict), 2, Exchange, NotProven, "1 exchange receipts missing")
}

// TestRefusedChainIsNotWidened: a chain that was refused because it widens is
// evidence of the refusal, not a fault of the bundle.
func TestRefusedChainIsNotWidened(t *testing.T) {
	w := newWorld(t)
	wider := grantDetails(t, strings.Replace(grant1, `["orders"]`, `["salaries"]`, 1))
	w.decide(func(d *record.Decision) {
		d.Chain[1].Details, d.Chain[1].TokenHash = wider, digest([]byte("forged"))
		d.Verdict = record.Verdict{
			Effect: record.Deny, Scope: record.NotEvaluated, Policy: record.NotEvaluated, Reason: "chain_widened",
		}
	})
	r := judged(t, bundle(t, w.contents()), w.policy())
	for _, p := range r.Finding(Chain).Problems {
		if strings.Contains(p, "more authority") {
			t.Errorf("%s", text(t, r))
		}
	}
}

func TestUnknownFile(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"extra.txt", "records/01.json", "records/x.json", "receipts/short.jwt", "checkpoints/other"} {
		b := repackSigned(t, w, func(m map[string][]byte) { m[name] = []byte("x") })
		expect(t, b, w.policy(), 1, ManifestSig, Fail, "has no place in a bundle")
	}
	b := repack(t, bundle(t, w.contents()), func(m map[string][]byte) { m["receipts/"+digest(nil)+".jwt"] = nil })
	expect(t, b, w.policy(), 1, ManifestSig, Fail, "in the bundle, but not in the manifest")
}

// TestOpenTakesApart: a decision, its rules and what is disclosed of it are
// found; what is no bundle, or is not what its manifest names, is not opened.
func TestOpenTakesApart(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	b, err := Open(bundle(t, c))
	if err != nil {
		t.Fatal(err)
	}
	var found int
	for _, r := range b.records {
		if r.Decision == nil {
			continue
		}
		found++
		for _, id := range []string{r.ID, r.Decision.CallID} {
			if got, ok := b.Decision(id); !ok || got.Decision.CallID != r.Decision.CallID {
				t.Errorf("%s is not found", id)
			}
		}
		if ds, missing := b.Disclosures(r.Decision); len(r.Decision.SD) > 0 && (missing != 0 || len(ds) != len(r.Decision.SD)) {
			t.Errorf("%d disclosed, %d missing", len(ds), missing)
		}
		if _, ok := b.Rules(r.Decision.Policy.BundleDigest); !ok {
			t.Errorf("no rules %s", r.Decision.Policy.BundleDigest)
		}
	}
	if found == 0 {
		t.Fatal("no decision in the bundle")
	}
	if _, ok := b.Decision("no such"); ok {
		t.Error("a decision that is not there")
	}
	c = w.contents()
	c.Disclosures = nil
	closed, err := Open(bundle(t, c))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range closed.records {
		if d := r.Decision; d != nil && len(d.SD) > 0 {
			if ds, missing := closed.Disclosures(d); len(ds) != 0 || missing != len(d.SD) {
				t.Errorf("%d disclosed, %d missing", len(ds), missing)
			}
		}
	}
	whole := bundle(t, w.contents())
	for name, raw := range map[string][]byte{"nothing": nil, "text": []byte("text"), "cut": whole[:len(whole)/2]} {
		if _, err := Open(raw); err == nil {
			t.Errorf("%s opens", name)
		}
	}
}
