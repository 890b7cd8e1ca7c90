package cedar_test

import (
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/policy/cedar"
)

// A set of policies is signed with the schema and the entities it was checked
// against, and refused if it cannot mean what it says.
func ExampleBuild() {
	schema, err := cedar.GenerateSchema([]cedar.Tool{{
		Service: "pay", Name: "transfer",
		InputSchema: []byte(`{"type":"object","properties":{"amount":{"type":"number"}},"required":["amount"]}`),
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize))) // never a constant in earnest
	in := cedar.BundleInput{
		Name: "payments", Serial: 1, Zone: "Europe/Berlin", Schema: schema, Key: key,
		Entities: []byte(`[{"uid":{"type":"Service","id":"pay"},"parents":[],"attrs":{"environment":"staging"}}]`),
		Policies: map[string]string{"pay.cedar": `@id("small") permit (principal, action == Action::"mcp:tools/call#pay/transfer", resource)
			when { context.args.amount.lessThanOrEqual(decimal("500.0")) };`},
	}
	bundle, err := cedar.Build(in)
	if err != nil {
		fmt.Println(err)
		return
	}
	engine, err := cedar.Load(bundle, key.Public().(ed25519.PublicKey), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(engine.Rules())

	in.Policies["typo.cedar"] = `@id("big") forbid (principal, action == Action::"mcp:tools/call#pay/transfer", resource) when { context.args.amount > 500 };`
	_, err = cedar.Build(in)
	fmt.Println(err)
	// Output:
	// [small]
	// loading policy: policy_type: policy big: unexpected type: expected datetime, or duration, or Long but saw decimal
}
