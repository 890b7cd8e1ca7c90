package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// session is one command of the README with the lines printed below it.
type session struct {
	command string
	lines   []string
}

// readSessions finds the console blocks of the README.
func readSessions(t *testing.T) []session {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []session
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "```console":
			inside = true
		case line == "```":
			inside = false
		case !inside:
		case strings.HasPrefix(line, "$ "):
			all = append(all, session{command: strings.TrimPrefix(line, "$ ")})
		case len(all) == 0:
			t.Fatalf("README prints %q before any command", line)
		default:
			last := &all[len(all)-1]
			last.lines = append(last.lines, line)
		}
	}
	return all
}

var uuid = regexp.MustCompile(`01[0-9a-f]{6}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// recordID is that of a line of `lineal records`.
var recordID = regexp.MustCompile(`"record_id":"([^"]+)"`)

// TestReadmeSession runs the commands of the README in their order, in an
// empty directory, and holds what they print to what the README shows: each
// line in its place, "…" standing for anything. An id in a command stands for
// the record printed last.
func TestReadmeSession(t *testing.T) {
	sessions := readSessions(t)
	t.Chdir(t.TempDir())
	last := ""
	ran := 0
	for _, s := range sessions {
		name, ok := strings.CutPrefix(s.command, "lineal ")
		if !ok {
			name, ok = strings.CutPrefix(s.command, "go run ./cmd/lineal ")
		}
		if !ok {
			continue // go test, which is what runs this
		}
		ran++
		args := strings.Fields(uuid.ReplaceAllString(name, last))
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		code := run(ctx, args, streams{out: &out, err: &errs, env: func(string) string { return "" }})
		cancel()
		if code != exitOK || strings.Contains(errs.String(), "error:") { // notes go to stderr too
			t.Fatalf("$ %s\nexit %d\n%s%s", s.command, code, errs.String(), out.String())
		}
		if m := recordID.FindStringSubmatch(out.String()); m != nil {
			last = m[1]
		}
		if missing, ok := shows(out.String(), s.lines); !ok {
			t.Fatalf("$ %s\nprints no line like %q where the README has it:\n%s", s.command, missing, out.String())
		}
	}
	if ran < 5 {
		t.Fatalf("the README has only %d sessions", ran)
	}
}

// shows reports whether the lines occur in out in their order, or which one
// does not.
func shows(out string, lines []string) (missing string, ok bool) {
	rest := strings.Split(out, "\n")
	for _, line := range lines {
		if strings.TrimSpace(line) == "…" {
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want := regexp.MustCompile("^\\s*" + strings.TrimLeft(strings.Join(parts, ".*"), " "))
		found := false
		for i, got := range rest {
			if want.MatchString(got) {
				rest, found = rest[i+1:], true
				break
			}
		}
		if !found {
			return line, false
		}
	}
	return "", true
}
