package evidence_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
)

const (
	calleeOrigin = "ledger.callee.example/std/2027-03"
	calleeNext   = "ledger.callee.example/std/2027-04"
	// publishedEach is the number of entries between two checkpoints.
	publishedEach = 64
)

// rootOf is the tree head as RFC 6962 §2.1 defines it, by another way than the
// package's.
func rootOf(leaves []evidence.Hash) evidence.Hash {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := rootOf(leaves[:k]), rootOf(leaves[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func leavesOf(payloads [][]byte) (out []evidence.Hash) {
	for _, p := range payloads {
		out = append(out, evidence.LeafHash(p))
	}
	return out
}

// published names the newest of the checkpoints that are made at each 64 entries,
// of one log.
func published() func(payloads [][]byte) string {
	size, body := 0, ""
	return func(payloads [][]byte) string {
		if n := len(payloads) / publishedEach * publishedEach; n > size {
			size, body = n, record.CheckpointBody(calleeOrigin, uint64(n), rootOf(leavesOf(payloads[:n])))
		}
		return body
	}
}

// pairOf are the two sides of 400 calls, with what receipts name.
func pairOf(t *testing.T, checkpoint func([][]byte) string) (a, b evidence.Side) {
	t.Helper()
	caller, callee, _, err := scenario.Pair{Calls: 400, Checkpoint: checkpoint}.Make()
	if err != nil {
		t.Fatal(err)
	}
	a, b = sideOf(t, "a.zip", caller), sideOf(t, "b.zip", callee)
	b.Origin, b.Leaves = calleeOrigin, leavesOf(callee.Payloads)
	return a, b
}

// honest is the pair whose callee names its one log, made once. Its sides are not
// changed, only their copies.
var honest struct {
	once sync.Once
	a, b evidence.Side
}

func honestPair(t *testing.T) (a, b evidence.Side) {
	t.Helper()
	honest.once.Do(func() { honest.a, honest.b = pairOf(t, published()) })
	return honest.a, honest.b
}

// cutAt is a side as its log was with n entries.
func cutAt(s evidence.Side, n int) evidence.Side {
	s.Records, s.Leaves = s.Records[:n:n], s.Leaves[:n:n]
	return s
}

// trees are the differences about trees, and how many receipts there are of each
// kind.
func trees(t *testing.T, a, b evidence.Side) (map[evidence.DifferenceKind]int, map[evidence.DifferenceKind]evidence.Difference) {
	t.Helper()
	return treesOf(t, a, evidence.Reconcile(a, b))
}

func treesOf(t *testing.T, a evidence.Side, r evidence.Reconciliation) (map[evidence.DifferenceKind]int, map[evidence.DifferenceKind]evidence.Difference) {
	t.Helper()
	found := map[evidence.DifferenceKind]evidence.Difference{}
	for _, d := range r.Differences {
		if d.Kind != evidence.LogForked && d.Kind != evidence.LogCut {
			continue
		}
		if _, twice := found[d.Kind]; twice {
			t.Errorf("%s is told twice", d.Kind)
		}
		if _, kept := a.Signed[d.Proof]; !kept || !d.Alarm || d.Caller == nil || d.Caller.Side != "a.zip" {
			t.Errorf("%+v is proven by nothing that the callee signed", d)
		}
		found[d.Kind] = d
	}
	return r.Trees, found
}

// TestL3ReceiptHoldsTheTree: what a partner's receipts name of its log is held to
// the log that it shows later. The log that grew as it was named is the twin.
func TestL3ReceiptHoldsTheTree(t *testing.T) {
	a, b := honestPair(t)
	size := len(b.Leaves)
	counts, found := trees(t, a, b)
	if len(counts) != 1 || counts[evidence.Matched] < 300 || len(found) != 0 {
		t.Fatalf("of a log that only grew: %v, %v", counts, found)
	}
	receipts := counts[evidence.Matched]
	expect := func(name string, b evidence.Side, kind evidence.DifferenceKind, words ...string) map[evidence.DifferenceKind]int {
		t.Helper()
		counts, found := trees(t, a, b)
		n := 0
		for _, c := range counts {
			n += c
		}
		if n != receipts || counts[kind] == 0 || len(found) != 1 || found[kind].Kind != kind {
			t.Errorf("%s: %v of %d receipts, %v", name, counts, receipts, found)
		}
		for _, w := range words {
			if !strings.Contains(found[kind].Text, w) {
				t.Errorf("%s: %q does not say %q", name, found[kind].Text, w)
			}
		}
		return counts
	}

	// It goes back to a backup. What it signed shortly before the evidence was made may
	// have been signed after, and is left out.
	counts = expect("a backup", cutAt(b, size/2), evidence.LogCut, calleeOrigin, fmt.Sprintf("since has %d", size/2))
	if counts[evidence.Matched] == 0 || counts[evidence.OutOfWindow] == 0 {
		t.Errorf("of a backup: %v", counts)
	}
	if turned := evidence.Reconcile(cutAt(b, size/2), a); fmt.Sprint(turned.Trees) != fmt.Sprint(counts) {
		t.Errorf("of a backup: %v, and named first %v", counts, turned.Trees)
	}
	early := cutAt(b, size/2)
	early.Until = time.Time{}
	if counts, found := trees(t, a, early); counts[evidence.LogCut] != 0 || counts[evidence.OutOfWindow] == 0 || len(found) != 0 {
		t.Errorf("of evidence that was made before: %v, %v", counts, found)
	}

	// It goes back, and on from there: its log is as long as before.
	other := cutAt(b, size/2)
	for i := range size - size/2 {
		other.Leaves = append(other.Leaves, evidence.LeafHash(fmt.Appendf(nil, "instead %d", i)))
	}
	first := (size/2/publishedEach + 1) * publishedEach
	counts = expect("a backup that went on", other, evidence.LogForked, fmt.Sprintf("at size %d", first))
	if counts[evidence.Matched] == 0 || counts[evidence.OutOfWindow] != 0 {
		t.Errorf("of a backup that went on: %v", counts)
	}

	// It shows the auditor a log in which one entry is another.
	other = cutAt(b, size)
	other.Leaves = slices.Clone(other.Leaves)
	other.Leaves[3*publishedEach] = evidence.LeafHash([]byte("instead"))
	root := rootOf(other.Leaves[:4*publishedEach])
	counts = expect("another entry", other, evidence.LogForked, fmt.Sprintf("at size %d", 4*publishedEach), base64.StdEncoding.EncodeToString(root[:]))
	if counts[evidence.Matched] == 0 {
		t.Errorf("of another entry: %v", counts)
	}

	// What does not show its tree proves nothing, and is said.
	blind := b
	blind.Leaves = nil
	if counts, found := trees(t, a, blind); counts[evidence.OutOfWindow] != receipts || len(found) != 0 {
		t.Errorf("of evidence without a tree: %v, %v", counts, found)
	}
	// Receipts of before receipts named a checkpoint.
	a, b = pairOf(t, nil)
	if counts, found := trees(t, a, cutAt(b, size/2)); len(counts) != 0 || len(found) != 0 {
		t.Errorf("of receipts without a checkpoint: %v, %v", counts, found)
	}
}

// TestL5TwoTreesAmongReceipts: a partner that signs two trees of one size is found
// by its receipts alone, whatever log it shows.
func TestL5TwoTreesAmongReceipts(t *testing.T) {
	n, own := 0, published()
	a, b := pairOf(t, func(payloads [][]byte) string {
		if n++; n%2 == 0 || len(payloads) < publishedEach {
			return own(payloads)
		}
		size := len(payloads) / publishedEach * publishedEach
		return record.CheckpointBody(calleeOrigin, uint64(size), evidence.Hash{1})
	})
	b.Origin = calleeNext
	counts, found := trees(t, a, b)
	if counts[evidence.LogForked] == 0 || counts[evidence.Matched] != 0 || !strings.Contains(found[evidence.LogForked].Text, "signed two trees of "+calleeOrigin) {
		t.Errorf("%v, %v", counts, found)
	}
	a, b = honestPair(t)
	b.Origin = calleeNext
	if counts, found := trees(t, a, b); counts[evidence.OutOfWindow] == 0 || len(counts) != 1 || len(found) != 0 {
		t.Errorf("twin: %v, %v", counts, found)
	}
}

// TestL3NextPeriodBinds: a partner that shows its next period alone says there
// with which tree the one before ended; that must hold what it signed, and calls of
// the time before are no omission of the next.
func TestL3NextPeriodBinds(t *testing.T) {
	a, whole := honestPair(t)
	last := len(whole.Leaves) / publishedEach * publishedEach
	next := func(previous string) evidence.Side {
		s := whole
		s.Origin, s.Leaves = calleeNext, []evidence.Hash{{1}, {2}}
		open := record.Record{Header: record.Header{Kind: record.KindPeriod, Time: record.At(whole.Until)}, Period: &record.Period{
			Op: record.PeriodOpen, Origin: calleeNext, Previous: previous, Cause: record.PeriodRoll,
		}}
		s.Records = []evidence.SideRecord{{Index: 0, Record: open}}
		for _, e := range whole.Records {
			if e.Record.KeyChange != nil {
				s.Records = append(s.Records, evidence.SideRecord{Index: 1, Record: e.Record})
			}
		}
		s.Until = whole.Until.Add(time.Hour)
		return s
	}
	end := func(n int) string { return record.CheckpointBody(calleeOrigin, uint64(n), rootOf(whole.Leaves[:n])) }
	for name, tt := range map[string]struct {
		previous string
		kind     evidence.DifferenceKind
	}{
		"as it was": {end(last), ""}, "longer than was named": {end(last + 1), ""}, "the first period": {"", ""},
		"shorter":      {end(last - 1), evidence.LogCut},
		"another root": {record.CheckpointBody(calleeOrigin, uint64(last), evidence.Hash{1}), evidence.LogForked},
	} {
		r := evidence.Reconcile(a, next(tt.previous))
		counts, found := treesOf(t, a, r)
		if tt.kind == "" && len(found) != 0 || tt.kind != "" && (len(found) != 1 || found[tt.kind].Kind != tt.kind) {
			t.Errorf("%s: %v, %v", name, counts, found)
		}
		if missing := r.Exchanges[evidence.MissingAtCallee]; (missing != 0) != (tt.previous == "") {
			t.Errorf("%s: %d calls are missing", name, missing) // those of the period before are no omission
		}
	}
}

// TestL3ForgedReceiptNamesNothing: a tree that another key signed, or of another
// family, is nobody's.
func TestL3ForgedReceiptNamesNothing(t *testing.T) {
	a, b := honestPair(t)
	short := cutAt(b, len(b.Leaves)/2)
	strangers := short
	strangers.Records = slices.DeleteFunc(slices.Clone(short.Records), func(e evidence.SideRecord) bool { return e.Record.KeyChange != nil })
	renamed := short
	renamed.Log = "ledger.else.example/std"
	revoked := func(since time.Time) evidence.Side {
		s := short
		s.Records = slices.Clone(short.Records)
		for _, e := range short.Records {
			if k := e.Record.KeyChange; k != nil {
				gone := *k
				gone.Op, gone.Since, gone.Cause = record.KeyRevoke, record.At(since), "stolen"
				s.Records = append(s.Records, evidence.SideRecord{Index: e.Index + 1e6, Record: record.Record{Header: e.Record.Header, KeyChange: &gone}})
			}
		}
		return s
	}
	begun, err := b.Records[0].Record.Time.Time()
	if err != nil {
		t.Fatal(err)
	}
	if counts, _ := trees(t, a, revoked(b.Until)); counts[evidence.LogCut] == 0 {
		t.Errorf("twin: a key that was stolen after: %v", counts)
	}
	for name, b := range map[string]evidence.Side{"keys that are nobody's": strangers, "another family": renamed, "a stolen key": revoked(begun.Add(-time.Hour))} {
		if counts, found := trees(t, a, b); len(counts) != 0 || len(found) != 0 {
			t.Errorf("%s: %v, %v", name, counts, found)
		}
	}
	if counts, _ := trees(t, a, short); counts[evidence.LogCut] == 0 {
		t.Errorf("twin: %v", counts)
	}
}
