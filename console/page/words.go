package page

import (
	"html/template"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/search"
)

// functions are what templates may call. None of them makes markup: everything
// they give is text, which the template escapes for its place.
var functions = template.FuncMap{
	"short": short, "called": called, "when": when, "clock": clock, "day": day, "words": words, "verdict": verdict, "question": search.Question,
	"agent": func(uri string) string { return Prefix + "agents?id=" + url.QueryEscape(uri) },
	"who":   who, "add": func(a, b int) int { return a + b }, "last": func(i, n int) bool { return i == n-1 },
	"plural": plural, "brief": func(s string) string { return cut(s, 12) }, "iso": iso, "stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
}

// short is the last part of an identifier, by which people know it: of
// spiffe://example/ops/dana it is dana, of https://host/mcp/db it is db.
func short(id string) string {
	_, rest, found := strings.Cut(id, "://")
	if !found {
		return id
	}
	rest, _, _ = strings.Cut(strings.TrimRight(rest, "/"), "?")
	parts := strings.Split(rest, "/")
	last := parts[len(parts)-1]
	if last == "v1" && len(parts) > 1 { // the version of a model's API
		last = parts[len(parts)-2]
	}
	if last == "" {
		return id
	}
	return last
}

// called is what a call of a transaction was for: the tool, and the short name of
// where it is.
func called(callee string) string {
	if tool, at, found := strings.Cut(callee, " at "); found {
		return tool + " at " + short(at)
	}
	return short(callee)
}

// who is a person in a word: the name, where it is known, else the reference.
func who(p search.Person) string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Ref != "":
		return p.Ref
	default:
		return "nobody"
	}
}

func parsed(ts string, layout string) string {
	t, err := time.Parse(time.RFC3339, ts)
	if err != nil {
		return ts
	}
	return t.UTC().Format(layout)
}

func when(ts string) string  { return parsed(ts, "2 January 2006, 15:04:05.000 UTC") }
func clock(ts string) string { return parsed(ts, "15:04:05.000") }
func day(ts string) string   { return parsed(ts, "2006-01-02") }
func iso(ts string) string   { return parsed(ts, "2006-01-02T15:04:05") }

// words makes a code readable.
func words(code string) string { return strings.ReplaceAll(code, "_", " ") }

// verdict is an effect in the word that people use.
func verdict(effect string) string {
	switch effect {
	case "permit":
		return "permitted"
	case "deny":
		return "refused"
	default:
		return words(effect)
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
