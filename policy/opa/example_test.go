package opa_test

import (
	"context"
	"fmt"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/opa"
)

// A Decider stands where the embedded engine would. What is no question about a
// verified call is denied without asking.
func ExampleNew() {
	d, err := opa.New(opa.Config{URL: "http://127.0.0.1:8181", Path: "lineal/decision"})
	if err != nil {
		fmt.Println(err)
		return
	}
	decision := d.Decide(context.Background(), policy.Input{})
	fmt.Println(decision.Effect, decision.Errors)
	// Output: deny [request: no verified chain]
}
