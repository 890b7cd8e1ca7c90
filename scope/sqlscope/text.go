package sqlscope

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The caps of a text, held before it is parsed. They are a safety property:
// an expression of some thousand terms overflows the parser's stack, which the
// process survives and the parser does not. They hold for the canonical text
// too, so that it can be read again.
const (
	MaxBytes  = 8 << 10
	MaxTokens = 500 // as counted without a lexer, strings and comments too
)

// checkText looks at a text before any parser does.
func checkText(s string) error {
	switch {
	case len(s) > MaxBytes:
		return refuse(CodeTooLong, "a text of over %d bytes", MaxBytes)
	case countTokens(s) > MaxTokens:
		return refuse(CodeTooLong, "a text of over %d tokens", MaxTokens)
	case !plainText(s):
		return refuse(CodeText, "a character of the text")
	}
	return checkTraps(s)
}

// countTokens counts high: each run of letters, digits, underscores and bytes
// beyond ASCII is one token, and so is each other byte that is no white space.
// No lexer is needed, so none can be led astray.
func countTokens(s string) int {
	n, inWord := 0, false
	for i := range len(s) {
		word := wordByte(s[i])
		space := s[i] == ' ' || s[i] >= '\t' && s[i] <= '\r'
		if !space && !(word && inWord) {
			n++
		}
		inWord = word
	}
	return n
}

func wordByte(c byte) bool {
	return c >= 0x80 || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// plainText reports whether s is valid UTF-8 without characters that end a line
// or a text for one reader only, or that make it look different than it is.
func plainText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', r == '\uFEFF',
			unicode.Is(unicode.Bidi_Control, r):
			return false
		}
	}
	return true
}

// checkTraps refuses what other dialects read differently. PostgreSQL drops a
// comment, and so does the canonical text; MySQL executes /*! */, obeys /*+ */
// and reads on after a -- without white space. An identifier written by U&"…"
// looks like what it is not. The look is without a lexer: inside of a constant
// such a sequence refuses too.
func checkTraps(s string) error {
	for i := range len(s) {
		rest := s[i:]
		switch {
		case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*+"), strings.HasPrefix(rest, "/*M!"):
			return refuse(CodeComment, "an executable comment")
		case strings.HasPrefix(rest, "--") && len(rest) > 2 && !strings.ContainsRune(" \t\r\n", rune(rest[2])):
			return refuse(CodeComment, "-- without white space")
		case len(rest) > 2 && (rest[0] == 'u' || rest[0] == 'U') && rest[1] == '&' && rest[2] == '"':
			return refuse(CodeName, "an escaped name")
		}
	}
	return nil
}
