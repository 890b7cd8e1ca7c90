package page

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// healthPage is the state of the log.
type healthPage struct {
	Health

	Parts   []usable
	Age     time.Duration // of the checkpoint
	Signers []string      // who signed the checkpoint
	Writers []writer
	Gaps    table
	Changes []change
}

// usable is a part of the process and whether it is usable.
type usable struct{ Name, State string }

// writer is the newest heartbeat of a writer.
type writer struct {
	ID, Role, State, Time  string
	Index                  int64
	Permits, Denials, Gone int64
	// Silent says that it should have written since.
	Silent bool
}

// change is a record of what is in force.
type change struct {
	Index      int64
	Time, Kind string
	Text       string
}

func changeOf(e search.Entry) change {
	r := e.Record
	c := change{Index: e.Index, Time: string(r.Time), Kind: string(r.Kind)}
	switch {
	case r.PolicyChange != nil:
		c.Text = fmt.Sprintf("policy no. %d, %s, %s", r.PolicyChange.Serial, r.PolicyChange.Engine, r.PolicyChange.BundleDigest)
	case r.KeyChange != nil:
		c.Text = fmt.Sprintf("%s the key of %s (%s), %s", r.KeyChange.Op, r.KeyChange.For, words(string(r.KeyChange.Role)), r.KeyChange.KeyID)
	case r.Period != nil:
		c.Text = fmt.Sprintf("%s %s", r.Period.Op, r.Period.Origin)
	}
	c.Text = search.Visible(c.Text)
	return c
}

// heartbeats is how many of the newest heartbeats are looked at for writers.
const heartbeats = 200

// health shows how the log is.
func (s *Service) health(ctx context.Context, x *request) (answer, error) {
	if !x.viewer.everything() {
		return answer{}, refuse(codeRole, "the log is of everybody")
	}
	h, err := s.cfg.Health(ctx)
	if err != nil {
		return answer{}, err
	}
	p := healthPage{Health: h}
	for _, name := range slices.Sorted(maps.Keys(h.Checks)) {
		p.Parts = append(p.Parts, usable{name, h.Checks[name]})
	}
	if at := h.Checkpoint.Published; !at.IsZero() {
		p.Age = s.cfg.Now().Sub(at).Round(time.Second)
	}
	p.Signers = signers(h.Checkpoint.Note)
	beats, err := x.desk.Records(ctx, search.Filter{Kind: record.KindHeartbeat, Newest: true, Limit: heartbeats})
	if err != nil {
		return answer{}, err
	}
	p.Writers = writersOf(beats.Entries, s.cfg.Now())
	gaps, err := x.desk.Records(ctx, search.Filter{Kind: record.KindGap, Newest: true, Limit: 10})
	if err != nil {
		return answer{}, err
	}
	p.Gaps = table{Rows: rowsOf(gaps.Entries), NoPerson: true}
	for _, kind := range []record.Kind{record.KindPolicy, record.KindKey, record.KindPeriod} {
		found, err := x.desk.Records(ctx, search.Filter{Kind: kind, Newest: true, Limit: 6})
		if err != nil {
			return answer{}, err
		}
		for _, e := range found.Entries {
			p.Changes = append(p.Changes, changeOf(e))
		}
	}
	slices.SortFunc(p.Changes, func(a, b change) int { return cmp.Compare(b.Index, a.Index) })
	return answer{template: "health", title: "Log", data: p, cites: len(p.Writers) + len(p.Gaps.Rows) + len(p.Changes)}, nil
}

// signers are the names in the signature lines of a note.
func signers(note string) []string {
	var out []string
	for line := range strings.Lines(note) {
		if rest, ok := strings.CutPrefix(line, "— "); ok {
			name, _, _ := strings.Cut(rest, " ")
			out = append(out, search.Visible(name))
		}
	}
	return out
}

// writersOf gives the newest heartbeat of each writer.
func writersOf(beats []search.Entry, now time.Time) []writer {
	var out []writer
	for _, e := range beats {
		r := e.Record
		if r.Heartbeat == nil || slices.ContainsFunc(out, func(w writer) bool { return w.ID == search.Visible(r.Writer.ID) }) {
			continue
		}
		w := writer{
			ID: search.Visible(r.Writer.ID), Role: string(r.Writer.Role), State: string(r.Heartbeat.State), Time: string(r.Time), Index: e.Index,
			Permits: r.Heartbeat.Counts.Permit, Denials: r.Heartbeat.Counts.Deny, Gone: r.Heartbeat.Counts.Unavailable,
		}
		if at, err := r.Time.Time(); err == nil && w.State != "stop" {
			w.Silent = now.Sub(at) > 3*time.Duration(r.Heartbeat.Interval)*time.Second
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b writer) int { return strings.Compare(a.ID, b.ID) })
	return out
}
