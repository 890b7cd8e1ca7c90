package demo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// authority is a grant in the words of the story: what the holder may do,
// read from the grant itself.
func (p places) authority(g scope.Grant) []string {
	out := make([]string, 0, g.Len())
	for _, d := range g.Details() {
		switch at := d.Locations(); {
		case slices.Contains(at, p.mcp(routeCRM)):
			out = append(out, "read CRM")
		case slices.Contains(at, p.mcp(routeDB)) && d.Args() == scope.ArgsOpen:
			out = append(out, "read database")
		case slices.Contains(at, p.mcp(routeDB)):
			out = append(out, bounds(g, len(out)))
		case slices.Contains(at, p.llm()):
			out = append(out, "call model")
		default:
			out = append(out, handOn+list(d.Names()))
		}
	}
	return out
}

const handOn = "hand work to "

// duties are the words without those for handing on, which every agent but the
// last must hold to do its part.
func duties(words []string) string {
	var out []string
	for _, w := range words {
		if !strings.HasPrefix(w, handOn) {
			out = append(out, w)
		}
	}
	return "“" + strings.Join(out, ", ") + "”"
}

// list joins words: "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// bounds is the detail that names table, region and number of rows.
func bounds(g scope.Grant, i int) string {
	raw, err := g.MarshalJSON()
	if err != nil {
		return "read database, within bounds"
	}
	v, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return "read database, within bounds"
	}
	where, _ := v.Index(i).Get("where")
	return fmt.Sprintf("read table %s, region %s, at most %s rows",
		allowed(where, "/args/table"), allowed(where, "/args/where/region"), most(where, "/args/limit"))
}

// allowed lists the values of a one_of.
func allowed(where strictjson.Value, pointer string) string {
	c, _ := where.Get(pointer)
	values, _ := c.Get("values")
	var out []string
	for _, v := range values.Items() {
		s, _ := v.Text()
		out = append(out, s)
	}
	return strings.Join(out, " or ")
}

// most is the upper bound of a range.
func most(where strictjson.Value, pointer string) string {
	c, _ := where.Get(pointer)
	v, _ := c.Get("max")
	return v.Literal()
}
