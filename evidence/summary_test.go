package evidence

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestL4Summaries: report.json and report.html cite the indexes of what they
// tell, and the operator, who can sign a manifest anew, cannot make them say
// anything else than the records.
func TestL4Summaries(t *testing.T) {
	w := newWorld(t)
	files, err := unpack(bundle(t, w.contents()))
	if err != nil {
		t.Fatal(err)
	}
	named := map[string][]byte{}
	for _, f := range files {
		named[f.name] = f.data
	}
	var got struct{ Calls []summaryCall }
	if err := json.Unmarshal(named[summaryFile], &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Calls) != 2 || got.Calls[0].Index != 6 || got.Calls[0].Outcome != 7 || got.Calls[0].Status != "completed" || got.Calls[0].Effect != "permit" ||
		got.Calls[1].Index != 8 || got.Calls[1].Outcome != -1 || got.Calls[1].Reason != "scope_exceeded" || len(got.Calls[1].Actors) != 2 {
		t.Errorf("%s", named[summaryFile])
	}
	page := string(named[summaryPage])
	if !strings.Contains(page, "<tr><td>8<td>") || strings.Contains(page, "<script") || strings.Contains(page, "http-equiv") {
		t.Errorf("%s", page)
	}
	for _, name := range []string{summaryFile, summaryPage} {
		b := repackSigned(t, w, func(m map[string][]byte) { m[name] = bytes.Replace(m[name], []byte("deny"), []byte("fine"), 1) })
		expect(t, b, w.policy(), 1, ManifestSig, Fail, "says something else than the records")
		b = repackSigned(t, w, func(m map[string][]byte) { delete(m, name) })
		if r := judged(t, b, w.policy()); r.ExitCode() != 0 { // a bundle of before there were any
			t.Errorf("without %s:\n%s", name, text(t, r))
		}
	}
}

func TestL7SummaryEscapes(t *testing.T) {
	page := pageBegin("evil<script>\x1b\u202e'\"&\\é")
	want := "<h1>evil&#x3c;script&#x3e;&#xfffd;&#xfffd;&#x27;&#x22;&#x26;&#x5c;&#xfffd;</h1>"
	if !strings.Contains(page, want) {
		t.Errorf("%s", page)
	}
}
