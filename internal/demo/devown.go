package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/server"
)

// Own are the parts that somebody builds, beside those that are here: the file
// dev.yaml.
type Own struct {
	// Tools are MCP servers on this machine. Their tools are approved as they are.
	Tools []OwnTools `yaml:"tools,omitempty"`
	// Agents each get an identity, and one with a URL a route.
	Agents []OwnAgent `yaml:"agents,omitempty"`

	approved map[string][]config.Tool // by the name of the server
}

// OwnTools is an MCP server.
type OwnTools struct {
	Name string `yaml:"name"` // of its route, /mcp/<name>
	URL  string `yaml:"url"`
}

// OwnAgent is an agent.
type OwnAgent struct {
	Name string `yaml:"name"` // of its identity, and of its route, /a2a/<name>
	// URL is where it serves A2A over mTLS with its identity, "https://127.0.0.1:9001";
	// empty: it serves nobody.
	URL string `yaml:"url,omitempty"`
	// Calls are the names of the routes that it may ever call, or hand on.
	Calls []string `yaml:"calls,omitempty"`
	// People says that persons sign in at it.
	People bool `yaml:"people,omitempty"`
}

// ownHelp is the file as it is written first.
const ownHelp = `# Your own tools and agents. Save this file, and everything starts anew with
# them, at the same addresses. What they may do is in the folder policy. In the
# folder agents is what client.OpenAgentFile takes, for each agent.
#
# tools:
#   - {name: mine, url: "http://127.0.0.1:9000/mcp"}
# agents:
#   - {name: asker, people: true, calls: [helper, mine, crm]}
#   - {name: helper, url: "https://127.0.0.1:9001", calls: [mine, crm]}
`

var ownName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// readOwn reads and checks dev.yaml.
func readOwn(path string) (o Own, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return o, err
	}
	if err := yaml.Load(data, &o, yaml.WithKnownFields(), yaml.WithUniqueKeys(), yaml.WithSingleDocument()); err != nil && !emptyYAML(data) {
		return o, fmt.Errorf("%s: %w", path, err)
	}
	if err := o.validate(); err != nil {
		return o, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// emptyYAML reports whether there is nothing but comments.
func emptyYAML(data []byte) bool {
	return !regexp.MustCompile(`(?m)^\s*[^#\s]`).Match(data)
}

func (o Own) validate() error {
	taken := []string{
		nameApp, nameOrchestrator, nameResearch, nameDatabase, nameDesk, nameIntruder, nameCRMServer, nameDBServer, nameGateway, nameTokens, nameVendor,
		nameOperator, namePage, routeCRM, routeDB, routeModel, routeAnthropic, routeDesktop, routeOrchestratorDPoP, routeResearchDPoP,
	}
	var errs []error
	named := func(name string) {
		if !ownName.MatchString(name) || slices.Contains(taken, name) {
			errs = append(errs, fmt.Errorf("name %q: want small letters, digits and dashes, and none that is taken", name))
		}
		taken = append(taken, name)
	}
	at := func(name, text string) {
		if u, err := url.Parse(text); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			errs = append(errs, fmt.Errorf("%s: %q is no URL", name, text))
		}
	}
	for _, t := range o.Tools {
		named(t.Name)
		at(t.Name, t.URL)
	}
	for _, a := range o.Agents {
		named(a.Name)
		if a.URL != "" {
			at(a.Name, a.URL)
		}
	}
	for _, a := range o.Agents {
		for _, route := range a.Calls {
			if _, ok := o.detail(places{}, route); !ok {
				errs = append(errs, fmt.Errorf("%s: no route %q", a.Name, route))
			}
		}
	}
	return errors.Join(errs...)
}

// detail is what the calls of a route need.
func (o Own) detail(p places, route string) (line string, ok bool) {
	switch route {
	case routeDB:
		return p.readDatabase(), true
	case routeCRM:
		return p.readCRM(), true
	case routeModel:
		return p.callModel(), true
	case routeAnthropic:
		return p.callAnthropic(), true
	case nameOrchestrator, nameResearch, nameDatabase:
		return p.askAgents(route), true
	}
	for _, t := range o.Tools {
		if t.Name == route {
			return p.anyTool(route, o.approved[route]), true
		}
	}
	for _, a := range o.Agents {
		if a.Name == route && a.URL != "" {
			return p.askAgents(route), true
		}
	}
	return "", false
}

// asked is what a call of an own agent hands on: to ask it, and what it calls.
func (o Own) asked(p places, a OwnAgent) []string {
	lines := []string{p.askAgents(a.Name)}
	for _, route := range a.Calls {
		line, _ := o.detail(p, route)
		lines = append(lines, line)
	}
	return lines
}

// call is the audience of a route and what is asked for there.
func (o Own) call(p places, route string) (audience string, lines []string) {
	line, _ := o.detail(p, route)
	lines = []string{line}
	for _, a := range o.Agents {
		if a.Name == route {
			return p.agent(route), o.asked(p, a)
		}
	}
	switch route {
	case routeModel:
		return p.llm(), lines
	case routeAnthropic:
		return p.anthropic(), lines
	case nameOrchestrator, nameResearch, nameDatabase:
		return p.agent(route), lines
	}
	return p.mcp(route), lines
}

// anyTool is every tool of a server, with any arguments.
func (p places) anyTool(route string, tools []config.Tool) string {
	names := make([]string, len(tools))
	for i, t := range tools {
		names[i] = t.Name
	}
	list, _ := json.Marshal(names)
	return fmt.Sprintf(`{"type":%q,"locations":[%s],"actions":["mcp:tools/call"],"names":%s,"args":"open"}`, detailType, quoted(p.mcp(route)), list)
}

// approve takes the tools of all servers as they are.
func (o *Own) approve(ctx context.Context) error {
	o.approved = map[string][]config.Tool{}
	for _, t := range o.Tools {
		tools, err := server.ApproveTools(ctx, t.URL)
		if err == nil && len(tools) == 0 {
			err = errors.New("it has none")
		}
		if err != nil {
			return fmt.Errorf("tools of %s: %w", t.Name, err)
		}
		o.approved[t.Name] = tools
	}
	return nil
}

// configure adds the own parts to the configuration.
func (o Own) configure(p places, cfg *config.Config) {
	for _, t := range o.Tools {
		cfg.Upstreams.MCP = append(cfg.Upstreams.MCP, config.MCP{Upstream: config.Upstream{Name: t.Name, URL: t.URL}, Tools: o.approved[t.Name]})
	}
	for _, a := range o.Agents {
		uri := agentURI(a.Name).String()
		var lines []string
		for _, route := range a.Calls {
			line, _ := o.detail(p, route)
			lines = append(lines, line)
		}
		cfg.Agents = append(cfg.Agents, config.Agent{URI: uri, Name: a.Name, Service: a.People, Authority: string(details(lines...))})
		if a.People {
			last := &cfg.Agents[len(cfg.Agents)-1]
			last.OIDCClients = []config.OIDCClient{{Issuer: cfg.Tokens.PersonIssuers[0], ClientID: a.Name}}
		}
		if a.URL != "" {
			cfg.Upstreams.A2A = append(cfg.Upstreams.A2A, config.A2A{Upstream: config.Upstream{Name: a.Name, URL: a.URL, Peer: uri}, Agent: uri})
		}
	}
}
