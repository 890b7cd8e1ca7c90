package main

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/evidence"
)

// exported is a bundle of the demo's log and what `lineal verify --json` says
// of it.
type exported struct {
	code     int
	Mode     string
	Range    struct{ From, To int64 }
	Records  int
	Findings []struct {
		Dimension, Status string
		Summary           string
	}
}

func (e exported) status(dimension string) string {
	for _, f := range e.Findings {
		if f.Dimension == dimension {
			return f.Status
		}
	}
	return ""
}

type exporting struct {
	t            *testing.T
	data, policy string
	n            int
}

// export writes a bundle and verifies it. Where a corpus is collected
// (.ci/verifier), the bundle joins it.
func (x *exporting) export(args ...string) exported {
	x.t.Helper()
	x.n++
	base := filepath.Join(x.t.TempDir(), "bundle")
	if dir := os.Getenv("LINEAL_CORPUS"); dir != "" {
		base = filepath.Join(dir, fmt.Sprintf("%s-%d", x.t.Name(), x.n))
	}
	if code, _, errs := lineal(x.t, append([]string{"export", "--data", x.data, "--out", base + ".zip"}, args...)...); code != exitOK {
		x.t.Fatalf("export %v: exit %d: %s", args, code, errs)
	}
	code, out, errs := lineal(x.t, "verify", base+".zip", "--policy", x.policy, "--json")
	e := exported{code: code}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		x.t.Fatalf("verify %v: exit %d: %v: %s", args, code, err, errs)
	}
	text, err := os.ReadFile(x.policy)
	if err != nil {
		x.t.Fatal(err)
	}
	for ext, data := range map[string][]byte{".policy": text, ".json": []byte(out)} {
		if err := os.WriteFile(base+ext, data, 0o600); err != nil {
			x.t.Fatal(err)
		}
	}
	return e
}

// entry is a line of `lineal records`.
type entry struct {
	Index  int64
	Record struct {
		Kind     string
		ID       string `json:"record_id"`
		CallID   string `json:"call_id"`
		Txn      string
		Decision struct{ Effect string }
		SD       []string
		Person   struct{ Ref string }
	}
}

func (x *exporting) decisions() (out []entry) {
	x.t.Helper()
	code, lines, errs := lineal(x.t, "records", "--data", x.data, "--kind", "decision")
	if code != exitOK {
		x.t.Fatalf("records: exit %d: %s", code, errs)
	}
	for line := range strings.Lines(lines) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			x.t.Fatal(err)
		}
		out = append(out, e)
	}
	if len(out) < 4 {
		x.t.Fatalf("the demo left %d decisions", len(out))
	}
	return out
}

// TestExportSelections exports the demo's log by record, call, transaction,
// person and range, and verifies each bundle: a selection follows its calls
// back to the person and never claims to be complete; a range does.
func TestExportSelections(t *testing.T) {
	x := &exporting{t: t, data: demoDir(t)}
	x.policy = filepath.Join(x.data, "trust.policy")
	// The demo's policy requires what a range alone can prove.
	text, err := os.ReadFile(x.policy)
	if err != nil {
		t.Fatal(err)
	}
	strict := x.policy
	x.policy = filepath.Join(t.TempDir(), "selected.policy")
	loose := strings.NewReplacer("require sequence\n", "", "require completeness\n", "").Replace(string(text))
	if err := os.WriteFile(x.policy, []byte(loose), 0o600); err != nil {
		t.Fatal(err)
	}
	ds := x.decisions()
	ds = slices.DeleteFunc(ds, func(e entry) bool { return len(e.Record.SD) == 0 || e.Record.Txn == "" }) // those that disclose
	first, last := ds[0], ds[len(ds)-1]
	whole := x.export()
	if whole.code != 0 || whole.Mode != "range" || whole.status("completeness") != "PASS" {
		t.Fatalf("whole log: %+v", whole)
	}
	for name, args := range map[string][]string{
		"record":       {"--select", first.Record.ID},
		"call":         {"--select", last.Record.CallID},
		"two":          {"--select", first.Record.ID, "--select", last.Record.ID},
		"transaction":  {"--txn", first.Record.Txn},
		"person":       {"--person", first.Record.Person.Ref},
		"record shown": {"--select", first.Record.ID, "--disclose", first.Record.ID},
	} {
		got := x.export(args...)
		if got.code != 0 || got.Mode != "selected" || got.Records == 0 || got.Records >= whole.Records {
			t.Errorf("%s: %+v", name, got)
		}
		for _, d := range []string{"inclusion", "chain", "signature", "writer-keys", "policies"} {
			if got.status(d) != "PASS" {
				t.Errorf("%s: %s is %s: %+v", name, d, got.status(d), got.Findings)
			}
		}
		if want := map[bool]string{true: "PASS", false: "NOT PROVEN"}[name == "record shown"]; got.status("disclosure") != want {
			t.Errorf("%s: disclosure is %s: %+v", name, got.status("disclosure"), got.Findings)
		}
		if got.status("completeness") != "NOT PROVEN" || got.status("sequence") != "NOT PROVEN" {
			t.Errorf("%s claims to be complete: %+v", name, got.Findings)
		}
	}
	middle := ds[len(ds)/2].Index
	later := x.export("--from", fmt.Sprint(middle))
	if later.code != 0 || later.Range.From != middle || later.Range.To != whole.Range.To || later.status("completeness") != "PASS" || later.status("chain") != "PASS" {
		t.Errorf("from %d: %+v", middle, later)
	}
	early := x.export("--to", fmt.Sprint(first.Index+1))
	if early.code != 0 || early.Range.To < first.Index+1 || early.Range.To > whole.Range.To || early.status("completeness") != "PASS" {
		t.Errorf("to %d: %+v", first.Index+1, early)
	}
	x.policy = strict
	if got := x.export("--txn", first.Record.Txn); got.code != 2 {
		t.Errorf("a selection under a policy that requires completeness: exit %d", got.code)
	}
	x.refused(first, last)
}

// refused are the selections that make no bundle.
func (x *exporting) refused(first, last entry) {
	x.t.Helper()
	for name, args := range map[string][]string{
		"unknown record":          {"--select", "01a40584-8ff0-729d-af26-000000000000"},
		"unknown transaction":     {"--txn", "01a40584-8ff0-729d-af26-000000000000"},
		"selection and range":     {"--txn", first.Record.Txn, "--from", "1"},
		"no range":                {"--from", "5", "--to", "5"},
		"beyond the log":          {"--to", "1000000"},
		"from beyond the log":     {"--from", "1000000"},
		"disclosed, not in range": {"--to", fmt.Sprint(first.Index + 1), "--disclose", last.Record.ID},
	} {
		out := filepath.Join(x.t.TempDir(), "refused.zip")
		code, _, errs := lineal(x.t, append([]string{"export", "--data", x.data, "--out", out}, args...)...)
		if code != exitFailed || errs == "" {
			x.t.Errorf("%s: exit %d, %q", name, code, errs)
		}
		if _, err := os.Stat(out); err == nil {
			x.t.Errorf("%s left a file", name)
		}
	}
}

// otherPeriod is a key of the log's family for a period before.
func otherPeriod(t *testing.T, line string) string {
	t.Helper()
	k, err := evidence.ParseKey(strings.TrimPrefix(line, "log "))
	if err != nil {
		t.Fatal(err)
	}
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := evidence.NewKey(k.Name()[:strings.LastIndexByte(k.Name(), '/')]+"/2000-01", pub)
	if err != nil {
		t.Fatal(err)
	}
	return other.String()
}

// TestVerifyProposes prints the line for the log of a bundle, which the policy
// has already, or lacks.
func TestVerifyProposes(t *testing.T) {
	data := demoDir(t)
	bundle, policy := filepath.Join(data, "evidence.zip"), filepath.Join(data, "trust.policy")
	code, out, errs := lineal(t, "verify", bundle, "--policy", policy, "--propose")
	if code != exitOK || !strings.HasPrefix(out, "# nothing to add") {
		t.Fatalf("known log: exit %d, %q %q", code, out, errs)
	}
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	line, rest, _ := strings.Cut(string(text), "\n")
	before := filepath.Join(t.TempDir(), "before.policy")
	if err := os.WriteFile(before, []byte("log "+otherPeriod(t, line)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := lineal(t, "verify", bundle, "--policy", before, "--propose"); code != exitOK || out != line+"\n" {
		t.Errorf("next period: exit %d, %q %q, want %q", code, out, errs, line)
	}
	if code, _, _ := lineal(t, "verify", bundle, "--policy", before); code != exitFailed {
		t.Errorf("verified under a policy that does not name the log: exit %d", code)
	}
}

// TestEraseCommand erases the demo's person: the log verifies as before, a
// trace names nobody, and what was disclosed before cannot be any more.
func TestEraseCommand(t *testing.T) {
	x := &exporting{t: t, data: demoDir(t)}
	x.policy = filepath.Join(x.data, "trust.policy")
	ds := slices.DeleteFunc(x.decisions(), func(e entry) bool { return len(e.Record.SD) == 0 || e.Record.Person.Ref == "" })
	d := ds[0].Record
	if e := x.export("--disclose", d.ID); e.code != 0 || !strings.HasPrefix(e.summary("disclosure"), fmt.Sprintf("%d of ", len(d.SD))) {
		t.Fatalf("before: %+v", e)
	}
	for _, args := range [][]string{{d.Person.Ref}, {"--basis", "request"}, {d.Person.Ref, "--basis", "request", "--again"}} {
		if code, _, _ := lineal(t, append([]string{"erase", "--data", x.data}, args...)...); code != exitUsage {
			t.Errorf("erase %v: exit %d", args, code)
		}
	}
	_, before, _ := lineal(t, "trace", d.ID, "--data", x.data)
	code, out, errs := lineal(t, "erase", d.Person.Ref, "--basis", "request", "--data", x.data)
	if code != exitOK || !strings.Contains(out, "persons      1 forgotten") || strings.Contains(out, "keys         0 ") {
		t.Fatalf("erase: exit %d: %s%s", code, out, errs)
	}
	code, after, errs := lineal(t, "trace", d.ID, "--data", x.data)
	if code != exitOK || after == before || !strings.Contains(after, d.Person.Ref) {
		t.Errorf("trace: exit %d: %s%s", code, after, errs)
	}
	if e := x.export(); e.code != 0 || e.status("disclosure") != "NOT PROVEN" || e.status("chain") != "PASS" {
		t.Errorf("after: %+v", e)
	}
	refused := filepath.Join(t.TempDir(), "refused.zip")
	if code, _, errs := lineal(t, "export", "--data", x.data, "--out", refused, "--disclose", d.ID); code != exitFailed || !strings.Contains(errs, "at hand") {
		t.Errorf("disclosing what was erased: exit %d, %s", code, errs)
	}
	if code, out, errs := lineal(t, "erase", "--again", "--data", x.data); code != exitOK || !strings.Contains(out, "persons      0 forgotten") {
		t.Errorf("again: exit %d: %s%s", code, out, errs)
	}
}

func (e exported) summary(dimension string) string {
	for _, f := range e.Findings {
		if f.Dimension == dimension {
			return f.Summary
		}
	}
	return ""
}
