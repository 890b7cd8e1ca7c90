package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/entry"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// blobPeriod is the class of what is kept of a period's end: see [admission.state].
const blobPeriod = "period"

// begin takes over from the period before, where the first record of the log
// says so: its keys, the tails of its writers, and the permits that wait for
// their outcome. The manifest key signed which state that is.
func (a *admission) begin(ctx context.Context, envelope []byte) error {
	rec, err := a.signedByManifest(envelope)
	if err != nil || rec.Period == nil || rec.Period.Op != record.PeriodOpen || rec.Period.Previous == "" {
		return nil //nolint:nilerr // admit says what is wrong with it
	}
	if rec.Period.Origin != a.origin {
		return fmt.Errorf("it opens %s, and this is %s", rec.Period.Origin, a.origin)
	}
	state, err := a.stateOf(ctx, rec.Period)
	if err != nil {
		return fmt.Errorf("state of the period before: %w", err)
	}
	for id, k := range state.Keys {
		a.keys[id] = k.in(state.Origin)
	}
	for id, t := range state.Tails {
		if t.Origin == "" {
			t.Origin = state.Origin
		}
		a.tails[id] = t
	}
	a.open.set(maps.Clone(state.Open))
	return nil
}

// signedByManifest reads a record of the manifest key.
func (a *admission) signedByManifest(envelope []byte) (record.Record, error) {
	e, err := record.Open(envelope)
	if err != nil {
		return record.Record{}, err
	}
	if e.KeyID != a.manifest {
		return record.Record{}, errors.New("the manifest key did not sign it")
	}
	if err := e.Verify(a.public); err != nil {
		return record.Record{}, err
	}
	return record.Parse(e.Payload)
}

// stateOf reads the state that a period record names, and holds it to the
// checkpoint that the period before ended with.
func (a *admission) stateOf(ctx context.Context, p *record.Period) (snapshot, error) {
	b, err := a.blob(ctx, p.StateDigest)
	if err != nil {
		return snapshot{}, err
	}
	if sha256Of(b.Bytes) != p.StateDigest {
		return snapshot{}, fmt.Errorf("%w: it is another one than the record names", ledger.ErrCorrupt)
	}
	var s snapshot
	if err := json.Unmarshal(b.Bytes, &s); err != nil {
		return snapshot{}, fmt.Errorf("%w: %w", ledger.ErrCorrupt, err)
	}
	// After a rollback the end that is known and the entries that are left differ.
	body := strings.SplitN(p.Previous, "\n", 3)
	if len(body) != 3 || s.Origin != body[0] || fmt.Sprint(s.Size) != body[1] && p.Cause != record.PeriodRollback {
		return snapshot{}, fmt.Errorf("%w: it is of %s at %d", ledger.ErrCorrupt, s.Origin, s.Size)
	}
	return s, nil
}

// state is what the log knows after its last entry, for the period that follows.
func (a *admission) state(ctx context.Context) (ledger.Blob, error) {
	last, err := a.entry(ctx, a.next-1)
	if err != nil {
		return ledger.Blob{}, fmt.Errorf("keeping the state of the period: %w", err)
	}
	text, err := json.Marshal(a.snapshot(a.origin, last)) // maps come sorted
	if err != nil {
		return ledger.Blob{}, fmt.Errorf("keeping the state of the period: %w", err)
	}
	return ledger.Blob{Digest: sha256Of(text), Class: blobPeriod, Bytes: text}, nil
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// bodyOf is a checkpoint as records name it.
func bodyOf(c ledger.Checkpoint) string {
	return record.CheckpointBody(c.Origin, uint64(c.Size), c.Root) //nolint:gosec // a size is never negative
}

// Period is one log of a family.
type Period struct {
	Name   string // "2026-11"
	Origin string
	Size   int64 // entries under its last checkpoint
	Sealed bool  // it is closed
	// Lost is how many entries its newest known checkpoint covers, if it was closed
	// after a rollback of the database; else 0.
	Lost int64
	// NotBefore and DeleteBy are its retention, "" while it is open.
	NotBefore, DeleteBy record.Timestamp
	Pruned              bool     // its bodies are gone
	Holds               []string // that keep them
}

// period is the configuration as it was for another period of the family.
func inPeriod(l config.Ledger, origin string) config.Ledger {
	l.Period = strings.TrimPrefix(origin, l.Family+"/")
	return l
}

// periodsOf lists the periods of a log with what was said about them since.
func periodsOf(ctx context.Context, src ledger.Source, family string) ([]Period, error) {
	periods, err := chainOf(ctx, src, family)
	if err != nil {
		return nil, err
	}
	said, err := journalOf(ctx, src, family)
	if err != nil {
		return nil, err
	}
	for i, p := range periods {
		periods[i].Pruned = said.prunings[p.Origin] != nil
		periods[i].Holds = said.holding(family, p.Origin)
	}
	return periods, nil
}

// chainOf gives the periods of a log from the first to the open one, by their
// first and last records, which are never pruned.
func chainOf(ctx context.Context, src ledger.Source, family string) ([]Period, error) {
	head, err := src.Head(ctx, family)
	if err != nil {
		return nil, err
	}
	var back []Period
	var after *record.Period // the record that opens the period behind, nil of the open one
	seen := map[string]bool{}
	for origin := head.Origin; origin != ""; {
		if seen[origin] {
			return nil, fmt.Errorf("%w: the periods of %s go round", ledger.ErrCorrupt, family)
		}
		seen[origin] = true
		p := Period{Name: strings.TrimPrefix(origin, family+"/"), Origin: origin, Sealed: origin != head.Origin}
		if err := p.measure(ctx, src, after); err != nil {
			return nil, fmt.Errorf("period %s: %w", p.Name, err)
		}
		first, err := periodRecord(ctx, src, origin, 0)
		if err != nil {
			return nil, err
		}
		origin, after = "", first
		if first != nil && first.Op == record.PeriodOpen && first.Origin == p.Origin {
			origin, _, _ = strings.Cut(first.Previous, "\n")
		}
		back = append([]Period{p}, back...)
	}
	return back, nil
}

// measure reads the end of a period. after opens the next one: behind a rollback
// nothing seals the period, and that record says what a seal would.
func (p *Period) measure(ctx context.Context, src ledger.Source, after *record.Period) error {
	lost := after != nil && after.Cause == record.PeriodRollback
	c, err := src.LastCheckpoint(ctx, p.Origin, true)
	if errors.Is(err, ledger.ErrNotFound) && (!p.Sealed || lost) {
		err = nil
	}
	if err != nil {
		return err
	}
	p.Size = c.Size
	if lost {
		if p.Lost, err = sizeOf(after.Previous); err != nil {
			return err
		}
		p.NotBefore, p.DeleteBy = after.Retention.NotBefore, after.Retention.DeleteBy
	}
	if !p.Sealed || lost {
		return nil
	}
	seal, err := periodRecord(ctx, src, p.Origin, c.Size-1)
	if err != nil {
		return err
	}
	if seal == nil || seal.Op != record.PeriodSeal || seal.Origin != p.Origin {
		return fmt.Errorf("%w: its last record does not seal it", ledger.ErrCorrupt)
	}
	p.NotBefore, p.DeleteBy = seal.Retention.NotBefore, seal.Retention.DeleteBy
	return nil
}

// sizeOf reads the size out of a checkpoint as records name it.
func sizeOf(body string) (int64, error) {
	_, rest, _ := strings.Cut(body, "\n")
	size, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: a checkpoint of size %q", ledger.ErrCorrupt, size)
	}
	return n, nil
}

// periodRecord reads what a record says of a period, nil if it is of another kind
// or is not there.
func periodRecord(ctx context.Context, src ledger.Source, origin string, index int64) (*record.Period, error) {
	e, err := entryAt(ctx, src.ReadRange, origin, index)
	if errors.Is(err, ledger.ErrNotFound) || err == nil && e.Pruned() {
		return nil, nil //nolint:nilnil // not there
	}
	if err != nil {
		return nil, err
	}
	rec, _, err := entry.Read(e.Envelope)
	if err != nil {
		return nil, fmt.Errorf("entry %d of %s: %w", index, origin, err)
	}
	return rec.Period, nil
}
