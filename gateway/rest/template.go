package rest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/scope"
)

// template is a path in segments, each literal or one parameter.
type template []segment

type segment struct {
	literal string
	param   string // "" for a literal
}

func parseTemplate(path string) (template, error) {
	if path == "" {
		return template{}, nil // the route itself
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, fmt.Errorf("path %q does not begin with a slash", path)
	}
	var t template
	for _, s := range strings.Split(rest, "/") {
		name, isParam := strings.CutPrefix(s, "{")
		if isParam {
			name, isParam = strings.CutSuffix(name, "}")
		}
		switch {
		case isParam && name != "" && !strings.ContainsAny(name, "{}"):
			if slices.Contains(t.params(), name) {
				return nil, fmt.Errorf("parameter %q is there twice", name)
			}
			t = append(t, segment{param: name})
		case s == "" || s == "." || s == ".." || strings.ContainsAny(s, "{}%\\;?#") || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
			return nil, fmt.Errorf("segment %q of path %q", s, path)
		default:
			t = append(t, segment{literal: s})
		}
	}
	return t, nil
}

func (t template) params() (names []string) {
	for _, s := range t {
		if s.param != "" {
			names = append(names, s.param)
		}
	}
	return names
}

func (t template) literals() (n int) {
	for _, s := range t {
		if s.param == "" {
			n++
		}
	}
	return n
}

// match gives the values of the parameters, in their order. The gateway has
// refused what is not canonical (threat F6); segments are compared as bytes.
func (t template) match(suffix string) (values []string, ok bool) {
	for _, s := range t {
		if !strings.HasPrefix(suffix, "/") {
			return nil, false
		}
		value, rest, more := strings.Cut(suffix[1:], "/")
		suffix = ""
		if more {
			suffix = "/" + rest
		}
		switch {
		case s.param == "" && value != s.literal, value == "":
			return nil, false
		case s.param != "":
			values = append(values, value)
		}
	}
	return values, suffix == ""
}

// clashes reports whether some path matches both and neither is the more
// specific one everywhere, so that two readers could choose differently.
func (t template) clashes(o template) bool {
	if len(t) != len(o) {
		return false
	}
	narrower, wider := true, true // t than o, in every segment
	for i := range t {
		switch a, b := t[i], o[i]; {
		case a.param == "" && b.param == "" && a.literal != b.literal:
			return false
		case a.param == "" && b.param != "":
			wider = false
		case a.param != "" && b.param == "":
			narrower = false
		}
	}
	return narrower == wider
}

// readQuery reads the declared keys, each at most once, and writes the query
// anew, sorted: no two readers see two queries in it (threat F7).
func (o *operation) readQuery(raw string, doc *scope.Document) (string, error) {
	if raw == "" {
		return "", nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", &gateway.Refusal{Code: gateway.CodeRequestUnreadable, Err: errors.New("the query does not parse")}
	}
	for key, all := range values {
		if !slices.Contains(o.Query, key) {
			return "", gateway.Refuse(gateway.CodeRequestUnreadable, "a query key is not declared")
		}
		if len(all) > 1 {
			return "", gateway.Refuse(gateway.CodeRequestUnreadable, "a query key is there twice")
		}
		fact, err := text(all[0])
		if err != nil {
			return "", err
		}
		doc.Set("/http/query/"+escape(key), fact)
	}
	return values.Encode(), nil
}
