package config

import (
	"strings"
	"testing"
)

// TestO2AdminListener: the operators' listener is apart from those for calls, and
// no agent is an operator. Each refusal stands beside what passes.
func TestO2AdminListener(t *testing.T) {
	const operators = `operators: [{uri: "spiffe://acme.test/ops/dana", role: operator}]`
	full := minimal + `admin: {address: "127.0.0.1:8401", probes: "127.0.0.1:8402", ` + operators + "}\n"
	cfg, err := Parse([]byte(full))
	if err != nil || cfg.Admin.Operators[0].Role != "operator" {
		t.Fatalf("%+v, %v", cfg.Admin, err)
	}
	issuer := cfg.Tokens.PersonIssuers[0]
	page := minimal + `admin: {address: "127.0.0.1:8401", probes: "127.0.0.1:8402", page: {url: "https://lineal.test:8401", issuer: ` + issuer +
		", client_id: page, roles: [{subject: u-1, role: auditor}]}}\n"
	agent, calls := cfg.Agents[0].URI, cfg.Gateway.Address
	for name, c := range map[string]struct{ text, says string }{
		"all":                           {full, ""},
		"none":                          {minimal, ""},
		"probes alone":                  {minimal + `admin: {probes: "127.0.0.1:8402"}` + "\n", ""},
		"nothing":                       {minimal + "admin: {}\n", "address or probes"},
		"operators of nothing":          {minimal + `admin: {probes: "127.0.0.1:8402", ` + operators + "}\n", "no admin.address"},
		"on the data port":              {strings.Replace(full, "127.0.0.1:8401", calls, 1), "for calls"},
		"probes on it":                  {strings.Replace(full, "127.0.0.1:8402", calls, 1), "for calls"},
		"no port":                       {strings.Replace(full, "127.0.0.1:8401", "127.0.0.1", 1), "host:port"},
		"an agent":                      {strings.Replace(full, "spiffe://acme.test/ops/dana", agent, 1), "is an agent"},
		"no role":                       {strings.Replace(full, ", role: operator", "", 1), "role are required"},
		"twice":                         {strings.Replace(full, operators, `operators: [{uri: a, role: operator}, {uri: a, role: auditor}]`, 1), "twice"},
		"a page":                        {page, ""},
		"a page of http":                {strings.Replace(page, "https://lineal", "http://lineal", 1), "admin.page.url"},
		"a page with a path":            {strings.Replace(page, "test:8401", "test:8401/ui", 1), "admin.page.url"},
		"a page of another provider":    {strings.Replace(page, "issuer: "+issuer, "issuer: https://other.test", 1), "person_issuers"},
		"a page without client":         {strings.Replace(page, "client_id: page, ", "", 1), "client_id"},
		"a page for a role that is not": {strings.Replace(page, "role: auditor", "role: root", 1), "auditor or operator"},
		"a page for nobody":             {strings.Replace(page, "subject: u-1", "subject: ''", 1), "want a subject"},
		"a page for one twice":          {strings.Replace(page, "roles: [", "roles: [{subject: u-1, role: operator}, ", 1), "twice"},
		"a page nowhere":                {strings.Replace(page, `address: "127.0.0.1:8401", `, "", 1), "no admin.address"},
		"unknown setting":               {strings.Replace(full, "role:", "roles:", 1), "roles"},
	} {
		_, err := Parse([]byte(c.text))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
	}
}
