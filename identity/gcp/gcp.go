// Package gcp authenticates workloads by the identity tokens that the metadata
// server of Google Cloud issues to their service account. It is a driver of
// package identity.
//
//	VM, Cloud Run, GKE ──metadata──▶ JWT ──▶ internal/workloadjwt ──▶ sub is listed, azp = sub, ──▶ gcp://<sub>
//	                     audience,           accounts.google.com,     project
//	                     format=full         audience, times, key
//
// The issuer is one for all of Google, people included. So the service accounts
// are listed, by their unique id (21 digits), which is never given again; an email
// address can be, and is no identity here (`sub`, never `email`).
//
// It promises that an accepted token was issued to a listed service account, for
// the token service alone, and, where the token says in which project the instance
// runs, that it is the configured one.
//
// It does not say which instance it was. Workloads on GKE that have no service
// account of Google Cloud are known to package kubernetes.
package gcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
)

const (
	// Issuer is the `iss` of every identity token of Google.
	Issuer = "https://accounts.google.com"
	// MaxLife is the longest life of a token, and the only one Google gives.
	MaxLife = time.Hour
)

// Config configures a Source. Name, Accounts and Audience are required.
type Config struct {
	// Name is the name of the source in records: a DNS label.
	Name string
	// Accounts are the service accounts whose tokens are accepted. There is one
	// source for all of them, as there is one issuer.
	Accounts []Account
	// Audience is the URL of the token service.
	Audience string

	// HTTP fetches keys; nil: a client of its own, without proxy.
	HTTP *http.Client
	// Now is the clock of the key cache; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// Account is a service account.
type Account struct {
	// ID is its unique id, digits; not its email address.
	ID string
	// Project is the id of the project its instances run in; required. A token
	// without `google.compute_engine` says nothing of it.
	Project string
	// Agent names the agent, if not by `gcp://<sub>`.
	Agent identity.Agent
}

// Source accepts the tokens of the listed accounts. It is safe for concurrent
// use, starts no goroutine, and needs no closing.
type Source struct {
	jwt      *workloadjwt.Verifier
	accounts map[string]Account
}

var _ identity.Assertions = (*Source)(nil)

// New builds a Source. It fetches nothing.
func New(cfg Config) (*Source, error) {
	s, err := newSource(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring GCP source %q: %w", cfg.Name, err)
	}
	return s, nil
}

func newSource(cfg Config) (*Source, error) {
	if len(cfg.Accounts) == 0 {
		return nil, errors.New("no account is listed, and the issuer is everyone's")
	}
	s := &Source{accounts: map[string]Account{}}
	for _, a := range cfg.Accounts {
		_, twice := s.accounts[a.ID]
		switch {
		case a.ID == "" || len(a.ID) > 32 || strings.Trim(a.ID, "0123456789") != "":
			return nil, fmt.Errorf("account %q is no unique id, which has digits only", a.ID)
		case twice:
			return nil, fmt.Errorf("account %s is listed twice", a.ID)
		case a.Project == "":
			return nil, fmt.Errorf("account %s has no project", a.ID)
		}
		if a.Agent.IsZero() {
			a.Agent = identity.MustParseAgent("gcp://" + a.ID)
		}
		s.accounts[a.ID] = a
	}
	if err := workloadjwt.CheckServiceURL(cfg.Audience); err != nil {
		return nil, err
	}
	var err error
	s.jwt, err = workloadjwt.New(workloadjwt.Config{
		Name:       cfg.Name,
		Issuers:    []workloadjwt.Issuer{{URL: Issuer}},
		Audience:   cfg.Audience,
		Algorithms: []workloadjwt.Algorithm{workloadjwt.RS256},
		MaxLife:    MaxLife,
		HTTP:       cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	return s, err
}

// Authenticate implements identity.Assertions.
func (s *Source) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	return s.jwt.Authenticate(ctx, assertionType, assertion, now, s.agent)
}

// agent applies the row of tokens.md §9. `azp` = `sub` is true of what the
// metadata server issues; the token of a person has the client of a login there.
func (s *Source) agent(c workloadjwt.Claims) (identity.Agent, error) {
	var claims struct {
		AuthorizedParty string `json:"azp"`
		Google          struct {
			Engine struct {
				Project *string `json:"project_id"`
			} `json:"compute_engine"`
		} `json:"google"`
	}
	if err := c.Decode(&claims); err != nil {
		return identity.Agent{}, err
	}
	account, listed := s.accounts[c.Subject]
	project := claims.Google.Engine.Project
	switch {
	case !listed:
		return identity.Agent{}, fmt.Errorf("sub %q is not listed", c.Subject)
	case claims.AuthorizedParty != c.Subject:
		return identity.Agent{}, fmt.Errorf("azp %q is not sub", claims.AuthorizedParty)
	case project != nil && *project != account.Project:
		return identity.Agent{}, fmt.Errorf("project_id is %q", *project)
	}
	return account.Agent, nil
}
