package demo

import (
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/identity"
)

// trustDomain is that of every workload here.
const trustDomain = "demo.lineal.test"

// The workloads, by the last segment of their SPIFFE IDs.
const (
	nameApp          = "app"
	nameOrchestrator = "orchestrator"
	nameResearch     = "research"
	nameDatabase     = "database"
	nameDesk         = "desk" // a person's own MCP client
	nameIntruder     = "intruder"
	nameCRMServer    = "crm-server"
	nameDBServer     = "db-server"
	nameGateway      = "gateway"
	nameTokens       = "tokens"
	namePage         = "page"
)

// The routes of the gateway. Those of agents have the agents' names.
const (
	routeCRM   = "crm"
	routeDB    = "db"
	routeModel = "openai"
	// routeAnthropic is the stand-in once more, by the other provider's API.
	routeAnthropic = "anthropic"
	// routeDesktop is the database for people's own MCP clients.
	routeDesktop = "desktop"
)

// Two agents have a second route, for callers whose client certificate cannot
// reach the gateway: its tokens are bound by DPoP alone.
const (
	routeOrchestratorDPoP = "orchestrator-dpop"
	routeResearchDPoP     = "research-dpop"
)

// The tools of the two MCP servers.
const (
	toolLookup = "lookup"
	toolQuery  = "query"
	toolExport = "export" // listed by the server, approved by nobody
)

func agentURI(name string) identity.Agent {
	return identity.MustParseAgent("spiffe://" + trustDomain + "/" + name)
}

// shortName is the agent's name as the story tells it.
func shortName(uri string) string { return uri[strings.LastIndexByte(uri, '/')+1:] }

// places are the resource identifiers of the routes: the audiences of tokens.
type places struct {
	public string // base URL of the gateway
	model  string // the model that may be called
}

func (p places) mcp(route string) string  { return p.public + "/mcp/" + route }
func (p places) agent(name string) string { return p.public + "/a2a/" + name }
func (p places) llm() string              { return p.public + "/" + routeModel + "/v1" }
func (p places) anthropic() string        { return p.public + "/" + routeAnthropic }

// The details below are one line of authority each, as authorization_details
// without `from`.

const detailType = "urn:lineal:call:v1"

// askAgents is the authority to hand work to these agents.
func (p places) askAgents(names ...string) string {
	locations := make([]string, len(names))
	for i, n := range names {
		locations[i] = p.agent(n)
	}
	return fmt.Sprintf(`{"type":%q,"locations":[%s],"actions":["a2a:send"],"names":[%s]}`, detailType, quoted(locations...), quoted(names...))
}

// readCRM is "read CRM".
func (p places) readCRM() string { return p.tool(routeCRM, toolLookup) }

// readDatabase is "read database": any question of the one tool.
func (p places) readDatabase() string { return p.tool(routeDB, toolQuery) }

func (p places) tool(route, tool string) string {
	return fmt.Sprintf(`{"type":%q,"locations":[%s],"actions":["mcp:tools/call"],"names":[%s],"args":"open"}`, detailType, quoted(p.mcp(route)), quoted(tool))
}

// callModel is "call model".
func (p places) callModel() string { return p.modelAt(p.llm()) }

// callAnthropic is "call model", where it speaks Anthropic's API.
func (p places) callAnthropic() string { return p.modelAt(p.anthropic()) }

func (p places) modelAt(location string) string {
	return fmt.Sprintf(`{"type":%q,"locations":[%s],"actions":["llm:chat"],"names":[%s]}`, detailType, quoted(location), quoted(p.model))
}

// readRegion is "table customers, this region, at most so many rows": the
// narrowest authority of the story, checked against the actual arguments.
func (p places) readRegion(region string, rows int) string {
	return p.readRegionAt(routeDB, region, rows)
}

// readDesktop is what people's own MCP clients may do.
func (p places) readDesktop() string { return p.readRegionAt(routeDesktop, "EU", 100) }

func (p places) readRegionAt(route, region string, rows int) string {
	return fmt.Sprintf(`{"type":%q,"locations":[%s],"actions":["mcp:tools/call"],"names":[%s],"args":"closed","where":{`+
		`"/args":{"op":"fields","keys":["table","columns","where","limit"]},`+
		`"/args/table":{"op":"one_of","values":["customers"]},`+
		`"/args/columns":{"op":"each","max_items":8,"of":{"op":"one_of","values":[%s]}},`+
		`"/args/where":{"op":"fields","keys":["region"]},`+
		`"/args/where/region":{"op":"one_of","values":[%s]},`+
		`"/args/limit":{"op":"range","min":1,"max":%d}}}`,
		detailType, quoted(p.mcp(route)), quoted(toolQuery), quoted(customerColumns...), quoted(region), rows)
}

// details joins lines of authority to an authorization_details array.
func details(lines ...string) []byte { return []byte("[" + strings.Join(lines, ",") + "]") }

// plainName reports whether a model's name can stand in a policy and in
// authority without quoting.
func plainName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._:/", c)
	})
}

// quoted lists names as JSON strings. They are identifiers of this package.
func quoted(names ...string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = `"` + n + `"`
	}
	return strings.Join(out, ",")
}
