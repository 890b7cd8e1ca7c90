// Package query reads the parameters of a request, strictly: what an API does
// not know, or was sent twice, is an error, so that nobody takes it for heeded.
//
// Errors say what was wrong with what the caller sent, for the caller. The code
// is the API's own.
package query

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Parse takes each of names at most once, and nothing else. A parameter that is
// there is not empty.
func Parse(raw string, names ...string) (url.Values, error) {
	q, err := once(raw, names)
	if err != nil {
		return nil, err
	}
	for name := range q {
		if q.Get(name) == "" {
			return nil, unknown(name)
		}
	}
	return q, nil
}

// ParseForm is Parse for what a browser sends of a form: a field that holds
// nothing but space was not filled in, and is left out.
func ParseForm(raw string, names ...string) (url.Values, error) {
	q, err := once(raw, names)
	if err != nil {
		return nil, err
	}
	for name, values := range q {
		if values[0] = strings.TrimSpace(values[0]); values[0] == "" {
			delete(q, name)
		}
	}
	return q, nil
}

func once(raw string, names []string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errors.New("the query cannot be parsed")
	}
	for name, values := range q {
		if !slices.Contains(names, name) || len(values) != 1 {
			return nil, unknown(name)
		}
	}
	return q, nil
}

func unknown(name string) error { return fmt.Errorf("parameter %.40q", name) }

// Number reads a number of [low, high], or is otherwise if there is none.
func Number(q url.Values, name string, low, high, otherwise int64) (int64, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(q.Get(name), 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%s is not %d to %d", name, low, high)
	}
	return n, nil
}
