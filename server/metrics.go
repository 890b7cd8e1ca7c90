package server

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// metrics are the numbers of one process, in a registry of its own. No label
// names a person, an agent or a tool, and each comes from a closed list: what is
// not on it is "other" (threat N6).
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	ledger   *ledgerNumbers
	feeds    *feedNumbers
	calls    *callNumbers

	mu    sync.Mutex // guards codes
	codes map[string]bool
}

// maxCodes bounds the reasons that are counted apart. There are fewer; a mistake
// that makes them of something else must not fill the memory.
const maxCodes = 128

const other = "other"

func newMetrics(s *Server) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), ledger: newLedgerNumbers(), feeds: newFeedNumbers(), calls: newCallNumbers(), codes: make(map[string]bool)}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lineal_requests_total", Help: "Calls that were decided, by what was decided and why.",
	}, []string{"protocol", "method", "decision", "code"})
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(), m.requests, &gauges{s},
		m.ledger.took, m.ledger.records, m.ledger.refusals, &ledgerGauges{s},
	)
	m.registry.MustRegister(append(m.feeds.all(), m.calls.all()...)...)
	return m
}

// buildInfo says what runs.
func buildInfo() prometheus.Collector {
	version := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lineal_build_info", Help: "1, with what runs as labels.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// decided counts a decision; err says that it could not be recorded.
func (m *metrics) decided(d *record.Decision, err error) {
	if m == nil {
		return
	}
	effect, code := string(d.Verdict.Effect), d.Verdict.Reason
	if err != nil {
		effect, code = "unavailable", "ledger_unavailable"
	}
	protocol, method := other, other
	if c := d.Callee; c != nil {
		switch c.Kind {
		case record.CalleeMCPTool:
			protocol = "mcp"
		case record.CalleeA2AAgent:
			protocol = "a2a"
		case record.CalleeModel:
			protocol = "llm"
		case record.CalleeHTTPRoute:
			protocol = "http"
		}
		if slices.Contains(scope.Actions(), c.Op) {
			method = c.Op
		}
	}
	m.requests.WithLabelValues(protocol, method, effect, m.code(code)).Inc()
}

func (m *metrics) code(c string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.codes[c] {
		if len(m.codes) >= maxCodes {
			return other
		}
		m.codes[c] = true
	}
	return c
}

// gauges are what is read when somebody asks, once the server has started.
type gauges struct{ s *Server }

var (
	feedAge = prometheus.NewDesc("lineal_revocation_feed_age_seconds",
		"How old the gateway's knowledge of revocations is; absent where it has none to rely upon.", nil, nil)
	certificateEnd = prometheus.NewDesc("lineal_certificate_expiry_timestamp_seconds",
		"When the certificate of a service ends, in Unix seconds.", []string{"service"}, nil)
	policySerial = prometheus.NewDesc("lineal_policy_serial", "The serial of the policy in force.", nil, nil)
	tokenCache   = prometheus.NewDesc("lineal_token_cache_total",
		"Tokens shown to the gateway: hit, verified before; miss, verified now or refused.", []string{"result"}, nil)
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) {
	to <- feedAge
	to <- certificateEnd
	to <- policySerial
	to <- tokenCache
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	if !g.s.started.Load() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if g.s.feed != nil && g.s.stopFeed != nil {
		if age, err := g.s.feed.Age(); err == nil {
			gauge(feedAge, age.Seconds())
		}
	}
	if g.s.verifier != nil {
		n := g.s.verifier.CacheStats()
		to <- prometheus.MustNewConstMetric(tokenCache, prometheus.CounterValue, float64(n.Hits), "hit")
		to <- prometheus.MustNewConstMetric(tokenCache, prometheus.CounterValue, float64(n.Misses), "miss")
	}
	for name, id := range g.s.identities() {
		gauge(certificateEnd, float64(id.NotAfter.Unix()), name)
	}
	gauge(policySerial, float64(g.s.rules.now().Serial))
}
