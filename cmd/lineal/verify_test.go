package main

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lineal runs the program and returns its exit code and output.
func lineal(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	code = run(ctx, args, streams{out: &o, err: &e, env: func(string) string { return "" }})
	return code, o.String(), e.String()
}

// TestVerifyTellsTampering takes the demo's evidence and changes it: one byte
// anywhere, and the last record. Each must end with exit 1 and say what broke.
func TestVerifyTellsTampering(t *testing.T) {
	data := demoDir(t)
	bundle, err := os.ReadFile(filepath.Join(data, "evidence.zip"))
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(data, "trust.policy")
	changed := filepath.Join(t.TempDir(), "changed.zip")
	verify := func(t *testing.T, b []byte) (int, string) {
		t.Helper()
		if err := os.WriteFile(changed, b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, _ := lineal(t, "verify", "--policy", policy, changed)
		return code, out
	}
	if code, out := verify(t, bundle); code != exitOK || !strings.Contains(out, "VALID") {
		t.Fatalf("untouched: exit %d\n%s", code, out)
	}
	step := max(len(bundle)/150, 1)
	for at := 0; at < len(bundle); at += step {
		b := bytes.Clone(bundle)
		b[at] ^= 1 << (at % 8)
		if code, out := verify(t, b); code != exitFailed || !strings.Contains(out, "FAIL") {
			t.Errorf("byte %d of %d flipped: exit %d\n%s", at, len(bundle), code, out)
		}
	}
	last, without := withoutLastRecord(t, bundle)
	code, out := verify(t, without)
	if code != exitFailed || !strings.Contains(out, fmt.Sprintf("record %d", last)) || !strings.Contains(out, "missing") {
		t.Errorf("without record %d: exit %d\n%s", last, code, out)
	}
	if code, _, errs := lineal(t, "verify", "--policy", filepath.Join(data, "nothing"), changed); code != exitVerifyUsage || errs == "" {
		t.Errorf("without a policy: exit %d, %q", code, errs)
	}
}

// withoutLastRecord writes the archive anew without the record of the highest
// index.
func withoutLastRecord(t *testing.T, bundle []byte) (last int, out []byte) {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(bundle), int64(len(bundle)))
	if err != nil {
		t.Fatal(err)
	}
	last = -1
	for _, f := range r.File {
		var n int
		if _, err := fmt.Sscanf(f.Name, "records/%d.json", &n); err == nil {
			last = max(last, n)
		}
	}
	if last < 0 {
		t.Fatal("the bundle has no records")
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range r.File {
		var n int
		if _, err := fmt.Sscanf(f.Name, "records/%d.json", &n); err == nil && n == last {
			continue
		}
		src, err := f.OpenRaw() // the other entries stay byte for byte, as an archiver leaves them
		if err != nil {
			t.Fatal(err)
		}
		dst, err := w.CreateRaw(&f.FileHeader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(dst, src); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return last, b.Bytes()
}
