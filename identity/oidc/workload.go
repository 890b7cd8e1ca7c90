package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

const (
	// WorkloadLife is the longest life of a workload's JWT, unless configured.
	WorkloadLife = time.Hour
	// GitHubActions is the issuer of the JWTs of GitHub Actions.
	GitHubActions = "https://token.actions.githubusercontent.com"
)

// WorkloadConfig configures Workloads. Name, Issuer, Audience, Algorithms and
// Subjects are required.
type WorkloadConfig struct {
	// Name is the name of the source in records: a DNS label.
	Name string
	// Issuer is its `iss`, byte for byte: an https URL without query and fragment.
	Issuer string
	// JWKSURL or JWKSFile are its keys, where discovery cannot be used; else leave
	// both empty.
	JWKSURL, JWKSFile string
	// Audience is the URL of the token service.
	Audience string
	// Algorithms are those it signs with: of "RS256", "ES256", "ES384".
	Algorithms []string
	// MaxLife bounds `exp` - `iat`; zero: WorkloadLife.
	MaxLife time.Duration
	// Subjects are the workloads that are accepted.
	Subjects []WorkloadSubject

	// HTTP fetches keys; nil: a client of its own, without proxy.
	HTTP *http.Client
	// Now is the clock of the key cache; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// WorkloadSubject is one accepted workload. There are no patterns: a pattern is
// met by a name that somebody else can register.
type WorkloadSubject struct {
	// Subject is its `sub`, byte for byte.
	Subject string
	// Claims are further claims it must have, with exactly these strings as their
	// values. Where `sub` is made of names, which can change hands, pin the ids.
	Claims map[string]string
	// Agent names the agent, if not by `<iss>#<sub>`.
	Agent identity.Agent
}

// Workloads authenticates workloads by the JWTs of a generic OpenID issuer, such
// as GitHub Actions. It is safe for concurrent use, starts no goroutine, and needs
// no closing. It shares no key and no rule with Verifier, which is about people.
type Workloads struct {
	jwt      *workloadjwt.Verifier
	subjects map[string]WorkloadSubject
}

var _ identity.Assertions = (*Workloads)(nil)

// NewWorkloads builds a Workloads. It fetches nothing.
func NewWorkloads(cfg WorkloadConfig) (*Workloads, error) {
	w, err := newWorkloads(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring OpenID workloads %q: %w", cfg.Name, err)
	}
	return w, nil
}

func newWorkloads(cfg WorkloadConfig) (*Workloads, error) {
	if err := workloadjwt.CheckServiceURL(cfg.Audience); err != nil {
		return nil, err
	}
	if cfg.MaxLife == 0 {
		cfg.MaxLife = WorkloadLife
	}
	var algorithms []workloadjwt.Algorithm
	for _, a := range cfg.Algorithms {
		algorithms = append(algorithms, workloadjwt.Algorithm(a))
	}
	jwt, err := workloadjwt.New(workloadjwt.Config{
		Name:     cfg.Name,
		Issuers:  []workloadjwt.Issuer{{URL: cfg.Issuer, JWKSURL: cfg.JWKSURL, JWKSFile: cfg.JWKSFile}},
		Audience: cfg.Audience, Algorithms: algorithms, MaxLife: cfg.MaxLife,
		HTTP: cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	w := &Workloads{jwt: jwt, subjects: map[string]WorkloadSubject{}}
	for _, s := range cfg.Subjects {
		if _, twice := w.subjects[s.Subject]; twice {
			return nil, fmt.Errorf("subject %q is listed twice", s.Subject)
		}
		if s, err = s.resolve(cfg.Issuer); err != nil {
			return nil, fmt.Errorf("subject %q: %w", s.Subject, err)
		}
		w.subjects[s.Subject] = s
	}
	if len(w.subjects) == 0 {
		return nil, errors.New("no subject is listed")
	}
	return w, nil
}

// resolve checks a subject and fills in its agent.
func (s WorkloadSubject) resolve(issuer string) (WorkloadSubject, error) {
	if s.Subject == "" {
		return s, errors.New("empty")
	}
	s.Claims = maps.Clone(s.Claims)
	for name := range s.Claims {
		if name == "" || slices.Contains([]string{"iss", "sub", "aud", "exp", "iat", "nbf"}, name) {
			return s, fmt.Errorf("claim %q is not for this list", name)
		}
	}
	if !s.Agent.IsZero() {
		return s, nil
	}
	var err error
	s.Agent, err = identity.ParseAgent(issuer + "#" + s.Subject)
	return s, err
}

// Authenticate implements identity.Assertions.
func (w *Workloads) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	return w.jwt.Authenticate(ctx, assertionType, assertion, now, w.agent)
}

// agent applies the row of tokens.md §9.
func (w *Workloads) agent(c workloadjwt.Claims) (identity.Agent, error) {
	s, listed := w.subjects[c.Subject]
	if !listed {
		return identity.Agent{}, fmt.Errorf("sub %q is not listed", c.Subject)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		got, err := c.Text(name)
		if err != nil {
			return identity.Agent{}, err
		}
		if got != s.Claims[name] {
			return identity.Agent{}, fmt.Errorf("%s is %q", name, got)
		}
	}
	return s.Agent, nil
}
