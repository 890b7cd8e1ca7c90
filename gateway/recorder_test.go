package gateway_test

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// recorder keeps what it is given, and refuses a record that no ledger would
// take: what it holds is valid.
type recorder struct {
	mu      sync.Mutex // guards what follows
	records []record.Record
	// disclosed is what the records name by digest.
	disclosed []record.Disclosure
	later     int // records that were queued
	fail      error
	hang      bool
	full      bool // RecordLater waits
	invalid   []error
}

var writerOfTests = record.Writer{
	ID: "gw-test", KeyID: record.Hash([]byte("key")), Role: record.RoleGateway, Run: base64.RawURLEncoding.EncodeToString(make([]byte, 16)),
}

func (r *recorder) keep(rec record.Record, disclosed []record.Disclosure) error {
	rec.Writer = writerOfTests
	d, err := record.NewDraft(rec)
	if err == nil {
		_, _, err = d.Link(1, record.Hash([]byte("before")))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var limit *record.LimitError
	switch {
	case errors.As(err, &limit):
		return err
	case err != nil:
		r.invalid = append(r.invalid, err)
		return err
	}
	for _, before := range r.records {
		if before.ID == rec.ID {
			return nil
		}
	}
	r.records = append(r.records, rec)
	r.disclosed = append(r.disclosed, disclosed...)
	return nil
}

func (r *recorder) state() (hang, full bool, fail error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hang, r.full, r.fail
}

func (r *recorder) Record(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	hang, _, fail := r.state()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if fail != nil {
		return fail
	}
	return r.keep(rec, disclosed)
}

func (r *recorder) RecordLater(ctx context.Context, rec record.Record, disclosed ...record.Disclosure) error {
	if _, full, _ := r.state(); full {
		<-ctx.Done()
		return ctx.Err()
	}
	err := r.keep(rec, disclosed)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later++
	return err
}

func (r *recorder) set(f func(*recorder)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

func (r *recorder) all() []record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]record.Record(nil), r.records...)
}

// reset forgets, so that a test can count anew.
func (r *recorder) reset() { r.set(func(r *recorder) { r.records, r.disclosed = nil, nil }) }

func (w *world) decisions() []*record.Decision {
	w.t.Helper()
	var out []*record.Decision
	for _, rec := range w.recorder.all() {
		if rec.Decision != nil {
			out = append(out, rec.Decision)
		}
	}
	w.recorder.set(func(r *recorder) {
		for _, err := range r.invalid {
			w.t.Errorf("an invalid record: %v", err)
		}
		r.invalid = nil
	})
	return out
}

// oneDecision is the only decision since the last reset.
func (w *world) oneDecision() *record.Decision {
	w.t.Helper()
	ds := w.decisions()
	if len(ds) != 1 {
		w.t.Fatalf("%d decision records, want exactly 1", len(ds))
	}
	return ds[0]
}

// outcomeNow waits for the one outcome.
func (w *world) outcomeNow() *record.Outcome {
	w.t.Helper()
	deadline := time.Now().Add(wait)
	for time.Now().Before(deadline) {
		for _, rec := range w.recorder.all() {
			if rec.Outcome != nil {
				return rec.Outcome
			}
		}
		time.Sleep(time.Millisecond)
	}
	w.decisions()
	w.t.Fatal("no outcome was recorded")
	return nil
}

func (w *world) outcomes() (out []*record.Outcome) {
	for _, rec := range w.recorder.all() {
		if rec.Outcome != nil {
			out = append(out, rec.Outcome)
		}
	}
	return out
}
