package gateway_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
)

// TestNoAllocationPerHeader: headers that are not the call's cost the caller's
// connection something, and the gateway nothing that stays.
func TestNoAllocationPerHeader(t *testing.T) {
	w := newWorld(t, withRules(permitAll), func(cfg *gateway.Config) {
		cfg.Recorder, cfg.Logger = dropped{}, slog.New(slog.DiscardHandler)
		cfg.Routes[0].AllowUnbound = true
		cfg.Routes[0].Transport = roundTripFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","id":7,"result":{}}`)), ContentLength: -1,
			}, nil
		})
	})
	a := mcpCall(w.token(mint{unbound: true}), "find", someone)
	allocs := func(more int) float64 {
		r := httptest.NewRequest(a.method, w.url+a.path, nil)
		r.RequestURI = a.path
		for name, values := range a.header {
			r.Header[name] = values
		}
		r.Header.Set("Authorization", "Bearer "+a.token)
		for n := range more {
			r.Header.Set(fmt.Sprintf("X-Other-%d", n), "something of theirs")
		}
		return testing.AllocsPerRun(100, func() {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(a.body)), int64(len(a.body))
			out := httptest.NewRecorder()
			if w.gw.ServeHTTP(out, r); out.Code != http.StatusOK || out.Header().Get("Lineal-Code") != "" {
				t.Fatalf("answer %d %s", out.Code, out.Body)
			}
		})
	}
	few, many := allocs(0), allocs(100)
	t.Logf("%v allocations, %v with a hundred headers more", few, many)
	if many-few >= 100 { // other goroutines allocate a few
		t.Errorf("a hundred headers more take %v allocations more", many-few)
	}
}
