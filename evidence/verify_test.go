package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

func TestValidRange(t *testing.T) {
	w := newWorld(t)
	r := judged(t, bundle(t, w.contents()), w.policy())
	if r.ExitCode() != 0 || r.Result() != ResultValid {
		t.Fatalf("not valid:\n%s", text(t, r))
	}
	for _, f := range r.Findings() {
		want := Pass
		if f.Dimension == Witnesses || f.Dimension == Exchange {
			want = NotApplicable
		}
		if f.Status != want {
			t.Errorf("%s is %s, want %s", f.Dimension, f.Status, want)
		}
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	if !bytes.Equal(bundle(t, a.contents()), bundle(t, b.contents())) {
		t.Fatal("the same contents give other bytes")
	}
}

// expect verifies a bundle and asks for one dimension's status and a text in
// one of its problems.
func expect(t *testing.T, b []byte, p Policy, exit int, d Dimension, status Status, problem string) {
	t.Helper()
	r := judged(t, b, p)
	f := r.Finding(d)
	if r.ExitCode() != exit || f.Status != status || !strings.Contains(strings.Join(f.Problems, "\n"), problem) {
		t.Errorf("want exit %d and %s %s with %q, got:\n%s", exit, d, status, problem, text(t, r))
	}
}

// TestL4EveryByteOfASmallBundle changes every byte of a bundle of two records.
// Whichever it is, the bundle is invalid, and something is said about it.
func TestL4EveryByteOfASmallBundle(t *testing.T) {
	t.Parallel()
	w := &world{t: t, writers: map[string]*writer{}, clock: start, tree: newTree(t, 0)}
	w.writers["admin"] = newWriter(t, "admin", record.RoleAdmin, testKey(manifestID))
	w.addWriter("gw-1", record.RoleGateway)
	w.heartbeat("gw-1", record.BeatStart)
	c := Contents{
		Mode: ModeRange, Origin: origin, To: 2, Query: "all", Last: w.checkpoint(2), Signer: testSigner(t, manifestID),
		Records: []Record{{0, w.leaves[0]}, {1, w.leaves[1]}},
	}
	p := w.policy()
	b := bundle(t, c)
	if r := judged(t, b, p); r.ExitCode() != 0 {
		t.Fatalf("twin:\n%s", text(t, r))
	}
	flipAll(t, b, p, 1)
}

// TestL4BytesOfAFullBundle samples the bytes of a bundle that has every kind of
// file.
func TestL4BytesOfAFullBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	flipAll(t, bundle(t, w.contents()), w.policy(), 211)
}

func flipAll(t *testing.T, b []byte, p Policy, step int) {
	t.Helper()
	for i := 0; i < len(b); i += step {
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		r := judged(t, c, p)
		reasons := 0
		for _, f := range r.Findings() {
			if f.Status == Fail {
				reasons += len(f.Problems)
			}
		}
		if r.ExitCode() != 1 || reasons == 0 {
			t.Fatalf("byte %d of %d changed:\n%s", i, len(b), text(t, r))
		}
		if i%97 == 0 { // the file itself cut off here
			if r := judged(t, b[:i], p); r.ExitCode() != 1 {
				t.Fatalf("cut at %d:\n%s", i, text(t, r))
			}
		}
	}
}

func TestNotABundle(t *testing.T) {
	p := newWorld(t).policy()
	for _, b := range [][]byte{nil, []byte("hello"), []byte("PK\x05\x06"), make([]byte, 100)} {
		if r := judged(t, b, p); r.ExitCode() != 1 || r.Finding(Container).Status != Fail {
			t.Errorf("%q:\n%s", b, text(t, r))
		}
	}
	if _, err := VerifyFile(filepath.Join(t.TempDir(), "missing.zip"), p); err == nil {
		t.Error("a missing file is judged")
	}
	file := filepath.Join(t.TempDir(), "bundle.zip")
	w := newWorld(t)
	if err := os.WriteFile(file, bundle(t, w.contents()), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(file, p); err != nil || r.ExitCode() != 0 {
		t.Errorf("twin: %v", err)
	}
}

// repack changes the files of a bundle and writes the container anew, as
// someone without the manifest key would.
func repack(t *testing.T, b []byte, change func(map[string][]byte)) []byte {
	t.Helper()
	list, err := unpack(b)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for _, f := range list {
		m[f.name] = bytes.Clone(f.data)
	}
	change(m)
	var files []file
	for name, data := range m {
		files = append(files, file{name, data})
	}
	return pack(t, files...)
}

// TestL3CutTail removes the last record: by hand, with a manifest for the rest,
// and with a checkpoint for the rest.
func TestL3CutTail(t *testing.T) {
	w := newWorld(t)
	n := len(w.leaves)
	last := fmt.Sprintf("record %d of [0,%d) missing", n-1, n)
	good := bundle(t, w.contents())

	cut := repack(t, good, func(m map[string][]byte) { delete(m, fmt.Sprintf("records/%d.json", n-1)) })
	expect(t, cut, w.policy(), 1, ManifestSig, Fail, "is in the manifest, but not in the bundle")
	expect(t, cut, w.policy(), 1, Completeness, Fail, last)

	c := w.contents()
	c.Records = c.Records[:n-1]
	expect(t, bundle(t, c), w.policy(), 1, Completeness, Fail, last) // the manifest is signed, and lies
	c.To--
	expect(t, bundle(t, c), w.policy(), 1, Completeness, Fail, last)
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "cannot be recomputed")

	// An earlier checkpoint of the log itself is a valid, smaller bundle.
	c.Last, c.Consistency = w.checkpoint(n-1), w.tree.consistency(t, 3, int64(n-1))
	if r := judged(t, bundle(t, c), w.policy()); r.ExitCode() != 0 {
		t.Errorf("smaller log:\n%s", text(t, r))
	}
}

// TestL3EndUnproven is a copy of the log that goes past its last checkpoint:
// what lies behind it could have been cut without a trace.
func TestL3EndUnproven(t *testing.T) {
	w := newWorld(t)
	n := len(w.leaves)
	c := w.contents()
	c.Last, c.Consistency = w.checkpoint(n-2), w.tree.consistency(t, 3, int64(n-2))
	expect(t, bundle(t, c), w.policy(), 2, Completeness, NotProven, "valid prefix, end unproven")
	if r := judged(t, bundle(t, c), w.policy()); r.Result() != ResultCannotDecide {
		t.Error(r.Result())
	}
}

func TestL3Hole(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	c.Records = append(c.Records[:4:4], c.Records[5:]...)
	b := bundle(t, c)
	expect(t, b, w.policy(), 1, Completeness, Fail, "record 4 of [0,10) missing")
	expect(t, b, w.policy(), 1, Sequence, Fail, `writer "sts-1": seq 1 is missing before record 5`)
}

// TestL3Fork gives two checkpoints of one log that contradict each other, both
// signed with the log's key.
func TestL3Fork(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	other.heartbeat("gw-1", record.Beat)
	leaves := other.leaves
	leaves[2], leaves[5] = leaves[5], leaves[2]
	other.rebuild(leaves[:3])
	c := w.contents()
	c.First = other.checkpoint(3)
	expect(t, bundle(t, c), w.policy(), 1, Checkpoints, Fail, "rewritten or forked")

	c = w.contents()
	other.rebuild(leaves[:10])
	c.First, c.Consistency = other.checkpoint(10), nil
	expect(t, bundle(t, c), w.policy(), 1, Checkpoints, Fail, "forked")
}

// TestL3Rewritten is an operator who drops a record and builds log, checkpoint
// and manifest anew. Only the writers' own counting shows it.
func TestL3Rewritten(t *testing.T) {
	w := newWorld(t)
	dropped := append(append([][]byte(nil), w.leaves[:6]...), w.leaves[7:]...)
	w.rebuild(dropped)
	c := w.contents()
	expect(t, bundle(t, c), w.policy(), 1, Sequence, Fail, `writer "gw-1": seq 1 is missing before record 6`)
	if got := judged(t, bundle(t, c), w.policy()).Finding(Inclusion).Status; got != Pass {
		t.Errorf("inclusion is %s", got)
	}
}

func TestL3Reordered(t *testing.T) {
	w := newWorld(t)
	// In the bundle alone: the tree shows it.
	c := w.contents()
	c.Records[6].Index, c.Records[7].Index = 7, 6
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "changed, moved or replaced")
	// In the log too: the writer's counting shows it.
	leaves := append([][]byte(nil), w.leaves...)
	leaves[7], leaves[8] = leaves[8], leaves[7]
	w.rebuild(leaves)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Sequence, Fail, "missing before record 7")
}

// TestL4EditedRecord changes one word of a record, in every way to cover it up.
func TestL4EditedRecord(t *testing.T) {
	w := newWorld(t)
	const at = 8 // the refusal
	env, err := record.Open(w.leaves[at])
	if err != nil {
		t.Fatal(err)
	}
	payload := bytes.Replace(env.Payload, []byte("/args/table=customers"), []byte("/args/table=cuztomers"), 1)

	c := w.contents()
	stranger := *w.writers["gw-1"]
	resigned := w.sign(&stranger, payload)
	c.Records[at].Envelope = bytes.Replace(w.leaves[at], []byte(`"payload":"`), []byte(`"payload": "`), 1)
	expect(t, bundle(t, c), w.policy(), 1, Signature, Fail, "record 8")

	c.Records[at].Envelope = resigned // with the stolen key, but the tree stands
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "changed, moved or replaced")

	leaves := append([][]byte(nil), w.leaves...) // and with the log's key too
	leaves[at] = resigned
	w.rebuild(leaves)
	expect(t, bundle(t, w.contents()), w.policy(), 1, Sequence, Fail, "record 9 does not follow")
}

// TestL4ResignedByAnotherKey is an edited record under a key that nobody added,
// in a log built anew.
func TestL4ResignedByAnotherKey(t *testing.T) {
	w := newWorld(t)
	env, err := record.Open(w.leaves[8])
	if err != nil {
		t.Fatal(err)
	}
	stranger := newWriter(t, "gw-1", record.RoleGateway, testKey("stranger"))
	payload := bytes.Replace(env.Payload, []byte(w.writers["gw-1"].signer.KeyID()), []byte(stranger.signer.KeyID()), 1)
	leaves := append([][]byte(nil), w.leaves...)
	leaves[8] = w.sign(stranger, payload)
	w.rebuild(leaves)
	b := bundle(t, w.contents())
	expect(t, b, w.policy(), 1, Signature, Fail, "record 8 names key")
	expect(t, b, w.policy(), 1, WriterKeys, Fail, "was not added")
}

func TestL3ForgedCheckpoint(t *testing.T) {
	w := newWorld(t)
	for name, forge := range map[string]func([]byte) []byte{
		"another key": func(note []byte) []byte {
			text, _, _ := strings.Cut(string(note), "\n\n")
			k, err := NewSigner(origin, testKey("forger"))
			if err != nil {
				t.Fatal(err)
			}
			out, err := k.sign(text + "\n")
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
		"another root": func(note []byte) []byte {
			lines := strings.SplitN(string(note), "\n", 4)
			lines[2] = strings.Repeat("A", 43) + "="
			return []byte(strings.Join(lines, "\n"))
		},
		"another size": func(note []byte) []byte { return bytes.Replace(note, []byte("\n10\n"), []byte("\n11\n"), 1) },
		"another log":  func(note []byte) []byte { return bytes.Replace(note, []byte("/1\n10"), []byte("/2\n10"), 1) },
		"no text":      func([]byte) []byte { return []byte("x") },
	} {
		c := w.contents()
		c.Last = forge(c.Last)
		if r := judged(t, bundle(t, c), w.policy()); r.ExitCode() != 1 || r.Finding(Checkpoints).Status != Fail {
			t.Errorf("%s:\n%s", name, text(t, r))
		}
	}
}

// TestL3WrongPolicy holds a good bundle against policies that trust somebody
// else. A bundle cannot vouch for itself.
func TestL3WrongPolicy(t *testing.T) {
	w := newWorld(t)
	b := bundle(t, w.contents())
	other := testSigner(t, "other.example/1").Key()
	sameName, err := NewSigner(origin, testKey("other"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Trust)
		d      Dimension
		exit   int
	}{
		"another log":           {func(x *Trust) { x.Logs = []Key{other} }, Origin, 1},
		"another log key":       {func(x *Trust) { x.Logs = []Key{sameName.Key()} }, Checkpoints, 1},
		"another manifest key":  {func(x *Trust) { x.Manifests = []Key{other} }, ManifestSig, 1},
		"... and so no writers": {func(x *Trust) { x.Manifests = []Key{other} }, WriterKeys, 1},
		"another issuer key": {func(x *Trust) {
			x.Issuers[0].Thumbprint = digest([]byte("other"))
			x.Require = []Dimension{Chain}
		}, Chain, 2},
		"witnesses": {func(x *Trust) { x.Witnesses = []Key{witnessKey(t, "w.example")} }, Witnesses, 2},
	} {
		trust := w.trust()
		c.change(&trust)
		r := judged(t, b, mustPolicy(t, trust))
		if r.ExitCode() != c.exit || r.Finding(c.d).Status == Pass {
			t.Errorf("%s:\n%s", name, text(t, r))
		}
	}
	if judged(t, b, Policy{}).ExitCode() != 1 {
		t.Error("the zero policy trusts something")
	}
}

func TestWitnesses(t *testing.T) {
	w := newWorld(t)
	trust := w.trust()
	trust.Witnesses = []Key{witnessKey(t, "w1.example"), witnessKey(t, "w2.example")}
	p := mustPolicy(t, trust)
	c := w.contents()
	one := cosign(t, "w1.example", c.Last, 1803979000)
	two := cosign(t, "w2.example", one, 1803979001)

	c.Last = two
	r := judged(t, bundle(t, c), p)
	if r.ExitCode() != 0 || r.Finding(Witnesses).Summary != "2 of 2, 2027-03-02T09:16:41Z" {
		t.Errorf("both:\n%s", text(t, r))
	}
	c.Last = one
	expect(t, bundle(t, c), p, 2, Witnesses, NotProven, "do not make the quorum")
	forged := bytes.Replace(two, []byte("w2.example "), []byte("w2.example "), 1)
	forged[len(forged)-4] ^= 1
	c.Last = forged
	if r := judged(t, bundle(t, c), p); r.ExitCode() == 0 || r.Finding(Witnesses).Status == Pass {
		t.Errorf("forged cosignature:\n%s", text(t, r))
	}
}

// TestL6KeyRotation rotates a writer's key in the order of ledger.md §3.2: add,
// switch, drain, retire. Only then may the old one no longer sign.
func TestL6KeyRotation(t *testing.T) {
	w := newWorld(t)
	old := w.writers["gw-1"]
	next := *old
	next.key = testKey("gw-1 second")
	var err error
	if next.signer, err = record.NewSigner(next.key); err != nil {
		t.Fatal(err)
	}
	w.keyRecord(record.KeyAdd, &next, "")
	w.writers["gw-1"] = &next
	next.seq, next.prev, next.run = old.seq, old.prev, old.run
	w.heartbeat("gw-1", record.Beat)
	w.keyRecord(record.KeyRetire, old, "")
	w.heartbeat("gw-1", record.Beat)
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Fatalf("twin:\n%s", text(t, r))
	}

	next.key, next.signer = old.key, old.signer
	w.heartbeat("gw-1", record.Beat)
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "was ended (retire)")
}

// TestL6KeyBeforeItsRecord uses a key before the record that adds it, with a
// clock that says otherwise: the index decides.
func TestL6KeyBeforeItsRecord(t *testing.T) {
	w := newWorld(t)
	early := newWriter(t, "gw-2", record.RoleGateway, testKey("gw-2"))
	w.writers["gw-2"] = early
	w.clock += 1000
	w.heartbeat("gw-2", record.BeatStart)
	w.clock -= 2000
	w.keyRecord(record.KeyAdd, early, "")
	w.heartbeat("gw-2", record.Beat)
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "record 10: key")
}

func TestL6KeyRevoked(t *testing.T) {
	w := newWorld(t)
	w.keyRecord(record.KeyRevoke, w.writers["gw-1"], record.At(unix(w.clock-3)))
	r := judged(t, bundle(t, w.contents()), w.policy())
	if f := r.Finding(WriterKeys); f.Status != NotProven || f.Unproven == 0 || r.ExitCode() != 2 {
		t.Errorf("records since the theft:\n%s", text(t, r))
	}
	w.heartbeat("gw-1", record.Beat)
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "was ended (revoke)")
}

// TestL6KeyKnownStolenLater: a key that was retired is found to have been stolen
// before. What was signed under it since then is in doubt, and nothing after its
// end ever stood; a theft that is found to be older doubts more.
func TestL6KeyKnownStolenLater(t *testing.T) {
	rotated := func() (w *world, old *writer) {
		w = newWorld(t)
		old = w.writers["gw-1"]
		next := *old
		next.key = testKey("gw-1 second")
		var err error
		if next.signer, err = record.NewSigner(next.key); err != nil {
			t.Fatal(err)
		}
		w.keyRecord(record.KeyAdd, &next, "")
		w.writers["gw-1"] = &next
		w.heartbeat("gw-1", record.Beat)
		w.keyRecord(record.KeyRetire, old, "")
		w.keyRecord(record.KeyRetire, old, "") // a process that did not know says it again
		return w, old
	}
	w, old := rotated()
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Fatalf("twin:\n%s", text(t, r))
	}
	w.keyRecord(record.KeyRevoke, old, record.At(unix(w.clock+1)))
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Errorf("stolen after it was last used:\n%s", text(t, r))
	}
	w.keyRecord(record.KeyRevoke, old, record.At(unix(start)))
	r := judged(t, bundle(t, w.contents()), w.policy())
	if f := r.Finding(WriterKeys); f.Status != NotProven || r.ExitCode() != 2 {
		t.Errorf("stolen from the beginning:\n%s", text(t, r))
	}
	all := r.Finding(WriterKeys).Unproven
	w.keyRecord(record.KeyRevoke, old, record.At(unix(w.clock))) // a later time takes nothing back
	if got := judged(t, bundle(t, w.contents()), w.policy()).Finding(WriterKeys).Unproven; got != all {
		t.Errorf("%d records in doubt, then %d", all, got)
	}

	w, old = rotated()
	w.keyRecord(record.KeyAdd, old, "")
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "added after its end")
	w, old = rotated()
	w.keyRecord(record.KeyRevoke, old, record.At(unix(w.clock)))
	next := w.writers["gw-1"]
	thief := *next
	thief.key, thief.signer = old.key, old.signer
	w.writers["gw-1"] = &thief
	w.heartbeat("gw-1", record.Beat)
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "was ended (retire)")

	w = newWorld(t)
	stranger := newWriter(t, "gw-9", record.RoleGateway, testKey("stranger"))
	w.keyRecord(record.KeyRevoke, stranger, record.At(unix(start))) // one of a period before
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Errorf("a key that signed nothing here:\n%s", text(t, r))
	}
	w.keyRecord(record.KeyRetire, stranger, "")
	expect(t, bundle(t, w.contents()), w.policy(), 1, WriterKeys, Fail, "was never added")
}

// TestL6OwnKeyRecord is a writer that adds a key for itself.
func TestL6OwnKeyRecord(t *testing.T) {
	w := newWorld(t)
	admin := w.writers["admin"]
	w.writers["admin"] = w.writers["gw-1"]
	w.addWriter("gw-3", record.RoleGateway)
	w.writers["admin"] = admin
	w.heartbeat("gw-3", record.BeatStart)
	b := bundle(t, w.contents())
	expect(t, b, w.policy(), 1, WriterKeys, Fail, "not signed by a manifest key")
	expect(t, b, w.policy(), 1, Signature, Fail, "names key")
}

// TestL6ClockBack sets a writer's clock back: order is by sequence, so the
// bundle is as valid as before.
func TestL6ClockBack(t *testing.T) {
	w := newWorld(t)
	w.clock -= 100
	w.heartbeat("gw-1", record.Beat)
	if r := judged(t, bundle(t, w.contents()), w.policy()); r.ExitCode() != 0 {
		t.Fatalf("clock:\n%s", text(t, r))
	}
}

func TestSelected(t *testing.T) {
	w := newWorld(t)
	n := int64(len(w.leaves))
	selected := func(indexes ...int64) Contents {
		c := w.contents()
		c.Mode, c.From, c.To, c.Records, c.Disclosures = ModeSelected, 0, 0, nil, nil
		for _, i := range indexes {
			c.Records = append(c.Records, Record{i, w.leaves[i]})
			c.Proofs[i] = w.tree.inclusion(t, i, n)
		}
		return c
	}
	c := selected(0, 1, 4, 5, 6)
	r := judged(t, bundle(t, c), w.policy())
	if r.ExitCode() != 0 || r.Finding(Completeness).Status != NotProven || r.Finding(Inclusion).Status != Pass || r.Finding(Chain).Status != Pass {
		t.Errorf("selection:\n%s", text(t, r))
	}
	strict := w.trust()
	strict.Require = []Dimension{Completeness}
	expect(t, bundle(t, c), mustPolicy(t, strict), 2, Completeness, NotProven, "never proves")

	c = selected(0, 1, 6)
	delete(c.Proofs, 6)
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "record 6: its inclusion proof is missing")
	c = selected(0, 1, 6)
	c.Proofs[6] = c.Proofs[1]
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "record 6")
	c = selected(0, 1, 6)
	c.Records[2].Envelope = w.leaves[7]
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "record 6")
	expect(t, bundle(t, selected(6)), w.policy(), 1, Signature, Fail, "names key")
}

// TestLaterRange begins in the middle of the log, with the key records before
// it and one proof for its first record.
func TestLaterRange(t *testing.T) {
	w := newWorld(t)
	n := int64(len(w.leaves))
	later := func() Contents {
		c := w.contents()
		c.From = 4
		c.Records = append(c.Records[:2:2], c.Records[4:]...)
		for _, i := range []int64{0, 1, 4} {
			c.Proofs[i] = w.tree.inclusion(t, i, n)
		}
		return c
	}
	if r := judged(t, bundle(t, later()), w.policy()); r.ExitCode() != 0 || r.Finding(Completeness).Status != Pass {
		t.Fatalf("twin:\n%s", text(t, r))
	}
	c := later()
	delete(c.Proofs, 4)
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "the first of the range")
	c = later()
	c.Records = append(c.Records[:4:4], c.Records[5:]...)
	expect(t, bundle(t, c), w.policy(), 1, Completeness, Fail, "record 6 of [4,10) missing")
	c = later()
	delete(c.Proofs, 0)
	expect(t, bundle(t, c), w.policy(), 1, Inclusion, Fail, "record 0: its inclusion proof is missing")
}

func TestReportText(t *testing.T) {
	w := newWorld(t)
	got := text(t, judged(t, bundle(t, w.contents()), w.policy()))
	for _, want := range []string{
		"log          ledger.example/std/1  range [0, 10)\n", "signature    PASS        10/10\n",
		"not asserted callee_effect, calls that went past every gateway\n", "result       VALID   exit 0\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in:\n%s", want, got)
		}
	}
	trust := w.trust()
	trust.Require = []Dimension{Witnesses, Exchange}
	trust.Witnesses = []Key{witnessKey(t, "w.example")}
	got = text(t, judged(t, bundle(t, w.contents()), mustPolicy(t, trust)))
	if !strings.Contains(got, "result       CANNOT DECIDE (required: witnesses)   exit 2\n") {
		t.Errorf("undecided:\n%s", got)
	}
}

func TestReportJSON(t *testing.T) {
	w := newWorld(t)
	b, err := judged(t, bundle(t, w.contents()), w.policy()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Result   string
		ExitCode int `json:"exit_code"`
		Findings []struct{ Dimension, Status string }
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Result != "valid" || got.ExitCode != 0 || len(got.Findings) != len(Dimensions()) || got.Findings[0].Status != "PASS" {
		t.Errorf("%s", b)
	}
}

// TestL7ReportEscapes puts what a terminal acts on into names of a bundle.
func TestL7ReportEscapes(t *testing.T) {
	w := newWorld(t)
	c := w.contents()
	c.Origin = "evil\x1b[2J\u202etxt"
	got := text(t, judged(t, bundle(t, c), w.policy()))
	if strings.ContainsAny(got, "\x1b\u202e") || !strings.Contains(got, `\x1b[2J\u202etxt`) {
		t.Errorf("not escaped:\n%q", got)
	}
	raw, err := judged(t, bundle(t, c), w.policy()).JSON()
	if err != nil || strings.ContainsAny(string(raw), "\x1b\u202e") {
		t.Errorf("not escaped in JSON:\n%q", raw)
	}
	files := repack(t, bundle(t, w.contents()), func(m map[string][]byte) { m["a\x1b\nresult VALID"] = nil })
	if got := text(t, judged(t, files, w.policy())); strings.Contains(got, "\nresult VALID") || strings.Contains(got, "\x1b") {
		t.Errorf("not escaped:\n%q", got)
	}
}

func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	p := w.policy()
	good := bundle(f, w.contents())
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		if r := Verify(b, p); r.ExitCode() == 0 && !bytes.Equal(b, good) {
			t.Fatal("another bundle is valid")
		}
	})
}
