package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/search"
)

// Replayed is the answer of a replay; see search.Replayed.
type Replayed = search.Replayed

// Proposed is what a replay decides by; at most one of its fields is set, and
// none for what decided.
type Proposed struct {
	// Policy is a policy set: a folder, a bundle, or the digest of a bundle kept
	// beside the log.
	Policy string
	// Scope is a file of authorization_details, as a root has them, which calls
	// would have had to be within besides what was delegated.
	Scope string
}

// Replay makes the decisions of the archive that f selects again. d is a desk of
// this archive.
func (a *Archive) Replay(ctx context.Context, d *Desk, f Filter, p Proposed) (Replayed, error) {
	opener, err := disclosureOpener(a.dataDir)
	if err != nil {
		return Replayed{}, err
	}
	r := &replayer{
		disclosures: func(ctx context.Context, d *record.Decision) ([]record.Disclosure, int, error) {
			return a.opened(ctx, opener, d)
		},
		bundle: func(ctx context.Context, digest string) ([]byte, error) {
			b, err := a.store.Blob(ctx, digest)
			return b.Bytes, err
		},
	}
	cfg := search.ReplayConfig{Filter: f, Rules: p.Policy, Decide: r.decide}
	switch {
	case p.Policy != "" && p.Scope != "":
		return Replayed{}, errors.New("replaying: rules and a scope are proposed; one at a time")
	case p.Policy != "":
		if r.proposed, err = a.proposedRules(ctx, p.Policy); err != nil {
			return Replayed{}, err
		}
	case p.Scope != "":
		if r.scope, err = proposedScope(p.Scope); err != nil {
			return Replayed{}, err
		}
		cfg.Rules, cfg.Decide, cfg.Permits = p.Scope, nil, r.permits
	}
	return d.Replay(ctx, cfg)
}

func proposedScope(file string) (scope.Grant, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the file that the operator names
	if err != nil {
		return scope.Grant{}, fmt.Errorf("proposed scope: %w", err)
	}
	g, err := scope.Parse(text, true)
	if err != nil {
		return scope.Grant{}, fmt.Errorf("proposed scope %s: %w", file, err)
	}
	return g, nil
}

// proposedRules loads a policy set by its place, or by its digest. A set that
// cannot be what its author meant is refused.
func (a *Archive) proposedRules(ctx context.Context, where string) (*cedar.Engine, error) {
	_, err := os.Stat(where)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kept := account{bundle: func(digest string) ([]byte, error) {
			b, err := a.store.Blob(ctx, digest)
			return b.Bytes, err
		}}
		engine, err := kept.recordedEngine(record.Policy{BundleDigest: where, Engine: cedar.EngineVersion})
		if err != nil {
			return nil, fmt.Errorf("proposed rules %q: no such file, and not the digest of rules that were in force: %w", where, err)
		}
		return engine, nil
	case err != nil:
		return nil, fmt.Errorf("proposed rules: %w", err)
	}
	source, err := OpenPolicy(where, nil)
	if err != nil {
		return nil, fmt.Errorf("proposed rules: %w", err)
	}
	if broken := Broken(source.Check(ctx)); len(broken) > 0 {
		return nil, fmt.Errorf("proposed rules %s: %s", where, broken[0])
	}
	engine, err := source.Engine()
	if err != nil {
		return nil, fmt.Errorf("proposed rules %s: %w", where, err)
	}
	return engine, nil
}

// replayer makes recorded decisions again. It is for one replay.
type replayer struct {
	disclosures func(context.Context, *record.Decision) (ds []record.Disclosure, missing int, err error)
	bundle      func(ctx context.Context, digest string) ([]byte, error)
	// proposed decides all; nil: each the rules that it was decided by.
	proposed *cedar.Engine
	scope    scope.Grant // proposed

	engines map[string]loaded // by the digest of their bundle
}

// loaded is a bundle as it could be loaded.
type loaded struct {
	engine *cedar.Engine
	err    error
}

// decide puts the question of a decision together again, holds it to the digest
// that was recorded of it, and asks the rules.
func (r *replayer) decide(ctx context.Context, e *search.Entry) (search.Replied, error) {
	d := e.Record.Decision
	engine, err := r.rules(ctx, d.Policy)
	if err != nil {
		return search.Replied{}, &search.ReplayError{Cause: search.CauseEngineMissing, Detail: err.Error()}
	}
	in, err := r.question(ctx, e.Record)
	if err != nil {
		return search.Replied{}, err
	}
	said := engine.Decide(ctx, in)
	out := search.Replied{Policy: record.Denied, Rules: said.Rules, Errors: said.Errors}
	if said.Effect == policy.Permit {
		out.Policy = record.Permitted
	}
	if out.Rules == nil {
		out.Rules = []string{}
	}
	return out, nil
}

// rules are the proposed ones, or those that a record names. What cannot be
// loaded is tried once.
func (r *replayer) rules(ctx context.Context, p record.Policy) (*cedar.Engine, error) {
	if r.proposed != nil {
		return r.proposed, nil
	}
	if l, known := r.engines[p.BundleDigest]; known {
		return l.engine, l.err
	}
	var l loaded
	l.engine, l.err = account{bundle: func(digest string) ([]byte, error) { return r.bundle(ctx, digest) }}.recordedEngine(p)
	if r.engines == nil {
		r.engines = map[string]loaded{}
	}
	r.engines[p.BundleDigest] = l
	return l.engine, l.err
}

// question is policy's question as it was asked.
func (r *replayer) question(ctx context.Context, rec record.Record) (policy.Input, error) {
	not := func(cause search.ReplayCause, format string, args ...any) (policy.Input, error) {
		return policy.Input{}, &search.ReplayError{Cause: cause, Detail: fmt.Sprintf(format, args...)}
	}
	d := rec.Decision
	if d.Policy.InputDigest == "" {
		return not(search.CauseNotCaptured, "the record states no input digest")
	}
	ds, missing, err := r.disclosures(ctx, d)
	if err != nil {
		return policy.Input{}, err
	}
	if missing > 0 {
		return not(search.CauseErased, "%d of %d values are erased, or sealed to a key that is not at hand", missing, len(d.SD))
	}
	asked, err := recordedQuestion(rec, recordedCall(d))
	if err != nil {
		return not(search.CauseNotCaptured, "%v", err)
	}
	if _, err := (account{rec: rec, disclosed: ds}).tell(&asked); err != nil {
		return not(search.CauseNotCaptured, "%v", err)
	}
	c, err := cedar.CaseOf(asked)
	if err != nil {
		return not(search.CauseNotCaptured, "the question cannot be put together again: %v", err)
	}
	in := c.Input()
	if digest, err := record.InputDigestOf(in, ds); err != nil || digest != d.Policy.InputDigest {
		return not(search.CauseInputMismatch, "record and disclosures make a question of another digest than %s", d.Policy.InputDigest)
	}
	return in, nil
}

// permits asks the proposed scope about a call that was permitted, from what the
// record and its disclosures tell of it.
func (r *replayer) permits(ctx context.Context, e *search.Entry) (permits bool, at []string, err error) {
	d := e.Record.Decision
	ds, missing, err := r.disclosures(ctx, d)
	if err != nil {
		return false, nil, err
	}
	asked, err := recordedQuestion(e.Record, recordedCall(d))
	if err != nil {
		return false, nil, &search.ReplayError{Cause: search.CauseNotCaptured, Detail: err.Error()}
	}
	of := account{rec: e.Record, disclosed: ds, missing: missing}
	if _, err := of.tell(&asked); err != nil {
		return false, nil, &search.ReplayError{Cause: search.CauseNotCaptured, Detail: err.Error()}
	}
	if _, needs := scope.Verb(asked.Call.Action); !needs { // discovery
		if r.scope.CoversLocation(asked.Call.Location) {
			return true, nil, nil
		}
		return false, []string{"location"}, nil
	}
	call := of.scopeCall(asked)
	call.Recorded, call.Exceeded = nil, nil // of the scopes that decided
	held, by := leafDetail(d, asked.Grants)
	answer, at := cedar.JudgeScope(r.scope, call, held, by)
	if answer == cedar.Unknown {
		cause := search.CauseNotCaptured
		if missing > 0 {
			cause = search.CauseErased
		}
		return false, nil, &search.ReplayError{Cause: cause, Detail: "it turns on " + strings.Join(at, ", ")}
	}
	return answer == cedar.Yes, at, nil
}

// leafDetail is the grant of the last hop and the detail of it that permitted a
// call, -1 if the record does not say.
func leafDetail(d *record.Decision, grants []scope.Grant) (scope.Grant, int) {
	n := len(grants)
	if n == 0 || len(d.Verdict.Details) != n {
		return scope.Grant{}, -1
	}
	if i := int(d.Verdict.Details[n-1]); i >= 0 && i < grants[n-1].Len() {
		return grants[n-1], i
	}
	return scope.Grant{}, -1
}
