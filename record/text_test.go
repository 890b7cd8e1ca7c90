package record_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/record"
)

func TestL7Escape(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"mcp:tools/call query":  "mcp:tools/call query",
		"Zürich 東京 🙂":           "Zürich 東京 🙂",
		"a\nlevel=info ok":      `a\nlevel=info ok`,
		"a\r\tb":                `a\r\tb`,
		"\x1b[2J\x1b[31mred":    `\u{1b}[2J\u{1b}[31mred`,
		"\u009b31m":             `\u{9b}31m`, // CSI as one code point
		"\x07\x7f\x00":          `\u{7}\u{7f}\u{0}`,
		"user\u202eexe.txt":     `user\u{202e}exe.txt`,
		"\u2066a\u2069":         `\u{2066}a\u{2069}`,
		"a\u200bb\ufeff":        `a\u{200b}b\u{feff}`,
		"a\u2028b\u2029c\u0085": `a\u{2028}b\u{2029}c\u{85}`,
		"a\u00a0b\u3000":        `a\u{a0}b\u{3000}`,
		"\U000e0041":            `\u{e0041}`, // tag
		"x\ufe0f":               `x\u{fe0f}`,
		"\ue000":                `\u{e000}`, // private use
		`C:\n`:                  `C:\\n`,    // not the escape of a line break
		"a\xffb":                `a\x{ff}b`,
		"\ufffd":                "\ufffd",
	} {
		if got := record.Escape(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

// Whatever goes in, nothing comes out that a terminal acts on, and no two texts
// come out alike.
func TestL7EscapeProperties(t *testing.T) {
	seen := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "text") {
			in = rapid.String().Draw(t, "text")
		}
		out := record.Escape(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q gives bad UTF-8", in)
		}
		for _, r := range out {
			if r == '\n' || r == '\r' || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Cf, r) {
				t.Fatalf("%q gives %q", in, out)
			}
		}
		if other, ok := seen[out]; ok && other != in {
			t.Fatalf("%q and %q both give %q", in, other, out)
		}
		seen[out] = in
	})
}

func TestText(t *testing.T) {
	r := samples(t)["query"]
	q := *r.Query
	r.Query = &q
	for _, in := range []string{"fine", "a\x00b", "\xff\xfe", "\xed\xa0\x80", strings.Repeat("é", 1200), strings.Repeat("🙂", 600), "x" + strings.Repeat("€", 900)} {
		q.Question = in
		_, err := r.Canonical()
		if (err == nil) != (record.Text(in) == in) {
			t.Errorf("%.20q: %v, but Text leaves it %t", in, err, record.Text(in) == in)
		}
		q.Question = record.Text(in)
		if _, err := r.Canonical(); err != nil {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}
