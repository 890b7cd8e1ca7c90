package delegation_test

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/delegation"
)

// A chain exists only if it was verified: a token of depth 1 without the
// receipt of its root is none.
func ExampleVerify() {
	leaf := delegation.Leaf{Issuer: "https://sts.test", Hop: delegation.Hop{Depth: 1}}
	_, err := delegation.Verify(nil, leaf, func(int) error { return nil })
	var refused *delegation.Error
	fmt.Println(errors.As(err, &refused), refused.Code)
	// Output: true chain_depth
}
