package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// damageTail has the store say that a writer's last record is its first one. Both
// are real, so that nothing contradicts the row when the writer is opened.
func damageTail(t *testing.T, dir, writer string) {
	t.Helper()
	cfg, err := readLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	store, err := newEngine(dir, cfg, engineOptions{now: time.Now}).ledger(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	head, err := store.Head(t.Context(), cfg.Family)
	if err != nil {
		t.Fatal(err)
	}
	first, last := make(map[string]ledger.Tail), make(map[string]ledger.Tail)
	for e, err := range store.ReadRange(t.Context(), head.Origin, 0, head.Size) {
		if err != nil {
			t.Fatal(err)
		}
		at, hash, err := entry.Place(e.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		last[at.GWID] = ledger.Tail{Prev: hash, RecordID: e.RecordID}
		if _, known := first[at.GWID]; !known {
			first[at.GWID] = last[at.GWID]
		}
	}
	last[writer] = first[writer]
	if got, err := store.ResetWriters(t.Context(), cfg.Family, head.Size, last); err != nil || !slices.Equal(got, []string{writer}) {
		t.Fatalf("damaged %q, %v", got, err)
	}
}

// TestRejectedRecordAlarms: a record that was durable and gets no place in the
// log fails the readiness, counts in the metrics and is a gap in the log; its
// writer records nothing any more, also after a restart, until rebuild has set
// its row.
func TestRejectedRecordAlarms(t *testing.T) {
	dir := smallLog(t, 2)
	damageTail(t, dir, writerGateway)
	l := openedLedger(t, dir)
	s := &Server{ledger: l}
	s.started.Store(true)
	numbers := prometheus.NewRegistry()
	numbers.MustRegister(&ledgerGauges{s})
	if err := l.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.usable(); err == nil || !strings.Contains(err.Error(), "the sequencer refused 1 records") {
		t.Errorf("readiness: %v", err)
	}
	scraped := httptest.NewRecorder()
	promhttp.HandlerFor(numbers, promhttp.HandlerOpts{}).ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if want := "lineal_ledger_rejected_total 1\n"; !strings.Contains(scraped.Body.String(), want) {
		t.Errorf("metrics lack %s", want)
	}
	if err := l.gateway.Record(t.Context(), permitted(t, l)); ledger.Code(err) != "ledger_unavailable" {
		t.Errorf("a permit after the rejection: %v", err)
	}
	<-l.gateway.writer.Done()
	if err := l.gateway.writer.Err(); !errors.Is(err, ledger.ErrRejected) {
		t.Errorf("the writer ended with %v", err)
	}
	l.reportRejections(l.gateway) // not by the writer itself
	for _, r := range []*recorder{l.tokens, l.admin} {
		l.reportRejections(r) // once
		r.reportLosses(t.Context())
	}
	gaps := slices.DeleteFunc(logged(t, l), func(r record.Record) bool { return r.Kind != record.KindGap })
	if len(gaps) != 1 || gaps[0].Gap.Cause != "record_rejected" || gaps[0].Writer.ID != writerTokens {
		t.Errorf("gaps %+v", gaps)
	}
	if err := l.close(t.Context()); !errors.Is(err, ledger.ErrRejected) {
		t.Errorf("closing: %v", err)
	}

	again := reopened(t, dir)
	if err := again.openRecorders(t.Context(), func(config.Role) bool { return true }, buildDigest()); !errors.Is(err, ledger.ErrRejected) {
		t.Errorf("a start before the repair: %v", err)
	}
	_ = again.close(t.Context()) // it has no writers
	rep, err := Rebuild(t.Context(), dir, time.Now, nil)
	if err != nil || !slices.Equal(rep.Writers, []string{writerGateway}) {
		t.Fatalf("rebuild: writers %q, %v", rep.Writers, err)
	}
	mended := openedLedger(t, dir) // the twin
	if err := mended.gateway.Record(t.Context(), permitted(t, mended)); err != nil {
		t.Error(err)
	}
	if err := mended.flush(t.Context()); err != nil {
		t.Error(err)
	}
	if err := mended.usable(); err != nil {
		t.Errorf("readiness after the repair: %v", err)
	}
	if err := mended.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// reopened is the ledger before its recorders.
func reopened(t *testing.T, dir string) *ledgerService {
	t.Helper()
	cfg, err := readLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := loadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLedgerService(t.Context(), newEngine(dir, cfg, engineOptions{now: time.Now}), ledgerConfig{
		Ledger: cfg, dataDir: dir, keys: keys, sequences: true, now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}
