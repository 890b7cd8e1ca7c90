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

// policyText are the demo's rules, for the model that may be called.
func (w *world) policyText() string { return strings.ReplaceAll(policyText, "MODEL", w.places.model) }

// buildPolicy makes the signed bundle of the operator's rules, typed by the
// tools as they were approved.
func buildPolicy(cfg config.Config, rules map[string]string, serial int64, key crypto.Signer) ([]byte, error) {
	var tools []cedar.Tool
	for _, u := range cfg.Upstreams.MCP {
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
	entities, err := json.Marshal(policyEntities(cfg))
	if err != nil {
		return nil, fmt.Errorf("building policy: %w", err)
	}
	bundle, err := cedar.Build(cedar.BundleInput{
		Name: "demo", Serial: serial, Schema: schema, Entities: entities, Key: key, Policies: rules,
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
func policyEntities(cfg config.Config) []entity {
	u := cfg.Upstreams
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
	for _, a := range cfg.Agents {
		out = append(out, entity{
			UID: entityUID{"Agent", a.URI}, Parents: []entityUID{agents}, Attrs: map[string]string{"trust_domain": trustDomain},
		})
	}
	return out
}
