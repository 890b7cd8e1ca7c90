package client

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// ErrNotHeld says that a call needs more than its delegation holds.
var ErrNotHeld = errors.New("it lies within no detail of the delegation")

// Narrow completes authorization_details that are written without `from`: for
// each detail it finds the first of the parent's details that it lies within.
// A detail that lies within none is an error: the agent does not hold it, so
// it cannot pass it on.
func Narrow(parent scope.Grant, details []byte) ([]byte, error) {
	v, err := strictjson.Parse(details, strictjson.Limits{})
	if err != nil {
		return nil, fmt.Errorf("narrowing: %w", err)
	}
	if v.Kind() != strictjson.KindArray || v.Len() == 0 {
		return nil, errors.New("narrowing: authorization_details must be a non-empty array")
	}
	out := make([]strictjson.Value, v.Len())
	for i, d := range v.Items() {
		if out[i], err = witness(parent, d); err != nil {
			return nil, fmt.Errorf("narrowing: detail %d: %w", i, err)
		}
	}
	return strictjson.Array(out...).AppendJSON(nil), nil
}

// witness finds `from` for one detail.
func witness(parent scope.Grant, d strictjson.Value) (strictjson.Value, error) {
	if d.Kind() != strictjson.KindObject {
		return strictjson.Value{}, errors.New("not an object")
	}
	if _, ok := d.Get("from"); ok {
		return d, nil
	}
	var last error
	for i := range parent.Len() {
		candidate := d.With("from", strictjson.Int(int64(i)))
		child, err := scope.ParseValue(strictjson.Array(candidate), false)
		if err != nil {
			return strictjson.Value{}, err
		}
		if last = scope.Subsumes(parent, child); last == nil {
			return candidate, nil
		}
	}
	if last == nil {
		last = errors.New("the delegation holds nothing")
	}
	return strictjson.Value{}, fmt.Errorf("%w: %w", ErrNotHeld, last)
}
