package strictjson

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// Known checks that the object v has only these member names, byte for byte.
// The error is an *Error: CodeFoldedName if a name equals one of names only
// after case folding (threat P1), else CodeUnknownName; CodeType if v is no
// object.
func Known(v Value, names ...string) error {
	if v.kind != KindObject {
		return &Error{Code: CodeType, Offset: -1}
	}
	for i := range v.Len() {
		name := v.Member(i).Name
		if slices.Contains(names, name) {
			continue
		}
		code := CodeUnknownName
		if aliasOf(name, names) {
			code = CodeFoldedName
		}
		return &Error{Code: code, Offset: -1, Name: name}
	}
	return nil
}

// KnownOpen is Known, but lets through names that are like none of names.
func KnownOpen(v Value, names ...string) error {
	if v.kind != KindObject {
		return &Error{Code: CodeType, Offset: -1}
	}
	for i := range v.Len() {
		name := v.Member(i).Name
		if !slices.Contains(names, name) && aliasOf(name, names) {
			return &Error{Code: CodeFoldedName, Offset: -1, Name: name}
		}
	}
	return nil
}

func aliasOf(name string, names []string) bool {
	for _, known := range names {
		if foldEqual(name, known) {
			return true
		}
	}
	return false
}

// foldEqual reports whether some reader could take a and b for one name: it
// joins what Unicode simple folding, upper case and lower case each join, so
// also K (U+212A) and k, ſ and s, and ı, İ and i, which Java's
// equalsIgnoreCase joins and strings.EqualFold does not.
func foldEqual(a, b string) bool {
	for a != "" && b != "" {
		ra, na := utf8.DecodeRuneInString(a)
		rb, nb := utf8.DecodeRuneInString(b)
		if ra != rb && fold(ra) != fold(rb) {
			return false
		}
		a, b = a[na:], b[nb:]
	}
	return a == b // both are empty
}

// fold gives one rune for each class.
func fold(r rune) rune {
	r = unicode.ToLower(unicode.ToUpper(r))
	least := r
	for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
		least = min(least, x)
	}
	return least
}
