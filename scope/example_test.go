package scope_test

import (
	"fmt"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// A person delegates payments up to 500; the agent delegates a smaller one on,
// and fails to delegate a larger one.
func Example() {
	detail := func(from, max string) []byte {
		return []byte(`[{"type":"urn:lineal:call:v1","locations":["https://pay.example/mcp"],"actions":["mcp:tools/call"],` +
			`"names":["transfer"],` + from + `"args":"closed","where":{"/args":{"op":"fields","keys":["amount"]},` +
			`"/args/amount":{"op":"range","min":0,"max":` + max + `}}}]`)
	}
	root, err := scope.Parse(detail("", "500"), true)
	if err != nil {
		fmt.Println(err)
		return
	}
	smaller, err := scope.Parse(detail(`"from":0,`, "50"), false)
	if err != nil {
		fmt.Println(err)
		return
	}
	larger, err := scope.Parse(detail(`"from":0,`, "5000"), false)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("scope:", root.Scope())
	fmt.Println("smaller:", scope.Subsumes(root, smaller))
	fmt.Println("larger:", scope.Subsumes(root, larger))

	doc := scope.NewDocument()
	doc.Set("/args", strictjson.Object(strictjson.Member{Name: "amount", Value: strictjson.Int(60)}))
	call := scope.Call{Location: "https://pay.example/mcp", Action: scope.MCPToolsCall, Name: "transfer", Doc: doc}
	for _, hop := range []scope.Grant{root, smaller} {
		v := hop.Permits(call)
		fmt.Println(v.Permitted(), v.Failures)
	}
	// Output:
	// scope: mcp:call
	// smaller: <nil>
	// larger: scope widened: detail 0 (from 0): /args/amount (range): not within the parent's range
	// true []
	// false [{0 /args/amount range present}]
}
