package page

import (
	"context"
	"strconv"

	"github.com/lineal-auth/lineal/search"
)

// Row is a record in a table.
type Row struct {
	search.Summary

	Index int64
	// Rules determined the decision.
	Rules []string
	// Link is the page of the action, else that of the entry.
	Link string
	// Decision says that the record is of a call.
	Decision bool
}

func rowsOf(es []search.Entry) []Row {
	out := make([]Row, len(es))
	for i, e := range es {
		r := Row{Summary: e.Summary(), Index: e.Index, Link: entryLink(e.Index)}
		if d := e.Record.Decision; d != nil {
			r.Decision, r.Link = true, Prefix+"actions/"+e.Record.ID
			for _, rule := range d.Policy.Rules {
				r.Rules = append(r.Rules, search.Visible(rule))
			}
		}
		out[i] = r
	}
	return out
}

func entryLink(index int64) string { return Prefix + "entries/" + strconv.FormatInt(index, 10) }

// list is a page of records with what was asked for.
type list struct {
	Asked asked
	Rows  []Row
	Bars  bars
	// Older leads to the next page, Newest to the first; "" where there is none.
	Older, Newest string
	// Agents, Tools and so on are what the rows name, for the fields of the form.
	Agents, Callees, Reasons []string
}

func (l list) live() bool { return l.Asked.Get("live") == "1" }

// actions is the first page: what happened, newest first.
func (s *Service) actions(ctx context.Context, x *request) (answer, error) {
	f, a, err := x.filter()
	if err != nil {
		return answer{}, err
	}
	l, err := x.list(ctx, f, a)
	if err != nil {
		return answer{}, err
	}
	return answer{template: "actions", title: "Actions", data: l, cites: len(l.Rows)}, nil
}

// bins is how many bars a histogram has at most.
const bins = 60

// list asks for a page of records, and counts all that match.
func (x *request) list(ctx context.Context, f search.Filter, a asked) (list, error) {
	p, err := x.desk.Records(ctx, f)
	if err != nil {
		return list{}, err
	}
	all := f
	all.Before = 0
	h, err := x.desk.Histogram(ctx, all, bins)
	if err != nil {
		return list{}, err
	}
	l := list{Asked: a, Rows: rowsOf(p.Entries), Bars: barsOf(h, a)}
	if p.Next >= 0 {
		l.Older = a.With("before", strconv.FormatInt(p.Next, 10))
	}
	if a.Get("before") != "" {
		l.Newest = a.With("before", "")
	}
	for _, r := range l.Rows {
		l.Agents, l.Callees, l.Reasons = once(l.Agents, r.Agent), once(once(l.Callees, r.Tool), r.Resource), once(l.Reasons, r.Reason)
	}
	return l, nil
}

func once(in []string, s string) []string {
	if s == "" {
		return in
	}
	for _, x := range in {
		if x == s {
			return in
		}
	}
	return append(in, s)
}

// table is what the template of rows gets.
type table struct {
	Rows             []Row
	Choose, NoPerson bool
}

// Table gives the rows, with a box to choose each, and without the column of
// persons where they are all the same.
func (l list) Table(choose, noPerson bool) table { return table{l.Rows, choose, noPerson} }
