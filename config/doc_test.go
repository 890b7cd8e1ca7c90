package config

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/CONFIG.md")

// TestReference holds docs/CONFIG.md to the struct: the page is made from the
// fields, their YAML names and their comments.
func TestReference(t *testing.T) {
	const path = "../docs/CONFIG.md"
	want := reference(t)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/CONFIG.md is not what the struct says; run: go test ./config -run TestReference -update")
	}
	if n := bytes.Count(want, []byte("\n| `")); n < 25 {
		t.Errorf("the page has only %d settings: it was not made of the struct", n)
	}
}

// sources are the files of the page, in its order.
var sources = []string{
	"config.go", "ledger.go", "identity.go", "admin.go", "policy.go", "sidecar.go", "models.go", "feeds.go", "http.go", "partners.go", "witness.go",
}

// TestReferenceIsWhole: no file of settings is left out of the page.
func TestReferenceIsWhole(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < len(sources) {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") && bytes.Contains(text, []byte("`yaml:")) && !slices.Contains(sources, name) {
			t.Errorf("%s has settings, and is not on the page", name)
		}
	}
}

// reference writes one section per struct, in the order of the source.
func reference(t *testing.T) []byte {
	t.Helper()
	var decls []ast.Decl
	for _, name := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		decls = append(decls, file.Decls...)
	}
	var b bytes.Buffer
	b.WriteString("# Configuration\n\nMade from the struct in `config`. The file is YAML; an unknown or doubled key is an error with its line.\n" +
		"A setting is required unless its text names a default or says when it is left out.\n")
	for _, d := range decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		spec, ok := gen.Specs[0].(*ast.TypeSpec)
		if !ok {
			continue
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | type | meaning |\n|---|---|---|\n", spec.Name.Name, oneLine(gen.Doc.Text()))
		for _, f := range s.Fields.List {
			writeField(&b, f)
		}
	}
	return b.Bytes()
}

func writeField(b *bytes.Buffer, f *ast.Field) {
	kind := typeText(f.Type)
	key := ""
	if f.Tag != nil {
		key, _, _ = strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml"), ",")
	}
	if key == "" {
		fmt.Fprintf(b, "| | | all of [%s](#%s) |\n", kind, strings.ToLower(kind))
		return
	}
	text := oneLine(f.Doc.Text())
	if name := strings.TrimPrefix(kind, "list of "); text == "" && ast.IsExported(name) {
		text = fmt.Sprintf("see [%s](#%s)", name, strings.ToLower(name))
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", key, kind, strings.ReplaceAll(text, "|", `\|`))
}

func typeText(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.ArrayType:
		return "list of " + typeText(x.Elt)
	case *ast.MapType:
		return "map of " + typeText(x.Value)
	case *ast.StarExpr:
		return typeText(x.X)
	case *ast.SelectorExpr:
		return strings.ToLower(x.Sel.Name)
	case *ast.Ident:
		return x.Name
	default:
		return "value"
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
