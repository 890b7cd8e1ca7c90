package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// stateLimits bound a state file: some hundred thousand entries.
var stateLimits = strictjson.Limits{MaxBytes: 64 << 20, MaxDepth: 3, MaxNames: 1 << 20, MaxValues: 2 << 20}

// load reads the state file. A file that cannot be read is an error and not an
// empty state: that would forget.
func (f *Feed) load() error {
	if f.cfg.StateFile == "" {
		return nil
	}
	text, err := os.ReadFile(f.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	v, err := strictjson.Parse(text, stateLimits)
	if err != nil {
		return err
	}
	r := reader{where: "state"}
	r.object(v, "document", "iss", "seq", "as_of", "newest", "fault", "entries")
	issuer := r.text(v, "iss", name)
	k := feedState{
		through: r.integer(v, "seq", maxSeq), asOf: r.optionalTime(v, "as_of"), newest: r.optionalTime(v, "newest"),
		fault: r.optionalText(v, "fault", oneOf(faultGap, faultRollback)),
	}
	entries := r.revocations(v, "entries", false)
	switch {
	case r.err != nil:
		return r.err
	case issuer != f.cfg.Issuer:
		return fmt.Errorf("it is of issuer %q", issuer)
	}
	now := f.cfg.Now()
	if k.asOf.After(now) { // the clock was set back: how old it is cannot be said
		k.asOf = time.Time{}
	}
	for _, e := range entries {
		if err := f.set.Add(e); err != nil {
			return err
		}
	}
	f.set.Prune(now)
	f.known = k
	return nil
}

// save writes the state file if there is something new, or always. A write that
// fails loses nothing that the issuer would not say again; it is tried again
// with the next message.
func (f *Feed) save(ctx context.Context, always bool) {
	f.mu.RLock()
	k, due := f.known, f.dirty || always && !f.known.asOf.IsZero()
	var entries []Revocation
	if due && f.cfg.StateFile != "" {
		entries = f.set.entries()
	}
	f.mu.RUnlock()
	if !due || f.cfg.StateFile == "" {
		return
	}
	var m members
	m.text("iss", f.cfg.Issuer)
	m.value("seq", strictjson.Int(k.through))
	m.time("as_of", k.asOf)
	m.time("newest", k.newest)
	m.text("fault", k.fault)
	m.revocations("entries", entries)
	text, err := m.encode()
	if err == nil {
		err = durable.WriteFile(f.cfg.StateFile, append(text, '\n'), 0o600)
	}
	if err != nil {
		f.cfg.Logger.ErrorContext(ctx, "state of the revocation feed not kept",
			slog.String("file", f.cfg.StateFile), slog.Any("error", err))
		return
	}
	f.mu.Lock()
	f.dirty = false
	f.mu.Unlock()
}

// entries lists the set, sorted, without numbers.
func (s *RevocationSet) entries() []Revocation {
	var all []Revocation
	for _, k := range revocationKinds {
		for value, e := range s.of(k) {
			all = append(all, Revocation{Kind: k, Value: value, Before: e.before, Ends: e.ends})
		}
	}
	slices.SortFunc(all, func(a, b Revocation) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value))
	})
	return all
}
