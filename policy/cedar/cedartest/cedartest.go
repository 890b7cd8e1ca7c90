// Package cedartest makes policy bundles for tests.
package cedartest

import (
	"crypto"
	"encoding/json"

	"github.com/lineal-auth/lineal/policy/cedar"
)

// Bundle is a bundle with one file of rules, "base.cedar", signed by key, over the
// schema without tools. Each of services is an entity of the environment "test".
func Bundle(key crypto.Signer, serial int64, rules string, services ...string) ([]byte, error) {
	schema, err := cedar.GenerateSchema(nil)
	if err != nil {
		return nil, err
	}
	type id struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}
	type entity struct {
		UID     id                `json:"uid"`
		Attrs   map[string]string `json:"attrs"`
		Parents []id              `json:"parents"`
	}
	all := make([]entity, len(services))
	for i, name := range services {
		all[i] = entity{UID: id{"Service", name}, Attrs: map[string]string{"environment": "test"}, Parents: []id{}}
	}
	entities, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return cedar.Build(cedar.BundleInput{
		Name: "test", Serial: serial, Schema: schema, Key: key, Entities: entities, Policies: map[string]string{"base.cedar": rules},
	})
}
