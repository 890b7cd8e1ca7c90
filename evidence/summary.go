package evidence

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/gowebpki/jcs"

	"github.com/lineal-auth/lineal/record"
)

// The summaries in a bundle: for programs, and for people. Both follow from the
// records of the bundle alone, so that a verifier makes them again and compares:
// they cannot say anything else than the records.
const (
	summaryFile = "report.json"
	summaryPage = "report.html"
)

const summaryVersion = 1

// summary is report.json: RFC 8785, and a newline.
type summary struct {
	Version int           `json:"v"`
	Origin  string        `json:"origin"`
	Mode    Mode          `json:"mode"`
	Calls   []summaryCall `json:"calls"`
}

// summaryCall is one decision, and the first outcome that says what followed.
type summaryCall struct {
	Index   int64    `json:"index"`
	Time    string   `json:"time"`
	Person  string   `json:"person"` // the reference
	Actors  []string `json:"actors"` // of each hop, root first
	Caller  string   `json:"caller"` // as proven
	Callee  string   `json:"callee"`
	Tool    string   `json:"tool"`
	Effect  string   `json:"effect"`
	Reason  string   `json:"reason"`
	Rules   []string `json:"rules"`
	Outcome int64    `json:"outcome"` // index of the outcome record, -1 if there is none
	Status  string   `json:"status"`
}

// summarise makes both summaries. Entries come by index; those that cannot be
// read are left out.
func summarise(origin string, mode Mode, entries []*entry) (doc, page []byte, err error) {
	s := summary{Version: summaryVersion, Origin: origin, Mode: mode, Calls: []summaryCall{}}
	at := map[string]int{} // record id of a decision → place in Calls
	for _, e := range entries {
		switch {
		case !e.readable:
		case e.record.Kind == record.KindDecision:
			at[e.record.ID] = len(s.Calls)
			s.Calls = append(s.Calls, callOf(e))
		case e.record.Kind == record.KindOutcome:
			if i, ok := at[e.record.Outcome.Of]; ok && s.Calls[i].Outcome < 0 {
				s.Calls[i].Outcome, s.Calls[i].Status = e.index, string(e.record.Outcome.Status)
			}
		}
	}
	raw, err := json.Marshal(s)
	if err == nil {
		doc, err = jcs.Transform(raw)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("summarising: %w", err)
	}
	return append(doc, '\n'), s.page(), nil
}

func callOf(e *entry) summaryCall {
	d := e.record.Decision
	c := summaryCall{
		Index: e.index, Time: string(e.record.Time), Person: d.Person.Ref, Actors: []string{}, Caller: d.Caller.Proven,
		Effect: string(d.Verdict.Effect), Reason: d.Verdict.Reason, Rules: append([]string{}, d.Policy.Rules...), Outcome: -1,
	}
	for _, h := range d.Chain {
		c.Actors = append(c.Actors, h.Actor)
	}
	if d.Callee != nil {
		c.Callee, c.Tool = d.Callee.ID, d.Callee.Tool
	}
	return c
}

const summaryStyle = "body{font:14px sans-serif}table{border-collapse:collapse}td,th{border:1px solid #999;padding:2px 6px;text-align:left}"

// page is report.html: no script, and nothing that a browser would fetch.
func (s summary) page() []byte {
	var b strings.Builder
	b.WriteString("<!doctype html><meta charset=\"utf-8\"><title>Evidence</title><style>" + summaryStyle + "</style>\n" +
		"<h1>" + markup(s.Origin) + "</h1>\n<p>Numbers are indexes of the log. Verify the bundle before you believe this page.</p>\n<table>\n" +
		"<tr><th>index<th>time<th>person<th>agents<th>caller<th>callee<th>tool<th>effect<th>reason<th>rules<th>outcome<th>status\n")
	for _, c := range s.Calls {
		outcome := ""
		if c.Outcome >= 0 {
			outcome = strconv.FormatInt(c.Outcome, 10)
		}
		for i, cell := range []string{
			strconv.FormatInt(c.Index, 10), c.Time, c.Person, strings.Join(c.Actors, " > "), c.Caller, c.Callee, c.Tool, c.Effect, c.Reason,
			strings.Join(c.Rules, " "), outcome, c.Status,
		} {
			if i == 0 {
				b.WriteString("<tr>")
			}
			b.WriteString("<td>" + markup(cell))
		}
		b.WriteString("\n")
	}
	b.WriteString("</table>\n")
	return []byte(b.String())
}

// markup escapes all but printable ASCII, so that nothing on the page can look
// like something else.
func markup(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r >= 0x7f || strings.ContainsRune(`&<>"'\`, r) {
			fmt.Fprintf(&b, "&#x%x;", shown(r))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// shown is what stands for a rune that could deceive.
func shown(r rune) rune {
	if r < ' ' || r >= 0x7f {
		return '\ufffd'
	}
	return r
}
