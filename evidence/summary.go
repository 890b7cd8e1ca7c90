package evidence

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
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

// report.json is RFC 8785, and a newline: {"calls":[…],"mode":…,"origin":…,"v":1}.
type summaryRest struct {
	Mode    Mode   `json:"mode"`
	Origin  string `json:"origin"`
	Version int    `json:"v"`
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

// summaries writes both, call by call, in the order of the log.
type summaries struct {
	doc, page io.Writer
	origin    string
	mode      Mode
	n         int // calls so far
}

func (s *summaries) begin() error {
	_, errDoc := io.WriteString(s.doc, `{"calls":[`)
	_, errPage := io.WriteString(s.page, pageBegin(s.origin))
	return errors.Join(errDoc, errPage)
}

// call adds one call. RFC 8785 sorts members, so that what it makes of each call
// stands in what it makes of all.
func (s *summaries) call(c summaryCall) error {
	raw, err := canonicalJSON(c)
	if err != nil {
		return err
	}
	if s.n++; s.n > 1 {
		raw = append([]byte{','}, raw...)
	}
	_, errDoc := s.doc.Write(raw)
	_, errPage := io.WriteString(s.page, c.row())
	return errors.Join(errDoc, errPage)
}

func (s *summaries) end() error {
	rest, err := canonicalJSON(summaryRest{s.mode, s.origin, summaryVersion})
	if err != nil {
		return err
	}
	_, errDoc := fmt.Fprintf(s.doc, "],%s\n", rest[1:])
	_, errPage := io.WriteString(s.page, pageEnd)
	return errors.Join(errDoc, errPage)
}

// canonicalJSON is RFC 8785.
func canonicalJSON(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err == nil {
		raw, err = jcs.Transform(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("summarising: %w", err)
	}
	return raw, nil
}

// tell takes in what a record says for the summaries: a decision, or the outcome of
// one.
func (b *Builder) tell(e *entry) error {
	switch {
	case e.record.Kind == record.KindDecision:
		raw, err := json.Marshal(callOf(e))
		if err != nil {
			return err
		}
		if _, err := b.calls.Write(binary.BigEndian.AppendUint32(nil, uint32(len(raw)))); err != nil { //nolint:gosec // of one record
			return err
		}
		if _, err := b.calls.Write(raw); err != nil {
			return err
		}
		b.decided++
		return b.pairs.add(e.record.ID, binary.BigEndian.AppendUint64(nil, b.decided-1))
	case e.record.Kind == record.KindOutcome:
		value := binary.BigEndian.AppendUint64(nil, uint64(e.index)) //nolint:gosec // never negative
		return b.pairs.add(e.record.Outcome.Of, append(value, e.record.Outcome.Status...))
	}
	return nil
}

// outcomes sorts what followed by the place of the decision: of each the first that
// the log has after it.
func (b *Builder) outcomes() (*sorter, error) {
	found, err := b.sorter()
	if err != nil {
		return nil, err
	}
	var id string
	var place []byte // of the decision at hand; nil: none, or its outcome is found
	for r, err := range b.pairs.rows() {
		if err != nil {
			return nil, err
		}
		if r.key != id {
			id, place = r.key, nil
		}
		switch decision := len(r.value) == 8; {
		case decision:
			place = bytes.Clone(r.value)
		case place != nil:
			if err := found.add(hex.EncodeToString(place), r.value); err != nil {
				return nil, err
			}
			place = nil
		}
	}
	return found, nil
}

// summarise adds both summaries.
func (b *Builder) summarise() error {
	found, err := b.outcomes()
	if err != nil {
		return err
	}
	if err := b.calls.flush(); err != nil {
		return err
	}
	next, stop := iter.Pull2(found.rows())
	defer stop()
	outcome, err, more := next()
	s := summaries{doc: b.data[fromDoc], page: b.data[fromPage], origin: b.c.Origin, mode: b.c.Mode}
	if err := errors.Join(err, s.begin()); err != nil {
		return err
	}
	calls := bufio.NewReaderSize(b.calls.section(0, b.calls.size), 1<<16)
	for place := range b.decided {
		c, err := readCall(calls)
		if err != nil {
			return err
		}
		if more && outcome.key == hex.EncodeToString(binary.BigEndian.AppendUint64(nil, place)) {
			c.Outcome, c.Status = int64(binary.BigEndian.Uint64(outcome.value)), string(outcome.value[8:]) //nolint:gosec // as encoded
			outcome, err, more = next()
		}
		if err := errors.Join(err, s.call(c)); err != nil {
			return err
		}
	}
	return errors.Join(s.end(), b.addScratch(summaryFile, fromDoc), b.addScratch(summaryPage, fromPage))
}

func readCall(r io.Reader) (c summaryCall, err error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return c, err
	}
	raw := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, raw); err != nil {
		return c, err
	}
	err = json.Unmarshal(raw, &c)
	return c, err
}

// told makes both summaries again and compares: a bundle whose pages say something
// else than its records is not what its manifest says.
type told struct {
	v        *verifier
	to       summaries
	want     [2]*comparer // nil: the bundle has no such file
	sizes    [2]int64
	at       map[recordID]int // record id of a decision → place among all
	outcomes []outcomeAt      // by that place
	place    int              // of the next decision
	statuses []record.Status
	err      error
}

// outcomeAt is the first outcome of a decision; status -1: there is none.
type outcomeAt struct {
	index  int64
	status int // in statuses: there are few
}

func (v *verifier) newTold() *told {
	t := &told{v: v, at: map[recordID]int{}}
	writers := [2]io.Writer{io.Discard, io.Discard}
	for k, name := range []string{summaryFile, summaryPage} {
		if i, ok := v.find(name); ok {
			m := v.files[i]
			t.want[k], t.sizes[k] = &comparer{want: bufio.NewReaderSize(v.src.section(m.at, int64(m.size)), 1<<16)}, int64(m.size)
			writers[k] = t.want[k]
		}
	}
	t.to = summaries{doc: writers[0], page: writers[1], origin: v.manifest.Origin, mode: v.manifest.Mode}
	return t
}

// check learns what followed each decision.
func (t *told) check() check {
	return check{see: func(e *entry) {
		switch {
		case !e.readable:
		case e.record.Kind == record.KindDecision:
			t.at[idOf(e.record.ID)] = len(t.outcomes)
			t.outcomes = append(t.outcomes, outcomeAt{status: -1})
		case e.record.Kind == record.KindOutcome:
			if i, ok := t.at[idOf(e.record.Outcome.Of)]; ok && t.outcomes[i].status < 0 {
				t.outcomes[i] = outcomeAt{e.index, t.statusOf(e.record.Outcome.Status)}
			}
		}
	}, end: func() {
		t.at = nil
		t.keep(t.to.begin())
	}}
}

func (t *told) statusOf(s record.Status) int {
	i := slices.Index(t.statuses, s)
	if i < 0 {
		i, t.statuses = len(t.statuses), append(t.statuses, s)
	}
	return i
}

// keep keeps an error, but that a page differs: the other one is compared on.
func (t *told) keep(err error) {
	if !errors.Is(err, errDiffers) {
		t.err = errors.Join(t.err, err)
	}
}

// tell tells a decision.
func (t *told) tell(e *entry) {
	o := t.outcomes[t.place]
	t.place++
	if t.want[0] == nil && t.want[1] == nil || t.err != nil {
		return
	}
	c := callOf(e)
	if o.status >= 0 {
		c.Outcome, c.Status = o.index, string(t.statuses[o.status])
	}
	t.keep(t.to.call(c))
}

func (t *told) end() {
	t.keep(t.to.end())
	if t.err != nil {
		t.v.fail(ManifestSig, "%v", t.err)
		return
	}
	for k, name := range []string{summaryFile, summaryPage} {
		if c := t.want[k]; c != nil && (c.differs || c.n != t.sizes[k]) {
			t.v.fail(ManifestSig, "%s says something else than the records", name)
		}
	}
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

// report.html has no script, and nothing that a browser would fetch.
func pageBegin(origin string) string {
	return "<!doctype html><meta charset=\"utf-8\"><title>Evidence</title><style>" + summaryStyle + "</style>\n" +
		"<h1>" + markup(origin) + "</h1>\n<p>Numbers are indexes of the log. Verify the bundle before you believe this page.</p>\n<table>\n" +
		"<tr><th>index<th>time<th>person<th>agents<th>caller<th>callee<th>tool<th>effect<th>reason<th>rules<th>outcome<th>status\n"
}

const pageEnd = "</table>\n"

// row is a call on the page.
func (c summaryCall) row() string {
	var b strings.Builder
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
	return b.String()
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
