package doctor

import (
	"fmt"
	"io"
)

// Report is what came of a run.
type Report struct {
	OK bool `json:"ok"`
	// Code is that of the first step that failed: the cause of all that follow it.
	Code Code `json:"code,omitempty"`
	// Agent is the SPIFFE ID that the Workload API gave, "" if it gave none.
	Agent string `json:"agent,omitempty"`
	Steps []Step `json:"steps"`
}

// Result is what came of a step.
type Result string

// The results.
const (
	Passed  Result = "ok"
	Failed  Result = "failed"
	Skipped Result = "skipped"
)

// Step is one step of the way.
type Step struct {
	Name string `json:"step"`
	// Of is the service or the route that it was for, "" if all.
	Of     string `json:"of,omitempty"`
	Result Result `json:"result"`
	// Code, Why and Do are of a failure: the cause, a sentence, and the remedy.
	Code Code   `json:"code,omitempty"`
	Why  string `json:"why,omitempty"`
	Do   string `json:"do,omitempty"`
	// Seen is what this run saw, in no form to rely on.
	Seen string `json:"seen,omitempty"`
}

// finding is the error of a step that failed.
type finding struct {
	code Code
	seen string
}

func (f *finding) Error() string { return string(f.code) + ": " + f.seen }

func find(code Code, format string, args ...any) *finding {
	return &finding{code: code, seen: fmt.Sprintf(format, args...)}
}

func (r *Report) fail(name, of string, f *finding) {
	c := causes[f.code]
	r.Steps = append(r.Steps, Step{Name: name, Of: of, Result: Failed, Code: f.code, Why: c.why, Do: c.do, Seen: f.seen})
	if r.OK {
		r.OK, r.Code = false, f.code
	}
}

// WriteText writes the report for people: a line for each step, and under a
// failure what was seen and what to do.
func (r Report) WriteText(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	if r.Agent != "" {
		line("agent %s", r.Agent)
	}
	for _, s := range r.Steps {
		what := s.Name
		if s.Of != "" {
			what += " (" + s.Of + ")"
		}
		if s.Result != Failed {
			line("%-8s %-28s %s", s.Result, what, s.Seen)
			continue
		}
		line("%-8s %-28s %s", s.Result, what, s.Code)
		line("         why:  %s", s.Why)
		line("         seen: %s", s.Seen)
		line("         do:   %s", s.Do)
	}
	return err
}
