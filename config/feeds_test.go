package config

import (
	"strings"
	"testing"
)

func TestFeeds(t *testing.T) {
	minus := int64(-1)
	wrong := 24
	for want, f := range map[string]Feed{
		"":                       {Name: "a", File: "/var/log/lineal.jsonl"},
		"one of file, syslog":    {Name: "a"},
		"there is one":           {Name: "a", File: "/x", Syslog: &Syslog{Address: "a:1"}},
		"absolute":               {Name: "a", File: "x"},
		"neither jsonl nor ocsf": {Name: "a", File: "/x", Format: "cef"},
		"kinds":                  {Name: "a", File: "/x", Kinds: []string{"decisions"}},
		"lower-case":             {Name: "A", File: "/x"},
		"host:port":              {Name: "a", Syslog: &Syslog{Address: "siem"}},
		"loopback":               {Name: "a", Syslog: &Syslog{Address: "10.0.0.1:514", Plain: true}},
		"by name":                {Name: "a", Syslog: &Syslog{Address: "localhost:514", Plain: true}},
		"no certificates":        {Name: "a", Syslog: &Syslog{Address: "127.0.0.1:514", Plain: true, CA: "/x"}},
		"one without":            {Name: "a", Syslog: &Syslog{Address: "siem:6514", Cert: "/x"}},
		"0 to 23":                {Name: "a", Syslog: &Syslog{Address: "siem:6514", Facility: &wrong}},
		"takes 480":              {Name: "a", Syslog: &Syslog{Address: "siem:6514", MaxBytes: 100}},
		"negative":               {Name: "a", Syslog: &Syslog{Address: "siem:6514", Resend: &minus}},
		"url: required":          {Name: "a", Webhook: &Webhook{SecretFiles: []string{"/x"}}},
		"secret_files":           {Name: "a", Webhook: &Webhook{URL: "https://a/b"}},
		"no prefix":              {Name: "a", Webhook: &Webhook{URL: "https://a/b", SecretFiles: []string{"/x"}, Networks: []string{"10.0.0.1"}}},
	} {
		errs := Config{Feeds: []Feed{f}}.validateFeeds()
		if want == "by name" { // a name is where the resolver says
			want = "loopback"
		}
		if (len(errs) == 0) != (want == "") || want != "" && !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v", want, errs)
		}
	}
	if errs := (Config{Feeds: []Feed{{Name: "a", File: "/x"}, {Name: "a", File: "/y"}}}).validateFeeds(); len(errs) != 1 {
		t.Errorf("two feeds of one name: %v", errs)
	}
}
