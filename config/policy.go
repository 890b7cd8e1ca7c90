package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// Policy is the operator's rules, and what evaluates them.
type Policy struct {
	// Engine is "cedar" (default), within this process, or a decision point that
	// is asked for every call: "opa" or "authzen". Whatever keeps one from
	// answering denies the call.
	Engine string `yaml:"engine,omitempty"`
	// Bundle is the path of the signed bundle, for cedar. A changed file is put in
	// force while the process runs, and one that is not sound is not; its serial
	// must be higher.
	Bundle string `yaml:"bundle,omitempty"`
	// Shadow is a bundle on trial, for cedar: its answers are recorded where they
	// differ, and change nothing; default: none.
	Shadow *Shadow `yaml:"shadow,omitempty"`
	// URL is that of OPA, or the decision point's (with a path, of its evaluation
	// endpoint): https, or http on a loopback address.
	URL string `yaml:"url,omitempty"`
	// Rule is the rule below `data` that OPA is asked for; default
	// "lineal/decision".
	Rule string `yaml:"rule,omitempty"`
	// Zone is of the time of day that the decision point is told; default UTC. A
	// bundle names its own.
	Zone string `yaml:"zone,omitempty"`
	// Deadline bounds each question; default 1 s, at most 2 s.
	Deadline time.Duration `yaml:"deadline,omitempty"`
	// TokenFile holds the token that the decision point asks for, and is read for
	// each question; default: none.
	TokenFile string `yaml:"token_file,omitempty"`
}

// Shadow is a policy on trial.
type Shadow struct {
	// Bundle is the path of its signed bundle.
	Bundle string `yaml:"bundle"`
}

// The engines.
const (
	EngineCedar   = "cedar"
	EngineOPA     = "opa"
	EngineAuthZEN = "authzen"
)

// EngineName is the engine, also where it is left out.
func (p Policy) EngineName() string {
	if p.Engine == "" {
		return EngineCedar
	}
	return p.Engine
}

const maxDeadline = 2 * time.Second

func (p Policy) validate() (errs []error) {
	fail := func(at, format string, args ...any) {
		errs = append(errs, fmt.Errorf("policy."+at+": "+format, args...))
	}
	remote := p.URL != "" || p.Rule != "" || p.Zone != "" || p.Deadline != 0 || p.TokenFile != ""
	switch p.EngineName() {
	case EngineCedar:
		if p.Bundle == "" {
			fail("bundle", "required")
		}
		if p.Shadow != nil && p.Shadow.Bundle == "" {
			fail("shadow.bundle", "required")
		}
		if remote {
			fail("engine", "url, rule, zone, deadline and token_file are for opa and authzen")
		}
		return errs
	case EngineOPA, EngineAuthZEN:
	default:
		fail("engine", "%q is none of cedar, opa, authzen", p.Engine)
		return errs
	}
	if p.Bundle != "" || p.Shadow != nil {
		fail("engine", "bundle and shadow are for cedar")
	}
	if p.Rule != "" && p.Engine != EngineOPA {
		fail("rule", "is for opa")
	}
	if err := decisionPoint(p.URL); err != nil {
		fail("url", "%w", err)
	}
	if _, err := time.LoadLocation(p.Zone); err != nil || p.Zone == "Local" {
		fail("zone", "%q is not known", p.Zone)
	}
	if p.Deadline < 0 || p.Deadline > maxDeadline {
		fail("deadline", "must be at most %s", maxDeadline)
	}
	return errs
}

// decisionPoint checks where questions go: arguments are in them.
func decisionPoint(s string) error {
	u, err := url.Parse(s)
	switch {
	case s == "" || err != nil || u.Host == "":
		return errors.New("required: the URL of the decision point")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("must have no user, query or fragment")
	case u.Scheme == "https":
		return nil
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("must be https, or http on a loopback address")
}
