package scope

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// noImports makes every import fail, so that what the checker does not know by
// a name of its own is this package's.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not imported") }

// TestOracleSharesNothing: the oracle names nothing that it does not declare
// itself or import, and imports nothing of this module.
func TestOracleSharesNothing(t *testing.T) {
	fset := token.NewFileSet()
	check := func(name string) (foreign []string) {
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if strings.Contains(spec.Path.Value, "lineal") {
				foreign = append(foreign, spec.Path.Value)
			}
		}
		conf := types.Config{Importer: noImports{}, Error: func(err error) {
			if e := (types.Error{}); errors.As(err, &e) && strings.HasPrefix(e.Msg, "undefined: ") {
				foreign = append(foreign, e.Msg)
			}
		}}
		_, _ = conf.Check("scope", fset, []*ast.File{file}, nil)
		return foreign
	}
	if got := check("oracle_test.go"); len(got) != 0 {
		t.Errorf("the oracle uses what it judges: %v", got)
	}
	if got := check("property_test.go"); len(got) < 5 {
		t.Errorf("twin: only %v is seen in a file that uses the package", got)
	}
}
