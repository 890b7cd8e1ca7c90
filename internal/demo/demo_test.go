package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/search"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bounded ends a test that hangs. A demo takes seconds.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestDemo runs the whole demo and holds its last line, every attack and the
// trace against what the story promises.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	var out bytes.Buffer
	r := JSON(&out)
	if _, err := Run(bounded(t), Options{DataDir: dir, Emit: r.Event, Done: r.Summary}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	events, s := readLines(t, out.Bytes())

	t.Run("summary", func(t *testing.T) {
		if !s.OK || len(s.Problems) != 0 || s.Type != "summary" {
			t.Errorf("ok %v, problems %q", s.OK, s.Problems)
		}
		if s.Ledger.Verify != "valid" || s.Ledger.Entries < 60 || s.MaxDepth != 3 {
			t.Errorf("ledger %+v, max depth %d", s.Ledger, s.MaxDepth)
		}
		if s.Calls.Allowed < 18 || s.Calls.Refused != 13 || s.Tokens.Refused != 2 {
			t.Errorf("calls %+v, tokens %+v", s.Calls, s.Tokens)
		}
		for _, f := range []string{s.Ledger.Bundle, s.Ledger.Policy, filepath.Join(dir, DeploymentFile), filepath.Join(dir, "ca.pem")} {
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("attacks", func(t *testing.T) { checkAttacks(t, s, events) })
	t.Run("story", func(t *testing.T) { checkStory(t, events) })
	t.Run("trace", func(t *testing.T) { checkTrace(t, events) })
}

// checkAttacks: each is refused as the issue says, recorded, and told.
func checkAttacks(t *testing.T, s Summary, events []Event) {
	want := map[string][2]string{ // as the attacker sees it, as it is recorded
		"stolen-token":       {"proof_invalid", "binding_mismatch"},
		"leaked-token":       {"proof_invalid", "binding_missing"},
		"no-token":           {"token_missing", "token_missing"},
		"stolen-delegation":  {"invalid_client", "client_unknown"},
		"spliced-chain":      {"token_invalid", "chain_link"},
		"forged-chain":       {"token_invalid", "signature_invalid"},
		"receipt-as-token":   {"token_invalid", "token_type"},
		"wider-exchange":     {"invalid_authorization_details", "details_widened"},
		"other-table":        {"policy_denied", "scope_exceeded"},
		"other-region":       {"policy_denied", "scope_exceeded"},
		"too-many-rows":      {"policy_denied", "scope_exceeded"},
		"unapproved-tool":    {"policy_denied", "scope_exceeded"},
		"undelegated-callee": {"token_invalid", "audience_mismatch"},
		"around-research":    {"policy_denied", "policy_denied"},
		"expired-token":      {"token_expired", "token_expired"},
	}
	got := map[string][2]string{}
	records := map[string]bool{}
	for _, a := range s.Attacks {
		got[a.Name] = [2]string{a.Code, a.Reason}
		if !a.Refused || a.Record == "" || records[a.Record] {
			t.Errorf("%s: refused %v, record %q", a.Name, a.Refused, a.Record)
		}
		records[a.Record] = true
		told := slices.ContainsFunc(events, func(e Event) bool {
			return e.Type == TypeAttack && e.Name == a.Name && e.Record == a.Record && e.Decision == refused && strings.Contains(e.Text, a.Code)
		})
		if !told {
			t.Errorf("%s: not told", a.Name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// checkStory: each hop of Alice's question is told, each with less authority.
func checkStory(t *testing.T, events []Event) {
	type told struct {
		Chain  []string
		Callee string
		Holds  string
	}
	var got []told
	for _, e := range events {
		if e.Type == TypeCall && e.Person == "Alice" {
			got = append(got, told{e.Chain, e.Callee, duties(e.Authority)})
			if e.Record == "" || e.Call == "" || e.Decision != permitted || !strings.HasPrefix(e.Text, "Alice") {
				t.Errorf("%+v", e)
			}
		}
	}
	want := []told{
		{[]string{"app"}, "orchestrator", "“read CRM, read database, call model”"},
		{[]string{"app", "orchestrator"}, "crm", "“read CRM”"},
		{[]string{"app", "orchestrator"}, "research", "“read database”"},
		{[]string{"app", "orchestrator", "research"}, "database", "“read database”"},
		{[]string{"app", "orchestrator", "research", "database"}, "db", "“read table customers, region EU, at most 100 rows”"},
		{[]string{"app", "orchestrator"}, standInModel, "“call model”"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// checkTrace: the records alone name everybody, in order, with authority that
// only narrows.
func checkTrace(t *testing.T, events []Event) {
	i := slices.IndexFunc(events, func(e Event) bool { return e.Type == TypeTrace })
	if i < 0 {
		t.Fatal("no trace")
	}
	rest := events[i].Text
	for _, part := range []string{
		"PERMITTED", "On whose behalf", "logged in at",
		"hop 0  spiffe://demo.lineal.test/app, from the person", "mcp:tools/call lookup", "llm:chat",
		"hop 1  spiffe://demo.lineal.test/orchestrator", "gave up: mcp:tools/call lookup", "gave up: llm:chat",
		"hop 2  spiffe://demo.lineal.test/research", "gave up:",
		"hop 3  spiffe://demo.lineal.test/database", "table = customers", "where.region = EU", "narrowed: limit ≥ 1 and ≤ 100",
		"query at https://", "database-through-research", "completed",
	} {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Fatalf("%q does not follow in:\n%s", part, events[i].Text)
		}
		rest = after
	}
}

func readLines(t *testing.T, out []byte) (events []Event, s Summary) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for i, line := range lines {
		var into any = new(Event)
		if i == len(lines)-1 {
			into = &s
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			t.Fatalf("line %d: %v\n%s", i, err, line)
		}
		if e, ok := into.(*Event); ok {
			if e.Type == "" || e.Text == "" || e.Step == 0 {
				t.Errorf("line %d: %s", i, line)
			}
			events = append(events, *e)
		}
	}
	return events, s
}

// TestDemoTwiceAtOnce: no fixed ports, no fixed paths. The second one has a
// model of its own, as with --model-url.
func TestDemoTwiceAtOnce(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	var both sync.WaitGroup
	other := newStandIn(time.Now)
	u, err := serve(other, nil, identity.Agent{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for i, opts := range []Options{{}, {ModelURL: u.url + "/v1", ModelKey: other.key, Model: "vendor/other-1"}} {
		both.Go(func() {
			var out bytes.Buffer
			r := Text(&out, false)
			opts.Emit, opts.Done = r.Event, r.Summary
			s, err := Run(ctx, opts)
			if err != nil || !s.OK || s.Ledger.Verify != "valid" || s.DataDir != "" || r.Err() != nil {
				t.Errorf("demo %d: %v\n%s", i, err, out.String())
			}
			if strings.Contains(out.String(), "\x1b") {
				t.Error("colours without a terminal")
			}
			if opts.Model != "" && !strings.Contains(out.String(), "the model "+opts.Model) {
				t.Errorf("the model is not named:\n%s", out.String())
			}
		})
	}
	both.Wait()
}

// TestKeptDemoCloses: kept running, it tells how to go on, and ends with its
// context, leaving nothing.
func TestKeptDemoCloses(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(bounded(t))
	defer stop()
	var explore, dir string
	s, err := Run(ctx, Options{
		Keep: true,
		Emit: func(e Event) {
			if e.Type == TypeExplore {
				explore += e.Text + "\n"
			}
		},
		Done: func(s Summary) {
			dir = s.DataDir
			if _, err := os.Stat(filepath.Join(dir, DeploymentFile)); err != nil {
				t.Error(err)
			}
			stop()
		},
	})
	if err != nil || !s.OK {
		t.Fatal(err, s.Problems)
	}
	for _, part := range []string{"lineal trace --data " + dir, "lineal verify --policy " + s.Ledger.Policy, "lineal token --data " + dir, "curl "} {
		if !strings.Contains(explore, part) {
			t.Errorf("%q is not in:\n%s", part, explore)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// TestBadOptions: a directory with anything in it is left alone, and a model has a plain name.
func TestBadOptions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Run(bounded(t), Options{DataDir: dir})
	if err == nil || s.OK || !strings.Contains(err.Error(), "not empty") {
		t.Fatal(err, s)
	}
	if _, err := Run(bounded(t), Options{ModelURL: "http://127.0.0.1:1/v1", Model: `m" || true || "`}); err == nil || !strings.Contains(err.Error(), "want a name") {
		t.Errorf("a model name that would break out of its quotes: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
}

// TestNoSilentPass: an attack that is answered otherwise than expected, or has
// no record, or another one, fails the demo.
func TestNoSilentPass(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := newWorld(Options{})
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.open(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.question(ctx, alice, stepQuestion); err != nil {
		t.Fatal(err)
	}
	mine, err := w.takeLoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	good := w.stolenTokens(mine, w.agents[nameIntruder].gateway)[0]
	for name, c := range map[string]struct {
		change func(*attack)
		want   string
	}{
		"as expected":       {func(*attack) {}, ""},
		"another status":    {func(a *attack) { a.want.status = 403 }, "answered 401"},
		"another code":      {func(a *attack) { a.want.code = "token_invalid" }, "answered 401"},
		"another reason":    {func(a *attack) { a.want.reason = "token_expired" }, "recorded as deny"},
		"another caller":    {func(a *attack) { a.want.proven = nameResearch }, "for the caller"},
		"policy not asked":  {func(a *attack) { a.want.policyDenies = true }, "policy is recorded"},
		"no such record":    {func(a *attack) { a.want.exchange = true }, "no record of a refusal"},
		"the call succeeds": {func(a *attack) { a.try = w.query(w.agents[nameDatabase].gateway, mine.query.token, nil) }, `answered 200 ""`},
		"it was let through": {func(a *attack) {
			a.try = w.query(w.agents[nameDatabase].gateway, mine.query.token, nil)
			a.want = wanted{status: 200}
		}, "recorded as permit"},
	} {
		t.Run(name, func(t *testing.T) {
			w.summary = Summary{}
			a := good
			c.change(&a)
			if err := w.assault(ctx, []attack{a}); err != nil {
				t.Fatal(err)
			}
			err := w.conclude(w.opts.Now(), nil)
			if c.want == "" {
				if err != nil || !w.summary.OK || !w.summary.Attacks[0].Refused {
					t.Fatal(err, w.summary)
				}
				return
			}
			if err == nil || w.summary.OK || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q; %+v", err, c.want, w.summary)
			}
			if w.summary.Attacks[0].Refused {
				t.Error("it counts as refused")
			}
		})
	}
	t.Run("an empty ledger", func(t *testing.T) {
		got := attempt{status: good.want.status, code: good.want.code, id: mine.query.id}
		if r, err := judge(good, got, search.New(search.Config{})); err == nil || r.Refused {
			t.Error(r, err)
		}
	})
	t.Run("a permitted call without a record", func(t *testing.T) {
		err := w.permitted(ctx, "", []string{nameApp}, "01a205b1-2600-7000-8000-000000000000", routeDB, "called", mine.leaf.Leaf.Hop.Details)
		if err == nil || !strings.Contains(err.Error(), "has no record") {
			t.Error(err)
		}
	})
	t.Run("a refused call that went on", func(t *testing.T) {
		got, err := good.try(ctx)
		if err != nil {
			t.Fatal(err)
		}
		err = w.permitted(ctx, "", []string{nameApp}, got.id, routeDB, "called", mine.leaf.Leaf.Hop.Details)
		if err == nil || !strings.Contains(err.Error(), "its record says") {
			t.Error(err)
		}
	})
	t.Run("another lineage", func(t *testing.T) {
		x, err := w.server.Records(ctx)
		if err != nil {
			t.Fatal(err)
		}
		l, err := x.Trace(mine.query.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.checkLineage(l); err != nil {
			t.Fatal(err)
		}
		l.Hops = l.Hops[1:]
		if err := w.checkLineage(l); err == nil {
			t.Error("a chain without its head passes")
		}
	})
	t.Run("upstreams answer the gateway alone", func(t *testing.T) {
		for name, u := range w.served {
			intruder := w.agents[nameIntruder].source.HTTPClient(agentURI(name))
			resp, err := intruder.Post(u.url, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			intruder.CloseIdleConnections()
			if resp.StatusCode != 403 {
				t.Errorf("%s answers the intruder with %d", name, resp.StatusCode)
			}
		}
	})
}
