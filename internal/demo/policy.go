package demo

import (
	"crypto"
	_ "embed" // the policies
	"encoding/json"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/policy/cedar"
)

//go:embed policy.cedar
var policyText string

// buildPolicy makes the signed bundle of the operator's rules, typed by the
// tools as they were approved.
func buildPolicy(upstreams config.Upstreams, model string, key crypto.Signer) ([]byte, error) {
	var tools []cedar.Tool
	for _, u := range upstreams.MCP {
		for _, t := range u.Tools {
			effect := cedar.Write
			if t.Reads {
				effect = cedar.Read
			}
			tools = append(tools, cedar.Tool{Service: u.Name, Name: t.Name, InputSchema: []byte(t.InputSchema), Effect: effect})
		}
	}
	schema, err := cedar.GenerateSchema(tools)
	if err != nil {
		return nil, fmt.Errorf("building policy: %w", err)
	}
	entities, err := json.Marshal(policyEntities(upstreams))
	if err != nil {
		return nil, fmt.Errorf("building policy: %w", err)
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: "demo", Serial: 1, Schema: schema, Entities: entities, Key: key,
		Policies: map[string]string{"demo.cedar": strings.ReplaceAll(policyText, "MODEL", model)},
	})
	if err != nil {
		return nil, fmt.Errorf("building policy: %w", err)
	}
	return bundle, nil
}

type entityUID struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

type entity struct {
	UID     entityUID         `json:"uid"`
	Parents []entityUID       `json:"parents"`
	Attrs   map[string]string `json:"attrs"`
}

// policyEntities are the services, and the workloads that are agents.
func policyEntities(u config.Upstreams) []entity {
	agents := entityUID{"Group", "agents"}
	out := []entity{{UID: agents, Parents: []entityUID{}, Attrs: map[string]string{}}}
	service := func(name string) {
		out = append(out, entity{UID: entityUID{"Service", name}, Parents: []entityUID{}, Attrs: map[string]string{"environment": "demo"}})
	}
	for _, m := range u.MCP {
		service(m.Name)
	}
	for _, a := range u.A2A {
		service(a.Name)
	}
	for _, l := range u.LLM {
		service(l.Name)
	}
	for _, name := range []string{nameApp, nameOrchestrator, nameResearch, nameDatabase, nameDesk} {
		out = append(out, entity{
			UID: entityUID{"Agent", agentURI(name).String()}, Parents: []entityUID{agents}, Attrs: map[string]string{"trust_domain": trustDomain},
		})
	}
	return out
}
