package server

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
)

// callNumbers are how long calls and decisions take, and how they end.
type callNumbers struct {
	requests  *prometheus.HistogramVec
	decisions prometheus.Histogram
	streams   *prometheus.GaugeVec
	outcomes  *prometheus.CounterVec
	upstreams *prometheus.CounterVec
	exchanges *prometheus.CounterVec
	reloaded  prometheus.Gauge
	sound     prometheus.Gauge
}

// protocols are the values of the label of that name.
var protocols = []string{"mcp", "a2a", "llm", "http", other}

func newCallNumbers() *callNumbers {
	n := &callNumbers{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lineal_request_duration_seconds", Help: "How long requests at the gateway took, the upstream and the whole of a stream included.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300},
		}, []string{"protocol"}),
		decisions: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lineal_decision_duration_seconds", Help: "How long the operator's policy took to decide a call.",
			Buckets: []float64{.00001, .00002, .00005, .0001, .0002, .0005, .001, .002, .005, .01, .1, 1, 2},
		}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lineal_streams_open", Help: "Answers of the gateway that are event streams or of gRPC, and have not ended.",
		}, []string{"protocol"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lineal_outcomes_total", Help: "Permitted calls that ended, by how.",
		}, []string{"status"}),
		upstreams: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lineal_upstream_errors_total", Help: "Permitted calls that the upstream of a route failed, or the gateway's own credential for it, by how.",
		}, []string{"route", "code"}),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lineal_token_exchange_total", Help: "Tokens asked for, by what became of it: issued, or why not.",
		}, []string{"result"}),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lineal_config_last_reload_success_timestamp_seconds",
			Help: "When a policy bundle was last taken in, at the start or since, in Unix seconds.",
		}),
		sound: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lineal_config_last_reload_successful", Help: "0 while a changed policy bundle is not sound: the one before it is in force.",
		}),
	}
	for _, p := range protocols { // there from the start, so that a rate can be taken
		n.requests.WithLabelValues(p)
		n.streams.WithLabelValues(p)
	}
	for _, s := range []record.Status{
		record.StatusCompleted, record.StatusCalleeError, record.StatusTimeout, record.StatusAborted, record.StatusNotForwarded,
		record.StatusWithheld, record.StatusUnknown,
	} {
		n.outcomes.WithLabelValues(string(s))
	}
	n.exchanges.WithLabelValues(string(record.Issued))
	return n
}

func (n *callNumbers) all() []prometheus.Collector {
	return []prometheus.Collector{n.requests, n.decisions, n.streams, n.outcomes, n.upstreams, n.exchanges, n.reloaded, n.sound}
}

// taken says that a policy bundle was taken in.
func (m *metrics) taken(at time.Time) {
	m.calls.reloaded.Set(float64(at.Unix()))
	m.calls.sound.Set(1)
}

// ended counts an outcome that was recorded.
func (m *metrics) ended(o *record.Outcome) {
	if m != nil {
		m.calls.outcomes.WithLabelValues(string(o.Status)).Inc()
	}
}

// upstreamFailed gives what counts the failures of these routes' upstreams. Both
// labels are from closed lists, and there from the start.
func (m *metrics) upstreamFailed(routes []gateway.Route) func(route string, code gateway.Code) {
	for _, r := range routes {
		for _, c := range gateway.UpstreamCodes() {
			m.calls.upstreams.WithLabelValues(r.Name, string(c))
		}
	}
	return func(route string, code gateway.Code) { m.calls.upstreams.WithLabelValues(route, string(code)).Inc() }
}

// exchanged counts an issuance that stands: refusal is "" for a token.
func (m *metrics) exchanged(refusal string) {
	if m == nil {
		return
	}
	if refusal == "" {
		refusal = string(record.Issued)
	}
	m.calls.exchanges.WithLabelValues(m.code(refusal)).Inc()
}

// timed serves h and measures it.
func (m *metrics) timed(cfg config.Config, now func() time.Time, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, protocol := now(), protocolOf(cfg, r.URL.Path)
		s := &streaming{ResponseWriter: w, open: m.calls.streams.WithLabelValues(protocol)}
		defer func() { // also where the handler ends by a panic: that is how a proxy cuts a stream
			s.end()
			m.calls.requests.WithLabelValues(protocol).Observe(now().Sub(begun).Seconds())
		}()
		h.ServeHTTP(s, r)
	})
}

// protocolOf is the protocol of the route that a path is below.
func protocolOf(cfg config.Config, path string) string {
	for prefix, name := range map[string]string{mcpPrefix(""): "mcp", a2aPrefix(""): "a2a", httpPrefix(""): "http"} {
		if strings.HasPrefix(path, prefix) {
			return name
		}
	}
	below := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	for _, u := range cfg.Upstreams.LLM {
		if below("/" + u.Name) {
			return "llm"
		}
	}
	for _, u := range cfg.Upstreams.GRPC {
		if below(grpcPrefix(u.Service)) {
			return "http"
		}
	}
	return other
}

// streaming counts an answer while it streams.
type streaming struct {
	http.ResponseWriter
	open  prometheus.Gauge
	begun bool // the header was written
	is    bool
}

// Unwrap is for http.ResponseController.
func (s *streaming) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (s *streaming) WriteHeader(status int) {
	if status >= http.StatusOK {
		s.begin()
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *streaming) Write(p []byte) (int, error) {
	s.begin()
	return s.ResponseWriter.Write(p)
}

func (s *streaming) begin() {
	if s.begun {
		return
	}
	s.begun = true
	kind, _, err := mime.ParseMediaType(s.Header().Get("Content-Type"))
	if s.is = err == nil && (kind == "text/event-stream" || strings.HasPrefix(kind, "application/grpc")); s.is {
		s.open.Inc()
	}
}

func (s *streaming) end() {
	if s.is {
		s.open.Dec()
	}
}

// decider measures d, and is a Lister if d is one.
func (m *metrics) decider(d policy.Decider, now func() time.Time) policy.Decider {
	timed := timedDecider{d, m.calls.decisions, now}
	if l, is := d.(policy.Lister); is {
		return struct {
			timedDecider
			policy.Lister
		}{timed, l}
	}
	return timed
}

type timedDecider struct {
	to   policy.Decider
	took prometheus.Observer
	now  func() time.Time
}

// Decide implements policy.Decider.
func (t timedDecider) Decide(ctx context.Context, in policy.Input) policy.Decision {
	begun := t.now()
	d := t.to.Decide(ctx, in)
	t.took.Observe(t.now().Sub(begun).Seconds())
	return d
}
