package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
)

// failures keeps what a gateway tells of its upstreams.
type failures struct {
	mu   sync.Mutex // guards told
	told []string
}

func (f *failures) tell(route string, code gateway.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, route+" "+string(code))
}

func (f *failures) take() (told []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	told, f.told = f.told, nil
	return told
}

// TestUpstreamFailuresAreTold: once for each call that the upstream failed, under a
// code of the closed list; what a caller or a rule is at fault for is none.
func TestUpstreamFailuresAreTold(t *testing.T) {
	var told failures
	var at string
	w := newWorld(t, func(cfg *gateway.Config) { at = "https://" + cfg.Routes[0].Upstream.Host }, func(cfg *gateway.Config) {
		withHTTP(t, &at)(cfg)
		cfg.UpstreamFailed = told.tell
	})
	tok := w.httpToken("/http/crm", allOperations...)
	get := httpAsk("GET", "/http/crm/customers/C-1", tok, "")
	status := func(code int, header ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			rw.WriteHeader(code)
			_, _ = io.WriteString(rw, `{}`)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		ask    ask
		want   string
	}{
		"an answer":               {status(200), get, ""},
		"nothing like that":       {status(404), get, ""},
		"too many":                {status(429), get, ""},
		"its own failure":         {status(500), get, "crm answered_5xx"},
		"its proxy's":             {status(503), get, "crm answered_5xx"},
		"our credential refused":  {status(401), get, "crm upstream_credential"},
		"the call refused":        {status(403), get, "crm upstream_refused"},
		"a redirect":              {status(302, "Location", "/"), get, "crm upstream_invalid"},
		"an encoding":             {status(200, "Content-Encoding", "br"), get, "crm upstream_invalid"},
		"a cut answer":            {status(200, "Content-Length", "9"), get, "crm upstream_invalid"},
		"refused by scope":        {status(500), httpAsk("GET", "/http/open/customers/C-1", tok, ""), ""},
		"an operation of nobody":  {status(500), httpAsk("GET", "/http/crm/orders", tok, ""), ""},
		"without a token at all":  {status(500), httpAsk("GET", "/http/crm/customers/C-1", "", ""), ""},
		"a body that is not read": {status(500), httpAsk("PUT", "/http/crm/customers/C-1", tok, "{"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.up.answers(c.answer)
			if resp, err := w.client(research).Do(w.request(t.Context(), c.ask)); err == nil { // a cut answer is cut for the caller too
				_, _ = io.Copy(io.Discard, resp.Body)
				must(t, resp.Body.Close())
			}
			if c.ask.path == get.path && c.ask.method == "GET" && c.ask.token != "" {
				w.outcomeNow() // which is recorded after it is told
			}
			got := told.take()
			if fmt.Sprint(got) != fmt.Sprintf("[%s]", c.want) {
				t.Errorf("told %v, want %q", got, c.want)
			}
		})
	}
	for _, c := range gateway.UpstreamCodes() {
		row := slices.IndexFunc(gateway.Answers(), func(a gateway.Answer) bool { return a.Code == c })
		if c != gateway.UpstreamAnswered5xx && (row < 0 || !gateway.Answers()[row].Upstream) {
			t.Errorf("%s is no failure of an upstream", c)
		}
	}
	if n := len(gateway.UpstreamCodes()); n < 6 || n > 12 {
		t.Errorf("%d codes", n)
	}
}
