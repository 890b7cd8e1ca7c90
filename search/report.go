package search

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/internal/parallel"
	"github.com/lineal-auth/lineal/record"
)

// Finding is one thing that a report found.
type Finding struct {
	// Rule is which rule of the report it is of, "unused_grant".
	Rule string `json:"rule"`
	Text string `json:"text"`
	// Records are the indexes of the records that it stands on, ascending.
	Records []int64 `json:"records"`
	// Authority is, where the report tells it, what each hop was given.
	Authority []string `json:"authority,omitempty"`

	at record.Timestamp // of its last record, by which it is in a report's time or not
}

// Report is the answer of one report.
type Report struct {
	Name     string    `json:"report"`
	AsOf     AsOf      `json:"as_of"`
	Complete bool      `json:"complete"`
	Question string    `json:"question"`
	Findings []Finding `json:"findings"`
}

// ReportConfig says what a report looks for; its zero value is usable.
type ReportConfig struct {
	// Since and Until bound the asserted time of what is found, [Since, Until).
	// Records before Since are read too, for what they explain.
	Since, Until record.Timestamp
	// MaxDepth is how many hops a chain may have; 0: 4.
	MaxDepth int
	// MaxStaleness is how old the list of revocations may be, and how long one may
	// take to be in force; 0: 30 s.
	MaxStaleness time.Duration
	// Issuers are our token services. If there are none, they are those of whose
	// tokens at least one has an issuance record.
	Issuers []string
}

const (
	defaultDepth     = 4
	defaultStaleness = 30 * time.Second
	// agencyWindow is the time that excessive-agency looks at if none is said.
	agencyWindow = 30 * 24 * time.Hour
	// outcomeWithin is how long a call may go on before its outcome is missed.
	outcomeWithin = 15 * time.Minute
)

// fold reads the log once, in index order, and then says what it found.
type fold interface {
	add(e *Entry)
	findings() []Finding
}

// reports are the reports there are.
var reports = map[string]struct {
	question string
	new      func(ReportConfig, period) fold
}{
	"disclosure":        {"Which person authorised which action, through which agents, with which authority at each hop?", newDisclosure},
	"excessive-agency":  {"Which authority was given that nothing used, and which use is out of the ordinary?", newAgency},
	"identity-spoofing": {"Which calls were refused because the caller did not prove to be whom it claimed, and when was not everything recorded?", newSpoofing},
	"no-outcome":        {"Of which permitted calls is not known how they ended?", newNoOutcome},
	"sequence-gaps":     {"Where is a record of a writer missing, or its silence not explained?", newSequence},
	"stale-revocation":  {"Which calls were permitted after their authority was revoked, or on too old a list?", newStale},
	"issuance":          {"Which authority was used whose issue is not in the log?", newIssuances},
	"changes":           {"What was changed of policies, keys, registry and revocations, in order?", newChanges},
	"chain-shape":       {"Which chains are deeper than they should be, or do not hold together?", newShape},
	"reconciliation":    {"Which calls to other organisations did these not countersign?", newPartnership},
	"escalation":        {"Which refused calls were permitted later, with more authority?", newEscalation},
}

// Reports are the names of the reports.
func Reports() []string { return slices.Sorted(maps.Keys(reports)) }

// Question is what a report answers, "" if there is no report of the name.
func Question(name string) string { return reports[name].question }

// period is the time that a report is about.
type period struct{ since, until, end record.Timestamp }

// ErrNoReport says that there is no report of a name.
var ErrNoReport = fmt.Errorf("there are these reports: %v", Reports())

// Report makes one report. It reads the whole log up to the checkpoint.
func (d *Desk) Report(ctx context.Context, name string, cfg ReportConfig) (Report, error) {
	if _, known := reports[name]; !known {
		return Report{}, fmt.Errorf("report %.40q: %w", name, ErrNoReport)
	}
	to, complete := d.AsOf()
	var end record.Timestamp
	if to.Size > 0 {
		last, err := d.entry(ctx, to.Size-1)
		if err != nil {
			return Report{}, fmt.Errorf("report %s: %w", name, err)
		}
		end = last.Record.Time
	}
	found, err := fill(d.entries(ctx, to.Size), cfg, end, name)
	if err != nil {
		return Report{}, fmt.Errorf("report %s: %w", name, err)
	}
	return Report{Name: name, AsOf: to, Complete: complete, Question: reports[name].question, Findings: found[name]}, nil
}

// fill makes reports in one reading of the log, whose last record is of end.
func fill(entries iter.Seq2[*Entry, error], cfg ReportConfig, end record.Timestamp, names ...string) (map[string][]Finding, error) {
	if cfg.MaxDepth <= 0 {
		cfg.MaxDepth = defaultDepth
	}
	if cfg.MaxStaleness <= 0 {
		cfg.MaxStaleness = defaultStaleness
	}
	in := period{cfg.Since, cfg.Until, end}
	folds := map[string]fold{}
	for _, name := range names {
		folds[name] = reports[name].new(cfg, in)
	}
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		if cfg.Until != "" && e.Record.Time >= cfg.Until {
			continue
		}
		for _, f := range folds {
			f.add(e)
		}
	}
	out := map[string][]Finding{}
	for name, f := range folds {
		out[name] = []Finding{}
		for _, found := range f.findings() {
			if found.at >= cfg.Since {
				out[name] = append(out[name], found)
			}
		}
		slices.SortStableFunc(out[name], func(a, b Finding) int { return slices.Compare(a.Records, b.Records) })
	}
	return out, nil
}

// entries reads the records [0, to), on every processor.
func (d *Desk) entries(ctx context.Context, to int64) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		var held []Payload
		give := func() bool {
			es, err := parseAll(held)
			held = held[:0]
			if err != nil {
				yield(nil, err)
				return false
			}
			for _, e := range es {
				if !yield(e, nil) {
					return false
				}
			}
			return true
		}
		for p, err := range d.cfg.Read(ctx, 0, to) {
			if err != nil {
				yield(nil, err)
				return
			}
			if held = append(held, p); len(held) == chunk && !give() {
				return
			}
		}
		give()
	}
}

func parseAll(ps []Payload) ([]*Entry, error) {
	out := make([]*Entry, len(ps))
	errs := make([]error, len(ps))
	parallel.Each(len(ps), func(i int) {
		r, err := record.Parse(ps[i].Bytes)
		if err != nil {
			errs[i] = fmt.Errorf("reading entry %d: %w", ps[i].Index, err)
		}
		out[i] = &Entry{Index: ps[i].Index, Hash: record.Hash(ps[i].Bytes), Record: r}
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// found makes a finding that stands on records, whose last is the newest.
func found(rule string, es []*Entry, format string, args ...any) Finding {
	f := Finding{Rule: rule, Text: visible(fmt.Sprintf(format, args...)), at: es[len(es)-1].Record.Time}
	for _, e := range es {
		f.Records = append(f.Records, e.Index)
	}
	slices.Sort(f.Records)
	f.Records = slices.Compact(f.Records)
	return f
}

// JSON is the report for programs.
func (r Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding report: %w", err)
	}
	return append(b, '\n'), nil
}

// shownRecords is how many of the records of a finding its text names.
const shownRecords = 8

// WriteText tells the report to a person. What comes from records was escaped.
func (r Report) WriteText(w io.Writer) error {
	p := &printer{}
	p.line("%s: %s", r.Name, r.Question)
	if len(r.Findings) == 0 {
		p.line("\nNothing was found.")
	}
	for _, f := range r.Findings {
		p.line("\n%s: %s", f.Rule, f.Text)
		for k, a := range f.Authority {
			p.line("  hop %d  %s", k, a)
		}
		n := min(len(f.Records), shownRecords)
		more := ""
		if n < len(f.Records) {
			more = fmt.Sprintf(" and %d more", len(f.Records)-n)
		}
		p.line("  records %v%s", f.Records[:n], more)
	}
	p.line("\n%d findings. %s", len(r.Findings), Lineage{AsOf: r.AsOf, Complete: r.Complete}.standing())
	_, err := io.WriteString(w, p.b.String())
	return err
}
