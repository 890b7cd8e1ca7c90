package sqlscope

import "fmt"

// Code says why a text was refused. The values are stable: records and metrics
// hold them.
type Code string

// The refusals, in the order in which they are looked for.
const (
	CodeUnavailable Code = "sql_unavailable" // the parser failed earlier, or the context ended
	CodeTooLong     Code = "sql_too_long"    // over MaxBytes or MaxTokens, also in canonical form
	CodeText        Code = "sql_text"        // not UTF-8, a NUL, byte order mark, control or direction character
	CodeComment     Code = "sql_comment"     // a comment that another dialect executes or reads on
	CodeSyntax      Code = "sql_syntax"      // not PostgreSQL
	CodeStatements  Code = "sql_statements"  // none, or several
	CodeKind        Code = "sql_kind"        // no SELECT
	CodeClause      Code = "sql_clause"      // a clause of SELECT, or an option, beyond those that pass
	CodeNode        Code = "sql_node"        // an expression or field of the tree that is not listed
	CodeTable       Code = "sql_table"       // not exactly one table with a schema
	CodeName        Code = "sql_name"        // a name that is no plain lower-case identifier
	CodeColumn      Code = "sql_column"      // a star, whole row, system column or foreign qualifier
	CodeLiteral     Code = "sql_literal"     // a constant that could be read in two ways
	CodeFunction    Code = "sql_function"    // a function that is not listed
	CodeOperator    Code = "sql_operator"    // an operator that is not listed
	CodeType        Code = "sql_type"        // a type that is not listed
	CodeExpression  Code = "sql_expression"  // WHERE or HAVING could fail on one row and not on another
	CodePredicate   Code = "sql_predicate"   // two constants for one column
	CodeUnstable    Code = "sql_unstable"    // canonical form and text differ: a mistake of this package
)

var says = map[Code]string{
	CodeUnavailable: "is not available",
	CodeTooLong:     "is too long",
	CodeText:        "is not allowed in SQL",
	CodeComment:     "begins a comment that other dialects read differently",
	CodeSyntax:      "is not PostgreSQL",
	CodeStatements:  "must be exactly one statement",
	CodeKind:        "is no SELECT",
	CodeClause:      "is not allowed",
	CodeNode:        "is not allowed",
	CodeTable:       "must be exactly one table, with its schema",
	CodeName:        "must be a plain lower-case name",
	CodeColumn:      "must be one column of the table",
	CodeLiteral:     "must be a plain constant",
	CodeFunction:    "is not among the allowed functions",
	CodeOperator:    "is not among the allowed operators",
	CodeType:        "is not among the allowed types",
	CodeExpression:  "must compare a bare column with a constant",
	CodePredicate:   "must equal one constant only",
	CodeUnstable:    "must be the same statement",
}

// Error is a refused text.
type Error struct {
	// Code is the stable reason.
	Code Code
	// What is the part concerned, in words. It may hold a name from the text,
	// never a constant.
	What string
	// Err is the cause, if there is one. The parser's words may quote the text.
	Err error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("reading SQL: %s %s", e.What, says[e.Code])
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func refuse(c Code, format string, args ...any) *Error {
	return &Error{Code: c, What: fmt.Sprintf(format, args...)}
}
