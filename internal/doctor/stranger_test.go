package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/doctor"
)

// TestStranger: a client that has the URL alone finds its way to the login (E7),
// and each thing in its way is named.
func TestStranger(t *testing.T) {
	w := newWorld(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.CA().BundlePEM())
	good := doctor.ClientConfig{URL: w.Deployment.PublicURL + "/mcp/orders", Roots: roots}
	r := doctor.RunClient(t.Context(), good)
	if n := len(r.Steps); !r.OK || n != 8 || r.Steps[n-1].Result != doctor.Skipped || !strings.HasSuffix(r.Steps[n-2].Seen, "/authorize") {
		t.Errorf("%+v", r)
	}
	bound, err := w.Token(t.Context(), good.URL, []json.RawMessage{needs(good.URL)})
	check(t, err)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, c *doctor.ClientConfig)
		step  string
		code  doctor.Code
	}{
		"no URL":           {func(_ *testing.T, c *doctor.ClientConfig) { c.URL = "orders" }, "configuration", doctor.CodeConfigInvalid},
		"a slash too many": {func(_ *testing.T, c *doctor.ClientConfig) { c.URL += "/" }, "configuration", doctor.CodeConfigInvalid},
		"an unknown host": {func(t *testing.T, c *doctor.ClientConfig) {
			c.URL, c.Resolver = "https://gw.test/mcp/a", nameServer(t, nxdomain)
		}, "dns", doctor.CodeHostUnknown},
		"a closed port":     {func(t *testing.T, c *doctor.ClientConfig) { c.URL = "https://" + closedPort(t) + "/mcp/a" }, "port", doctor.CodePortRefused},
		"another authority": {func(_ *testing.T, c *doctor.ClientConfig) { c.Roots = x509.NewCertPool() }, "tls", doctor.CodeServerTrust},
		"no such route":     {func(_ *testing.T, c *doctor.ClientConfig) { c.URL = w.Deployment.PublicURL + "/mcp/nothing" }, "challenge", doctor.CodeRoute},
		"a challenge that a proxy renames": {func(t *testing.T, c *doctor.ClientConfig) {
			through(t, w, c, func(h http.Header) {
				h["X-Amzn-Remapped-Www-Authenticate"] = h.Values("WWW-Authenticate")
				h.Del("WWW-Authenticate")
			})
		}, "challenge", doctor.CodeRenamed},
		"a challenge that a proxy drops": {func(t *testing.T, c *doctor.ClientConfig) {
			through(t, w, c, func(h http.Header) { h.Del("WWW-Authenticate") })
		}, "challenge", doctor.CodeUnchallenged},
		"another name than the public one": {func(t *testing.T, c *doctor.ClientConfig) { through(t, w, c, func(http.Header) {}) }, "metadata", doctor.CodeResource},
		"a token that another key binds":   {func(_ *testing.T, c *doctor.ClientConfig) { c.Token = config.Secret(bound) }, "call", doctor.CodeProof},
		"no token":                         {func(_ *testing.T, c *doctor.ClientConfig) { c.Token = "guess" }, "call", doctor.CodeToken},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.spoil(t, &cfg)
			named(t, doctor.RunClient(t.Context(), cfg), c.step, c.code)
		})
	}
}

// through puts a proxy before the gateway that changes what it answers.
func through(t *testing.T, w *world, c *doctor.ClientConfig, change func(http.Header)) {
	t.Helper()
	to, err := url.Parse(w.Deployment.PublicURL)
	check(t, err)
	far := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.Roots}}
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{
		Transport: far, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) },
		ModifyResponse: func(r *http.Response) error { change(r.Header); return nil },
	})
	t.Cleanup(func() {
		proxy.Close()
		far.CloseIdleConnections()
	})
	c.Roots = c.Roots.Clone()
	c.Roots.AddCert(proxy.Certificate())
	c.URL = proxy.URL + "/mcp/orders"
}
