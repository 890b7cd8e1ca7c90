package cedar_test

import (
	"slices"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/scope"
)

// TestJudgeScope: what is known of a call decides, what is not is named, and
// nothing that could refuse is taken for permitted.
func TestJudgeScope(t *testing.T) {
	detail := func(more string) string {
		return `[{"type":"urn:lineal:call:v1","locations":["https://db.test/mcp"],"actions":["mcp:tools/call"],"names":["query"],` + more + `}]`
	}
	const table, limit = `"/args/table":{"op":"one_of","values":["orders"]}`, `"/args/limit":{"op":"range","max":10}`
	const keys = `"/args":{"op":"fields","keys":["limit","table"]}`
	parse := func(text string) scope.Grant {
		g, err := scope.Parse([]byte(text), true)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	held := parse(detail(`"args":"closed","where":{` + keys + `,` + table + `,` + limit + `}`))
	open := parse(detail(`"args":"open"`))
	doc := scope.NewDocument()
	doc.Set("/args/table", strictjson.String("orders"))
	call := cedar.ScopeCall{
		Call:      scope.Call{Location: "https://db.test/mcp", Action: "mcp:tools/call", Name: "query", Doc: doc},
		Disclosed: []string{"/args/table"},
	}
	for _, c := range []struct {
		name, proposed string
		held           scope.Grant
		by             int
		answer         string
		at             []string
	}{
		{"what is known matches", detail(`"args":"open","where":{` + table + `}`), open, 0, cedar.Yes, nil},
		{"what is known does not", detail(`"args":"open","where":{"/args/table":{"op":"one_of","values":["customers"]}}`), open, 0, cedar.No, []string{"/args/table"}},
		{"the same, whatever else is not known", detail(`"args":"closed","where":{` + keys + `,` + limit + `,"/args/table":{"op":"one_of","values":["customers"]}}`), open, 0, cedar.No, []string{"/args/table"}},
		{"another tool", `[{"type":"urn:lineal:call:v1","locations":["https://db.test/mcp"],"actions":["mcp:tools/call"],"names":["export"],"args":"open"}]`, open, 0, cedar.No, []string{"name"}},
		{"another place", `[{"type":"urn:lineal:call:v1","locations":["https://crm.test/mcp"],"actions":["mcp:tools/call"],"names":["query"],"args":"open"}]`, open, 0, cedar.No, []string{"location"}},
		{"a value that nobody recorded", detail(`"args":"open","where":{` + table + `,` + limit + `}`), open, 0, cedar.Unknown, []string{"/args/limit"}},
		{"one that was asked for in these words", detail(`"args":"open","where":{` + table + `,` + limit + `}`), held, 0, cedar.Yes, nil},
		{"one that was asked for in others", detail(`"args":"open","where":{` + table + `,"/args/limit":{"op":"range","max":9}}`), held, 0, cedar.Unknown, []string{"/args/limit"}},
		{"closed after open", detail(`"args":"closed","where":{` + keys + `,` + table + `,` + limit + `}`), open, 0, cedar.Unknown, []string{"/args", "/args/limit"}},
		{"closed after closed", detail(`"args":"closed","where":{` + keys + `,` + table + `,` + limit + `}`), held, 0, cedar.Yes, nil},
		{"closed, of fewer arguments", detail(`"args":"closed","where":{"/args":{"op":"fields","keys":["table"]},` + table + `}`), held, 0, cedar.Unknown, []string{"/args"}},
		{"nobody knows what permitted it", detail(`"args":"open","where":{` + table + `}`), scope.Grant{}, -1, cedar.Unknown, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, at := cedar.JudgeScope(parse(c.proposed), call, c.held, c.by)
			if answer != c.answer || c.at != nil && !slices.Equal(at, c.at) || (answer == cedar.Unknown) != (len(at) > 0 && answer != cedar.No) {
				t.Errorf("%s at %v, want %s at %v", answer, at, c.answer, c.at)
			}
		})
	}
}
