package search

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// ReplayConfig says which decisions are made again, and by whom. Either Decide or
// Permits is required.
type ReplayConfig struct {
	// Filter selects decisions; its Limit is not read.
	Filter Filter
	// Rules name what decides: "" for each decision the rules that decided it, else
	// the digest, or the place, of proposed ones.
	Rules string
	// Decide asks the rules the question of a decision in which policy was asked.
	// The error is a *ReplayError where it cannot be asked; any other ends the
	// replay.
	Decide func(ctx context.Context, e *Entry) (Replied, error)
	// Permits asks a proposed scope instead, which Rules names, about a call that
	// was permitted: whether it would have been under that scope besides, and if
	// not, at which paths that ends. Errors are as those of Decide.
	Permits func(ctx context.Context, e *Entry) (permits bool, at []string, err error)
}

// Replied is what rules answer.
type Replied struct {
	Policy record.Answer `json:"policy"`
	// Rules are those that determined the answer, Errors what could not be
	// evaluated; both sorted.
	Rules  []string `json:"rules"`
	Errors []string `json:"errors,omitempty"`
}

// ReplayError says why a decision cannot be made again.
type ReplayError struct {
	Cause ReplayCause
	// Detail says it to a person, and quotes no value of a call.
	Detail string
}

func (e *ReplayError) Error() string { return string(e.Cause) + ": " + e.Detail }

// ReplayCause is why a decision cannot be made again.
type ReplayCause string

// The causes (ledger.md §8), and one for a record whose question is not the one
// that it states the digest of.
const (
	// CauseErased: values of the call are erased, or sealed to a key not at hand.
	CauseErased ReplayCause = "erased"
	// CauseNotCaptured: the record does not hold the question.
	CauseNotCaptured ReplayCause = "not_captured"
	// CauseEngineMissing: the rules, or what evaluates them, are not at hand.
	CauseEngineMissing ReplayCause = "engine_missing"
	// CauseInputMismatch: record and disclosures make another question than the
	// one that was asked.
	CauseInputMismatch ReplayCause = "input_mismatch"
)

// Replayed is the answer of a replay. Every decision that matches is counted in
// exactly one of Same, Different, NotReplayable and NotAsked.
type Replayed struct {
	AsOf     AsOf   `json:"as_of"`
	Complete bool   `json:"complete"`
	Rules    string `json:"rules"` // "recorded", or what is proposed

	Decisions     int `json:"decisions"`
	Same          int `json:"same"`
	Different     int `json:"different"`
	NotReplayable int `json:"not_replayable"`
	// NotAsked were settled before policy was asked: no rules change them.
	NotAsked int `json:"not_asked"`

	// Causes counts why decisions could not be made again.
	Causes map[ReplayCause]int `json:"causes"`
	// Changes are the decisions that differ, in index order.
	Changes []ReplayChange `json:"changes"`
	// LeftOut are those that could not be made again, in index order.
	LeftOut []ReplayLeftOut `json:"left_out"`
}

// ReplayChange is a decision that comes out otherwise.
type ReplayChange struct {
	Index    int64         `json:"index"`
	RecordID string        `json:"record_id"`
	CallID   string        `json:"call_id"`
	Time     string        `json:"time"`
	Caller   string        `json:"caller"`
	Callee   string        `json:"callee"`
	Recorded ReplayVerdict `json:"recorded"`
	Replayed ReplayVerdict `json:"replayed"`
}

// ReplayVerdict is a verdict on a call.
type ReplayVerdict struct {
	Effect record.Effect `json:"effect"`
	Replied
	// Scope is said where a scope was proposed, and At where it ends: "action",
	// "location", "name" or paths of arguments.
	Scope record.Answer `json:"scope,omitempty"`
	At    []string      `json:"at,omitempty"`
}

// ReplayLeftOut is a decision that could not be made again.
type ReplayLeftOut struct {
	Index    int64       `json:"index"`
	RecordID string      `json:"record_id"`
	Cause    ReplayCause `json:"cause"`
	Detail   string      `json:"detail"`
}

// Replay makes decisions of the log again, up to the checkpoint.
func (d *Desk) Replay(ctx context.Context, cfg ReplayConfig) (Replayed, error) {
	to, complete := d.AsOf()
	r, err := Replay(ctx, d.entries(ctx, to.Size), cfg)
	r.AsOf, r.Complete = to, complete
	return r, err
}

// Replay makes the decisions among entries again. It changes nothing, and what
// it says follows from the entries and the rules alone.
//
// Under the rules that decided, a decision is the same if policy gives the same
// answer by the same rules with the same errors. Under proposed rules it is the
// same if the call would have had the same effect: what scope refused stays
// refused, and what stopped a call after policy permitted it stops it still.
func Replay(ctx context.Context, entries iter.Seq2[*Entry, error], cfg ReplayConfig) (Replayed, error) {
	out := Replayed{
		Rules: cmp.Or(visible(cfg.Rules), "recorded"), Causes: map[ReplayCause]int{},
		Changes: []ReplayChange{}, LeftOut: []ReplayLeftOut{},
	}
	if (cfg.Decide == nil) == (cfg.Permits == nil) {
		return out, errors.New("replaying: nothing decides, or two things do")
	}
	for e, err := range entries {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return out, fmt.Errorf("replaying: %w", err)
		}
		d := e.Record.Decision
		if d == nil || e.Index < cfg.Filter.From || cfg.Filter.Before > 0 && e.Index >= cfg.Filter.Before || !cfg.Filter.match(e.Record) {
			continue
		}
		out.Decisions++
		again, asked := out.again, d.Verdict.Policy
		if cfg.Permits != nil {
			again, asked = out.narrowed, d.Verdict.Scope
		}
		if asked == record.NotEvaluated {
			out.NotAsked++
			continue
		}
		if err := again(ctx, e, cfg); err != nil {
			return out, fmt.Errorf("replaying entry %d: %w", e.Index, err)
		}
	}
	return out, nil
}

// again makes one decision again and counts how it came out.
func (r *Replayed) again(ctx context.Context, e *Entry, cfg ReplayConfig) error {
	d := e.Record.Decision
	said, err := cfg.Decide(ctx, e)
	if err != nil {
		return r.leaveOut(e, err)
	}
	was := ReplayVerdict{Effect: d.Verdict.Effect, Replied: repliedOf(d)}
	now := ReplayVerdict{Effect: effectOf(d, said.Policy), Replied: said}
	same := was.Effect == now.Effect
	if cfg.Rules == "" {
		same = was.Policy == now.Policy && slices.Equal(was.Rules, now.Rules) && slices.Equal(was.Errors, now.Errors)
	}
	if same {
		r.Same++
		return nil
	}
	r.differs(e, was, now)
	return nil
}

// narrowed asks a proposed scope about one call. What was refused stays refused.
func (r *Replayed) narrowed(ctx context.Context, e *Entry, cfg ReplayConfig) error {
	d := e.Record.Decision
	if d.Verdict.Effect != record.Permit {
		r.Same++
		return nil
	}
	permits, at, err := cfg.Permits(ctx, e)
	if err != nil {
		return r.leaveOut(e, err)
	}
	if permits {
		r.Same++
		return nil
	}
	was := ReplayVerdict{Effect: d.Verdict.Effect, Replied: repliedOf(d), Scope: d.Verdict.Scope}
	now := was
	now.Effect, now.Scope, now.At = record.Deny, record.Denied, at
	r.differs(e, was, now)
	return nil
}

func repliedOf(d *record.Decision) Replied {
	return Replied{d.Verdict.Policy, d.Policy.Rules, d.Policy.Errors}
}

func (r *Replayed) differs(e *Entry, was, now ReplayVerdict) {
	d := e.Record.Decision
	r.Different++
	r.Changes = append(r.Changes, ReplayChange{
		Index: e.Index, RecordID: e.Record.ID, CallID: d.CallID, Time: string(e.Record.Time),
		Caller: visible(callerOf(d)), Callee: visible(calleeOf(d)), Recorded: was, Replayed: now,
	})
}

// leaveOut counts a decision that cannot be made again; another error is
// returned.
func (r *Replayed) leaveOut(e *Entry, err error) error {
	not, ok := errors.AsType[*ReplayError](err)
	if !ok {
		return err
	}
	r.NotReplayable++
	r.Causes[not.Cause]++
	r.LeftOut = append(r.LeftOut, ReplayLeftOut{Index: e.Index, RecordID: e.Record.ID, Cause: not.Cause, Detail: visible(not.Detail)})
	return nil
}

// effectOf is the effect that a call would have had with another answer of
// policy. Neither widens the other: scope's answer, and what else refused the
// call, stand.
func effectOf(d *record.Decision, answer record.Answer) record.Effect {
	switch {
	case answer != record.Permitted || d.Verdict.Scope == record.Denied:
		return record.Deny
	case d.Verdict.Policy == record.Denied: // it was policy that refused
		return record.Permit
	default:
		return d.Verdict.Effect
	}
}

// JSON is the answer for programs.
func (r Replayed) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding replay: %w", err)
	}
	return append(b, '\n'), nil
}

// WriteText tells the answer to a person. What comes from records was escaped.
func (r Replayed) WriteText(w io.Writer) error {
	p := &printer{}
	for _, c := range r.Changes {
		p.line("entry %d, %s, %s: %s -> %s", c.Index, c.Caller, c.Callee, c.Recorded.words(), c.Replayed.words())
	}
	for _, l := range r.LeftOut {
		p.line("entry %d: %s: %s", l.Index, l.Cause, l.Detail)
	}
	if len(r.Changes)+len(r.LeftOut) > 0 {
		p.line("")
	}
	p.line("rules          %s", r.Rules)
	p.line("decisions      %d", r.Decisions)
	p.line("same           %d", r.Same)
	p.line("different      %d", r.Different)
	causes := ""
	for _, c := range slices.Sorted(maps.Keys(r.Causes)) {
		causes += fmt.Sprintf(" %s %d", c, r.Causes[c])
	}
	if causes != "" {
		causes = " (" + strings.TrimSpace(causes) + ")"
	}
	p.line("not_replayable %d%s", r.NotReplayable, causes)
	p.line("not_asked      %d", r.NotAsked)
	p.line("%s", Lineage{AsOf: r.AsOf, Complete: r.Complete}.standing())
	_, err := io.WriteString(w, p.b.String())
	return err
}

// words are a verdict in a line: "permit (policy permit by orders-eu)".
func (v ReplayVerdict) words() string {
	by := ""
	if len(v.Rules) > 0 {
		by = " by " + visible(strings.Join(v.Rules, ", "))
	}
	if len(v.Errors) > 0 {
		by += ", errors: " + visible(strings.Join(v.Errors, "; "))
	}
	if len(v.At) > 0 {
		by += ", scope " + string(v.Scope) + " at " + visible(strings.Join(v.At, ", "))
	}
	return fmt.Sprintf("%s (policy %s%s)", v.Effect, v.Policy, by)
}
