package search

import (
	"iter"
	"testing"

	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
)

// TestReconciliationReport: from one side alone, the calls that the other did not
// countersign, and exchanges that stand twice; nothing where all is in order.
func TestReconciliationReport(t *testing.T) {
	caller, _, _, err := scenario.Pair{Calls: 500}.Make()
	if err != nil {
		t.Fatal(err)
	}
	read := func(spoil func(i int, r *record.Record)) iter.Seq2[*Entry, error] {
		return func(yield func(*Entry, error) bool) {
			for i, payload := range caller.Payloads {
				r, err := record.Parse(payload)
				spoil(i, &r)
				if !yield(&Entry{Index: int64(i), Hash: record.Hash(payload), Record: r}, err) {
					return
				}
			}
		}
	}
	report := func(spoil func(i int, r *record.Record)) []Finding {
		t.Helper()
		got, err := fill(read(spoil), ReportConfig{}, monthEnd, "reconciliation")
		if err != nil {
			t.Fatal(err)
		}
		return got["reconciliation"]
	}
	if got := report(func(int, *record.Record) {}); len(got) != 0 {
		t.Errorf("in order: %+v", got)
	}
	spoiled, first := -1, ""
	got := report(func(i int, r *record.Record) {
		if r.Outcome != nil && spoiled < 0 {
			spoiled = i
			r.Outcome.Peer = nil
		}
	})
	if len(got) != 1 || got[0].Rule != "no_receipt" || len(got[0].Records) != 2 || got[0].Records[1] != int64(spoiled) {
		t.Errorf("without a receipt: %+v, want record %d", got, spoiled)
	}
	seen := 0
	got = report(func(_ int, r *record.Record) {
		if r.Decision == nil {
			return
		}
		if seen++; seen == 1 {
			first = r.Decision.Exchange.ID
		} else if seen == 2 {
			r.Decision.Exchange.ID = first
		}
	})
	if len(got) != 1 || got[0].Rule != "exchange_repeated" {
		t.Errorf("an exchange twice: %+v", got)
	}
}
