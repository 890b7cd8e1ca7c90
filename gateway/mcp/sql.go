package mcp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope/sqlscope"
)

// SQL reads one SQL text by the database's own grammar; *sqlscope.Reader is
// the one. It is safe for concurrent use.
type SQL interface {
	Read(ctx context.Context, sql string) (sqlscope.Statement, error)
}

// checkSQL checks that what takes SQL has a reader for it.
func checkSQL(t Tool, sql SQL) error {
	switch {
	case t.SQL == "":
		return nil
	case sql == nil:
		return errors.New("it takes SQL, and nothing reads it")
	case !strings.HasPrefix(t.SQL, "/") || strings.Contains(t.SQL[1:], "/"):
		return fmt.Errorf("%q does not name one argument, as \"/query\" does", t.SQL)
	}
	return nil
}

// readSQL reads the SQL text of a call into facts that scope and policy can
// judge, and puts its canonical form in the text's place: what was judged is
// what is sent (threats P4, P11). A text that cannot be read is refused, and
// so is every one while the parser is out of order.
func (r *Reader) readSQL(ctx context.Context, t Tool, args strictjson.Value) (strictjson.Value, sqlscope.Statement, error) {
	name := strings.TrimPrefix(t.SQL, "/")
	v, _ := args.Get(name)
	text, ok := v.Text()
	if !ok {
		return args, sqlscope.Statement{}, &gateway.Refusal{
			Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: fmt.Errorf("argument %q is no SQL text", name),
		}
	}
	statement, err := r.sql.Read(ctx, text)
	if err != nil {
		return args, sqlscope.Statement{}, refuseSQL(err)
	}
	return args.With(name, strictjson.String(statement.Canonical())), statement, nil
}

// refuseSQL keeps the finer code for the record.
func refuseSQL(err error) error {
	var e *sqlscope.Error
	switch {
	case !errors.As(err, &e):
		return &gateway.Refusal{Code: gateway.CodeInternal, Err: err}
	case e.Code == sqlscope.CodeUnavailable:
		return &gateway.Refusal{Code: gateway.CodePolicyUnavailable, Reason: string(e.Code), Err: err}
	default:
		return &gateway.Refusal{Code: gateway.CodePolicyDenied, Reason: string(e.Code), Err: err}
	}
}

// sqlAtoms are the tables and columns a statement reads, as atoms of needed
// authority: "sql crm.orders.id".
func sqlAtoms(s sqlscope.Statement) []string {
	var atoms []string
	columns, _ := s.Facts().Get("columns")
	for _, table := range columns.Members() {
		atoms = append(atoms, "sql "+table.Name)
		for _, c := range table.Value.Items() {
			name, _ := c.Text()
			atoms = append(atoms, "sql "+table.Name+"."+name)
		}
	}
	return atoms
}
