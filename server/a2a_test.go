package server

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway/a2a"
)

// TestA2ABindingsFromConfig: what the configuration says of an agent's callbacks
// and of gRPC is what the gateway serves, and nothing of it where it says nothing.
func TestA2ABindingsFromConfig(t *testing.T) {
	d := newDeployment(t)
	agent := func(name string) config.A2A {
		uri := "spiffe://" + trustDomain + "/" + name
		d.cfg.Agents = append(d.cfg.Agents, config.Agent{URI: uri, Name: name, Authority: d.cfg.Agents[0].Authority, Service: true})
		return config.A2A{Upstream: config.Upstream{Name: name, URL: "https://127.0.0.1:1", Peer: uri}, Agent: uri}
	}
	full, plain := agent("full"), agent("plain")
	full.Push, full.PushNetworks, full.GRPCURL = config.PushRewrite, []string{"10.0.0.0/8"}, "https://127.0.0.1:2"
	d.cfg.Upstreams.A2A = []config.A2A{plain, full}
	d.init(t)
	s := d.start(t)
	id := openApp(t, d, "/app")
	to := id.HTTPClient(s.gatewayID.Agent())
	for name, c := range map[string]struct{ path, media, code, says string }{
		"no callback of anybody's":  {"/a2a/full/push/ln1.AAAA", "application/json", "handle_unknown", ""},
		"no callbacks here":         {"/a2a/plain/push/ln1.AAAA", "application/json", "token_missing", "/a2a/plain"},
		"gRPC, as that agent":       {"/" + a2a.Service + "/GetTask", "application/grpc", "token_missing", "/a2a/full"},
		"gRPC below the agent's":    {"/a2a/full/" + a2a.Service + "/GetTask", "application/grpc", "token_missing", "/a2a/full"},
		"another service over gRPC": {"/lf.a2a.v2.A2AService/GetTask", "application/grpc", "route_unknown", ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.cfg.PublicURL+c.path, bytes.NewReader([]byte{0, 0, 0, 0, 0}))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", c.media)
		r.Header.Set("Te", "trailers")
		resp, err := to.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if code := resp.Header.Get("Lineal-Code"); code != c.code || !strings.Contains(resp.Header.Get("Www-Authenticate"), c.says) {
			t.Errorf("%s: %d %q, challenge %q", name, resp.StatusCode, code, resp.Header.Get("Www-Authenticate"))
		}
		if over := resp.Header.Get("Grpc-Status"); (over == "16") != (name == "gRPC, as that agent") {
			t.Errorf("%s: gRPC status %q", name, over)
		}
	}
	d.stop(t, s)
}
