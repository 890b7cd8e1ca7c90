// Package cedar decides calls by an operator's Cedar policies, from a signed bundle, and never permits on an error.
//
//	Input ──▶ entities and context ──▶ schema ──▶ index ──▶ evaluate ──▶ Decision
//	             │ does not fit          │ deny                │ an error: deny
//	             └───────────────────────┴─────────────────────┘
//
// An [Engine] is one bundle, loaded: schema, policies and entities that were
// signed together, checked, and are never changed. [Load] refuses a bundle that
// is not exactly what was signed, and policies that cannot mean what they say:
// one that does not type-check, that can never match, that permits everything,
// that names a service or group nobody knows, or that permits by an unverified
// address. [Live] holds the engine in force and swaps it whole.
//
// Cedar skips a policy that fails to evaluate, even a forbid; here any such
// error denies (scope-and-policy.md §4.2). The index hands the evaluator only
// the policies whose scope can match, so that the cost of a decision does not
// grow with the set.
//
// The package does no I/O beyond reading the time zone that a bundle names,
// keeps no cache of decisions, and knows no scope: a call must be permitted by
// both, and neither widens the other.
package cedar

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/lineal-auth/lineal/policy"
)

// EngineVersion names the evaluator in decisions and manifests.
const EngineVersion = EnginePrefix + "1.9.0"

// EnginePrefix is what every version of this engine begins with.
const EnginePrefix = "cedar-go/"

// Engine is one loaded bundle. It implements policy.Decider and policy.Lister,
// is immutable and safe for concurrent use.
type Engine struct {
	asker    asker
	full     *index
	list     *index
	derived  map[types.PolicyID]bool // of the list set: less than the operator's policy
	rules    map[types.PolicyID]*rule
	version  policy.Version
	warnings []string
	name     string
	bundle   []byte
}

var (
	_ policy.Decider = (*Engine)(nil)
	_ policy.Lister  = (*Engine)(nil)
)

// Load opens a signed bundle: signature by key, digests, no file more or less,
// a serial of at least minSerial, then everything that makes a policy set sound.
// The error is a *LoadError.
func Load(tar []byte, key ed25519.PublicKey, minSerial int64) (*Engine, error) {
	b, err := open(tar, key)
	if err != nil {
		return nil, err
	}
	if b.manifest.Serial < minSerial {
		return nil, refuse(CodeSerial, "", fmt.Errorf("serial %d is lower than %d", b.manifest.Serial, minSerial))
	}
	e, err := compile(b.files, b.manifest.Zone)
	if err != nil {
		return nil, err
	}
	e.name, e.bundle = b.manifest.Name, slices.Clone(tar)
	e.version = policy.Version{
		Digest: b.digest, Serial: b.manifest.Serial,
		Engine: EngineVersion, Reader: policy.ReaderVersion,
	}
	return e, nil
}

// Decide evaluates the policies that can match. Whatever goes wrong is a deny
// with its text in Errors; that text names policies and places, no values.
func (e *Engine) Decide(_ context.Context, in policy.Input) (d policy.Decision) {
	defer func() {
		if p := recover(); p != nil { // the evaluator's fault must not become an answer
			d = policy.Decision{Errors: []string{"request: the evaluator failed"}, Version: e.version}
		}
	}()
	d.Version, d.Reads = e.version, e.asker.reads(in)
	q, err := e.asker.ask(in, true)
	if err != nil {
		d.Errors = []string{"request: " + err.Error()}
		return d
	}
	reads := d.Reads
	d = e.answer(cedar.Authorize(q.candidates(e.full), q.entities, q.request))
	d.Reads = reads
	return d
}

func (q question) candidates(x *index) candidates {
	return candidates{x: x, action: q.request.Action, resource: q.request.Resource, service: q.service}
}

// answer is Cedar's answer in our words: sorted, and any error is a deny.
func (e *Engine) answer(verdict cedar.Decision, diag cedar.Diagnostic) policy.Decision {
	d := policy.Decision{Version: e.version}
	slices.SortFunc(diag.Errors, func(a, b cedar.DiagnosticError) int { return compare(a.PolicyID, b.PolicyID) })
	for _, err := range diag.Errors {
		d.Errors = append(d.Errors, string(err.PolicyID)+": "+cause(err.Message))
	}
	if len(d.Errors) > 0 && verdict == cedar.Allow {
		return d // no permit stands beside an error
	}
	for _, r := range diag.Reasons {
		d.Rules = append(d.Rules, string(r.PolicyID))
	}
	slices.Sort(d.Rules)
	if verdict == cedar.Allow {
		d.Effect = policy.Permit
	}
	return d
}

// cause is an evaluator's message without the numbers of the call, which an
// overflow quotes.
func cause(message string) string {
	if strings.HasPrefix(message, "integer overflow") {
		return "integer overflow"
	}
	return message
}

// Listed reports whether an entry of a list may be shown: whether Decide could
// permit it for some content of the call (scope-and-policy.md §4.5).
func (e *Engine) Listed(_ context.Context, in policy.Input) (listed bool) {
	defer func() {
		if recover() != nil {
			listed = false
		}
	}()
	q, err := e.asker.ask(in, false)
	if err != nil {
		return false
	}
	verdict, diag := cedar.Authorize(q.candidates(e.list), q.entities, q.request)
	for _, err := range diag.Errors {
		// A policy that is in the list set as it was written fails in Decide too,
		// and denies there. One that lost a guard fails only here.
		if !e.derived[err.PolicyID] {
			return false
		}
	}
	return verdict == cedar.Allow
}

// Version names the bundle and the code that reads it.
func (e *Engine) Version() policy.Version { return e.version }

// Name is the bundle's name.
func (e *Engine) Name() string { return e.name }

// Rule returns a policy as the operator wrote it.
func (e *Engine) Rule(id string) (text string, ok bool) {
	r, ok := e.rules[types.PolicyID(id)]
	if !ok {
		return "", false
	}
	return r.text, true
}

// Rules returns the ids of all policies, sorted.
func (e *Engine) Rules() []string {
	ids := make([]string, 0, len(e.rules))
	for id := range e.rules {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	return ids
}

// Warnings are what the load found worth saying and not worth refusing.
func (e *Engine) Warnings() []string { return slices.Clone(e.warnings) }

// Bundle returns the bytes that were loaded. Kept under the version's digest
// they let a recorded decision be made again.
func (e *Engine) Bundle() []byte { return slices.Clone(e.bundle) }

func compare[T ~string](a, b T) int { return cmp.Compare(a, b) }
