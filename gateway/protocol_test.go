package gateway_test

import (
	"errors"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
)

// TestF7FetchHost: a URL that two readers could take to different hosts is
// refused, and what is left has one spelling.
func TestF7FetchHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://files.example/a":         "files.example",
		"HTTPS://FILES.Example:8443/a?b#": "files.example",
		"http://x-1.files.example":        "x-1.files.example",
		"https://10.0.0.1/":               "10.0.0.1",
		"https://[2001:DB8::1]:443/":      "2001:db8::1",
		"https://files.example/@evil":     "files.example",
		"https://files.example?@evil":     "files.example",
	} {
		if got, err := gateway.FetchHost(raw); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", raw, got, err, want)
		}
	}
	for _, raw := range []string{
		"", "files.example", "//files.example", "/a", "https:", "https:files.example", "https:///files.example", "https://:443/", "https://?files.example",
		"ftp://files.example", "file:///etc/passwd", "gopher://files.example", "javascript://files.example/%0a", "unix://files.example",
		"https://u@files.example", "https://u:p@files.example", "https://files.example@evil.example", "https://@files.example", `https://evil.example\@files.example`,
		"https://files.example.", "https://files.example.:443", `https://files.example\.evil.example`, `https:\\files.example`,
		"https://files.example%2eevil.example", "https://%66iles.example", "https://files.example%00.evil.example", "https://files.example;evil.example",
		"https://ﬁles.example", "https://files。example", "https://FILES.EXAMPLE\u212A", "https://файлы.example", "https://files.example\u200b",
		" https://files.example", "https://files.example ", "https://files.example\n", "https://fi\tles.example", "https://[::1", "https://[fe80::1%25eth0]/", "https://a,b", "https://*.example", "https://files.example:x",
	} {
		host, err := gateway.FetchHost(raw)
		var refused *gateway.Refusal
		if !errors.As(err, &refused) || refused.Code != gateway.CodeRequestUnreadable {
			t.Errorf("%q has host %q (%v)", raw, host, err)
		}
	}
}
