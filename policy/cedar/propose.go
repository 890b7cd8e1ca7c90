package cedar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// Proposal is what a first policy set is made of.
type Proposal struct {
	// Service is the name of the route that leads to the server.
	Service string
	// Environment is that of the service; "" is "staging".
	Environment string
	// Tools are the result of the server's tools/list: the result itself, the
	// JSON-RPC answer that holds it, or the array of tools.
	Tools []byte
	// Reads are the tools that were approved as reading only, SQL those whose
	// query the route reads. The server's own hints are no approval.
	Reads, SQL []string
	// Agents are those who may call; without any a placeholder stands there.
	Agents []identity.Agent
}

// placeholder is an agent that nobody is.
const placeholder = "spiffe://example.org/agent"

// listedTool is one tool of the list.
type listedTool struct {
	name   string
	schema strictjson.Value
}

// Propose writes a first set for an MCP server, as the files of a folder: each
// tool permitted to the group "agents" on behalf of the group "people", and
// forbidden what is beyond the usual. It passes Check, and it is a place to
// begin: who is in the groups is the operator's to say.
func Propose(p Proposal) (map[string][]byte, error) {
	list, err := readTools(p.Tools)
	if err != nil {
		return nil, fmt.Errorf("proposing policy: %w", err)
	}
	if p.Service == "" || strings.Contains(p.Service, "/") {
		return nil, errors.New("proposing policy: a service has a name without '/'")
	}
	if len(p.Agents) == 0 {
		p.Agents = []identity.Agent{identity.MustParseAgent(placeholder)}
	}
	if p.Environment == "" {
		p.Environment = "staging"
	}
	set, err := p.set(list)
	if err != nil {
		return nil, fmt.Errorf("proposing policy: %w", err)
	}
	files := map[string][]byte{}
	for path, t := range map[string]*template.Template{
		pathSet: setTemplate, dirPolicies + set.File + ".cedar": policyTemplate, dirTests + set.File + ".txtar": caseTemplate,
	} {
		var b bytes.Buffer
		if err := t.Execute(&b, set); err != nil {
			return nil, fmt.Errorf("proposing policy: %w", err)
		}
		files[path] = b.Bytes()
	}
	if files[pathTools], err = indented(map[string]any{"tools": set.pinned}); err != nil {
		return nil, fmt.Errorf("proposing policy: %w", err)
	}
	if files[pathEntities], err = indented(p.entities()); err != nil {
		return nil, fmt.Errorf("proposing policy: %w", err)
	}
	return files, nil
}

func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// maxListed bounds a server's list.
const maxListed = 4096

func readTools(text []byte) ([]listedTool, error) {
	v, err := strictjson.Parse(text, strictjson.Limits{MaxBytes: maxBundle, MaxNames: 1 << 20, MaxValues: 1 << 21})
	if err != nil {
		return nil, fmt.Errorf("reading tools: %w", err)
	}
	if result, ok := v.Get("result"); ok {
		v = result
	}
	if tools, ok := v.Get("tools"); ok {
		v = tools
	}
	if v.Kind() != strictjson.KindArray || v.Len() == 0 || v.Len() > maxListed {
		return nil, errors.New(`reading tools: no list of tools; it is {"tools": [{"name": …, "inputSchema": …}]}, the result of tools/list`)
	}
	var list []listedTool
	for _, t := range v.Items() {
		name, _ := t.Get("name")
		text, ok := name.Text()
		schema, hasSchema := t.Get("inputSchema")
		if !ok || text == "" || !hasSchema {
			return nil, errors.New("reading tools: a tool without name or inputSchema")
		}
		list = append(list, listedTool{text, schema})
	}
	slices.SortFunc(list, func(a, b listedTool) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// proposedSet is what the templates are filled with.
type proposedSet struct {
	Service, File       string // Service as JSON
	Group, ServiceUID   string
	Agent, Stranger     string
	Tools               []proposedTool
	Writes              bool
	First, FirstWriting proposedTool
	Deep                string // a chain of five agents, the last in the group

	pinned []toolJSONOut
}

type proposedTool struct {
	ID, Name, Action, UID string // the latter two as Cedar
	SQL                   bool
	Call                  string // x.call.json's "call"
}

type toolJSONOut struct {
	Service     string           `json:"service"`
	Name        string           `json:"name"`
	Effect      string           `json:"effect"`
	SQL         bool             `json:"sql,omitempty"`
	InputSchema strictjson.Value `json:"inputSchema"`
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func (p Proposal) set(list []listedTool) (proposedSet, error) {
	for _, name := range slices.Concat(p.Reads, p.SQL) {
		if !slices.ContainsFunc(list, func(t listedTool) bool { return t.name == name }) {
			return proposedSet{}, fmt.Errorf("the server lists no tool %q", name)
		}
	}
	slug := strings.Trim(notInID.ReplaceAllString(p.Service, "-"), "-._")
	if slug == "" {
		slug = "service"
	}
	s := proposedSet{
		Service: quote(p.Service), File: slug, ServiceUID: types.NewEntityUID(typeService, types.String(p.Service)).String(),
		Agent: quote(p.Agents[0].String()), Stranger: quote("spiffe://stranger.example/agent"),
	}
	var deep []string
	for i := range 4 {
		deep = append(deep, quote(fmt.Sprintf("spiffe://example.org/hop-%d", i)))
	}
	s.Deep = strings.Join(append(deep, s.Agent), ", ")
	taken := map[string]bool{}
	for _, t := range list {
		one := proposedTool{
			Name:   t.name,
			Action: types.NewEntityUID(typeAction, types.String(toolAction(p.Service, t.name))).String(),
			UID:    types.NewEntityUID(typeTool, types.String(p.Service+"/"+t.name)).String(),
			SQL:    slices.Contains(p.SQL, t.name),
		}
		one.ID = uniqueID(slug+"/"+strings.Trim(notInID.ReplaceAllString(t.name, "-"), "-._"), taken)
		effect := "write"
		if slices.Contains(p.Reads, t.name) {
			effect = "read"
		}
		call, err := p.sampleCall(t, one.SQL)
		if err != nil {
			return s, fmt.Errorf("tool %q: %w", t.name, err)
		}
		one.Call = call
		s.Tools = append(s.Tools, one)
		s.pinned = append(s.pinned, toolJSONOut{Service: p.Service, Name: t.name, Effect: effect, SQL: one.SQL, InputSchema: t.schema})
		if effect == "write" && !s.Writes {
			s.Writes, s.FirstWriting = true, one
		}
	}
	s.First = s.Tools[0]
	return s, nil
}

func uniqueID(id string, taken map[string]bool) string {
	if len(id) > 100 {
		id = id[:100]
	}
	one := id
	for i := 2; taken[one]; i++ {
		one = fmt.Sprintf("%s-%d", id, i)
	}
	taken[one] = true
	return one
}

func quote(s string) string { return string(strictjson.String(s).AppendJSON(nil)) }

// sampleCall is a call of a tool with the least arguments that its schema
// requires.
func (p Proposal) sampleCall(t listedTool, sql bool) (string, error) {
	if _, err := grantsOf(scope.Call{Location: "https://service.example", Action: actionToolCall, Name: t.name}, 1); err != nil {
		return "", fmt.Errorf("no token could grant it: %w", err)
	}
	m := sampler{typeMapper{root: t.schema}}
	args := m.object(t.schema, 0)
	if args.IsZero() {
		return "", errors.New("its input schema has names that are no JSON")
	}
	doc := []strictjson.Member{{Name: "args", Value: args}}
	if sql {
		doc = append(doc, strictjson.Member{Name: "sql", Value: strictjson.Object(strictjson.Member{Name: "kind", Value: strictjson.String("select")})})
	}
	call := strictjson.Object(
		strictjson.Member{Name: "action", Value: strictjson.String(actionToolCall)},
		strictjson.Member{Name: "service", Value: strictjson.String(p.Service)},
		strictjson.Member{Name: "name", Value: strictjson.String(t.name)},
		strictjson.Member{Name: "document", Value: strictjson.Object(doc...)},
	)
	return string(call.AppendJSON(nil)), nil
}

// sampler makes a value that a JSON Schema accepts, as far as its types go.
type sampler struct{ typeMapper }

func (m *sampler) object(s strictjson.Value, depth int) strictjson.Value {
	props, _ := s.Get("properties")
	required, _ := s.Get("required")
	var out []strictjson.Member
	for _, r := range required.Items() {
		name, _ := r.Text()
		if schema, ok := props.Get(name); ok && depth < maxTypeDepth {
			out = append(out, strictjson.Member{Name: name, Value: m.value(schema, depth+1)})
		}
	}
	return strictjson.Object(out...)
}

func (m *sampler) value(s strictjson.Value, depth int) strictjson.Value {
	for _, name := range []string{"const", "default"} {
		if v, ok := s.Get(name); ok && !v.IsNull() {
			return v
		}
	}
	for _, name := range []string{"enum", "examples"} {
		if v, ok := s.Get(name); ok && v.Kind() == strictjson.KindArray && v.Len() > 0 {
			return v.Index(0)
		}
	}
	if ref, ok := s.Get("$ref"); ok && depth < maxTypeDepth {
		if target, ok := m.target(ref); ok {
			return m.value(target, depth+1)
		}
	}
	for _, union := range []string{"anyOf", "oneOf"} {
		if of, ok := s.Get(union); ok && of.Len() > 0 && depth < maxTypeDepth {
			return m.value(of.Index(0), depth+1)
		}
	}
	typ, _ := s.Get("type")
	name, ok := typ.Text()
	for _, v := range typ.Items() {
		if one, _ := v.Text(); !ok && one != "null" {
			name, ok = one, true
		}
	}
	switch name {
	case "integer", "number":
		if v, ok := s.Get("minimum"); ok {
			return v
		}
		return strictjson.Int(1)
	case "boolean":
		return strictjson.Bool(false)
	case "array":
		return strictjson.Array()
	case "object":
		return m.object(s, depth)
	case "null":
		return strictjson.NullValue()
	}
	return strictjson.String("example")
}

// target follows a reference within the document.
func (m *sampler) target(ref strictjson.Value) (strictjson.Value, bool) {
	pointer, ok := ref.Text()
	if !ok || !strings.HasPrefix(pointer, "#/") {
		return strictjson.Value{}, false
	}
	at := m.root
	for _, step := range strings.Split(pointer[2:], "/") {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		if at, ok = at.Get(step); !ok {
			return strictjson.Value{}, false
		}
	}
	return at, true
}

// entities are the service, the two groups, and the agents.
func (p Proposal) entities() any {
	type uid struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}
	type entity struct {
		UID     uid               `json:"uid"`
		Parents []uid             `json:"parents"`
		Attrs   map[string]string `json:"attrs"`
	}
	out := []entity{
		{uid{"Service", p.Service}, []uid{}, map[string]string{"environment": p.Environment}},
		{uid{"Group", "agents"}, []uid{}, map[string]string{}},
		{uid{"Group", "people"}, []uid{}, map[string]string{}},
	}
	for _, a := range p.Agents {
		out = append(out, entity{uid{"Agent", a.String()}, []uid{{"Group", "agents"}}, map[string]string{"trust_domain": a.TrustDomain()}})
	}
	return out
}

var (
	setTemplate = template.Must(template.New("set").Parse(`{"name": "{{.File}}", "serial": 1, "zone": "UTC"}
`))

	policyTemplate = template.Must(template.New("policy").Parse(`// A first policy set for the MCP server {{.Service}}, made from its list of tools.
// Read it, narrow it, say in entities.json who is in the groups, then sign it.

// Who may see what the server offers.
@id("{{.File}}/discovery")
permit (principal in Group::"agents", action in Action::"discover", resource in {{.ServiceUID}});
{{range .Tools}}
@id("{{.ID}}")
permit (principal in Group::"agents", action == {{.Action}}, resource == {{.UID}})
when { context.chain.root in Group::"people"{{if .SQL}} && context has sql && context.sql.kind == "select"{{end}} };
{{end}}
// A forbid wins over every permit.

@id("{{.File}}/long-chains")
forbid (principal, action in Action::"use", resource in {{.ServiceUID}})
when { context.chain.depth > 3 };
{{if .Writes}}
// Tools count as writing until they are approved as reading: "effect" in tools.json.
@id("{{.File}}/writes-need-a-fresh-login")
forbid (principal, action in Action::"write", resource in {{.ServiceUID}})
when { context.chain.auth_age > 3600 };

@id("{{.File}}/writes-need-closed-arguments")
forbid (principal, action in Action::"write", resource in {{.ServiceUID}})
when { context.chain.args_open };
{{end}}`))

	caseTemplate = template.Must(template.New("cases").Parse(`What the policies in {{.File}}.cedar are to decide.

-- discovery.call.json --
{"person": "https://id.example#ada", "chain": [{{.Agent}}],
 "call": {"action": "mcp:tools/list", "service": {{.Service}}}}
-- discovery.want --
allow {{.File}}/discovery
{{range .Tools}}
-- {{.ID}}.call.json --
{"person": "https://id.example#ada", "groups": ["people"], "chain": [{{$.Agent}}],
 "call": {{.Call}}}
-- {{.ID}}.want --
allow {{.ID}}
listed
{{end}}
-- stranger.call.json --
{"person": "https://id.example#ada", "groups": ["people"], "chain": [{{.Stranger}}],
 "call": {{.First.Call}}}
-- stranger.want --
deny
hidden
-- for-nobody-we-know.call.json --
{"person": "https://id.example#ada", "groups": [], "chain": [{{.Agent}}],
 "call": {{.First.Call}}}
-- for-nobody-we-know.want --
deny
-- long-chain.call.json --
{"person": "https://id.example#ada", "groups": ["people"],
 "chain": [{{.Deep}}],
 "call": {{.First.Call}}}
-- long-chain.want --
deny {{.File}}/long-chains
{{if .Writes}}
-- stale-login.call.json --
{"person": "https://id.example#ada", "groups": ["people"], "chain": [{{.Agent}}], "auth_age": 7200,
 "call": {{.FirstWriting.Call}}}
-- stale-login.want --
deny {{.File}}/writes-need-a-fresh-login
-- open-arguments.call.json --
{"person": "https://id.example#ada", "groups": ["people"], "chain": [{{.Agent}}], "args_open": true,
 "call": {{.FirstWriting.Call}}}
-- open-arguments.want --
deny {{.File}}/writes-need-closed-arguments
{{end}}`))
)
