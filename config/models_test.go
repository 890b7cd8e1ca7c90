package config

import (
	"strings"
	"testing"
)

// TestModelProviders: a provider that nobody knows, a secret without its header,
// and a header that would say who calls are refused by name; their twin passes.
func TestModelProviders(t *testing.T) {
	good := LLM{Provider: ProviderAnthropic, Header: "X-Api-Key", Secret: "s", Headers: map[string]string{"Anthropic-Workspace-Id": "w"}}
	for _, c := range []struct {
		want   string // "" passes
		change func(*LLM)
	}{
		{"", func(*LLM) {}},
		{"", func(u *LLM) { *u = LLM{} }},
		{"upstreams.llm[0].provider", func(u *LLM) { u.Provider = "Anthropic" }},
		{"upstreams.llm[0].header", func(u *LLM) { u.Header = "" }},
		{"authorization", func(u *LLM) { u.Headers = map[string]string{"authorization": "Bearer x"} }},
		{"lineal-delegation", func(u *LLM) { u.Headers = map[string]string{"lineal-delegation": "x"} }},
	} {
		u := good
		c.change(&u)
		errs := Config{Upstreams: Upstreams{LLM: []LLM{u}}}.validateModels()
		switch {
		case c.want == "" && len(errs) > 0:
			t.Errorf("%+v: %v", u, errs)
		case c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)):
			t.Errorf("%+v: %v, want one that names %s", u, errs, c.want)
		}
	}
}
