package lineal

import (
	"bufio"
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the tests column of docs/THREATS.md")

var (
	testName  = regexp.MustCompile(`^func ((?:Test|Fuzz)([A-Z])(\d+)[A-Za-z0-9_]*)\(`)
	threatRow = regexp.MustCompile(`^\| ([A-Z]\d+) \| (.*) \| ([^|]*) \|$`)
)

// threatTests finds the tests that carry a threat's id, in every package.
func threatTests(t *testing.T, known map[string]bool) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(bytes.NewReader(src))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			m := testName.FindStringSubmatch(lines.Text())
			if m == nil || !known[m[2]+m[3]] || strings.HasPrefix(m[1][len("Test"):], "A2A") { // a protocol's name
				continue
			}
			name := "`" + filepath.ToSlash(filepath.Dir(path)) + "`." + m[1]
			found[m[2]+m[3]] = append(found[m[2]+m[3]], name)
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestThreatTable holds docs/THREATS.md to the tests that exist: a row names
// exactly the tests that carry its id.
func TestThreatTable(t *testing.T) {
	const path = "docs/THREATS.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(doc), "\n")
	known := make(map[string]bool)
	for _, line := range lines {
		if m := threatRow.FindStringSubmatch(line); m != nil {
			known[m[1]] = true
		}
	}
	if len(known) < 80 {
		t.Fatalf("read only %d rows: the table is broken", len(known))
	}
	tests := threatTests(t, known)
	covered := 0
	for i, line := range lines {
		m := threatRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		names := tests[m[1]]
		slices.Sort(names)
		want := "–"
		if len(names) > 0 {
			covered++
			want = strings.Join(slices.Compact(names), ", ")
		}
		switch {
		case m[3] == want:
		case *update:
			lines[i] = "| " + m[1] + " | " + m[2] + " | " + want + " |"
		default:
			t.Errorf("%s: row %s names %q, the tests are %q", path, m[1], m[3], want)
		}
	}
	t.Logf("%d of %d threats have a test", covered, len(known))
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
}
