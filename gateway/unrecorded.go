package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/record"
)

// CauseRecordingOff is the cause of a gap in which calls were decided and, by a
// setting, not recorded.
const CauseRecordingOff = "recording_off"

// Unrecorded is the Recorder of whoever decides calls without recording them.
// That this is so is recorded itself: a gap when it begins, and one with its
// whole length, and the refusals in it by reason, when it ends.
type Unrecorded struct {
	cfg  Config
	from time.Time

	mu      sync.Mutex // guards refused
	refused map[string]int64
}

// NewUnrecorded records by cfg.Recorder that recording is off from now on, and
// fails where that cannot be recorded. Of cfg it takes Recorder, Log, Region,
// DataClass, Now and NewID.
func NewUnrecorded(ctx context.Context, cfg Config) (*Unrecorded, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.NewID == nil {
		cfg.NewID = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	u := &Unrecorded{cfg: cfg, from: cfg.Now(), refused: map[string]int64{}}
	if err := u.gap(ctx, u.from, map[string]int64{}); err != nil {
		return nil, fmt.Errorf("recording that calls are not recorded: %w", err)
	}
	return u, nil
}

func (u *Unrecorded) gap(ctx context.Context, to time.Time, refused map[string]int64) error {
	return u.cfg.Recorder.Record(ctx, record.Record{
		Header: record.Header{
			Version: record.Version, Kind: record.KindGap, ID: u.cfg.NewID(), Log: u.cfg.Log, Time: record.At(to),
			DataClass: record.DataClass(u.cfg.DataClass), Region: record.Region(u.cfg.Region), NotAsserted: []record.NotAsserted{},
		},
		Gap: &record.Gap{From: record.At(u.from), To: record.At(to), Cause: CauseRecordingOff, DenialsDropped: refused},
	})
}

// Record counts.
func (u *Unrecorded) Record(_ context.Context, r record.Record, _ ...record.Disclosure) error {
	if d := r.Decision; d != nil && d.Verdict.Effect == record.Deny {
		u.mu.Lock()
		u.refused[d.Verdict.Reason]++
		u.mu.Unlock()
	}
	return nil
}

// RecordLater counts.
func (u *Unrecorded) RecordLater(ctx context.Context, r record.Record, disclosed ...record.Disclosure) error {
	return u.Record(ctx, r, disclosed...)
}

// Close records how long it was.
func (u *Unrecorded) Close(ctx context.Context) error {
	u.mu.Lock()
	refused := u.refused
	u.refused = map[string]int64{}
	u.mu.Unlock()
	return u.gap(ctx, u.cfg.Now(), refused)
}
