package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/opatest"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/search"
)

// policyBundle is a bundle of this deployment with one policy, named by its
// serial.
func (d *deployment) policyBundle(t *testing.T, serial int64, effect string) []byte {
	t.Helper()
	return d.bundle(t, serial, fmt.Sprintf(`@id("rule-%d") %s (principal, action == Action::"llm:chat", resource in Service::"openai");`, serial, effect), "openai")
}

// put replaces a file as operators do: whole, by renaming.
func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// buffer is a log that goroutines share.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for something that another goroutine does.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func digestOf(t *testing.T, bundle []byte) string {
	t.Helper()
	digest, err := cedar.ManifestDigest(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// policyRecords are the policy records of the log, in index order.
func (s *Server) policyRecords(t *testing.T) (out []record.PolicyChange) {
	t.Helper()
	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range x.Records(search.Filter{}) {
		if p := e.Record.PolicyChange; p != nil {
			out = append(out, *p)
		}
	}
	return out
}

// TestA6ReloadWholeOrNotAtAll: a new bundle is put in force while the server
// runs, recorded before it decides; whatever is wrong with one, the last good
// one stays, and none with a lower serial comes back, not by a restart either.
func TestA6ReloadWholeOrNotAtAll(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	releases := filepath.Join(t.TempDir(), "policy")
	release := func(n int, content []byte) {
		dir := filepath.Join(releases, fmt.Sprint(n))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "policy.tar"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(releases, "current")
		if err := os.Symlink(fmt.Sprint(n), link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
	}
	one, two, three := d.policyBundle(t, 1, "permit"), d.policyBundle(t, 2, "permit"), d.policyBundle(t, 3, "forbid")
	release(1, one)
	d.cfg.Policy.Bundle = filepath.Join(releases, "current", "policy.tar")
	var log buffer
	s, err := Start(t.Context(), d.cfg, Options{
		GatewayListener: d.gateway, TokensListener: d.tokens, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	inForce := func() int64 { return s.rules.live.Engine().Version().Serial }
	if s.rules.version() != digestOf(t, one) {
		t.Errorf("tokens name the policy %s", s.rules.version())
	}

	release(2, two) // by the link of its folder; nobody is told
	until(t, "serial 2 in force", func() bool { return inForce() == 2 })
	if s.rules.version() != digestOf(t, two) {
		t.Errorf("tokens still name the policy %s", s.rules.version())
	}

	other := d.policyBundle(t, 2, "forbid")
	for name, content := range map[string][]byte{"rollback": one, "cut": three[:len(three)/2], "the same serial": other, "nothing": {}} {
		alarms := strings.Count(log.String(), "last good one stays")
		put(t, d.cfg.Policy.Bundle, content)
		refused := s.ReloadPolicy(t.Context()) != nil // or the server was first
		until(t, name+" refused", func() bool { return refused || strings.Count(log.String(), "last good one stays") > alarms })
		if inForce() != 2 {
			t.Fatalf("%s: serial %d is in force", name, inForce())
		}
	}

	put(t, d.cfg.Policy.Bundle, three)
	until(t, "serial 3 in force", func() bool { return inForce() == 3 })
	want := []record.PolicyChange{
		{BundleDigest: digestOf(t, one), Serial: 1},
		{BundleDigest: digestOf(t, two), Serial: 2, PreviousDigest: digestOf(t, one)},
		{BundleDigest: digestOf(t, three), Serial: 3, PreviousDigest: digestOf(t, two)},
	}
	got := s.policyRecords(t)
	for i, w := range want {
		if i >= len(got) || got[i].BundleDigest != w.BundleDigest || got[i].Serial != w.Serial || got[i].PreviousDigest != w.PreviousDigest {
			t.Fatalf("policy records %+v, want %+v", got, want)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d policy records, want %d", len(got), len(want))
	}
	d.stop(t, s)

	put(t, d.cfg.Policy.Bundle, two)
	d.listen(t)
	if _, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens}); err == nil || !strings.Contains(err.Error(), string(cedar.CodeSerial)) {
		t.Fatalf("started with a policy of a lower serial: %v", err)
	}
	_, _ = d.gateway.Close(), d.tokens.Close()
	put(t, d.cfg.Policy.Bundle, three)
	d.listen(t)
	s = d.start(t)
	if all := s.policyRecords(t); len(all) != 4 || all[3].PreviousDigest != "" {
		t.Errorf("a start with the same policy is recorded as %+v", all)
	}
	d.stop(t, s)
}

// TestA6ReloadNeedsItsRecord: a sound bundle whose activation cannot be recorded
// is not put in force, and is once it can.
func TestA6ReloadNeedsItsRecord(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	s := d.start(t)
	defer d.stop(t, s)
	whole := s.rules.by
	broken := &recorder{writer: whole.writer, keys: whole.keys, now: time.Now} // of no log: its records are refused
	s.rules.mu.Lock()
	s.rules.by = broken
	s.rules.mu.Unlock()
	put(t, d.cfg.Policy.Bundle, d.policyBundle(t, 2, "permit"))
	if err := s.ReloadPolicy(t.Context()); err == nil || s.rules.live.Engine().Version().Serial != 1 {
		t.Fatalf("serial %d is in force without a record: %v", s.rules.live.Engine().Version().Serial, err)
	}
	s.rules.mu.Lock()
	s.rules.by = whole
	s.rules.mu.Unlock()
	if err := s.ReloadPolicy(t.Context()); err != nil || s.rules.live.Engine().Version().Serial != 2 {
		t.Fatalf("serial %d is in force: %v", s.rules.live.Engine().Version().Serial, err)
	}
}

// TestShadowOnTrial: a bundle on trial is loaded, replaced while the server runs,
// and never in force; one that is not sound stops a start, and not a server.
func TestShadowOnTrial(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	trial := filepath.Join(t.TempDir(), "trial.tar")
	d.cfg.Policy.Shadow = &config.Shadow{Bundle: trial}
	put(t, trial, []byte("no bundle"))
	if _, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens}); err == nil {
		t.Fatal("started with a trial that is no bundle")
	}
	_, _ = d.gateway.Close(), d.tokens.Close()
	put(t, trial, d.policyBundle(t, 7, "forbid"))
	d.listen(t)
	s := d.start(t)
	defer d.stop(t, s)
	if s.rules.live.Engine().Version().Serial != 1 || s.rules.live.Shadow().Version().Serial != 7 {
		t.Errorf("serial %d in force, %d on trial", s.rules.live.Engine().Version().Serial, s.rules.live.Shadow().Version().Serial)
	}
	put(t, trial, d.policyBundle(t, 5, "forbid"))
	until(t, "another trial", func() bool { return s.rules.live.Shadow().Version().Serial == 5 })
	put(t, trial, []byte("no bundle"))
	if err := s.ReloadPolicy(t.Context()); s.rules.live.Shadow().Version().Serial != 5 || s.rules.live.Engine().Version().Serial != 1 {
		t.Errorf("after a bad trial: %v", err)
	}
	if all := s.policyRecords(t); len(all) != 1 {
		t.Errorf("a trial is recorded as in force: %+v", all)
	}
}

// TestB13EngineByConfiguration: `policy: {engine: opa, url: …}` has a real OPA
// asked. What it says by rules that were not in force before is recorded first,
// and with OPA gone every question is denied.
func TestB13EngineByConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.rego")
	if err := os.WriteFile(file, []byte("package lineal\n\ndecision := {\"allow\": input.action == \"llm:chat\", \"rules\": [\"chat\"]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := opatest.Start(t, file)
	d := newDeployment(t)
	d.init(t)
	d.cfg.Policy = config.Policy{Engine: "opa", URL: agent.URL, Deadline: 2 * time.Second}
	s := d.start(t)
	defer d.stop(t, s)
	if before := s.policyRecords(t); len(before) != 1 || before[0].Engine != "opa" || before[0].BundleDigest != s.rules.version() {
		t.Fatalf("the start is recorded as %+v", before)
	}
	in := chatInput(t)
	got := s.rules.decider().Decide(t.Context(), in)
	if got.Effect != policy.Permit || len(got.Rules) != 1 || got.Rules[0] != "chat" || got.Version.Digest == "" {
		t.Fatalf("decided %+v", got)
	}
	after := s.policyRecords(t)
	if len(after) != 2 || after[1].Engine != got.Version.Engine || after[1].BundleDigest != got.Version.Digest || s.rules.version() != got.Version.Digest {
		t.Fatalf("%+v is recorded, decided by %+v", after, got.Version)
	}
	if _, lists := s.rules.decider().(policy.Lister); lists {
		t.Error("a decision point is asked about lists")
	}
	whole, broken := s.rules.by, &recorder{writer: s.rules.by.writer, keys: s.rules.by.keys, now: time.Now}
	s.rules.by = broken // a change that cannot be recorded is not believed
	s.rules.inForce.Store(&policy.Version{Digest: "another"})
	if got := s.rules.decider().Decide(t.Context(), in); got.Effect != policy.Deny || !got.Unavailable {
		t.Errorf("decided by rules that are not recorded: %+v", got)
	}
	s.rules.by = whole
	if got := s.rules.decider().Decide(t.Context(), in); got.Effect != policy.Permit {
		t.Errorf("decided %+v", got)
	}
	agent.Stop()
	if got := s.rules.decider().Decide(t.Context(), in); got.Effect != policy.Deny || !got.Unavailable || len(got.Errors) != 1 {
		t.Errorf("with OPA gone: %+v", got)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := d.verify(t); r.ExitCode() != 0 {
		t.Errorf("evidence of a deployment that OPA decides for: %s", r.Result())
	}
}

// chatInput is a question about a call to a model.
func chatInput(t *testing.T) policy.Input {
	t.Helper()
	person, err := identity.ParsePerson("https://sts.test", "q5QmPzR0vN2cYx8LkT3wBA")
	if err != nil {
		t.Fatal(err)
	}
	grant, err := scope.Parse([]byte(mayChat("https://a.test")), true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cedar.CaseOf(cedar.Recorded{
		Person: person, Agents: []identity.Agent{identity.MustParseAgent("spiffe://server.test/app")}, Grants: []scope.Grant{grant},
		Call:     scope.Call{Location: "https://a.test", Action: scope.LLMChat, Name: "small", Doc: scope.NewDocument()},
		Resource: policy.Resource{Kind: policy.KindModel, Service: "openai", Name: "small"}, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.Input()
}
