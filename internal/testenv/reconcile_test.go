package testenv_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/internal/testenv"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/server"
)

// later is when bundles say that they were made: what was recorded is merged.
const later = 10 * time.Minute

// bundle is the evidence of a data directory, and what to trust of it.
func bundle(t *testing.T, dir, issuer string, at time.Time) ([]byte, evidence.Policy) {
	t.Helper()
	b, p, err := tryBundle(t, dir, issuer, at)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

func tryBundle(t *testing.T, dir, issuer string, at time.Time) (_ []byte, p evidence.Policy, err error) {
	t.Helper()
	a, err := server.OpenArchive(t.Context(), dir)
	if err != nil {
		return nil, p, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	var zip, text bytes.Buffer
	if err := a.Export(t.Context(), &zip, server.Selection{}, at); err != nil {
		return nil, p, err
	}
	trust, err := server.Trust(dir, issuer)
	if err != nil {
		return nil, p, err
	}
	if err := evidence.WritePolicy(&text, trust); err != nil {
		return nil, p, err
	}
	p, err = evidence.ParsePolicy(text.Bytes())
	return zip.Bytes(), p, err
}

// side is verified evidence.
func side(t *testing.T, name string, zip []byte, p evidence.Policy) evidence.Side {
	t.Helper()
	if r := evidence.Verify(zip, p); r.ExitCode() == 1 {
		var text strings.Builder
		_ = r.WriteText(&text)
		t.Fatalf("%s: %s", name, text.String())
	}
	b, err := evidence.Open(zip)
	if err != nil {
		t.Fatal(err)
	}
	return b.Side(name, p)
}

// backup copies the files of a running deployment, again until what was copied is
// a whole log: nothing is written meanwhile but heartbeats.
func backup(t *testing.T, e *testenv.Env) string {
	t.Helper()
	for range 20 {
		dir := t.TempDir()
		err := filepath.WalkDir(e.Deployment.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() == "ballast" || strings.HasSuffix(d.Name(), ".lock") || strings.HasSuffix(d.Name(), "-shm") {
				return err
			}
			rel, err := filepath.Rel(e.Deployment.DataDir, path)
			if err != nil || d.IsDir() {
				return errors.Join(err, os.MkdirAll(filepath.Join(dir, rel), 0o700))
			}
			if !d.Type().IsRegular() {
				return nil
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, rel), content, 0o600)
		})
		if err == nil {
			if zip, p, err := tryBundle(t, dir, e.Deployment.Tokens.Issuer, time.Now()); err == nil && evidence.Verify(zip, p).ExitCode() != 1 {
				return dir
			}
		}
	}
	t.Fatal("no copy of the deployment is whole")
	return ""
}

// TestReconcileNamesWhatWasDropped: of two running organisations one goes back to
// a backup, so that its log lacks a call that it answered. Its own evidence is
// valid. What it signed for the other side names the record that is missing.
func TestReconcileNamesWhatWasDropped(t *testing.T) {
	o := newOrganisations(t)
	token := o.token()
	call := func() {
		t.Helper()
		if status, _, body := o.call(http.MethodGet, token); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		<-o.got
	}
	call()
	_, _ = records(t, o.a), records(t, o.b) // all that was recorded is published
	oldA, oldB := backup(t, o.a), backup(t, o.b)
	call()
	xa, xb := records(t, o.a), records(t, o.b)

	now := time.Now()
	read := func(name, dir, issuer string, at time.Time) evidence.Side {
		zip, p := bundle(t, dir, issuer, at)
		return side(t, name, zip, p)
	}
	issuerA, issuerB := o.a.Deployment.Tokens.Issuer, o.b.Deployment.Tokens.Issuer
	a := read("a.zip", o.a.Deployment.DataDir, issuerA, now.Add(later))
	b := read("b.zip", o.b.Deployment.DataDir, issuerB, now.Add(later))
	expect := func(r evidence.Reconciliation, alarms int, exchanges map[evidence.DifferenceKind]int) {
		t.Helper()
		if r.Alarms != alarms || len(r.Exchanges) != len(exchanges) || r.Grants[evidence.Matched] != 1 || len(r.Grants) != 1 {
			t.Errorf("%+v", r)
		}
		for kind, n := range exchanges {
			if r.Exchanges[kind] != n {
				t.Errorf("%d %s, want %d: %+v", r.Exchanges[kind], kind, n, r)
			}
		}
	}
	whole := map[evidence.DifferenceKind]int{evidence.Matched: 2}
	expect(evidence.Reconcile(a, b), 0, whole)
	expect(evidence.Reconcile(b, a), 0, whole)

	decisions := func(x *search.Index) []search.Entry {
		return slices.DeleteFunc(x.Records(search.Filter{Kind: record.KindDecision}), func(e search.Entry) bool { return e.Record.Decision.Exchange == nil })
	}
	sent, taken := decisions(xa), decisions(xb)
	if len(sent) != 2 || len(taken) != 2 {
		t.Fatalf("%d calls at a, %d at b", len(sent), len(taken))
	}
	dropped := read("b.zip", oldB, issuerB, now.Add(later))
	r := evidence.Reconcile(a, dropped)
	expect(r, 1, map[evidence.DifferenceKind]int{evidence.Matched: 1, evidence.MissingAtCallee: 1})
	var receipt string
	for _, e := range xa.Records(search.Filter{Kind: record.KindOutcome}) {
		if p := e.Record.Outcome.Peer; p != nil && e.Record.Outcome.Of == sent[1].Record.ID {
			receipt = p.ExchangeReceiptHash
		}
	}
	if d := r.Differences[0]; len(r.Differences) != 1 || d.Kind != evidence.MissingAtCallee || d.ID != sent[1].Record.Decision.Exchange.ID || !d.Alarm ||
		d.Caller == nil || d.Caller.Index != sent[1].Index || d.Callee != nil || receipt == "" || d.Proof != receipt || !strings.Contains(d.Text, taken[1].Hash) {
		t.Errorf("%+v, want %s proven by %s", r.Differences, taken[1].Hash, receipt)
	}

	lost := read("a.zip", oldA, issuerA, now.Add(later))
	r = evidence.Reconcile(lost, b)
	expect(r, 1, map[evidence.DifferenceKind]int{evidence.Matched: 1, evidence.MissingAtCaller: 1})
	if d := r.Differences[0]; d.Kind != evidence.MissingAtCaller || d.Proof != taken[1].Record.Decision.Exchange.StatementHash || !strings.Contains(d.Text, sent[1].Hash) {
		t.Errorf("%+v, want %s proven by %s", d, sent[1].Hash, taken[1].Record.Decision.Exchange.StatementHash)
	}

	// Before it had to be merged, a missing record proves nothing.
	expect(evidence.Reconcile(a, read("b.zip", oldB, issuerB, now)), 0, map[evidence.DifferenceKind]int{evidence.Matched: 1, evidence.OutOfWindow: 1})

	// Without the receipt the caller has its own word alone.
	a.Signed = nil
	r = evidence.Reconcile(a, dropped)
	if d := r.Differences[0]; r.Alarms != 1 || d.Kind != evidence.MissingAtCallee || d.Proof != "" {
		t.Errorf("%+v", r)
	}
	var text strings.Builder
	if err := r.WriteText(io.MultiWriter(&text)); err != nil || !strings.Contains(text.String(), "ALARM missing_at_callee") {
		t.Errorf("%s, %v", text.String(), err)
	}
}

// TestL3PartnerIsHeldToItsTree: a partner goes back to a backup, shows it, and goes
// on from there. Its evidence is valid both times; the receipts that it signed
// before name the tree that it had.
func TestL3PartnerIsHeldToItsTree(t *testing.T) {
	o := newOrganisations(t)
	token := o.token()
	_, _ = records(t, o.a), records(t, o.b)
	old := backup(t, o.b)
	issuerA, issuerB := o.a.Deployment.Tokens.Issuer, o.b.Deployment.Tokens.Issuer
	read := func(name, dir, issuer string) evidence.Side {
		t.Helper()
		zip, p := bundle(t, dir, issuer, time.Now().Add(later))
		return side(t, name, zip, p)
	}
	back := read("b.zip", old, issuerB)

	// The gateway hears of a checkpoint a moment after it is published, so that some
	// later call's receipt names one that the backup does not have.
	var a evidence.Side
	var r evidence.Reconciliation
	for end := time.Now().Add(90 * time.Second); r.Trees[evidence.LogCut] == 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no receipt names a tree of more than %d entries: %+v", len(back.Leaves), r)
		}
		if status, _, body := o.call(http.MethodGet, token); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		<-o.got
		_, _ = records(t, o.a), records(t, o.b)
		a = read("a.zip", o.a.Deployment.DataDir, issuerA)
		r = evidence.Reconcile(a, back)
	}
	named := func(r evidence.Reconciliation, kind evidence.DifferenceKind) {
		t.Helper()
		for _, d := range r.Differences {
			if d.Kind != kind {
				continue
			}
			if _, kept := a.Signed[d.Proof]; !kept || !d.Alarm || !strings.Contains(d.Text, o.b.Deployment.Ledger.Origin()) {
				t.Errorf("%+v", d)
			}
			return
		}
		t.Errorf("no %s: %+v", kind, r)
	}
	named(r, evidence.LogCut)

	// The log that grew as it was named is the twin.
	if r := evidence.Reconcile(a, read("b.zip", o.b.Deployment.DataDir, issuerB)); r.Alarms != 0 || r.Trees[evidence.Matched] == 0 || len(r.Trees) != 1 {
		t.Errorf("of the log as it is: %+v", r)
	}

	for range 20 { // each start and stop is some records
		if r = evidence.Reconcile(a, read("b.zip", old, issuerB)); r.Trees[evidence.LogCut] == 0 {
			break
		}
		goOn(t, o.b.Deployment, old)
	}
	named(r, evidence.LogForked)
	if r.Trees[evidence.LogCut] != 0 {
		t.Errorf("of a backup that went on: %+v", r.Trees)
	}
}

// goOn starts a deployment from a copy of its files, and stops it.
func goOn(t *testing.T, cfg config.Config, dir string) {
	t.Helper()
	cfg.DataDir, cfg.Policy.Bundle = dir, filepath.Join(dir, filepath.Base(cfg.Policy.Bundle))
	var opts server.Options
	for _, l := range []*net.Listener{&opts.GatewayListener, &opts.TokensListener} {
		var err error
		if *l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s, err := server.Start(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
