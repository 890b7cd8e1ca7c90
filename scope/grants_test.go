package scope

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

var docPointers = []string{"/args", "/args/a", "/args/a/b", "/args/b", "/mcp/version", "/mcp/input_responses", "/sql/tables", "/urls/~1args~1a/host"}

func genDetail(t *rapid.T) obj {
	d := obj{
		"type":      Type,
		"locations": some(t, 1, "https://a.example", "https://b.example"),
		"actions":   some(t, 1, MCPToolsCall, MCPPromptsGet),
		"names":     some(t, 1, "x", "y"),
		"args":      "open",
	}
	where := obj{}
	for _, p := range docPointers {
		if rapid.IntRange(0, 2).Draw(t, "path") == 0 && !(p == "/sql/tables" && d["actions"].(arr)[0] != any(MCPToolsCall)) {
			where[p] = genConstraint(t, 1, false)
		}
	}
	d["where"] = where
	fixArgs(d)
	return d
}

func fixArgs(d obj) {
	d["args"] = "open"
	if c, ok := d["where"].(obj)["/args"].(obj); ok && c["op"] == "fields" {
		d["args"] = "closed"
	}
}

func genChildDetail(t *rapid.T, parents arr) obj {
	from := rapid.IntRange(0, len(parents)-1).Draw(t, "from")
	d := clone(parents[from]).(obj)
	d["from"] = json.Number(fmt.Sprint(from))
	where := d["where"].(obj)
	switch rapid.IntRange(0, 4).Draw(t, "detail") {
	case 0:
		fresh := genDetail(t)
		fresh["from"] = d["from"]
		return fresh
	case 2: // one set that is wider, and all else the parent's
		switch rapid.IntRange(0, 2).Draw(t, "wider") {
		case 0:
			d["locations"] = arr{"https://a.example", "https://b.example"}
		case 1:
			d["names"] = arr{"x", "y"}
		case 2:
			if where["/sql/tables"] == nil { // prompts have no /sql
				d["actions"] = arr{MCPToolsCall, MCPPromptsGet}
			}
		}
		return d
	case 1:
		for _, k := range []string{"locations", "actions", "names"} {
			if xs := d[k].(arr); len(xs) > 1 {
				d[k] = xs[:1]
			}
		}
		if p := "/args/b"; where[p] == nil {
			where[p] = genConstraint(t, 1, false)
		}
	}
	for _, p := range docPointers {
		if c, ok := where[p].(obj); ok && rapid.Bool().Draw(t, "narrow") {
			where[p] = genChild(t, c, 1, false)
		}
	}
	if len(where) > 0 && rapid.IntRange(0, 7).Draw(t, "drop") == 0 {
		for _, p := range docPointers {
			if where[p] != nil {
				delete(where, p)
				break
			}
		}
	}
	fixArgs(d)
	return d
}

// genDoc draws facts, near what the detail asks or anything from the pool, as a
// tree and as a Document.
func genDoc(t *rapid.T, d obj) (Document, any) {
	var doc Document
	tree := obj{}
	where := d["where"].(obj)
	near := rapid.IntRange(0, 4).Draw(t, "near") > 0
	put := func(pointer string, path ...string) {
		s := rapid.SampledFrom(pool).Draw(t, pointer)
		if c, ok := where[pointer].(obj); ok && near {
			var held []string
			for i, tree := range poolTrees() {
				if oracleMatch(c, tree) {
					held = append(held, pool[i])
				}
			}
			if len(held) == 0 {
				return
			}
			s = rapid.SampledFrom(held).Draw(t, pointer)
		}
		v, err := strictjson.Parse([]byte(s), strictjson.Limits{})
		if err != nil {
			t.Fatalf("%v", err)
		}
		doc.Set(pointer, v)
		o := tree
		for _, k := range path[:len(path)-1] {
			if o[k] == nil {
				o[k] = obj{}
			}
			o = o[k].(obj)
		}
		o[path[len(path)-1]] = oracleTree(nilTB{}, s)
	}
	wanted := func(pointer string) bool {
		if near {
			return where[pointer] != nil
		}
		return rapid.IntRange(0, 3).Draw(t, "fact") == 0
	}
	switch {
	case wanted("/args/a/b") && rapid.Bool().Draw(t, "deep"):
		put("/args/a/b", "args", "a", "b")
	case wanted("/args/a"):
		put("/args/a", "args", "a")
	case wanted("/args"):
		put("/args", "args")
	}
	if _, whole := doc.Lookup("/args"); wanted("/args/b") && (whole == Absent || where["/args"] == nil && tree["args"] != nil) {
		if o, ok := tree["args"].(obj); tree["args"] == nil || ok && o["b"] == nil {
			put("/args/b", "args", "b")
		}
	}
	if wanted("/mcp/version") {
		put("/mcp/version", "mcp", "version")
	}
	if wanted("/mcp/input_responses") {
		put("/mcp/input_responses", "mcp", "input_responses")
	}
	if wanted("/sql/tables") {
		put("/sql/tables", "sql", "tables")
	}
	if wanted("/urls/~1args~1a/host") {
		put("/urls/~1args~1a/host", "urls", "/args/a", "host")
	}
	if err := doc.Err(); err != nil {
		t.Fatalf("%v", err)
	}
	return doc, tree
}

// grantPairs is how many are judged in each check of rapid.
const grantPairs = 8

func genGrants(t *rapid.T) (parents, children arr) {
	for range rapid.IntRange(1, 3).Draw(t, "parents") {
		parents = append(parents, genDetail(t))
	}
	for range rapid.IntRange(1, 2).Draw(t, "children") {
		children = append(children, genChildDetail(t, parents))
	}
	return parents, children
}

func parseArr(t *rapid.T, details arr, root bool) Grant {
	g, err := Parse(encode(details), root)
	if err != nil {
		t.Fatalf("%s: %v", encode(details), err)
	}
	return g
}

// grantTally counts the grants that were accepted, the calls that both then
// permitted, and those that the child refused.
type grantTally struct{ judged, accepted, both, refused int }

func (n *grantTally) judge(t *rapid.T, asked []Call, parents, children arr) {
	parent, child := parseArr(t, parents, true), parseArr(t, children, false)
	below := Subsumes(parent, child) == nil
	if n.judged++; below {
		n.accepted++
	}
	for range 15 {
		doc, tree := genDoc(t, rapid.SampledFrom(slices.Concat(parents, children)).Draw(t, "target").(obj))
		for _, c := range asked {
			c.Doc = doc
			inP, inC := parent.Permits(c), child.Permits(c)
			if want := oracleGrant(parents, c.Location, c.Action, c.Name, tree); inP.Detail != want || inP.Permitted() != (want >= 0) {
				t.Fatalf("%s on %s: detail %d, the oracle says %d", encode(parents), encode(tree), inP.Detail, want)
			}
			if want := oracleGrant(children, c.Location, c.Action, c.Name, tree); inC.Detail != want || inC.Permitted() != (want >= 0) {
				t.Fatalf("%s on %s: detail %d, the oracle says %d", encode(children), encode(tree), inC.Detail, want)
			}
			switch {
			case below && inC.Permitted() && !inP.Permitted():
				t.Fatalf("unsound: %s below %s, but only it permits %s", encode(children), encode(parents), encode(tree))
			case below && inC.Permitted():
				n.both++
			case !inC.Permitted():
				n.refused++
			}
		}
	}
}

// TestC2GrantsOnlyNarrow: for whole grants, Permits is the oracle's answer, and
// what a child that Subsumes passes permits, its parent permits: so the decision
// of a chain that was minted is that of its last grant.
func TestC2GrantsOnlyNarrow(t *testing.T) {
	var asked []Call
	for _, at := range []string{"https://a.example", "https://b.example"} {
		for _, a := range []string{MCPToolsCall, MCPPromptsGet} {
			for _, name := range []string{"x", "y"} {
				asked = append(asked, Call{Location: at, Action: a, Name: name})
			}
		}
	}
	var n grantTally
	rapid.Check(t, func(t *rapid.T) {
		for range grantPairs {
			parents, children := genGrants(t)
			n.judge(t, asked, parents, children)
		}
	})
	t.Logf("judged %d pairs of grants: %d accepted, %d calls of both, %d refused", n.judged, n.accepted, n.both, n.refused)
	if n.accepted < 20 || n.both < 100 || n.refused < 5000 {
		t.Errorf("hardly tested: %+v", n)
	}
}
