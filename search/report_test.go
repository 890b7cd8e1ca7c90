package search

import (
	"bytes"
	"flag"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
)

var monthCalls = flag.Int("calls", 2000, "how many calls TestReportsFindWhatWasPlanted makes")

// month reads a generated month, counting decisions.
func month(m scenario.Month, planted scenario.Planted, calls *int) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		i := int64(0)
		for payload, err := range m.Records(planted) {
			var r record.Record
			if err == nil {
				r, err = record.Parse(payload)
			}
			if r.Decision != nil {
				*calls++
			}
			if !yield(&Entry{Index: i, Hash: record.Hash(payload), Record: r}, err) {
				return
			}
			i++
		}
	}
}

var monthEnd = record.At(time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Add(scenario.Days * 24 * time.Hour))

// TestReportsFindWhatWasPlanted: each report finds exactly what went wrong, and
// cites the records.
func TestReportsFindWhatWasPlanted(t *testing.T) {
	planted, calls := scenario.Planted{}, 0
	found, err := fill(month(scenario.Month{Calls: *monthCalls}, planted, &calls), ReportConfig{MaxDepth: scenario.MaxDepth}, monthEnd, Reports()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d calls", calls)
	if calls < *monthCalls {
		t.Fatalf("only %d calls", calls)
	}
	total := 0
	for _, name := range Reports() {
		if name == "disclosure" {
			continue
		}
		want := slices.Clone(planted[name])
		for _, f := range found[name] {
			i := slices.IndexFunc(want, func(p scenario.Plant) bool { return p.Rule == f.Rule && within(p.Records, f.Records) })
			if i < 0 {
				t.Errorf("%s: found %s %v, which was not planted: %s", name, f.Rule, f.Records, f.Text)
				continue
			}
			want = slices.Delete(want, i, i+1)
			total++
		}
		for _, p := range want {
			t.Errorf("%s: %v was planted and not found", name, p)
		}
		t.Logf("%s: %d found, all planted", name, len(found[name]))
	}
	for name, n := range map[string]int{
		"excessive-agency": 4, "identity-spoofing": 2, "sequence-gaps": 1, "issuance": 5, "no-outcome": 2, "stale-revocation": 2,
		"chain-shape": 2, "escalation": 1, "changes": 3,
	} {
		if len(planted[name]) != n {
			t.Errorf("%s: %d were planted, want %d", name, len(planted[name]), n)
		}
	}
	if total != 22 {
		t.Errorf("%d findings, want 22", total)
	}
	disclosed(t, found["disclosure"])
}

func within(some, all []int64) bool {
	return !slices.ContainsFunc(some, func(i int64) bool { return !slices.Contains(all, i) })
}

// disclosed: each permit is of exactly one finding, with the authority of each
// hop.
func disclosed(t *testing.T, fs []Finding) {
	t.Helper()
	permits, calls := map[int64]bool{}, 0
	for e, err := range month(scenario.Month{Calls: *monthCalls}, scenario.Planted{}, &calls) {
		if err != nil {
			t.Fatal(err)
		}
		if permitted(e) != nil {
			permits[e.Index] = true
		}
	}
	for _, f := range fs {
		if len(f.Authority) == 0 || !strings.Contains(f.Text, "spiffe://example/app") {
			t.Errorf("%+v", f)
		}
		for _, i := range f.Records {
			if !permits[i] {
				t.Errorf("record %d is disclosed twice, or is no permit", i)
			}
			delete(permits, i)
		}
	}
	if len(permits) > 0 {
		t.Errorf("%d permits are not disclosed", len(permits))
	}
}

// TestReportsOfATime: what is found is of the time that was asked for, and what
// came before it still explains.
func TestReportsOfATime(t *testing.T) {
	planted, calls := scenario.Planted{}, 0
	day := func(n int) record.Timestamp {
		return record.At(time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * 24 * time.Hour))
	}
	got, err := fill(month(scenario.Month{Calls: 2000}, planted, &calls), ReportConfig{Since: day(10), Until: day(14)}, monthEnd, "stale-revocation", "identity-spoofing", "issuance", "sequence-gaps")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"stale-revocation": 2, "identity-spoofing": 0, "issuance": 1, "sequence-gaps": 0} {
		if len(got[name]) != want {
			t.Errorf("%s: %+v, want %d", name, got[name], want)
		}
	}
}

// TestReportOfASoundLog: where nothing went wrong, nothing is found.
func TestReportOfASoundLog(t *testing.T) {
	b, _, _ := story(t, Config{})
	found, err := fill(func(yield func(*Entry, error) bool) {
		for i, payload := range b.payload {
			r, err := record.Parse(payload)
			if !yield(&Entry{Index: int64(i), Hash: record.Hash(payload), Record: r}, err) {
				return
			}
		}
	}, ReportConfig{}, record.At(time.Unix(start+60, 0)), "identity-spoofing", "no-outcome", "stale-revocation", "issuance", "changes", "chain-shape", "escalation")
	if err != nil {
		t.Fatal(err)
	}
	for name, fs := range found {
		if len(fs) > 0 {
			t.Errorf("%s: %+v", name, fs)
		}
	}
}

// TestL7ReportEscapes: a text cites records, and escapes what comes from them.
func TestL7ReportEscapes(t *testing.T) {
	e := &Entry{Index: 7, Record: record.Record{Header: record.Header{Time: "2027-03-02T09:14:07.318Z"}}}
	r := Report{Name: "changes", Question: "What?", Findings: []Finding{found("key", []*Entry{e}, "of %s", "a\x1b[31m\u202eb")}}
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	if s := b.String(); strings.ContainsAny(s, "\x1b\u202e") || !strings.Contains(s, `a\x1b[31m\u202eb`) || !strings.Contains(s, fmt.Sprint([]int64{7})) {
		t.Errorf("%q", s)
	}
}
