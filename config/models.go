package config

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The providers whose API a route can have.
const (
	ProviderOpenAI    = "openai"
	ProviderAnthropic = "anthropic"
)

// LLM is a model provider.
type LLM struct {
	Upstream `yaml:",inline"`
	// Provider is the API: `openai`, the default, at /<name>/v1 with an URL that
	// includes the version, or `anthropic`, at /<name> with one that does not.
	// Clients may leave the version out of their base URL, or have it twice.
	Provider string `yaml:"provider,omitempty"`
	// Headers are sent with each request: organisation, project, workspace. What a
	// caller says of those is dropped.
	Headers map[string]string `yaml:"headers,omitempty"`
	// AllowMembers are members of a request, and types of its items, that would be
	// refused: unknown ones, which may change which model runs, and `prompt`,
	// `container` and `file_id`, which name what all who share the key can use.
	AllowMembers []string `yaml:"allow_members,omitempty"`
	// ClientTools are types of tools that the provider defines and the client runs,
	// "bash_20250124"; default: each type but a function counts as run by the
	// provider, which delegations and policies must name.
	ClientTools []string `yaml:"client_tools,omitempty"`
	// Header and Secret are the provider's credential: "Authorization",
	// "Bearer …". The caller's own never reaches it.
	Header string `yaml:"header,omitempty"`
	Secret Secret `yaml:"secret,omitempty"`
}

// routeHeaders are never taken from `headers`: who calls, and what the gateway
// says itself.
var routeHeaders = []string{"Authorization", "Cookie", "Host", "X-Api-Key", "Content-Type", "Content-Length", "Connection", "Transfer-Encoding"}

// validateModels checks the model providers.
func (c Config) validateModels() (errs []error) {
	for i, u := range c.Upstreams.LLM {
		at := fmt.Sprintf("upstreams.llm[%d]", i)
		if u.Provider != "" && u.Provider != ProviderOpenAI && u.Provider != ProviderAnthropic {
			errs = append(errs, fmt.Errorf("%s.provider: %q is neither %s nor %s", at, u.Provider, ProviderOpenAI, ProviderAnthropic))
		}
		if u.Secret != "" && u.Header == "" {
			errs = append(errs, fmt.Errorf("%s.header: required with a secret", at))
		}
		for name := range u.Headers {
			canonical := http.CanonicalHeaderKey(name)
			if slices.Contains(routeHeaders, canonical) || strings.HasPrefix(canonical, "Lineal-") {
				errs = append(errs, fmt.Errorf("%s.headers: %s is not for configuration: a credential is header and secret", at, name))
			}
		}
	}
	return errs
}
