// Package strictjson reads JSON in one way only, and refuses what two readers could understand differently.
//
//	bytes ──▶ size ──▶ one decode ──▶ Value ──▶ judged ──▶ AppendJSON ──▶ bytes sent on
//	                      │
//	                      └─▶ *Error with a stable Code
//
// Every document whose content decides anything goes through [Parse] or
// [Unmarshal]: tokens, receipts, scope, JSON-RPC messages, request bodies. It
// refuses a document that has a duplicate name (also if one of the two is
// escaped), bad UTF-8, a lone surrogate, U+0000 in a name or string, a byte
// order mark, or anything after the value (threats P2, P3, P5), and one that is
// too large, too deep, or has too many names or values (N1). Names match byte
// for byte; a name that equals a known one only after case folding is refused
// ([Known], [Unmarshal]; P1). Numbers stay literals, and compare as exact
// decimals; no number is ever a float (P6).
//
// What was judged is what is sent on: [Value.AppendJSON] writes the tree, not
// the bytes that came in (P4). It keeps the order of members and the literals
// of numbers, writes each string in its shortest form, and no white space.
//
// The package does not canonicalise (two equal objects with another order of
// members give other bytes), knows no schema, and never changes a value to make
// it fit.
package strictjson

import (
	"fmt"
)

// Limits bounds a document before and while it is parsed. A field that is zero
// or negative stands for its default.
type Limits struct {
	// MaxBytes is the length of the document in bytes; default 1 MiB.
	MaxBytes int
	// MaxDepth is the nesting of arrays and objects: a scalar has depth 0, [] has
	// depth 1. Default 64.
	MaxDepth int
	// MaxNames is the number of object members in the whole document; default
	// 10,000.
	MaxNames int
	// MaxValues is the number of values of all kinds in the whole document, which
	// bounds what a document of small values takes in memory; default 262,144.
	MaxValues int
}

const (
	defaultBytes  = 1 << 20
	defaultDepth  = 64
	defaultNames  = 10_000
	defaultValues = 1 << 18
)

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.MaxBytes, defaultBytes)
	set(&l.MaxDepth, defaultDepth)
	set(&l.MaxNames, defaultNames)
	set(&l.MaxValues, defaultValues)
	return l
}

// Code says why a document was refused. The values are stable: records and
// metrics hold them.
type Code string

// The refusals of Parse.
const (
	CodeTooLarge      Code = "too_large"
	CodeTooDeep       Code = "too_deep"
	CodeTooManyNames  Code = "too_many_names"
	CodeTooManyValues Code = "too_many_values"
	CodeDuplicateName Code = "duplicate_name"
	CodeInvalidUTF8   Code = "invalid_utf8" // also a lone surrogate
	CodeBOM           Code = "bom"
	CodeTrailingData  Code = "trailing_data"
	CodeNULInName     Code = "nul_in_name"
	CodeNULInString   Code = "nul_in_string"
	CodeSyntax        Code = "syntax"
)

// The refusals of Known, Unmarshal, UnmarshalOpen and ParseDecimal.
const (
	CodeFoldedName  Code = "folded_name"  // equals a known name only after folding
	CodeUnknownName Code = "unknown_name" // equals no known name
	CodeType        Code = "type"         // a value of another kind than wanted
	CodeNumberRange Code = "number_range" // not held exactly by the destination
	CodeInvalid     Code = "invalid"      // refused by the destination's own UnmarshalJSON or UnmarshalText
	CodeTarget      Code = "target"       // the destination cannot hold JSON exactly: a mistake of the program
)

// Error is a refused document. Its text is for the log and the record, never
// for the peer: it can quote a name from the document.
type Error struct {
	// Code is the stable reason.
	Code Code
	// Offset is where in the document, in bytes; -1 if it is not known.
	Offset int
	// Name is the member concerned, or the path to it, if there is one.
	Name string
	// Err is the cause, if there is one.
	Err error
}

func (e *Error) Error() string {
	s := "json: " + string(e.Code)
	if e.Name != "" {
		s += fmt.Sprintf(" at %q", e.Name)
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" (byte %d)", e.Offset)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
