// Package aws authenticates workloads by the JWTs of AWS outbound identity
// federation: what `sts:GetWebIdentityToken` returns to an IAM principal. It is a
// driver of package identity.
//
//	principal ──GetWebIdentityToken──▶ JWT ──▶ internal/workloadjwt ──▶ aws_account ──▶ the ARN
//	            audience, 300 s                account's issuer,         as configured
//	                                           audience, times, key
//
// It promises that an accepted JWT was issued by the configured account's own
// issuer to a principal of that account, for the token service alone and for at
// most 300 seconds. The agent is the principal's ARN.
//
// Tags are no identity, and are not read. Workloads on EKS are better known to
// package kubernetes, by their service account.
package aws

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

// MaxLife is the longest life of a JWT, the default of AWS.
const MaxLife = 300 * time.Second

// issuerDomain is where AWS gives each account an issuer of its own.
const issuerDomain = ".tokens.sts.global.api.aws"

// Config configures a Source. Name, Issuer, Account and Audience are required.
type Config struct {
	// Name is the name of the source in records: a DNS label.
	Name string
	// Issuer is that of the account, byte for byte:
	// `https://<id>.tokens.sts.global.api.aws`.
	Issuer string
	// Account is the id of the account, 12 digits.
	Account string
	// Audience is the URL of the token service.
	Audience string
	// Agents names agents, by ARN, otherwise than by the ARN.
	Agents map[string]identity.Agent

	// HTTP fetches keys; nil: a client of its own, without proxy.
	HTTP *http.Client
	// Now is the clock of the key cache; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// Source accepts the JWTs of one account. It is safe for concurrent use, starts
// no goroutine, and needs no closing.
type Source struct {
	jwt     *workloadjwt.Verifier
	account string
	agents  map[string]identity.Agent
}

var _ identity.Assertions = (*Source)(nil)

// New builds a Source. It fetches nothing.
func New(cfg Config) (*Source, error) {
	s, err := newSource(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring AWS source %q: %w", cfg.Name, err)
	}
	return s, nil
}

func newSource(cfg Config) (*Source, error) {
	id, ok := strings.CutSuffix(cfg.Issuer, issuerDomain)
	if id, https := strings.CutPrefix(id, "https://"); !ok || !https || !workloadjwt.IsLabel(id) {
		return nil, fmt.Errorf("issuer %q is not https://<id>%s", cfg.Issuer, issuerDomain)
	}
	if len(cfg.Account) != 12 || strings.Trim(cfg.Account, "0123456789") != "" {
		return nil, fmt.Errorf("account %q is not 12 digits", cfg.Account)
	}
	if err := workloadjwt.CheckServiceURL(cfg.Audience); err != nil {
		return nil, err
	}
	for arn, agent := range cfg.Agents {
		if accountOf(arn) != cfg.Account || agent.IsZero() {
			return nil, fmt.Errorf("%q is no ARN of the account with an agent", arn)
		}
	}
	jwt, err := workloadjwt.New(workloadjwt.Config{
		Name:       cfg.Name,
		Issuers:    []workloadjwt.Issuer{{URL: cfg.Issuer}},
		Audience:   cfg.Audience,
		Algorithms: []workloadjwt.Algorithm{workloadjwt.RS256, workloadjwt.ES384},
		MaxLife:    MaxLife,
		HTTP:       cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	return &Source{jwt: jwt, account: cfg.Account, agents: maps.Clone(cfg.Agents)}, nil
}

// Authenticate implements identity.Assertions.
func (s *Source) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	return s.jwt.Authenticate(ctx, assertionType, assertion, now, s.agent)
}

// agent applies the row of tokens.md §9.
func (s *Source) agent(c workloadjwt.Claims) (identity.Agent, error) {
	var claims struct {
		AWS struct {
			Account string `json:"aws_account"`
		} `json:"https://sts.amazonaws.com/"`
	}
	if err := c.Decode(&claims); err != nil {
		return identity.Agent{}, err
	}
	if claims.AWS.Account != s.account {
		return identity.Agent{}, fmt.Errorf("aws_account is %q", claims.AWS.Account)
	}
	if accountOf(c.Subject) != s.account {
		return identity.Agent{}, errors.New("sub is no ARN of the account")
	}
	if agent, ok := s.agents[c.Subject]; ok {
		return agent, nil
	}
	return identity.ParseAgent(c.Subject)
}

// accountOf returns the account of a principal's ARN, "" if it is none:
// `arn:<partition>:iam::<account>:<resource>`, or of sts.
func accountOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] == "" || parts[2] != "iam" && parts[2] != "sts" || parts[3] != "" || parts[5] == "" {
		return ""
	}
	return parts[4]
}
