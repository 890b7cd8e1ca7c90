package storagetest

import (
	"context"
	"testing"

	"github.com/lineal-auth/lineal/ledger"
)

// logSize is how many entries the log has.
func (r *rig) logSize() int64 {
	r.t.Helper()
	h, err := r.store.Head(r.ctx(), Log)
	if err != nil {
		r.t.Fatal(err)
	}
	return h.Size
}

// tailOf is the row of a writer whose last record is known by an ack.
func tailOf(a ledger.Ack) ledger.Tail { return ledger.Tail{Prev: a.RecordHash, RecordID: a.RecordID} }

// reset sets the rows of writers, as the log says or, for damage, otherwise.
func (r *rig) reset(tails map[string]ledger.Tail) []string {
	r.t.Helper()
	ids, err := r.store.ResetWriters(r.ctx(), Log, r.logSize(), tails)
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// testDamagedTail: the row that says what a writer's next record follows is
// covered by no tree. What it says is held to the record itself before a run
// begins, so that no call goes on with a record that never gets an index.
func testDamagedTail(t *testing.T, open Opener) {
	r := newRig(t, open)
	mine := r.fill(r.writer(nil), "mine", 2)
	other := r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "other" }), "other", 1)
	q := r.sequencer()
	r.flush(q)
	sound := map[string]ledger.Tail{GWID: tailOf(mine[1]), "other": tailOf(other[0])}
	for name, damaged := range map[string]ledger.Tail{
		"hash":                           {Prev: "damaged", RecordID: mine[1].RecordID},
		"no hash":                        {Prev: "", RecordID: mine[1].RecordID},
		"record":                         {Prev: mine[1].RecordHash, RecordID: mine[0].RecordID},
		"record that nobody has":         {Prev: mine[1].RecordHash, RecordID: "nowhere"},
		"record and hash of another one": tailOf(other[0]),
	} {
		t.Run(name, func(t *testing.T) {
			r.reset(map[string]ledger.Tail{GWID: damaged, "other": tailOf(other[0])})
			_, err := ledger.NewWriter(r.ctx(), r.writerConfig())
			wantErr(t, "NewWriter", err, ledger.ErrWriterConflict)
			if !ledger.Fatal(err) {
				t.Errorf("%v is not fatal", err)
			}
			if got := r.reset(sound); len(got) != 1 || got[0] != GWID {
				t.Errorf("reset %q", got)
			}
			w := r.writer(nil) // the twin: the row as the log has it
			mine = append(mine, r.fill(w, "after "+name, 1)...)
			r.flush(q)
			sound[GWID] = tailOf(mine[len(mine)-1])
		})
	}
	acked := []string{other[0].RecordID}
	for _, a := range mine {
		acked = append(acked, a.RecordID)
	}
	r.verify(acked, nil)
}

// testRejectedStopsWriter: the row was set back as a whole, so that nothing
// contradicts it at the start. The first record that follows it is durable, and
// refused by the sequencer; from that transaction on nothing of this writer is
// acknowledged, in this process or another, until the row says what the log says.
func testRejectedStopsWriter(t *testing.T, open Opener) {
	r := newRig(t, open)
	first := r.fill(r.writer(nil), "first", 2)
	bystander := r.writer(func(c *ledger.WriterConfig) { c.GWID = "bystander" })
	q, rejected := r.alarmed()
	r.flush(q)
	r.reset(map[string]ledger.Tail{GWID: tailOf(first[0])})
	w := r.writer(nil)
	lost := r.fill(w, "lost", 1)
	r.flush(q)
	if got := *rejected; len(got) != 1 || got[0].RecordID != lost[0].RecordID || got[0].GWID != GWID || got[0].Err == nil {
		t.Fatalf("the alarm was %+v", got)
	}
	_, err := w.Append(r.ctx(), draft("next"))
	if err == nil || ledger.Code(err) != "ledger_unavailable" {
		t.Fatalf("append after the rejection: %v", err)
	}
	<-w.Done()
	wantErr(t, "Err", w.Err(), ledger.ErrRejected)
	if !ledger.Fatal(w.Err()) {
		t.Errorf("%v is not fatal", w.Err())
	}
	_, err = ledger.NewWriter(r.ctx(), r.writerConfig())
	wantErr(t, "another run", err, ledger.ErrRejected)
	r.wantIntake()
	also := r.fill(bystander, "also", 1) // the twin: another writer goes on

	r.flush(q)
	truth := map[string]ledger.Tail{GWID: tailOf(first[1]), "bystander": tailOf(also[0])}
	if got := r.reset(truth); len(got) != 1 || got[0] != GWID {
		t.Fatalf("reset %q", got)
	}
	again := r.fill(r.writer(nil), "again", 2)
	r.flush(q)
	if len(*rejected) != 1 {
		t.Errorf("rejected after the reset: %+v", *rejected)
	}
	r.verify([]string{first[0].RecordID, first[1].RecordID, also[0].RecordID, again[0].RecordID, again[1].RecordID}, nil)
}

// alarmed is a sequencer that keeps what it rejected.
func (r *rig) alarmed() (*ledger.Sequencer, *[]ledger.Rejected) {
	r.t.Helper()
	cfg, err := r.sequencerConfig()
	if err != nil {
		r.t.Fatal(err)
	}
	var rejected []ledger.Rejected
	cfg.OnRejected = func(_ context.Context, x ledger.Rejected) { rejected = append(rejected, x) }
	q, err := ledger.OpenSequencer(r.ctx(), cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return q, &rejected
}

// testResetWriters: it changes what the log contradicts, and nothing that it does
// not know for sure.
func testResetWriters(t *testing.T, open Opener) {
	r := newRig(t, open)
	w := r.writer(nil)
	a := r.fill(w, "a", 2)
	if got := r.reset(map[string]ledger.Tail{GWID: {}}); len(got) != 0 {
		t.Errorf("a writer whose records wait was reset: %q", got)
	}
	q := r.sequencer()
	r.flush(q)
	_, err := r.store.ResetWriters(r.ctx(), Log, r.logSize()-1, nil)
	wantErr(t, "a log that has grown", err, ledger.ErrEpochLost)
	_, err = r.store.ResetWriters(r.ctx(), "elsewhere", 0, nil)
	wantErr(t, "an unknown log", err, ledger.ErrNotFound)
	if got := r.reset(map[string]ledger.Tail{GWID: tailOf(a[1])}); len(got) != 0 {
		t.Errorf("a row that is right was reset: %q", got)
	}
	r.fill(w, "b", 1) // so this run goes on
	r.flush(q)
	if got := r.reset(nil); len(got) != 1 || got[0] != GWID {
		t.Errorf("a writer that the log does not know was not reset: %q", got)
	}
	_, err = w.Append(r.ctx(), draft("c"))
	if err == nil || ledger.Code(err) != "ledger_unavailable" {
		t.Errorf("append of the run before: %v", err)
	}
	if got := r.reset(map[string]ledger.Tail{"new": {}}); len(got) != 1 || got[0] != "new" {
		t.Errorf("a row that was lost: %q", got)
	}
}

// testRetireWriter: a writer that was retired appends nothing more and begins no
// run, also after its row was held to the log; what it appended stays. Readmitted,
// it goes on where the log has it.
func testRetireWriter(t *testing.T, open Opener) {
	r := newRig(t, open)
	w := r.writer(nil)
	before := r.fill(w, "before", 2)
	other := r.writer(func(c *ledger.WriterConfig) { c.GWID = "other" })
	wantErr(t, "an unknown log", r.store.RetireWriter(r.ctx(), "elsewhere", GWID), ledger.ErrNotFound)
	for _, id := range []string{GWID, GWID, "unborn"} { // it may be repeated, and come first
		if err := r.store.RetireWriter(r.ctx(), Log, id); err != nil {
			t.Fatal(err)
		}
	}
	cfg := r.writerConfig()
	cfg.GWID = "unborn"
	_, err := ledger.NewWriter(r.ctx(), cfg)
	wantErr(t, "one that never began", err, ledger.ErrRetired)
	if err := r.store.ReadmitWriter(r.ctx(), Log, "unborn", ledger.Tail{}); err != nil {
		t.Fatal(err)
	}
	born := r.fill(r.writer(func(c *ledger.WriterConfig) { c.GWID = "unborn" }), "born", 1)
	if _, err := w.Append(r.ctx(), draft("after")); ledger.Code(err) != "ledger_unavailable" {
		t.Errorf("append after the end: %v", err)
	}
	<-w.Done()
	wantErr(t, "Err", w.Err(), ledger.ErrRetired)
	if !ledger.Fatal(w.Err()) {
		t.Errorf("%v is not fatal", w.Err())
	}
	_, err = ledger.NewWriter(r.ctx(), r.writerConfig())
	wantErr(t, "another run", err, ledger.ErrRetired)
	also := r.fill(other, "also", 1) // the twin: another writer goes on

	last := tailOf(before[1])
	wantErr(t, "readmitting while its records wait", r.store.ReadmitWriter(r.ctx(), Log, GWID, last), ledger.ErrUnavailable)
	q := r.sequencer()
	r.flush(q)
	if got := r.reset(map[string]ledger.Tail{GWID: last, "other": tailOf(also[0]), "unborn": tailOf(born[0])}); len(got) != 0 {
		t.Errorf("reset %q", got)
	}
	_, err = ledger.NewWriter(r.ctx(), r.writerConfig())
	wantErr(t, "a run after the rows were reset", err, ledger.ErrRetired)
	for _, id := range []string{GWID, "other"} {
		if err := r.store.ReadmitWriter(r.ctx(), Log, id, last); err != nil {
			t.Fatal(err)
		}
	}
	again := r.fill(r.writer(nil), "again", 1)
	also = append(also, r.fill(other, "untouched", 1)...) // nothing ended it
	r.flush(q)
	r.verify([]string{before[0].RecordID, before[1].RecordID, also[0].RecordID, also[1].RecordID, again[0].RecordID, born[0].RecordID}, nil)
}

// RunOlderTails holds an engine to what a start finds that was written before
// writers kept their last record's id. undo makes the closed ledger under dir
// such a one.
func RunOlderTails(t *testing.T, open Opener, undo func(dir string)) {
	r := newRig(t, open)
	first := r.fill(r.writer(nil), "first", 2)
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	undo(r.dir)
	r.start()
	if tail := r.openWriter("look"); tail.Prev != first[1].RecordHash || tail.RecordID != "" {
		t.Fatalf("tail of an older row: %+v", tail)
	}
	second := r.fill(r.writer(nil), "second", 1)
	if tail := r.openWriter("again"); tail.RecordID != second[0].RecordID || !tail.Placed || tail.Envelope == nil {
		t.Fatalf("tail after the first record: %+v", tail)
	}
	r.flush(r.sequencer())
	r.verify([]string{first[0].RecordID, first[1].RecordID, second[0].RecordID}, nil)
}
