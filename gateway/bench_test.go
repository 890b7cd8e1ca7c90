package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/record"
)

// dropped takes records and drops them: the ledger has a benchmark of its own.
type dropped struct{}

func (dropped) Record(context.Context, record.Record, ...record.Disclosure) error { return nil }

func (dropped) RecordLater(context.Context, record.Record, ...record.Disclosure) error { return nil }

// BenchmarkDataPath is a PUT of 1 KB of JSON over mutual TLS, answered with 1 KB:
// to the upstream itself, through a plain httputil.ReverseProxy, and through the
// gateway with a chain of three hops, warm, and policy. Client and upstream are
// counted in all three; the differences to direct are the proxies'.
func BenchmarkDataPath(b *testing.B) {
	body := `{"note":"` + strings.Repeat("x", 1000) + `"}`
	far, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	serve(b, far, shared.sources[upstream], http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		out.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(out, body)
	}))
	to, err := url.Parse("https://" + strings.Replace(far.Addr().String(), "127.0.0.1", "localhost", 1))
	must(b, err)
	at := to.String()
	w := newWorld(b, func(cfg *gateway.Config) {
		withHTTP(b, &at)(cfg)
		cfg.Recorder, cfg.Logger = dropped{}, slog.New(slog.DiscardHandler)
	})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	serve(b, plain, shared.sources[gatewayA], &httputil.ReverseProxy{
		Transport: shared.sources[gatewayA].HTTPClient(upstream).Transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
	})
	toUpstream := shared.sources[research].HTTPClient(upstream)
	tok := w.httpToken("/http/crm", "customers.put")
	for _, c := range []struct {
		name, url string
		client    *http.Client
	}{
		{"direct", to.String(), toUpstream},
		{"reverseproxy", "https://" + plain.Addr().String(), w.client(research)},
		{"gateway", w.url + "/http/crm", w.client(research)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequest(http.MethodPut, c.url+"/customers/C-1", strings.NewReader(body)) //nolint:noctx // the loop is the bound
				must(b, err)
				r.Header.Set("Content-Type", "application/json")
				r.Header.Set("Authorization", "Bearer "+tok)
				resp, err := c.client.Do(r)
				must(b, err)
				n, err := io.Copy(io.Discard, resp.Body)
				must(b, err)
				must(b, resp.Body.Close())
				if resp.StatusCode != http.StatusOK || n != int64(len(body)) {
					b.Fatalf("status %d, %d bytes", resp.StatusCode, n)
				}
			}
		})
	}
}
