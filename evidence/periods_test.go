package evidence

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/record"
)

const nextOrigin = family + "/2"

// periods are two periods of one log: the first is sealed, the second opens after
// it and prunes it once its retention has ended.
type periods struct {
	t         *testing.T
	old, next *world
	kept      []int64
	pruning   int64 // index in next
}

// changes are what an operator does otherwise.
type changes struct {
	noSeal   bool
	rollback bool         // the second is opened because the first lost its end
	previous string       // of the opening; "" is as it must be
	opener   string       // who writes the opening; "" is the admin
	pruner   string       // who writes the pruning; "" is the admin
	early    bool         // the pruning comes before its time
	prunes   string       // the origin; "" is that of the first period
	keeps    []int64      // what it says stays; nil is as it is
	between  func(*world) // before the first is sealed
	after    func(*world) // after the second was opened
}

func newPeriods(t *testing.T, c changes) *periods {
	t.Helper()
	p := &periods{t: t, old: newWorld(t)}
	w := p.old
	if c.between != nil {
		c.between(w)
	}
	retention := &record.Retention{NotBefore: record.At(time.Unix(w.clock+1000, 0)), DeleteBy: record.At(time.Unix(w.clock+2000, 0))}
	period := func(op record.PeriodOp, origin, previous, state string) record.Record {
		cause := record.PeriodRoll
		switch {
		case op == record.PeriodPrune:
			cause = record.PeriodRetention
		case op == record.PeriodOpen && c.rollback:
			cause = record.PeriodRollback
		}
		return record.Record{Header: record.Header{Kind: record.KindPeriod}, Period: &record.Period{
			Op: op, Origin: origin, Previous: previous, Cause: cause, Retention: retention, StateDigest: state,
		}}
	}
	if !c.noSeal {
		w.put("admin", period(record.PeriodSeal, origin, "", digest([]byte("state"))))
	}
	for i, leaf := range w.leaves {
		e := &entry{bytes: leaf}
		if err := e.read(); err != nil {
			t.Fatal(err)
		}
		if e.record.Kind == record.KindPeriod || e.record.Kind == record.KindKey {
			p.kept = append(p.kept, int64(i))
		}
	}
	n := &world{t: t, writers: w.writers, clock: w.clock, ids: 1000, rules: w.rules, tree: newTree(t, 0), jwks: w.jwks, sd: w.sd, chain: w.chain}
	p.next = n
	end := body(origin, w)
	previous := c.previous
	if previous == "" {
		previous = end
	}
	n.waited = w.leaves[len(w.leaves)-1]
	opener := "admin"
	if c.opener != "" {
		opener = c.opener
	}
	n.put(opener, period(record.PeriodOpen, nextOrigin, previous, digest([]byte("state"))))
	for _, id := range []string{"sts-1", "gw-1"} {
		n.keyRecord(record.KeyAdd, n.writers[id], "")
	}
	if c.after != nil {
		c.after(n)
	}
	if !c.early {
		n.clock += 1500
	}
	if c.keeps == nil {
		c.keeps = p.kept
	}
	prunes, pruner := origin, "admin"
	if c.prunes != "" {
		prunes = c.prunes
	}
	if c.pruner != "" {
		pruner = c.pruner
	}
	p.kept, p.pruning = c.keeps, int64(len(n.leaves))
	n.put(pruner, period(record.PeriodPrune, prunes, end, digest(p.list())))
	n.heartbeat("gw-1", record.BeatStart)
	return p
}

func body(origin string, w *world) string {
	n := len(w.leaves)
	return record.CheckpointBody(origin, uint64(n), w.tree.roots[n])
}

// list is what stays of the first period.
func (p *periods) list() []byte {
	p.t.Helper()
	b, err := json.Marshal(keptList{Origin: origin, Size: int64(len(p.old.leaves)), Kept: p.kept})
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// note is the newest checkpoint of the second period.
func (p *periods) note() []byte {
	p.t.Helper()
	n := len(p.next.leaves)
	root := p.next.tree.roots[n]
	note, err := testSigner(p.t, nextOrigin).sign(fmt.Sprintf("%s\n%d\n%s\n", nextOrigin, n, base64.StdEncoding.EncodeToString(root[:])))
	if err != nil {
		p.t.Fatal(err)
	}
	return note
}

// pruned is the bundle of the first period after it was pruned.
func (p *periods) pruned() Contents {
	p.t.Helper()
	c := p.old.contents()
	c.Receipts, c.Disclosures, c.Policies, c.Pruned = nil, nil, nil, map[int64]Hash{}
	c.Records = slices.DeleteFunc(c.Records, func(r Record) bool {
		_, stays := slices.BinarySearch(p.kept, r.Index)
		if !stays {
			c.Pruned[r.Index] = LeafHash(r.Envelope)
		}
		return !stays
	})
	c.Pruning = Pruning{
		Envelope: p.next.leaves[p.pruning], Index: p.pruning, Checkpoint: p.note(), Kept: p.list(),
		Proof: p.next.tree.inclusion(p.t, p.pruning, int64(len(p.next.leaves))),
	}
	return c
}

// second is the bundle of the second period.
func (p *periods) second() Contents {
	p.t.Helper()
	c := p.next.contents()
	c.Origin, c.First, c.Consistency, c.Last = nextOrigin, nil, nil, p.note()
	c.Receipts, c.Disclosures = nil, nil
	return c
}

func (p *periods) policy() Policy {
	p.t.Helper()
	trust := p.old.trust()
	trust.Logs = append(trust.Logs, testSigner(p.t, nextOrigin).Key())
	return mustPolicy(p.t, trust)
}

// TestL3Pruned: of a period that was pruned nothing is proven but its tree, and
// that is.
func TestL3Pruned(t *testing.T) {
	p := newPeriods(t, changes{})
	r := judged(t, bundle(t, p.pruned()), p.policy())
	for d, want := range map[Dimension]Status{
		Container: Pass, ManifestSig: Pass, Origin: Pass, WriterKeys: Pass, Inclusion: Pass, Checkpoints: Pass,
		Signature: NotProven, Sequence: NotProven, Completeness: NotProven, Chain: NotProven, Outcomes: NotProven, Disclosures: NotProven, Exchange: NotProven,
	} {
		if got := r.Finding(d).Status; got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
	if r.Result() != ResultCannotDecide {
		t.Errorf("result %s:\n%s", r.Result(), text(t, r))
	}
}

// TestL3SaidToBePruned: nobody makes a record disappear by saying that it was
// pruned. Each way fails; the twin is TestL3Pruned.
func TestL3SaidToBePruned(t *testing.T) {
	for name, c := range map[string]struct {
		made   changes
		change func(*periods, *Contents)
		policy func(*periods) Policy
		fails  Dimension
	}{
		"a record that stays": {change: func(_ *periods, c *Contents) {
			r := c.Records[1]
			c.Pruned[r.Index] = LeafHash(r.Envelope)
			c.Records = slices.Delete(c.Records, 1, 2)
		}, fails: Completeness},
		"a record of a period that was not pruned": {change: func(p *periods, c *Contents) {
			*c = p.old.contents()
			r := c.Records[5]
			c.Records, c.Pruned = slices.Delete(c.Records, 5, 6), map[int64]Hash{5: LeafHash(r.Envelope)}
		}, fails: Completeness},
		"a record that is there": {change: func(p *periods, c *Contents) {
			c.Records = append(c.Records, Record{5, p.old.leaves[5]})
		}, fails: Completeness},
		"another leaf": {change: func(_ *periods, c *Contents) {
			h := c.Pruned[5]
			h[0] ^= 1
			c.Pruned[5] = h
		}, fails: Inclusion},
		"a leaf left out": {change: func(_ *periods, c *Contents) { delete(c.Pruned, 5) }, fails: Completeness},
		"another list of what stays": {change: func(_ *periods, c *Contents) {
			c.Pruning.Kept = []byte(`{"origin":"` + origin + `","size":1,"kept":[]}`)
		}, fails: Completeness},
		"a list that keeps all": {made: changes{keeps: []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, change: func(p *periods, c *Contents) {
			delete(c.Pruned, 5)
			c.Records = slices.DeleteFunc(c.Records, func(r Record) bool { return r.Index == 5 })
			c.Pruned[5] = LeafHash(p.old.leaves[5])
		}, fails: Completeness},
		"a proof of another place": {change: func(_ *periods, c *Contents) { c.Pruning.Index-- }, fails: Completeness},
		"a record that prunes nothing": {change: func(p *periods, c *Contents) {
			c.Pruning.Index = 0
			c.Pruning.Envelope, c.Pruning.Proof = p.next.leaves[0], p.next.tree.inclusion(p.t, 0, int64(len(p.next.leaves)))
		}, fails: Completeness},
		"a pruning by a gateway":              {made: changes{pruner: "gw-1"}, fails: Completeness},
		"a pruning of another period":         {made: changes{prunes: nextOrigin}, fails: Completeness},
		"a pruning before its time":           {made: changes{early: true}, fails: Completeness},
		"a period that was not sealed":        {made: changes{noSeal: true}, fails: Completeness},
		"a log that the policy does not name": {policy: func(p *periods) Policy { return p.old.policy() }, fails: Completeness},
		"a log of its own": {change: func(p *periods, c *Contents) {
			c.Pruning.Checkpoint = p.old.checkpoint(len(p.old.leaves))
		}, fails: Completeness},
		"an earlier end": {change: func(p *periods, c *Contents) {
			n := len(p.old.leaves) - 1
			c.Last, c.To = p.old.checkpoint(n), int64(n)
			c.Consistency = p.old.tree.consistency(p.t, 3, int64(n))
			c.Records = slices.DeleteFunc(c.Records, func(r Record) bool { return r.Index >= int64(n) })
			maps.DeleteFunc(c.Pruned, func(i int64, _ Hash) bool { return i >= int64(n) })
		}, fails: Completeness},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeriods(t, c.made)
			contents := p.pruned()
			if c.change != nil {
				c.change(p, &contents)
			}
			policy := p.policy()
			if c.policy != nil {
				policy = c.policy(p)
			}
			r := judged(t, bundle(t, contents), policy)
			if r.Finding(c.fails).Status != Fail || r.Result() != ResultInvalid {
				t.Errorf("%s is %s, the result %s:\n%s", c.fails, r.Finding(c.fails).Status, r.Result(), text(t, r))
			}
		})
	}
}

// TestL3Periods: two periods are one story. What an operator leaves out between
// them, or puts there, fails.
func TestL3Periods(t *testing.T) {
	for name, c := range map[string]struct {
		made  changes
		swap  bool
		fails Dimension // of the second; "" if all is well
	}{
		"as it was":           {},
		"a record left out":   {made: changes{after: func(w *world) { w.writers["gw-1"].seq++ }}, fails: Sequence},
		"another predecessor": {made: changes{after: func(w *world) { w.writers["gw-1"].prev = digest([]byte("x")) }}, fails: Sequence},
		"another end":         {made: changes{previous: record.CheckpointBody(origin, 3, Hash{})}, fails: Origin},
		"no seal":             {made: changes{noSeal: true}, fails: Origin},
		"the wrong order":     {swap: true, fails: Origin},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeriods(t, c.made)
			bundles := [][]byte{bundle(t, p.old.contents()), bundle(t, p.second())}
			if c.swap {
				slices.Reverse(bundles)
			}
			rs := VerifyPeriods(bundles, p.policy())
			if got := rs[0].Result(); got != ResultValid {
				t.Errorf("the first is %s:\n%s", got, text(t, rs[0]))
			}
			if c.fails == "" {
				if rs[1].Result() != ResultValid || rs[1].Finding(Sequence).Status != Pass {
					t.Errorf("the second is %s:\n%s", rs[1].Result(), text(t, rs[1]))
				}
			} else if rs[1].Finding(c.fails).Status != Fail {
				t.Errorf("%s of the second is %s:\n%s", c.fails, rs[1].Finding(c.fails).Status, text(t, rs[1]))
			}
			for _, b := range bundles { // each alone, for the other verifier
				judged(t, b, p.policy())
			}
		})
	}
}

// TestOutcomeInTheNextPeriod: an outcome that came after the period had ended is
// held to its decision, where both bundles are there.
func TestOutcomeInTheNextPeriod(t *testing.T) {
	for _, call := range []string{"", "01a40584-b462-742e-8f8a-612217b94f70"} {
		var id, called string
		p := newPeriods(t, changes{
			between: func(w *world) {
				d := w.decision()
				called = d.CallID
				id = w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindDecision}, Decision: &d})
			},
			after: func(w *world) {
				if call != "" {
					called = call
				}
				w.put("gw-1", record.Record{Header: record.Header{Kind: record.KindOutcome}, Outcome: &record.Outcome{
					Of: id, CallID: called, Status: record.StatusCompleted, Forwarded: true, Ended: record.At(time.Unix(w.clock, 0)),
				}})
			},
		})
		rs := VerifyPeriods([][]byte{bundle(t, p.old.contents()), bundle(t, p.second())}, p.policy())
		got := rs[1].Finding(Outcomes)
		if wrong := call != ""; (got.Status == Fail) != wrong {
			t.Errorf("outcome of call %q: %+v", call, got)
		}
		alone := judged(t, bundle(t, p.second()), p.policy()).Finding(Outcomes)
		if alone.Status == Fail || alone.Unproven != 1 {
			t.Errorf("alone: %+v", alone)
		}
	}
}
