package search

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/lineal-auth/lineal/record"
)

// Story is one transaction: every call in it, and the way of each.
type Story struct {
	Txn string `json:"txn,omitempty"`
	// Calls are the calls of the transaction as trees.
	Calls []Call `json:"calls"`
	// Lineages are of the same calls in index order; their own Calls are empty.
	Lineages []Lineage `json:"lineages"`
}

// Stories are the transactions that answer a question, the newest first.
type Stories struct {
	AsOf     AsOf    `json:"as_of"`
	Complete bool    `json:"complete"`
	Stories  []Story `json:"stories"`
	// Next is the Before of the filter that goes on, -1 after the last.
	Next int64 `json:"next"`
}

// Tell tells the transactions with a call that matches, the newest first, at most
// limit (0: 10) of them. A transaction is told once, where its newest call that
// matches stands. f.Kind, f.Newest and f.Limit are not looked at.
func (d *Desk) Tell(ctx context.Context, f Filter, limit int) (Stories, error) {
	if limit <= 0 {
		limit = 10
	}
	f.Kind, f.Newest, f.Limit = record.KindDecision, true, 2*limit
	begin := f.Before
	out := Stories{Stories: []Story{}, Next: -1}
	told := map[string]bool{}
	read := d.once(ctx)
	v := d.viewBy(ctx, read)
	out.AsOf, out.Complete = v.asOf, v.complete
	for {
		page, err := d.records(ctx, f, read)
		if err != nil {
			return Stories{}, err
		}
		for _, e := range page.Entries {
			txn := e.Record.Decision.Txn
			if txn != "" && told[txn] {
				continue
			}
			told[txn] = true
			s := v.story(&e)
			if v.err != nil {
				return Stories{}, fmt.Errorf("telling %s: %w", e.Record.ID, v.err)
			}
			if begin > 0 && s.after(begin, f, v) {
				continue
			}
			if out.Stories = append(out.Stories, s); len(out.Stories) == limit {
				out.Next = e.Index
				return out, nil
			}
		}
		if page.Next < 0 {
			return out, nil
		}
		f.Before = page.Next
	}
}

// story tells the transaction of a decision, or that alone if it has none.
func (x *view) story(e *Entry) Story {
	s := Story{Txn: e.Record.Decision.Txn, Calls: x.calls(e), Lineages: []Lineage{}}
	unmark(s.Calls)
	all := []*Entry{e}
	if s.Txn != "" {
		all = x.find(s.Txn)
	}
	for _, call := range all {
		if call.Record.Decision == nil || call.Record.Decision.Txn != s.Txn {
			continue
		}
		l := x.lineageAlone(call)
		s.Lineages = append(s.Lineages, l)
	}
	return s
}

// unmark makes no call the one that was asked for.
func unmark(cs []Call) {
	for i := range cs {
		cs[i].This = false
		unmark(cs[i].Children)
	}
}

// after says that a call at or behind begin matches f too, so that the story
// stood on an earlier page.
func (s Story) after(begin int64, f Filter, x *view) bool {
	return slices.ContainsFunc(s.Lineages, func(l Lineage) bool {
		return l.Index >= begin && slices.ContainsFunc(x.find(l.RecordID), func(e *Entry) bool {
			return e.Index == l.Index && f.match(e.Record)
		})
	})
}

// JSON is the answer for programs.
func (s Stories) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding stories: %w", err)
	}
	return append(b, '\n'), nil
}

// WriteText tells the stories to a person.
func (s Stories) WriteText(w io.Writer) error {
	p := &printer{}
	for _, story := range s.Stories {
		what := "TRANSACTION " + visible(story.Txn)
		if story.Txn == "" {
			what = "A CALL OF NO TRANSACTION"
		}
		p.line("%s", what)
		p.section("Its calls")
		p.tree(story.Calls, 1)
		for _, l := range story.Lineages {
			p.line("\n--- call %s", l.CallID)
			p.lineage(l)
		}
		p.line("")
	}
	if s.Next >= 0 {
		p.line("There are more before entry %d.", s.Next)
	}
	p.line("%s", Lineage{AsOf: s.AsOf, Complete: s.Complete}.standing())
	_, err := io.WriteString(w, p.b.String())
	return err
}
