package demo

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/lineal-auth/lineal/internal/devidp"
	"github.com/lineal-auth/lineal/internal/durable"
)

// DeploymentFile is the file below the data directory that says where the
// parts of a running demo are.
const DeploymentFile = "deployment.json"

// Deployment says how to take part in a running demo. It holds no secret but
// the passwords of its made-up people.
type Deployment struct {
	PublicURL   string `json:"public_url"` // of the gateway
	Issuer      string `json:"issuer"`     // of the token service
	TokenURL    string `json:"token_url"`
	TrustDomain string `json:"trust_domain"`
	// CABundle is the file with the authority of every certificate here.
	CABundle string `json:"ca_bundle"`
	DataDir  string `json:"data_dir"`
	// Gateway and Tokens are the SPIFFE IDs of the two services.
	Gateway string `json:"gateway"`
	Tokens  string `json:"tokens"`
	// Provider is the OpenID provider, Redirect where it sends login codes.
	Provider string `json:"oidc_issuer"`
	Redirect string `json:"oidc_redirect"`
	// ClientDocument is the client ID metadata document of an MCP client that
	// nobody registered. With it, a person logs in at the route "desktop".
	ClientDocument string `json:"client_document"`

	// Page is the auditor's web page, where PageAuditor sees every record and
	// other users what was done in their own name.
	Page        string `json:"page"`
	PageAuditor string `json:"page_auditor"`

	// Admin is the operators' API, OperatorSocket the Workload API of an operator,
	// OperatorPage the web page as an operator sees it, without TLS and with its key,
	// and Probes where metrics are: of `lineal dev` alone.
	Admin          string `json:"admin_url,omitempty"`
	OperatorSocket string `json:"operator_socket,omitempty"`
	OperatorPage   string `json:"operator_page,omitempty"`
	Probes         string `json:"probes,omitempty"`

	Agents []DeployedAgent `json:"agents"`
	Routes []DeployedRoute `json:"routes"`
	Users  []DeployedUser  `json:"users"`
}

// DeployedAgent is a workload and its SPIFFE Workload API.
type DeployedAgent struct {
	Name   string `json:"name"`
	URI    string `json:"uri"`
	Socket string `json:"socket"`
	// OIDCClient is the client under which it signs persons in; empty: it does
	// not.
	OIDCClient string `json:"oidc_client,omitempty"`
	// Routes are those that it may use for the person who signed in.
	Routes []string `json:"routes,omitempty"`
	// Config is the file that client.OpenAgentFile takes: of own agents of
	// `lineal dev`.
	Config string `json:"config,omitempty"`
}

// DeployedRoute is something behind the gateway.
type DeployedRoute struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // mcp, a2a or llm
	Audience string `json:"audience"` // its URL, and the audience of its tokens
	// Details are authorization_details that the route's calls need, without
	// `from`.
	Details json.RawMessage `json:"authorization_details"`
}

// DeployedUser is a person who can sign in.
type DeployedUser struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

func (w *world) deployment() Deployment {
	p := w.places
	d := Deployment{
		PublicURL: p.public, Issuer: w.issuer, TokenURL: w.issuer + "/token", TrustDomain: trustDomain,
		CABundle: filepath.Join(w.dir, "ca.pem"), DataDir: w.dir, Gateway: agentURI(nameGateway).String(), Tokens: agentURI(nameTokens).String(),
		Provider: w.idp.Issuer(), Redirect: redirect, ClientDocument: w.document,
		Page: w.page, PageAuditor: pageAuditor,
		Routes: []DeployedRoute{
			{Name: routeDB, Protocol: "mcp", Audience: p.mcp(routeDB), Details: details(p.readDatabase())},
			{Name: routeCRM, Protocol: "mcp", Audience: p.mcp(routeCRM), Details: details(p.readCRM())},
			{Name: routeDesktop, Protocol: "mcp", Audience: p.mcp(routeDesktop), Details: details(p.readDesktop())},
			{Name: routeModel, Protocol: "llm", Audience: p.llm(), Details: details(p.callModel())},
		},
	}
	if w.model != nil {
		d.Routes = append(d.Routes, DeployedRoute{Name: routeAnthropic, Protocol: "llm", Audience: p.anthropic(), Details: details(p.callAnthropic())})
	}
	for _, name := range []string{nameOrchestrator, nameResearch, nameDatabase, routeOrchestratorDPoP, routeResearchDPoP} {
		d.Routes = append(d.Routes, DeployedRoute{Name: name, Protocol: "a2a", Audience: p.agent(name), Details: details(p.askAgents(name))})
	}
	for _, name := range []string{nameApp, nameOrchestrator, nameResearch, nameDatabase, nameDesk, nameIntruder} {
		a := DeployedAgent{Name: name, URI: w.agents[name].uri.String(), Socket: w.agents[name].socket}
		switch name {
		case nameApp:
			a.OIDCClient, a.Routes = name, []string{nameOrchestrator, nameResearch, nameDatabase, routeCRM, routeDB, routeModel, routeAnthropic}
		case nameDesk:
			a.OIDCClient, a.Routes = name, []string{routeDB, routeModel, routeAnthropic}
		}
		d.Agents = append(d.Agents, a)
	}
	w.dev.deploy(w, &d)
	for _, a := range devidp.DefaultAccounts() {
		d.Users = append(d.Users, DeployedUser{Username: a.Username, Password: a.Password})
	}
	return d
}

// writeDeployment writes the file, for `lineal token` and for people.
func (w *world) writeDeployment() error {
	d := w.deployment()
	if err := w.ca.WriteBundle(d.CABundle); err != nil {
		return err
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("writing deployment: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(w.dir, DeploymentFile), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing deployment: %w", err)
	}
	return nil
}

// tellCommands tells how to go on while everything runs.
func (w *world) tellCommands(call string) {
	data, files := "--data "+w.dir, filepath.Join(w.dir, "tokens", nameDesk+"-"+routeDB)
	get := "lineal token " + data + " --as " + nameDesk + " --for " + routeDB
	curl := "curl -sS -i --cacert " + filepath.Join(w.dir, "ca.pem") + ` -H "Authorization: Bearer $(cat ` + filepath.Join(files, "token") + `)"` +
		` -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-11-25'` +
		` -d '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + toolQuery + `","arguments":` +
		`{"table":"customers","columns":["id","name"],"where":{"region":"EU"},"limit":3}}}' `
	for _, c := range []struct{ does, command string }{
		{"the way of the database call", "lineal trace " + data + " " + call},
		{"every decision", "lineal records " + data},
		{"the evidence, offline", "lineal verify --policy " + filepath.Join(w.dir, trustFile) + " " + filepath.Join(w.dir, bundleFile)},
		{"a token of Alice's for the database, with its key, as files", get},
		{"a call with it", curl + "--cert " + filepath.Join(files, "cert.pem") + " --key " + filepath.Join(files, "key.pem") + " " + w.places.mcp(routeDB)},
		{"the same token without its key: refused", curl + w.places.mcp(routeDB)},
		{"the same in a browser, for " + pageAuditor + " (password: the first name)", w.page + "/ui/"},
		{"where everything is", "cat " + filepath.Join(w.dir, DeploymentFile)},
	} {
		w.tell(Event{Type: TypeExplore, Text: "# " + c.does + "\n" + c.command})
	}
}
