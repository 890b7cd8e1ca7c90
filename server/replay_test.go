package server

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

var replayedCalls = flag.Int("replayed-calls", 1000, "how many calls TestReplayOfAMonth decides again")

// month is a generated month with what its records commit to.
type month struct {
	entries     []*search.Entry
	planted     scenario.Planted
	disclosures map[string]record.Disclosure
	rules       []byte
	digest      string
}

// madeMonth is the last month that was made: tests change copies of its entries.
var madeMonth struct {
	sync.Mutex
	calls int
	month *month
}

func newMonth(t *testing.T, calls int) *month {
	t.Helper()
	madeMonth.Lock()
	defer madeMonth.Unlock()
	if madeMonth.calls == calls {
		return madeMonth.month
	}
	m := &month{planted: scenario.Planted{}, disclosures: map[string]record.Disclosure{}}
	source := scenario.Month{Calls: calls, Disclose: func(d record.Disclosure) { m.disclosures[d.Digest()] = d }}
	for payload, err := range source.Records(m.planted) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := record.Parse(payload)
		if err != nil {
			t.Fatal(err)
		}
		m.entries = append(m.entries, &search.Entry{Index: int64(len(m.entries)), Hash: record.Hash(payload), Record: r})
	}
	var err error
	if m.rules, err = scenario.Rules(); err != nil {
		t.Fatal(err)
	}
	if m.digest, err = cedar.ManifestDigest(m.rules); err != nil {
		t.Fatal(err)
	}
	madeMonth.calls, madeMonth.month = calls, m
	return m
}

func (m *month) read() iter.Seq2[*search.Entry, error] {
	return func(yield func(*search.Entry, error) bool) {
		for _, e := range m.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (m *month) replayer() *replayer {
	return &replayer{
		disclosures: func(_ context.Context, d *record.Decision) (ds []record.Disclosure, missing int, err error) {
			for _, digest := range d.SD {
				if v, ok := m.disclosures[digest]; ok {
					ds = append(ds, v)
				} else {
					missing++
				}
			}
			return ds, missing, nil
		},
		bundle: func(_ context.Context, digest string) ([]byte, error) {
			if digest != m.digest {
				return nil, errors.New("not kept")
			}
			return m.rules, nil
		},
	}
}

// asked counts the decisions in which policy was asked.
func (m *month) asked() (asked, all int) {
	for _, e := range m.entries {
		if d := e.Record.Decision; d != nil {
			all++
			if d.Verdict.Policy != record.NotEvaluated {
				asked++
			}
		}
	}
	return asked, all
}

// TestReplayOfAMonth: the rules that decided give every decision again, and
// stricter ones change exactly the calls that the generator says they refuse.
func TestReplayOfAMonth(t *testing.T) {
	m := newMonth(t, *replayedCalls)
	asked, all := m.asked()
	if all < *replayedCalls || asked < all*9/10 {
		t.Fatalf("%d calls, of which policy was asked about %d", all, asked)
	}
	got, err := search.Replay(t.Context(), m.read(), search.ReplayConfig{Decide: m.replayer().decide})
	if err != nil {
		t.Fatal(err)
	}
	if got.Decisions != all || got.Same != asked || got.NotAsked != all-asked || got.Different != 0 || got.NotReplayable != 0 {
		t.Errorf("recorded rules: %d decisions, %d same, %d different, %d not replayable, %d not asked: %v %v; want %d, %d, 0, 0, %d",
			got.Decisions, got.Same, got.Different, got.NotReplayable, got.NotAsked, first(got.Changes), first(got.LeftOut), all, asked, all-asked)
	}
	t.Logf("recorded rules: %d of %d same, %d not asked, %d calls", got.Same, asked, got.NotAsked, got.Decisions)

	stricter, err := scenario.StricterRules()
	if err != nil {
		t.Fatal(err)
	}
	source, err := cedar.OpenSource(stricter, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := m.replayer()
	if r.proposed, err = source.Engine(); err != nil {
		t.Fatal(err)
	}
	got, err = search.Replay(t.Context(), m.read(), search.ReplayConfig{Rules: "stricter", Decide: r.decide})
	if err != nil {
		t.Fatal(err)
	}
	var want, changed []int64
	for _, p := range m.planted["replay"] {
		want = append(want, p.Records...)
	}
	rules := map[string]int{}
	for _, c := range got.Changes {
		changed = append(changed, c.Index)
		if c.Recorded.Effect != record.Permit || c.Replayed.Effect != record.Deny || len(c.Replayed.Rules) != 1 {
			t.Errorf("entry %d: %s", c.Index, fmt.Sprint(c))
			continue
		}
		rules[c.Replayed.Rules[0]]++
	}
	if len(want) < 10 || !slices.Equal(changed, want) || got.Different != len(want) || got.Same != asked-len(want) {
		t.Errorf("stricter rules change %d calls and leave %d, want %d: %v, %v", got.Different, got.Same, len(want), changed, want)
	}
	if rules["no-invoices-for-three"] == 0 || rules["four-rests-on-weekends"] == 0 {
		t.Errorf("not every stricter rule decided: %v", rules)
	}
	t.Logf("stricter rules: %d of %d changed, all planted", got.Different, asked)
}

func first[T any](list []T) []T { return list[:min(len(list), 1)] }

// TestReplaySaysWhatItCannotDecide: whatever is missing of a decision, or is not
// what it was, is named; nothing is taken for the same.
func TestReplaySaysWhatItCannotDecide(t *testing.T) {
	m := newMonth(t, 1000)
	at := slices.IndexFunc(m.entries, func(e *search.Entry) bool {
		d := e.Record.Decision
		return d != nil && d.Callee.Kind == record.CalleeMCPTool && d.Verdict.Effect == record.Permit
	})
	one := *m.entries[at]
	for _, c := range []struct {
		name  string
		spoil func(d *record.Decision, r *replayer)
		cause search.ReplayCause
	}{
		{"whole", func(*record.Decision, *replayer) {}, ""},
		{"a value erased", func(_ *record.Decision, r *replayer) {
			r.disclosures = func(context.Context, *record.Decision) ([]record.Disclosure, int, error) { return nil, 1, nil }
		}, search.CauseErased},
		{"no digest", func(d *record.Decision, _ *replayer) { d.Policy.InputDigest = "" }, search.CauseNotCaptured},
		{"no chain", func(d *record.Decision, _ *replayer) { d.Chain = nil }, search.CauseNotCaptured},
		{"another engine", func(d *record.Decision, _ *replayer) { d.Policy.Engine = "opa/1" }, search.CauseEngineMissing},
		{"bundle not kept", func(d *record.Decision, _ *replayer) { d.Policy.BundleDigest = "else" }, search.CauseEngineMissing},
		{"another bundle kept", func(_ *record.Decision, r *replayer) {
			r.bundle = func(context.Context, string) ([]byte, error) { return scenario.StricterRules() }
		}, search.CauseEngineMissing},
		{"another person", func(d *record.Decision, _ *replayer) { d.Person.Ref = "AAAAAAAAAAAAAAAAAAAAAA" }, search.CauseInputMismatch},
		{"another value", func(_ *record.Decision, r *replayer) {
			r.disclosures = func(context.Context, *record.Decision) (ds []record.Disclosure, missing int, err error) {
				return []record.Disclosure{}, 0, nil
			}
		}, search.CauseInputMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := *one.Record.Decision
			e := one
			e.Record.Decision = &d
			r := m.replayer()
			c.spoil(&d, r)
			list := func(yield func(*search.Entry, error) bool) { yield(&e, nil) }
			got, err := search.Replay(t.Context(), list, search.ReplayConfig{Decide: r.decide})
			switch {
			case err != nil:
				t.Fatal(err)
			case c.cause == "" && got.Same != 1:
				t.Errorf("%+v", got)
			case c.cause != "" && (got.NotReplayable != 1 || got.Same != 0 || got.Causes[c.cause] != 1 || got.LeftOut[0].Cause != c.cause):
				t.Errorf("%+v, want %s", got, c.cause)
			}
		})
	}
}

// TestReplayFindsAnotherAnswer: an answer that the rules do not give is found,
// also where only the rules that determined it differ.
func TestReplayFindsAnotherAnswer(t *testing.T) {
	m := newMonth(t, 1000)
	at := slices.IndexFunc(m.entries, func(e *search.Entry) bool { return e.Record.Decision != nil })
	for name, change := range map[string]func(*record.Decision){
		"effect": func(d *record.Decision) { d.Verdict.Effect, d.Verdict.Policy = record.Deny, record.Denied },
		"rules":  func(d *record.Decision) { d.Policy.Rules = []string{"else"} },
		"errors": func(d *record.Decision) { d.Policy.Errors = []string{"else"} },
	} {
		d := *m.entries[at].Record.Decision
		change(&d)
		e := *m.entries[at]
		e.Record.Decision = &d
		got, err := search.Replay(t.Context(), func(yield func(*search.Entry, error) bool) { yield(&e, nil) }, search.ReplayConfig{Decide: m.replayer().decide})
		if err != nil || got.Different != 1 || got.Changes[0].Index != e.Index {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
