package evidence

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// Dimension is one thing that a verification looks at.
type Dimension string

// The dimensions, in the order of the report.
const (
	Container    Dimension = "container"    // the file is byte for byte what the writer makes of its parts
	ManifestSig  Dimension = "manifest"     // signed by a manifest key of the policy; every file has its hash
	Origin       Dimension = "origin"       // the log is one the policy names
	Signature    Dimension = "signature"    // every record is signed by the key it names
	WriterKeys   Dimension = "writer-keys"  // that key was its writer's at that index
	Inclusion    Dimension = "inclusion"    // every record is in the tree
	Checkpoints  Dimension = "checkpoint"   // the tree is the one the log signed, and only grew
	Witnesses    Dimension = "witnesses"    // the policy's quorum cosigned it
	Sequence     Dimension = "sequence"     // no writer's record is missing between two others
	Completeness Dimension = "completeness" // every index of the range is there
	Chain        Dimension = "chain"        // every decision's delegation chain, back to the person
	Policies     Dimension = "policies"     // the rules that decided are in the bundle
	Outcomes     Dimension = "outcome"      // what followed each permitted call
	Disclosures  Dimension = "disclosure"   // the values behind salted digests
	Exchange     Dimension = "exchange"     // what the other organisation countersigned
)

// Dimensions lists them all, in the order of the report.
func Dimensions() []Dimension {
	return []Dimension{
		Container, ManifestSig, Origin, Signature, WriterKeys, Inclusion, Checkpoints, Witnesses,
		Sequence, Completeness, Chain, Policies, Outcomes, Disclosures, Exchange,
	}
}

// Status is the answer for one dimension. The zero value is NotProven.
type Status int

// The answers.
const (
	NotProven     Status = iota // the bundle does not hold what would prove it
	Pass                        // proven
	Fail                        // proven wrong
	NotApplicable               // nothing in this bundle has this dimension
)

func (s Status) String() string {
	switch s {
	case Pass:
		return "PASS"
	case Fail:
		return "FAIL"
	case NotApplicable:
		return "n/a"
	case NotProven:
		return "NOT PROVEN"
	}
	return "NOT PROVEN"
}

// MarshalText is String.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is the answer for one dimension. Where its text quotes the bundle,
// what a terminal would act on is escaped (threat L7).
type Finding struct {
	Dimension Dimension `json:"dimension"`
	Status    Status    `json:"status"`
	Required  bool      `json:"required,omitempty"`
	Summary   string    `json:"summary,omitempty"`  // counts, such as "42/42"
	Problems  []string  `json:"problems,omitempty"` // the first few, worst kind first
	Failures  int       `json:"failures,omitempty"`
	Unproven  int       `json:"unproven,omitempty"`
}

// maxProblems bounds Finding.Problems.
const maxProblems = 5

// The results of a verification.
const (
	ResultValid        = "valid"
	ResultInvalid      = "invalid"
	ResultCannotDecide = "cannot decide"
)

// Report is what a verification found.
type Report struct {
	mode        Mode
	origin      string
	from, to    int64
	size        int64 // of the last checkpoint whose signature verified, else -1
	records     int
	findings    []Finding
	notAsserted []string
}

// Finding returns the answer for d.
func (r Report) Finding(d Dimension) Finding {
	for _, f := range r.findings {
		if f.Dimension == d {
			return f
		}
	}
	return Finding{Dimension: d}
}

// Findings returns all answers, in the order of [Dimensions].
func (r Report) Findings() []Finding { return slices.Clone(r.findings) }

// Result is ResultInvalid if anything is proven wrong, ResultCannotDecide if
// a required dimension is not proven, else ResultValid.
func (r Report) Result() string {
	undecided := len(r.findings) == 0
	for _, f := range r.findings {
		if f.Status == Fail {
			return ResultInvalid
		}
		undecided = undecided || f.Required && f.Status == NotProven
	}
	if undecided {
		return ResultCannotDecide
	}
	return ResultValid
}

// ExitCode is 0 for a valid bundle, 1 for an invalid one, 2 if a required
// dimension is not proven. (3, for wrong usage or a file that cannot be
// opened, is the command's.)
func (r Report) ExitCode() int {
	switch r.Result() {
	case ResultValid:
		return 0
	case ResultInvalid:
		return 1
	default:
		return 2
	}
}

// JSON is the report for programs.
func (r Report) JSON() ([]byte, error) {
	type rng struct {
		From int64 `json:"from"`
		To   int64 `json:"to"`
	}
	doc := struct {
		Result      string    `json:"result"`
		ExitCode    int       `json:"exit_code"`
		Origin      string    `json:"origin,omitempty"`
		Mode        Mode      `json:"mode,omitempty"`
		Range       *rng      `json:"range,omitempty"`
		Records     int       `json:"records"`
		Checkpoint  *int64    `json:"checkpoint_size,omitempty"`
		Findings    []Finding `json:"findings"`
		NotAsserted []string  `json:"not_asserted,omitempty"`
	}{
		Result: r.Result(), ExitCode: r.ExitCode(), Origin: r.origin, Mode: r.mode, Records: r.records,
		Findings: r.findings, NotAsserted: r.notAsserted,
	}
	if r.mode == ModeRange {
		doc.Range = &rng{r.from, r.to}
	}
	if r.size >= 0 {
		doc.Checkpoint = &r.size
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding report: %w", err)
	}
	return append(b, '\n'), nil
}

// WriteText prints the report for people, as in ledger.md §10.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	where := ""
	switch r.mode {
	case ModeRange:
		where = fmt.Sprintf("  range [%d, %d)", r.from, r.to)
	case ModeSelected:
		where = fmt.Sprintf("  %d selected records", r.records)
	}
	origin := r.origin
	if origin == "" {
		origin = "unknown"
	}
	fmt.Fprintf(&b, "%-13s%s%s\n", "log", origin, where)
	for _, f := range r.findings {
		line := fmt.Sprintf("%-13s%-11s %s", f.Dimension, f.Status, f.Summary)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		for _, p := range f.Problems {
			fmt.Fprintf(&b, "%-13s- %s\n", "", p)
		}
		if more := f.Failures + f.Unproven - len(f.Problems); more > 0 && len(f.Problems) == maxProblems {
			fmt.Fprintf(&b, "%-13s- and %d more\n", "", more)
		}
	}
	if len(r.notAsserted) > 0 {
		fmt.Fprintf(&b, "%-13s%s\n", "not asserted", strings.Join(r.notAsserted, ", "))
	}
	result := strings.ToUpper(r.Result())
	if r.Result() == ResultCannotDecide {
		var open []string
		for _, f := range r.findings {
			if f.Required && f.Status == NotProven {
				open = append(open, string(f.Dimension))
			}
		}
		result += " (required: " + strings.Join(open, ", ") + ")"
	}
	fmt.Fprintf(&b, "%-13s%s   exit %d\n", "result", result, r.ExitCode())
	_, err := io.WriteString(w, b.String())
	return err
}

// visible escapes everything a terminal or a reader could take for something
// else: control, format (bidirectional, zero width) and unassigned characters.
func visible(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if r == ' ' || (unicode.IsPrint(r) && !unicode.Is(unicode.Cf, r)) {
			b.WriteRune(r)
			continue
		}
		if r < 0x100 {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
