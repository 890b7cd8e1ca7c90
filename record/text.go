package record

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes text from a record safe to print on a terminal, in a log line or
// on a page (threat L7): what could start a new line, move the cursor, hide or
// reorder text is written as \n, \t, \r or \u{hex}, a byte that is no UTF-8 as
// \x{hex}. That covers controls (ANSI sequences begin with one), line and
// paragraph separators, format characters (bidi, zero width, tags), private use
// and unassigned code points, and spaces that are not U+0020. The backslash is
// doubled, so that no two texts look alike. It does not quote: a spreadsheet or
// HTML page needs its own escaping on top.
func Escape(s string) string {
	if !strings.ContainsFunc(s, mustEscape) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x{%02x}`, s[0])
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case mustEscape(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func mustEscape(r rune) bool {
	// IsPrint holds for letters, marks, numbers, punctuation, symbols and U+0020.
	// Marks that stand on nothing visible are the variation selectors.
	return r == '\\' || !unicode.IsPrint(r) || unicode.Is(unicode.Variation_Selector, r)
}

// Text makes any bytes a text that a record can hold: what is not UTF-8, and
// U+0000, becomes U+FFFD, and what is beyond MaxText bytes is cut at a code
// point. It is for claims of a caller who is refused; what a permit rests on
// was read strictly and needs no change.
func Text(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
