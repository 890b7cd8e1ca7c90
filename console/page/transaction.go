package page

import (
	"context"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/search"
)

// transactionPage is every call of a transaction.
type transactionPage struct {
	told

	Graph graph
}

// Shown is how many of the calls stand on the page.
func (p transactionPage) Shown() int { return len(p.Graph.Rows) }

// transaction shows the calls of a transaction as they ran.
func (s *Service) transaction(ctx context.Context, x *request) (answer, error) {
	story, cites, err := x.story(ctx)
	if err != nil {
		return answer{}, err
	}
	p := transactionPage{told: tellAll([]search.Story{story})[0]}
	p.Graph = drawGraph(p.Calls, story.Lineages)
	return answer{template: "transaction", title: "Transaction", data: p, cites: cites}, nil
}

// transactionEvidence gives the bundle of a transaction.
func (s *Service) transactionEvidence(ctx context.Context, x *request) (answer, error) {
	story, cites, err := x.story(ctx)
	if err != nil {
		return answer{}, err
	}
	ids := make([]string, len(story.Lineages))
	for i, l := range story.Lineages {
		ids[i] = l.RecordID
	}
	return x.bundle(ctx, ids, "lineal-transaction.zip", cites)
}

func (x *request) story(ctx context.Context) (search.Story, int, error) {
	if _, _, err := x.filter("none"); err != nil {
		return search.Story{}, 0, err
	}
	stories, err := x.desk.Tell(ctx, search.Filter{Txn: x.PathValue("id")}, 1)
	if err != nil {
		return search.Story{}, 0, asCode(err)
	}
	if len(stories.Stories) == 0 || len(stories.Stories[0].Lineages) == 0 {
		return search.Story{}, 0, refuse(console.CodeNotFound, "no such transaction, or of somebody else")
	}
	cites := 0
	for _, l := range stories.Stories[0].Lineages {
		cites += 1 + len(l.Outcomes)
	}
	return stories.Stories[0], cites, nil
}

// graph is a transaction as it ran: a row for each call, below the call that it
// served, and beside it when it was decided and when it ended.
//
//	app → orchestrator            ▬▬▬▬▬▬▬▬▬▬▬▬▬▬▬▬▬▬▬
//	└ orchestrator → research       ▬▬▬▬▬▬▬▬▬▬▬
//	  └ research → query at db           ▬▬▬
type graph struct {
	Width, Height, Axis int
	Rows                []graphRow
	Ticks               []tick
}

// graphRow is a call.
type graphRow struct {
	Text, Title, Link  string
	X, Y, TextY        int // of the text
	Elbow              string
	BarX, BarY, BarW   float64
	Open               bool // no end is known
	Effect, Took, Mark string
	TookX              float64
}

// tick is a mark of the axis.
type tick struct {
	X     float64
	Label string
}

const (
	rowHeight   = 30
	axisHeight  = 26
	graphTree   = 470 // where the tree ends and time begins
	graphTime   = 520
	graphAfter  = 90 // for how long the last call took
	indent      = 18
	mostRows    = 500
	maxRowLabel = 58
)

// drawGraph draws the first 500 calls.
func drawGraph(calls []step, lineages []search.Lineage) graph {
	of := map[string]search.Lineage{}
	for _, l := range lineages {
		of[l.RecordID] = l
	}
	calls = calls[:min(len(calls), mostRows)]
	first, last := span(calls, of)
	scale := float64(graphTime) / float64(max(last.Sub(first), time.Millisecond))
	at := func(t time.Time) float64 { return graphTree + float64(t.Sub(first))*scale }
	g := graph{Width: graphTree + graphTime + graphAfter, Height: axisHeight + rowHeight*len(calls) + 4, Axis: axisHeight}
	for i := range 5 {
		part := time.Duration(int64(last.Sub(first)) / 4 * int64(i))
		g.Ticks = append(g.Ticks, tick{graphTree + float64(part)*scale, "+" + roughly(part)})
	}
	rowOf := map[int]int{} // the last row of each depth
	for i, c := range calls {
		y := axisHeight + i*rowHeight
		r := graphRow{
			X: 12 + c.Depth*indent, Y: y, TextY: y + rowHeight/2 + 5, Effect: c.Effect, Link: Prefix + "actions/" + c.RecordID,
			BarY: float64(y) + 9,
		}
		callee := "no route"
		if l, known := of[c.RecordID]; known && l.Callee != nil {
			callee = short(l.Callee.ID)
			if l.Callee.Tool != "" {
				callee = l.Callee.Tool + " at " + callee
			}
		}
		r.Text = cut(short(c.Caller)+" → "+callee, maxRowLabel-2*c.Depth)
		r.Title = fmt.Sprintf("%s calls %s: %s", c.Caller, c.Callee, verdict(c.Effect))
		if above, below := rowOf[c.Depth-1]; c.Depth > 0 && below {
			x := 12 + (c.Depth-1)*indent + 4
			r.Elbow = fmt.Sprintf("M%d %dV%dH%d", x, axisHeight+above*rowHeight+rowHeight-6, y+rowHeight/2, x+indent-7)
		}
		rowOf[c.Depth] = i
		start, end, ended := ran(of[c.RecordID])
		r.BarX, r.BarW = at(start), max(at(end)-at(start), 3)
		r.TookX, r.Took = r.BarX+r.BarW+6, roughly(end.Sub(start))
		if r.Open = !ended; r.Open {
			r.Took = verdict(c.Effect)
			if c.Effect == "permit" {
				r.Took = "no outcome"
			}
		}
		g.Rows = append(g.Rows, r)
	}
	return g
}

// ran is when a call was decided and when it ended, as far as is recorded.
func ran(l search.Lineage) (start, end time.Time, ended bool) {
	start, _ = time.Parse(time.RFC3339, l.Time)
	end = start
	for _, o := range l.Outcomes {
		if t, err := time.Parse(time.RFC3339, o.Ended); err == nil && t.After(end) {
			end = t
		}
		ended = true
	}
	return start, end, ended
}

func span(calls []step, of map[string]search.Lineage) (first, last time.Time) {
	for i, c := range calls {
		start, end, _ := ran(of[c.RecordID])
		if i == 0 || start.Before(first) {
			first = start
		}
		if i == 0 || end.After(last) {
			last = end
		}
	}
	return first, last
}

// roughly is a duration in a few characters.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}
