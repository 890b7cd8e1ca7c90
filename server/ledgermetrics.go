package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lineal-auth/lineal/ledger"
)

// ledgerNumbers are what the writers of this process do (ledger.md 5.2). It is
// their ledger.Observer.
type ledgerNumbers struct {
	took     prometheus.Histogram
	records  prometheus.Histogram
	refusals *prometheus.CounterVec
}

func newLedgerNumbers() *ledgerNumbers {
	n := &ledgerNumbers{
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lineal_record_append_duration_seconds", Help: "How long the store took to make a batch of records durable.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		records: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "lineal_ledger_batch_records", Help: "Records that became durable in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lineal_ledger_refusals_total", Help: "Records that were refused for want of the ledger.",
		}, []string{"cause"}),
	}
	for _, c := range ledger.Causes() { // there from the start, so that a rate can be taken
		n.refusals.WithLabelValues(string(c))
	}
	return n
}

// Batch implements ledger.Observer.
func (n *ledgerNumbers) Batch(records int, took time.Duration) {
	n.records.Observe(float64(records))
	n.took.Observe(took.Seconds())
}

// Refused implements ledger.Observer.
func (n *ledgerNumbers) Refused(cause ledger.Cause) {
	n.refusals.WithLabelValues(string(cause)).Inc()
}

// observer is nil, which a writer takes, where nothing is counted.
func (m *metrics) observer() ledger.Observer {
	if m == nil {
		return nil
	}
	return m.ledger
}

// ledgerGauges are what is read of the ledger when somebody asks, once the
// server has started.
type ledgerGauges struct{ s *Server }

var (
	queueDrafts = prometheus.NewDesc("lineal_ledger_queue_drafts", "Records of this process that wait for the store.", nil, nil)
	queueBytes  = prometheus.NewDesc("lineal_ledger_queue_bytes", "Their bytes, estimated.", nil, nil)
	rejected    = prometheus.NewDesc("lineal_ledger_rejected_total", "Records that were durable and that this process, sequencing, gave no place in the log: an alarm.", nil, nil)
	intakeRows  = prometheus.NewDesc("lineal_ledger_intake_rows", "Records of the log that wait for their index; absent while the store does not answer.", nil, nil)
	intakeAge   = prometheus.NewDesc("lineal_ledger_intake_age_seconds", "How long the oldest of them has waited.", nil, nil)
	unwitnessed = prometheus.NewDesc("lineal_ledger_unwitnessed_age_seconds",
		"How long the newest checkpoint has waited for its witnesses; absent in a process that does not sequence.", nil, nil)
	witnessed = prometheus.NewDesc("lineal_ledger_last_witnessed_timestamp_seconds",
		"When a witness last cosigned what is published, by its clock, in Unix seconds; absent without witnesses.", nil, nil)
	publishedEntries   = prometheus.NewDesc("lineal_ledger_published_entries", "Entries of the open period that a published checkpoint covers.", nil, nil)
	publicationStopped = prometheus.NewDesc("lineal_ledger_publication_stopped",
		"1 once a witness contradicted the log: nothing is published until an operator has looked.", nil, nil)
)

// The check of the log, in the process that sequences and makes it; else absent.
var (
	fsckAge = prometheus.NewDesc("lineal_ledger_fsck_age_seconds",
		"How long ago the log was last found sound, or since when this process is answerable for that.", nil, nil)
	fsckSound    = prometheus.NewDesc("lineal_ledger_fsck_last_success_timestamp_seconds", "When the log was last found sound, in Unix seconds.", nil, nil)
	fsckFindings = prometheus.NewDesc("lineal_ledger_fsck_findings", "What the last check of the log found wrong: an alarm.", nil, nil)
	fsckEntries  = prometheus.NewDesc("lineal_ledger_fsck_entries", "Entries that the last check of the log read.", nil, nil)
	fsckTook     = prometheus.NewDesc("lineal_ledger_fsck_duration_seconds", "How long the last check of the log took.", nil, nil)
)

// patrolled gives the numbers of the checks.
func (g *ledgerGauges) patrolled(gauge func(*prometheus.Desc, float64)) {
	p := g.s.ledger.patrol
	if p == nil {
		return
	}
	st, ok := p.seen()
	if !ok {
		return
	}
	last := st.Since
	if st.Sound.After(last) {
		last = st.Sound
	}
	gauge(fsckAge, p.now().Sub(last).Seconds())
	gauge(fsckFindings, float64(st.Findings))
	if st.Ended.IsZero() {
		return
	}
	gauge(fsckEntries, float64(st.Entries))
	gauge(fsckTook, st.Took.Seconds())
	if !st.Sound.IsZero() {
		gauge(fsckSound, float64(st.Sound.Unix()))
	}
}

// Describe implements prometheus.Collector.
func (g *ledgerGauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queueDrafts, queueBytes, rejected, intakeRows, intakeAge, unwitnessed, witnessed, publishedEntries, publicationStopped, fsckAge, fsckSound, fsckFindings, fsckEntries, fsckTook} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (g *ledgerGauges) Collect(to chan<- prometheus.Metric) {
	if !g.s.started.Load() {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) { to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	l := g.s.ledger
	drafts, bytes := 0, 0
	for _, r := range l.recorders {
		d, b := r.writer.Queued()
		drafts, bytes = drafts+d, bytes+b
	}
	gauge(queueDrafts, float64(drafts))
	gauge(queueBytes, float64(bytes))
	to <- prometheus.MustNewConstMetric(rejected, prometheus.CounterValue, float64(l.rejections.total()))
	if seq := l.order.holding(); seq != nil {
		w := seq.Witnessing()
		gauge(unwitnessed, w.Unwitnessed.Seconds())
		stopped := 0.0
		if w.Stopped != nil {
			stopped = 1
		}
		gauge(publicationStopped, stopped)
	}
	g.patrolled(gauge)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c, err := l.store.LastCheckpoint(ctx, l.cfg.Origin(), true); err == nil {
		gauge(publishedEntries, float64(c.Size))
		if at := ledger.Witnessed(c.Note, l.order.witnesses.Witnesses); !at.IsZero() {
			gauge(witnessed, float64(at.Unix()))
		}
	}
	if st, err := l.store.IntakeStats(ctx, l.cfg.Family); err == nil {
		gauge(intakeRows, float64(st.Rows))
		gauge(intakeAge, st.Oldest.Seconds())
	}
}
