package evidence

import (
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// cut is the first period as somebody has it who got it when it had n records.
func (p *periods) cut(n int) Contents {
	p.t.Helper()
	c := p.old.contents()
	c.Last, c.To = p.old.checkpoint(n), int64(n)
	c.Consistency = p.old.tree.consistency(p.t, 3, int64(n))
	c.Records = slices.DeleteFunc(c.Records, func(r Record) bool { return r.Index >= int64(n) })
	return c
}

// TestL3AfterRollback: a period that was opened after a rollback proves that it goes
// on from a log that lost its end, and leaves open what was lost. Nobody uses that to
// cut more: an end before a checkpoint that somebody has is wrong, and so is a
// place that two records claim.
func TestL3AfterRollback(t *testing.T) {
	// again begins a new run of a writer behind an earlier record of it, as one does
	// whose database was set back.
	again := func(back int) func(*world) {
		return func(w *world) {
			gw := w.writers["gw-1"]
			for range back {
				gw.prev = digest([]byte(gw.prev))
			}
			gw.run, gw.seq = run(9), 0
		}
	}
	for name, c := range map[string]struct {
		made   changes
		old    int // records of the first bundle; 0 is all
		second func(*periods, *Contents)
		want   map[Dimension]Status // of the second; sequence is not proven unless it says otherwise
		says   string
	}{
		"recovered": {says: "opened after a rollback"},
		"recovered, and a writer was set back": {
			made: changes{after: again(1)}, says: "does not follow the record before it",
		},
		"a hole in a run that went on": {
			made: changes{after: func(w *world) { w.writers["gw-1"].seq += 3 }}, says: "missing before record",
		},
		"the first as somebody got it earlier": {old: 7, says: "[7,10) are in no bundle"},
		"less than was signed": {
			made: changes{previous: "earlier"}, want: map[Dimension]Status{Origin: Fail}, says: "names an end of 3 entries, and 10 were signed",
		},
		"less than somebody has of it": {
			made: changes{previous: "earlier"}, old: 7, want: map[Dimension]Status{Origin: Fail}, says: "names an end of 3 entries, and 7 were signed",
		},
		"another end": {
			made: changes{previous: record.CheckpointBody(origin, 10, Hash{})}, want: map[Dimension]Status{Origin: Fail}, says: "names another end",
		},
		"another log": {
			made: changes{previous: record.CheckpointBody(family+"/0", 99, Hash{})}, want: map[Dimension]Status{Origin: Fail}, says: "goes on from",
		},
		"a place that is claimed twice": {
			made: changes{after: func(w *world) { w.writers["gw-1"].seq-- }}, want: map[Dimension]Status{Sequence: Fail}, says: "after seq",
		},
		"a run that had ended": {
			made: changes{
				between: func(w *world) {
					w.writers["gw-1"].run, w.writers["gw-1"].seq = run(8), 0
					w.heartbeat("gw-1", record.BeatStart)
				},
				after: func(w *world) { w.writers["gw-1"].run, w.writers["gw-1"].seq = run(1), 0 },
			}, want: map[Dimension]Status{Sequence: Fail}, says: "a run that had ended",
		},
		"a record that waited in the backup": {
			made: changes{
				between: func(w *world) { w.heartbeat("gw-1", record.Beat) },
				after:   func(w *world) { w.append(w.waited) },
			}, says: "is in the log before as well",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.made.rollback, c.made.noSeal = true, true
			if c.made.previous == "earlier" {
				w := newWorld(t)
				c.made.previous = record.CheckpointBody(origin, 3, w.tree.roots[3])
			}
			p := newPeriods(t, c.made)
			first := p.old.contents()
			if c.old > 0 {
				first = p.cut(c.old)
			}
			bundles := [][]byte{bundle(t, first), bundle(t, p.second())}
			rs := VerifyPeriods(bundles, p.policy())
			if got := rs[0].Result(); got != ResultValid {
				t.Errorf("the first is %s:\n%s", got, text(t, rs[0]))
			}
			want := map[Dimension]Status{Origin: Pass, Sequence: NotProven, Completeness: Pass, Inclusion: Pass, Signature: Pass, WriterKeys: Pass}
			for d, s := range c.want {
				want[d] = s
			}
			for d, s := range want {
				if got := rs[1].Finding(d).Status; got != s {
					t.Errorf("%s of the second is %s, want %s:\n%s", d, got, s, text(t, rs[1]))
				}
			}
			if said := text(t, rs[1]); !strings.Contains(said, c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, said)
			}
			alone := judged(t, bundles[1], p.policy())
			if got := alone.Finding(Sequence); got.Status == Pass || !strings.Contains(strings.Join(got.Problems, "\n"), "opened after a rollback") {
				t.Errorf("alone: %+v", got)
			}
			judged(t, bundles[0], p.policy())
		})
	}
}

// TestL3RollbackByNobody: only the manifest key says that a log lost its end.
func TestL3RollbackByNobody(t *testing.T) {
	p := newPeriods(t, changes{rollback: true, noSeal: true, opener: "gw-1"})
	rs := VerifyPeriods([][]byte{bundle(t, p.old.contents()), bundle(t, p.second())}, p.policy())
	if rs[1].Finding(Origin).Status != Fail {
		t.Errorf("a gateway opened a period:\n%s", text(t, rs[1]))
	}
	judged(t, bundle(t, p.second()), p.policy())
}
