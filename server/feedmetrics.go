package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lineal-auth/lineal/feed"
)

// feedNumbers are what the feeds of this process do. Their label is the feed's
// name in the configuration.
type feedNumbers struct {
	delivered, failures   *prometheus.CounterVec
	next, published, last *prometheus.GaugeVec
	stopped               *prometheus.GaugeVec
}

func newFeedNumbers() *feedNumbers {
	label := []string{"feed"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, label)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, label)
	}
	return &feedNumbers{
		delivered: counter("lineal_feed_delivered_records_total", "Records that the receiver of a feed acknowledged, again ones too."),
		failures:  counter("lineal_feed_failures_total", "Batches that a receiver did not acknowledge, and looks at the log that failed."),
		next:      gauge("lineal_feed_next_index", "The index that a feed sends next, in the period that it reads."),
		published: gauge("lineal_feed_published_entries", "How many entries of that period are published."),
		last:      gauge("lineal_feed_last_delivery_timestamp_seconds", "When a receiver last acknowledged, in Unix seconds; 0: not since the start."),
		stopped:   gauge("lineal_feed_stopped", "1 once a feed stopped for good: its log says why."),
	}
}

func (n *feedNumbers) all() []prometheus.Collector {
	return []prometheus.Collector{n.delivered, n.failures, n.next, n.published, n.last, n.stopped}
}

// feed is the observer of a feed, whose numbers are there from now on.
func (m *metrics) feed(name string) feed.Observer {
	n := m.feeds
	o := feedObserver{
		n.delivered.WithLabelValues(name), n.failures.WithLabelValues(name), n.next.WithLabelValues(name), n.published.WithLabelValues(name),
		n.last.WithLabelValues(name),
	}
	n.stopped.WithLabelValues(name).Set(0)
	return o
}

func (m *metrics) feedStopped(name string) { m.feeds.stopped.WithLabelValues(name).Set(1) }

type feedObserver struct {
	delivered, failures   prometheus.Counter
	next, published, last prometheus.Gauge
}

// Standing implements feed.Observer.
func (o feedObserver) Standing(next, published int64) {
	o.next.Set(float64(next))
	o.published.Set(float64(published))
}

// Delivered implements feed.Observer.
func (o feedObserver) Delivered(records int, at time.Time) {
	o.delivered.Add(float64(records))
	o.last.Set(float64(at.Unix()))
}

// Failed implements feed.Observer.
func (o feedObserver) Failed() { o.failures.Inc() }
