package sts_test

import (
	"fmt"

	"github.com/lineal-auth/lineal/sts"
)

// What a caller can be told, and which reasons stand behind it.
func ExampleAnswers() {
	for _, a := range sts.Answers() {
		if a.OAuthError == "invalid_target" {
			fmt.Println(a.Code, a.Status, a.Description)
		}
	}
	// Output:
	// target_invalid 400 The request must name exactly one resource that this client may call.
	// target_unknown 400 The request must name exactly one resource that this client may call.
	// target_denied 400 The request must name exactly one resource that this client may call.
}
