package server

import (
	"os"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// permitted is the permit of the design's example, under another id.
func permitted(t *testing.T, l *ledgerService) record.Record {
	t.Helper()
	payload, err := os.ReadFile("../record/testdata/decision-permit.json")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Parse(payload)
	if err != nil {
		t.Fatal(err)
	}
	own := l.gateway.own(record.KindDecision)
	rec.ID, rec.Time, rec.Decision.CallID = own.ID, own.Time, newID()
	return rec
}

// outcomesOf are the outcomes of a decision in the log.
func outcomesOf(t *testing.T, l *ledgerService, id string) (out []record.Record) {
	t.Helper()
	for _, rec := range logged(t, l) {
		if rec.Outcome != nil && rec.Outcome.Of == id {
			out = append(out, rec)
		}
	}
	return out
}

// TestPermitWithoutOutcome: a permit whose gateway never says what followed gets
// the outcome "unknown" once its time is over, also across a restart; one with an
// outcome gets none.
func TestPermitWithoutOutcome(t *testing.T) {
	dir := smallLog(t, 3)
	l := openedLedger(t, dir)
	lost, answered := permitted(t, l), permitted(t, l)
	for _, rec := range []record.Record{lost, answered} {
		if err := l.gateway.Record(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.gateway.RecordLater(t.Context(), outcomeOf(l, answered)); err != nil {
		t.Fatal(err)
	}
	if err := l.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.closeOverdue(t.Context(), l.own())
	if got := outcomesOf(t, l, lost.ID); len(got) != 0 {
		t.Fatalf("an outcome before its time: %+v", got)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}

	l = openedLedger(t, dir)
	l.now = func() time.Time { return time.Now().Add(outcomeWithin + time.Minute) }
	for range 2 { // once, however often it looks
		l.closeOverdue(t.Context(), l.own())
	}
	got := outcomesOf(t, l, lost.ID)
	if len(got) != 1 || got[0].Outcome.Status != record.StatusUnknown || got[0].Outcome.CallID != lost.Decision.CallID || !got[0].Outcome.Forwarded {
		t.Fatalf("outcomes of the lost permit: %+v", got)
	}
	if got := outcomesOf(t, l, answered.ID); len(got) != 1 || got[0].Outcome.Status != record.StatusCompleted {
		t.Fatalf("outcomes of the answered permit: %+v", got)
	}
	if open := l.order.openPermits().all(); len(open) != 0 {
		t.Errorf("still open: %v", open)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func outcomeOf(l *ledgerService, of record.Record) record.Record {
	rec, code := l.gateway.own(record.KindOutcome), int64(200)
	rec.DataClass, rec.Region = of.DataClass, of.Region
	rec.Outcome = &record.Outcome{
		Of: of.ID, CallID: of.Decision.CallID, Status: record.StatusCompleted, Forwarded: true, Code: &code, Ended: record.At(l.now()),
	}
	return rec
}
