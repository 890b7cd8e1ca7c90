package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// The files of the evidence, below the data directory.
const (
	bundleFile = "evidence.zip"
	trustFile  = "trust.policy"
)

// traceBack tells the way of the database call from the records alone, and
// counts what they hold.
func (w *world) traceBack(ctx context.Context, call string) error {
	x, err := w.server.Records(ctx)
	if err != nil {
		return err
	}
	l, err := x.Trace(call)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := l.WriteText(&text); err != nil {
		return err
	}
	w.tell(Event{Type: TypeTrace, Call: call, Record: l.RecordID, Chain: hopActors(l), Decision: permitted, Text: text.String()})
	if err := w.checkLineage(l); err != nil {
		w.differs("the trace: %v", err)
	}
	w.count(x)
	return nil
}

func hopActors(l search.Lineage) []string {
	out := make([]string, len(l.Hops))
	for i, h := range l.Hops {
		out[i] = shortName(h.Actor)
	}
	return out
}

// checkLineage holds the lineage against what the story did.
func (w *world) checkLineage(l search.Lineage) error {
	want := []string{nameApp, nameOrchestrator, nameResearch, nameDatabase}
	switch {
	case !l.Complete:
		return errors.New("the index lacks entries")
	case !slices.Equal(hopActors(l), want):
		return fmt.Errorf("it names %q, not %q", hopActors(l), want)
	case w.firstName(l.Person.Ref) != alice.name:
		return fmt.Errorf("the person is %q", l.Person.Ref)
	case l.Callee == nil || l.Callee.ID != w.places.mcp(routeDB) || l.Callee.Tool != toolQuery:
		return errors.New("it does not lead to the tool")
	case l.Verdict.Effect != string(record.Permit):
		return fmt.Errorf("it says %s", l.Verdict.Effect)
	}
	for _, h := range l.Hops {
		switch {
		case len(h.Authority) == 0 || h.Permits != string(record.Permit):
			return fmt.Errorf("hop %d has no authority for the call", h.Number)
		case h.Number > 0 && len(h.GaveUp) == 0:
			return fmt.Errorf("hop %d gave nothing up", h.Number)
		}
	}
	if len(l.Outcomes) == 0 {
		return errors.New("it has no outcome")
	}
	return nil
}

// count fills in the numbers of the summary from the records.
func (w *world) count(x *search.Index) {
	for _, e := range x.Records(search.Filter{}) {
		switch d, i := e.Record.Decision, e.Record.Issuance; {
		case d != nil && d.Verdict.Effect == record.Permit:
			w.summary.Calls.Allowed++
			w.summary.MaxDepth = max(w.summary.MaxDepth, len(d.Chain)-1)
		case d != nil:
			w.summary.Calls.Refused++
		case i != nil && i.Result == record.Issued:
			w.summary.Tokens.Issued++
		case i != nil:
			w.summary.Tokens.Refused++
		}
	}
}

// prove exports the ledger and verifies the bundle offline, from the two files
// alone: the bundle, and the policy that says whom to trust.
func (w *world) prove(ctx context.Context) error {
	bundle, trust := filepath.Join(w.dir, bundleFile), filepath.Join(w.dir, trustFile)
	if err := w.export(ctx, bundle, trust); err != nil {
		return err
	}
	text, err := os.ReadFile(trust) //nolint:gosec // written just now
	if err != nil {
		return err
	}
	policy, err := evidence.ParsePolicy(text)
	if err != nil {
		return err
	}
	report, err := evidence.VerifyFile(bundle, policy) //nolint:contextcheck // it asks nobody, so that nothing could end
	if err != nil {
		return err
	}
	x, err := w.server.Records(ctx)
	if err != nil {
		return err
	}
	asOf, _ := x.AsOf()
	w.summary.Ledger = Ledger{Origin: asOf.Origin, Entries: asOf.Size, Verify: report.Result()}
	w.summary.Ledger.Bundle, w.summary.Ledger.Policy = w.kept(bundle), w.kept(trust)
	var shown bytes.Buffer
	if err := report.WriteText(&shown); err != nil {
		return err
	}
	w.tell(Event{Type: TypeEvidence, Name: "report", Decision: report.Result(), Text: shown.String()})
	if report.Result() != evidence.ResultValid {
		w.differs("the evidence is %s", report.Result())
	}
	return nil
}

// kept is the path of a file that outlives the demo, "" if it does not.
func (w *world) kept(path string) string {
	if w.opts.DataDir == "" && !w.opts.Keep {
		return ""
	}
	return path
}

func (w *world) export(ctx context.Context, bundle, trust string) error {
	var zip, policy bytes.Buffer
	if err := w.server.Export(ctx, &zip); err != nil {
		return err
	}
	t, err := w.server.Trust()
	if err != nil {
		return err
	}
	if err := evidence.WritePolicy(&policy, t); err != nil {
		return err
	}
	if err := errors.Join(durable.WriteFile(bundle, zip.Bytes(), 0o600), durable.WriteFile(trust, policy.Bytes(), 0o600)); err != nil {
		return err
	}
	w.tell(Event{Type: TypeEvidence, Name: "export", Text: fmt.Sprintf(
		"The whole ledger is exported: %d kB of evidence, and a policy file of %d lines that says whom to trust.",
		(zip.Len()+1023)/1024, strings.Count(policy.String(), "\n"))})
	return nil
}
