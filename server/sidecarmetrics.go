package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lineal-auth/lineal/sidecar"
)

// sidecarNumbers are the numbers of one sidecar: what its pool of tokens did, and
// what came of the calls of each configured route. No label names a person, an
// agent or a tool (threat N6).
type sidecarNumbers struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
}

func newSidecarNumbers(s *Sidecar) *sidecarNumbers {
	n := &sidecarNumbers{registry: prometheus.NewRegistry()}
	n.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lineal_sidecar_requests_total", Help: "Requests by route and by what came of them: passed, refused by the gateway, not passed on.",
	}, []string{"route", "outcome"})
	for _, r := range s.cfg.Routes { // so that a rate has its zero
		for _, o := range []sidecar.Outcome{sidecar.Passed, sidecar.Refused, sidecar.NotPassed} {
			n.requests.WithLabelValues(r.Path, string(o))
		}
	}
	n.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(), n.requests, &poolNumbers{s},
	)
	return n
}

func (n *sidecarNumbers) counted(route string, o sidecar.Outcome) {
	if route == "" {
		route = other
	}
	n.requests.WithLabelValues(route, string(o)).Inc()
}

func (n *sidecarNumbers) handler() http.Handler {
	return promhttp.HandlerFor(n.registry, promhttp.HandlerOpts{Registry: n.registry})
}

// poolNumbers are read from the pool when somebody asks.
type poolNumbers struct{ s *Sidecar }

var (
	poolLookups = prometheus.NewDesc("lineal_token_cache_total",
		"Tokens that calls needed: hit, found in the pool; miss, waited for.", []string{"result"}, nil)
	poolExchanges = prometheus.NewDesc("lineal_token_exchange_total",
		"Tries to get a token, by what came of them.", []string{"result"}, nil)
	poolRefreshes = prometheus.NewDesc("lineal_token_refreshes_total",
		"Tries to get a token that no call waited for, before the last one ended.", nil, nil)
	poolDropped = prometheus.NewDesc("lineal_tokens_dropped_total",
		"Tokens that went before their time: refused, of another certificate, or for want of room.", nil, nil)
	poolTokens = prometheus.NewDesc("lineal_tokens", "Tokens in the pool.", nil, nil)
)

// Describe implements prometheus.Collector.
func (p *poolNumbers) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolLookups, poolExchanges, poolRefreshes, poolDropped, poolTokens, certificateEnd} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (p *poolNumbers) Collect(to chan<- prometheus.Metric) {
	n := p.s.tokens.Stats()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(poolLookups, n.Hits, "hit")
	count(poolLookups, n.Misses, "miss")
	count(poolExchanges, n.Exchanges-n.Failures, "ok")
	count(poolExchanges, n.Failures, "failed")
	count(poolRefreshes, n.Refreshes)
	count(poolDropped, n.Dropped)
	to <- prometheus.MustNewConstMetric(poolTokens, prometheus.GaugeValue, float64(n.Tokens))
	to <- prometheus.MustNewConstMetric(certificateEnd, prometheus.GaugeValue, float64(p.s.source.Current().NotAfter.Unix()), "agent")
}
