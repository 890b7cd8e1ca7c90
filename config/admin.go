package config

import (
	"errors"
	"fmt"
	"net"
)

// Admin is the listeners for operators and probes, apart from those for calls.
type Admin struct {
	// Address of the admin API and of the API that answers from the records,
	// "127.0.0.1:8401": mTLS with the token service's
	// identity, for processes with the role tokens. Default: none.
	Address string `yaml:"address,omitempty"`
	// Probes is the address of a listener without TLS for /healthz, /startupz,
	// /readyz and /metrics, "127.0.0.1:8402". They name no person and no agent.
	// Default: none.
	Probes string `yaml:"probes,omitempty"`
	// Operators are the workloads that may use the admin API. None of them may be
	// an agent, too.
	Operators []Operator `yaml:"operators,omitempty"`
}

// Operator is who may use the admin API.
type Operator struct {
	// URI is the SPIFFE ID that it proves.
	URI string `yaml:"uri"`
	// Role is "operator", who changes the registry and revokes, or "auditor", who
	// reads.
	Role string `yaml:"role"`
}

func (c Config) validateAdmin() (errs []error) {
	a := c.Admin
	if a == nil {
		return nil
	}
	for _, u := range []struct{ path, value string }{{"admin.address", a.Address}, {"admin.probes", a.Probes}} {
		if u.value == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(u.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: want host:port", u.path))
		}
		if u.value == c.Gateway.Address || u.value == c.Tokens.Address {
			errs = append(errs, fmt.Errorf("%s: must not be an address for calls", u.path))
		}
	}
	switch {
	case a.Address == "" && a.Probes == "":
		errs = append(errs, errors.New("admin: address or probes is required"))
	case a.Address == "" && len(a.Operators) > 0:
		errs = append(errs, errors.New("admin.operators: have no admin.address"))
	case a.Address != "" && !c.Runs(RoleTokens):
		errs = append(errs, errors.New("admin.address: is for processes with the role tokens; any process may have admin.probes"))
	}
	agents := make(map[string]bool, len(c.Agents))
	for _, x := range c.Agents {
		agents[x.URI] = true
	}
	seen := make(map[string]bool, len(a.Operators))
	for i, o := range a.Operators {
		switch {
		case o.URI == "" || o.Role == "":
			errs = append(errs, fmt.Errorf("admin.operators[%d]: uri and role are required", i))
		case agents[o.URI]:
			errs = append(errs, fmt.Errorf("admin.operators[%d]: %s is an agent: it could widen its own authority", i, o.URI))
		case seen[o.URI]:
			errs = append(errs, fmt.Errorf("admin.operators[%d]: %s is listed twice", i, o.URI))
		}
		seen[o.URI] = true
	}
	return errs
}
