package scope

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The authorization_details of the worked example: three hops of one chain,
// byte for byte as their tokens carry them.
const (
	exampleT0 = `[{"type":"urn:lineal:call:v1","locations":["https://orchestrator.test","https://research.test","https://db.test"],"actions":["a2a:send"],"names":["orchestrator","research","db"]},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find","sum"],"args":"open"}]`
	exampleT1 = `[{"type":"urn:lineal:call:v1","locations":["https://research.test","https://db.test"],"actions":["a2a:send"],"names":["research","db"],"from":0},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"open","from":1}]`
	exampleT2 = `[{"type":"urn:lineal:call:v1","locations":["https://db.test"],"actions":["a2a:send"],"names":["db"],"from":0},{"type":"urn:lineal:call:v1","locations":["https://orders.test"],"actions":["mcp:tools/call"],"names":["find"],"args":"closed","from":1,"where":{"/args":{"op":"fields","keys":["customer_id"]},"/args/customer_id":{"op":"one_of","values":["C-4711"]}}}]`
)

func mustParse(t testing.TB, details string, root bool) Grant {
	t.Helper()
	g, err := Parse([]byte(details), root)
	if err != nil {
		t.Fatalf("Parse(%s): %v", details, err)
	}
	return g
}

func TestWorkedExample(t *testing.T) {
	var chain []Grant
	for i, s := range []string{exampleT0, exampleT1, exampleT2} {
		g := mustParse(t, s, i == 0)
		got, err := g.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, string(got)); diff != "" {
			t.Errorf("T%d is not reproduced (-want +got):\n%s", i, diff)
		}
		if g.Scope() != "a2a:send mcp:call" {
			t.Errorf("T%d: scope %q", i, g.Scope())
		}
		chain = append(chain, g)
	}
	for i := range chain[1:] {
		if err := Subsumes(chain[i], chain[i+1]); err != nil {
			t.Errorf("T%d within T%d: %v", i+1, i, err)
		}
		if err := Subsumes(chain[i+1], chain[i]); err == nil {
			t.Errorf("T%d passes for a narrowing of T%d", i, i+1)
		}
	}
}
