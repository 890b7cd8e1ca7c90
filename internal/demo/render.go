package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Renderer shows the story. Its methods are called one at a time; the first
// error of its writer ends what it writes.
type Renderer interface {
	Event(Event)
	Summary(Summary)
	// Err is the first error of the writer.
	Err() error
}

// JSON writes each event, and at last the summary, as one object per line.
func JSON(w io.Writer) Renderer { return &jsonLines{enc: json.NewEncoder(w)} }

type jsonLines struct {
	enc *json.Encoder
	err error
}

func (j *jsonLines) Event(e Event)     { j.line(e) }
func (j *jsonLines) Summary(s Summary) { j.line(s) }
func (j *jsonLines) Err() error        { return j.err }

func (j *jsonLines) line(v any) {
	if j.err == nil {
		j.enc.SetEscapeHTML(false)
		j.err = j.enc.Encode(v)
	}
}

// Text writes the story for people: sentences below headings. color adds the
// colours of a terminal.
func Text(w io.Writer, color bool) Renderer { return &text{w: w, color: color} }

type text struct {
	w     io.Writer
	color bool
	step  int
	err   error
}

func (t *text) Err() error { return t.err }

func (t *text) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// The colours: SGR parameters.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

func (t *text) paint(sgr, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// Event writes one sentence, wrapped, or a text of several lines as it is.
func (t *text) Event(e Event) {
	if e.Step != t.step && e.Step < len(chapters) {
		if t.step != 0 {
			t.printf("\n")
		}
		t.step = e.Step
		t.printf("%s\n", t.paint(bold, chapters[e.Step]))
	}
	if strings.Contains(e.Text, "\n") || e.Type == TypeExplore {
		for line := range strings.Lines(strings.TrimRight(e.Text, "\n")) {
			t.printf("  %s\n", strings.TrimRight(line, "\n"))
		}
		return
	}
	for i, line := range wrap(e.Text, 100) {
		indent := "  "
		if i > 0 {
			indent = "    "
		}
		t.printf("%s%s\n", indent, t.verdict(line))
	}
	if e.Record != "" {
		t.printf("    %s\n", t.paint(dim, "record "+e.Record))
	}
}

// verdict colours the words that decide.
func (t *text) verdict(line string) string {
	if t.color {
		line = strings.ReplaceAll(line, ": "+permitted, ": "+t.paint(green, permitted))
		line = strings.ReplaceAll(line, ": "+refused, ": "+t.paint(red, refused))
	}
	return line
}

// Summary writes the counts.
func (t *text) Summary(s Summary) {
	refusedAll := 0
	for _, a := range s.Attacks {
		if a.Refused {
			refusedAll++
		}
	}
	t.printf("\n%s\n", t.paint(bold, "In numbers"))
	t.printf("  %d calls permitted, %d refused; %d tokens issued, %d refused; the longest chain had %d hops.\n",
		s.Calls.Allowed, s.Calls.Refused, s.Tokens.Issued, s.Tokens.Refused, s.MaxDepth+1)
	t.printf("  %d of %d attacks refused and recorded.\n", refusedAll, len(s.Attacks))
	t.printf("  %d entries in the ledger: %s.\n", s.Ledger.Entries, t.paint(map[bool]string{true: green, false: red}[s.Ledger.Verify == "valid"], s.Ledger.Verify))
	if s.DataDir != "" {
		t.printf("  The data is in %s.\n", s.DataDir)
	}
	for _, p := range s.Problems {
		t.printf("  %s %s\n", t.paint(red, "differs:"), p)
	}
}

// wrap breaks a sentence at spaces into lines of at most width characters.
func wrap(s string, width int) []string {
	var lines []string
	line, length := "", 0
	for word := range strings.FieldsSeq(s) {
		n := len([]rune(word))
		if length > 0 && length+1+n > width {
			lines, line, length = append(lines, line), "", 0
		}
		if length > 0 {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}
