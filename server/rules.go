package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/policy/authzen"
	"github.com/lineal-auth/lineal/policy/cedar"
	"github.com/lineal-auth/lineal/policy/opa"
	"github.com/lineal-auth/lineal/record"
)

// rules is the operator's policy in this process: the engine that is asked, and
// the record of which rules were in force from when.
//
// No decision is made under rules whose activation is not durable: a bundle is
// recorded before it is put in force, and a decision point that answers by other
// rules than before is believed only once that is recorded.
type rules struct {
	live   *cedar.Live    // nil where a decision point is asked
	remote policy.Decider // nil for cedar
	taken  func()         // nil, or told of each changed bundle that is sound
	cfg    config.Policy
	state  string // file of the last activation, which outlives the process
	by     *recorder
	logger *slog.Logger

	inForce atomic.Pointer[policy.Version] // the last that was recorded

	mu      sync.Mutex // guards what follows: one activation or reload at a time
	earlier activation // "" before the first of this data directory
	tried   map[string][sha256.Size]byte
}

// activation is what is remembered of the last rules in force.
type activation struct {
	Digest string `json:"bundle_digest"`
	Serial int64  `json:"serial"`
	Engine string `json:"engine"`
}

// policyStateFile keeps the last activation, so that a start with an older
// bundle is refused, and a change names what it changed from.
const policyStateFile = "policy-in-force.json"

// activateTimeout bounds the wait for a policy record.
const activateTimeout = 5 * time.Second

// loadRules builds the engine that the configuration names. A bundle is signed
// by this deployment's manifest key.
func loadRules(cfg config.Config, keys keyRing, logger *slog.Logger) (_ *rules, err error) {
	r := &rules{
		cfg: cfg.Policy, state: filepath.Join(cfg.DataDir, policyStateFile), logger: logger, tried: map[string][sha256.Size]byte{},
	}
	if r.earlier, err = readActivation(r.state); err != nil {
		return nil, err
	}
	if cfg.Policy.EngineName() == config.EngineCedar {
		return r, r.loadCedar(keys)
	}
	if r.remote, err = decisionPoint(cfg.Policy); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return r, nil
}

func (r *rules) loadCedar(keys keyRing) error {
	archive, err := r.read(r.cfg.Bundle)
	if err != nil {
		return fmt.Errorf("reading policy bundle: %w", err)
	}
	least := int64(1)
	if strings.HasPrefix(r.earlier.Engine, cedar.EnginePrefix) {
		least = r.earlier.Serial
	}
	if r.live, err = cedar.NewLive(archive, keys.manifestPublic, least); err != nil {
		return fmt.Errorf("loading policy bundle %s: %w", r.cfg.Bundle, err)
	}
	v := r.live.Engine().Version()
	if v.Serial == r.earlier.Serial && v.Digest != r.earlier.Digest && least > 1 {
		return fmt.Errorf("loading policy bundle %s: serial %d was in force with other content", r.cfg.Bundle, v.Serial)
	}
	if r.cfg.Shadow == nil {
		return nil
	}
	if archive, err = r.read(r.cfg.Shadow.Bundle); err != nil {
		return fmt.Errorf("reading policy on trial: %w", err)
	}
	if err := r.live.SetShadow(archive); err != nil {
		return fmt.Errorf("loading policy on trial %s: %w", r.cfg.Shadow.Bundle, err)
	}
	return nil
}

// decisionPoint is the driver of a remote engine. This is the one place that
// knows which there are.
func decisionPoint(p config.Policy) (policy.Decider, error) {
	zone, err := time.LoadLocation(p.Zone)
	if err != nil {
		return nil, err
	}
	var bearer func(context.Context) (string, error)
	if p.TokenFile != "" {
		bearer = func(context.Context) (string, error) {
			text, err := os.ReadFile(p.TokenFile) //nolint:gosec // the operator names the file
			return strings.TrimSpace(string(text)), err
		}
	}
	if p.Engine == config.EngineAuthZEN {
		return authzen.New(authzen.Config{URL: p.URL, Zone: zone, Timeout: p.Deadline, Bearer: bearer})
	}
	rule := p.Rule
	if rule == "" {
		rule = "lineal/decision"
	}
	return opa.New(opa.Config{URL: p.URL, Path: rule, Zone: zone, Timeout: p.Deadline, Bearer: bearer})
}

// decider is what the gateway asks. Only cedar can be asked about lists.
func (r *rules) decider() policy.Decider {
	if r.live != nil {
		return r.live
	}
	return recorded{r}
}

// now is the version in force: the last that was recorded. It is the zero
// Version before begin.
func (r *rules) now() policy.Version {
	if v := r.inForce.Load(); v != nil {
		return *v
	}
	return policy.Version{}
}

// version is the digest of the rules in force, as tokens name it.
func (r *rules) version() string { return r.now().Digest }

// begin records which rules are in force from now on, in this process.
func (r *rules) begin(ctx context.Context, by *recorder) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by = by
	if r.live != nil {
		e := r.live.Engine()
		return r.activate(ctx, e.Version(), e.Bundle())
	}
	return r.activate(ctx, r.remote.Decide(ctx, policy.Input{}).Version, nil)
}

// activate makes the policy record durable. The caller holds mu.
func (r *rules) activate(ctx context.Context, v policy.Version, bundle []byte) error {
	rec := r.by.own(record.KindPolicy)
	rec.PolicyChange = &record.PolicyChange{BundleDigest: v.Digest, Serial: v.Serial, Engine: v.Engine, Approvals: []string{}}
	if r.earlier.Digest != v.Digest {
		rec.PolicyChange.PreviousDigest = r.earlier.Digest
	}
	var blobs []ledger.Blob
	if bundle != nil {
		blobs = []ledger.Blob{{Digest: v.Digest, Class: blobPolicy, Bytes: bundle}}
	}
	ctx, cancel := context.WithTimeout(ctx, activateTimeout)
	defer cancel()
	if err := r.by.append(ctx, rec, blobs); err != nil {
		return fmt.Errorf("recording the policy: %w", err)
	}
	r.earlier = activation{Digest: v.Digest, Serial: v.Serial, Engine: v.Engine}
	r.inForce.Store(&v)
	text, err := json.Marshal(r.earlier)
	if err == nil {
		err = durable.WriteFile(r.state, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remembering the policy: %w", err)
	}
	return nil
}

func readActivation(path string) (a activation, err error) {
	text, err := os.ReadFile(path) //nolint:gosec // below the data directory
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, nil
	case err != nil:
		return a, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// files are the bundles that may change.
func (r *rules) files() []string {
	out := []string{r.cfg.Bundle}
	if r.cfg.Shadow != nil {
		out = append(out, r.cfg.Shadow.Bundle)
	}
	return out
}

// reload takes in changed bundles. Each is put in force whole, or not at all: on
// an error the last good one stays. It does nothing where a decision point is
// asked, and nothing twice for the same file.
func (r *rules) reload(ctx context.Context) error {
	if r.live == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.reloadFile(r.cfg.Bundle, func(archive []byte) error {
		return r.live.SwapAfter(archive, func(e *cedar.Engine) error {
			return r.activate(ctx, e.Version(), e.Bundle())
		})
	})
	if r.cfg.Shadow != nil {
		err = errors.Join(err, r.reloadFile(r.cfg.Shadow.Bundle, r.live.SetShadow))
	}
	return err
}

func (r *rules) reloadFile(path string, take func([]byte) error) error {
	before := r.tried[path]
	archive, err := r.read(path)
	if err != nil {
		return fmt.Errorf("policy bundle %s: %w", path, err)
	}
	if r.tried[path] == before {
		return nil
	}
	if err := take(archive); err != nil {
		var refused *cedar.LoadError
		if !errors.As(err, &refused) { // not the file's fault: try it again
			delete(r.tried, path)
		}
		return fmt.Errorf("policy bundle %s: %w", path, err)
	}
	if r.taken != nil {
		r.taken()
	}
	r.logger.Info("policy bundle taken in", slog.String("file", path), slog.Int64("serial", r.live.Engine().Version().Serial))
	return nil
}

// read reads a bundle, and notes what it read.
func (r *rules) read(path string) ([]byte, error) {
	archive, err := readPolicyFile(path)
	if err == nil {
		r.tried[path] = sha256.Sum256(archive)
	}
	return archive, err
}

// recorded is a decision point whose rules may change at any time: what it says
// by rules that were not in force before is recorded first.
type recorded struct{ r *rules }

// Decide asks once.
func (d recorded) Decide(ctx context.Context, in policy.Input) policy.Decision {
	answer := d.r.remote.Decide(ctx, in)
	if len(answer.Errors) > 0 { // it may have said nothing of its rules
		return answer
	}
	if d.r.now() == answer.Version {
		return answer
	}
	if err := d.r.changed(ctx, answer.Version); err != nil {
		d.r.logger.ErrorContext(ctx, "the change of policy is not recorded", slog.String("cause", err.Error()))
		return policy.Decision{
			Version: answer.Version, Errors: []string{"request: the change of policy is not recorded"}, Unavailable: true,
		}
	}
	return answer
}

func (r *rules) changed(ctx context.Context, v policy.Version) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now() == v {
		return nil
	}
	return r.activate(ctx, v, nil)
}
