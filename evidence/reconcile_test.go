package evidence_test

import (
	"encoding/json"
	"flag"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
)

var pairCalls = flag.Int("pair-calls", 500, "how many calls between two organisations are reconciled")

func sideOf(t *testing.T, name string, s scenario.PairSide) evidence.Side {
	t.Helper()
	out := evidence.Side{Name: name, Log: s.Log, Signed: s.Signed, Complete: true, Until: s.Until}
	for i, payload := range s.Payloads {
		r, err := record.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		out.Records = append(out.Records, evidence.SideRecord{Index: int64(i), Hash: record.Hash(payload), Record: r})
	}
	return out
}

// TestReconcileFindsWhatWasPlanted: of the calls between two organisations exactly
// the five differences that are planted are found, whichever side is named first.
func TestReconcileFindsWhatWasPlanted(t *testing.T) {
	caller, callee, planted, err := scenario.Pair{Calls: *pairCalls}.Make()
	if err != nil {
		t.Fatal(err)
	}
	a, b := sideOf(t, "a.zip", caller), sideOf(t, "b.zip", callee)
	if len(planted) != 5 {
		t.Fatalf("%v are planted", planted)
	}
	proven := map[evidence.DifferenceKind]bool{
		evidence.DecisionConflict: true, evidence.MissingAtCaller: true, evidence.MissingAtCallee: true,
	}
	for _, r := range []evidence.Reconciliation{evidence.Reconcile(a, b), evidence.Reconcile(b, a)} {
		if r.Exchanges[evidence.Matched] != *pairCalls-5 || len(r.Differences) != 5 || r.Alarms != 4 {
			t.Errorf("%v, %d alarms, want %d matched and 5 others: %+v", r.Exchanges, r.Alarms, *pairCalls-5, r.Differences)
		}
		for _, d := range r.Differences {
			if planted[string(d.Kind)] != d.ID || d.Alarm != (d.Kind != evidence.OutOfWindow) || (d.Proof != "") != proven[d.Kind] {
				t.Errorf("%+v, planted %v", d, planted)
			}
		}
		var text strings.Builder
		if err := r.WriteText(&text); err != nil || strings.Count(text.String(), "ALARM ") != 4 {
			t.Errorf("%s, %v", text.String(), err)
		}
		raw, err := r.JSON()
		var again evidence.Reconciliation
		if err != nil || json.Unmarshal(raw, &again) != nil || again.Alarms != 4 {
			t.Errorf("%s, %v", raw, err)
		}
	}
	t.Logf("%d calls between two organisations, 5 differences found, all planted", *pairCalls)
}

// TestReconcileBelievesNoForgery: what is not signed with a key of the other
// side's, or is of another log, proves nothing. Untouched it does.
func TestReconcileBelievesNoForgery(t *testing.T) {
	caller, callee, planted, err := scenario.Pair{Calls: 500}.Make()
	if err != nil {
		t.Fatal(err)
	}
	proof := func(a, b evidence.Side) string {
		t.Helper()
		for _, d := range evidence.Reconcile(a, b).Differences {
			if d.ID == planted[string(evidence.MissingAtCallee)] {
				return d.Proof
			}
		}
		t.Fatal("the missing record is not found")
		return ""
	}
	a, b := sideOf(t, "a", caller), sideOf(t, "b", callee)
	hash := proof(a, b)
	if hash == "" {
		t.Fatal("not proven")
	}
	spoiled := map[string][]byte{}
	for h, envelope := range a.Signed {
		spoiled[h] = envelope
	}
	spoiled[hash] = []byte(strings.Replace(string(spoiled[hash]), `"sig":"`, `"sig":"A`, 1))
	forged := a
	forged.Signed = spoiled
	if proof(forged, b) != "" {
		t.Error("a changed envelope proves something")
	}
	strangers := b
	strangers.Records = nil
	for _, r := range b.Records {
		if r.Record.KeyChange == nil {
			strangers.Records = append(strangers.Records, r)
		}
	}
	if proof(a, strangers) != "" {
		t.Error("a key that is nobody's proves something")
	}
	renamed := b
	renamed.Log = "ledger.else.example/std"
	if proof(a, renamed) != "" {
		t.Error("a receipt for another log proves something")
	}
}
