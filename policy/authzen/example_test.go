package authzen_test

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/authzen"
)

// A Decider stands where the embedded engine would. What is no question about a
// verified call is denied without asking.
func ExampleNew() {
	d, err := authzen.New(authzen.Config{URL: "https://pdp.example"})
	if err != nil {
		fmt.Println(err)
		return
	}
	decision := d.Decide(context.Background(), policy.Input{})
	fmt.Println(decision.Effect, decision.Errors)
	// Output: deny [request: no verified chain]
}
