package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/search"
)

// act is the page of one action.
type act struct {
	search.Lineage

	Chain chainDrawing
	// Explanation is nil where the viewer may not see the rules.
	Explanation *Explanation
	// Through are the agents between the person and the caller.
	Through []string
	// Several says that the transaction has other calls.
	Several bool
}

// Ended is the last outcome, nil if there is none.
func (a act) Ended() *search.Outcome {
	if len(a.Outcomes) == 0 {
		return nil
	}
	return &a.Outcomes[len(a.Outcomes)-1]
}

// action shows how one call came about.
func (s *Service) action(ctx context.Context, x *request) (answer, error) {
	if _, _, err := x.filter("none"); err != nil {
		return answer{}, err
	}
	l, err := x.desk.Trace(ctx, x.PathValue("id"))
	if err != nil {
		return answer{}, asCode(err)
	}
	a := act{Lineage: l, Chain: drawChain(l), Through: between(l), Several: count(l.Calls) > 1}
	if x.viewer.everything() {
		e, err := s.cfg.Explain(ctx, l.RecordID)
		if err != nil {
			e = Explanation{Missing: []string{"The rules cannot be read now."}}
			s.cfg.Logger.WarnContext(ctx, "explaining: "+err.Error())
		}
		for i := range e.Rules { // what an author wrote may look otherwise than it is read
			e.Rules[i].Text = visibleLines(e.Rules[i].Text)
		}
		a.Explanation = &e
	}
	return answer{template: "action", title: "Action", data: a, cites: 1 + len(l.Outcomes)}, nil
}

// between are the actors of a chain but for the last, who calls.
func between(l search.Lineage) []string {
	out := []string{}
	for i, h := range l.Hops {
		if i < len(l.Hops)-1 {
			out = append(out, h.Actor)
		}
	}
	return out
}

func count(cs []search.Call) int {
	n := len(cs)
	for _, c := range cs {
		n += count(c.Children)
	}
	return n
}

// asCode gives what searching found out its code.
func asCode(err error) error {
	_, several := search.IsAmbiguous(err)
	switch {
	case several, errors.Is(err, search.ErrNotFound), errors.Is(err, search.ErrNoReport):
		return refuse(console.CodeNotFound, "%w", err)
	case errors.Is(err, search.ErrTooMany):
		return refuse(console.CodeAnswerTooLarge, "%w", err)
	default:
		return err
	}
}

// actionEvidence gives the bundle of one action, for the button that verifies it
// and for whoever wants to keep it.
func (s *Service) actionEvidence(ctx context.Context, x *request) (answer, error) {
	l, err := x.desk.Trace(ctx, x.PathValue("id"))
	if err != nil {
		return answer{}, asCode(err)
	}
	return x.bundle(ctx, []string{l.RecordID}, "lineal-"+l.RecordID+".zip", 1+len(l.Outcomes))
}

// trust gives the policy file by which the evidence of this log is verified. It
// is no better than the way by which it came: an auditor who must not trust this
// server has one from elsewhere.
func (s *Service) trust(context.Context, *request) (answer, error) {
	text, err := s.cfg.Trust()
	return answer{send: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(text))
	}}, err
}

// bundle makes a bundle; one at a time. It is held in memory, because nothing
// is sent before the look is recorded.
func (x *request) bundle(ctx context.Context, ids []string, name string, cites int) (answer, error) {
	select {
	case x.s.reporting <- struct{}{}:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	defer func() { <-x.s.reporting }()
	var b bytes.Buffer
	if err := x.s.cfg.Export(ctx, &b, Selection{IDs: ids, Policies: x.viewer.everything()}); err != nil {
		return answer{}, err
	}
	return answer{cites: cites, send: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
		_, _ = w.Write(b.Bytes())
	}}, nil
}

// entryPage is one record of any kind.
type entryPage struct {
	Row

	Hash, Payload string
	Action        string // the page of the action that it belongs to
}

// entry shows the record at an index.
func (s *Service) entry(ctx context.Context, x *request) (answer, error) {
	index, err := strconv.ParseInt(x.PathValue("index"), 10, 64)
	if err != nil || index < 0 || index >= 1<<53 {
		return answer{}, refuse(console.CodeNotFound, "no such entry")
	}
	e, err := x.at(ctx, index)
	if err != nil {
		return answer{}, err
	}
	payload, err := e.Record.Canonical()
	if err != nil {
		return answer{}, err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, payload, "", "  "); err != nil {
		return answer{}, err
	}
	p := entryPage{Row: rowsOf([]search.Entry{e})[0], Hash: e.Hash, Payload: visibleLines(pretty.String())}
	switch {
	case e.Record.Decision != nil:
		p.Action = Prefix + "actions/" + e.Record.ID
	case e.Record.Outcome != nil:
		p.Action = Prefix + "actions/" + e.Record.Outcome.Of
	}
	return answer{template: "entry", title: "Record", data: p, cites: 1}, nil
}

// at is the entry at an index, as far as the viewer may see it.
func (x *request) at(ctx context.Context, index int64) (search.Entry, error) {
	p, err := x.desk.Records(ctx, search.Filter{From: index, Before: index + 1, Limit: 1})
	if err != nil {
		return search.Entry{}, err
	}
	if len(p.Entries) == 0 {
		return search.Entry{}, refuse(console.CodeNotFound, "no such entry, or of somebody else")
	}
	return p.Entries[0], nil
}

// visibleLines escapes hidden characters in a text of several lines (threat L7).
func visibleLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = search.Visible(lines[i])
	}
	return strings.Join(lines, "\n")
}
