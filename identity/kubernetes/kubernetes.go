// Package kubernetes authenticates workloads by the projected service account
// tokens of a cluster: EKS (IRSA), AKS, GKE, or any other whose issuer publishes
// its keys. It is a driver of package identity.
//
//	pod ──volume──▶ JWT ──▶ internal/workloadjwt ──▶ sub = kubernetes.io ──▶ k8s://<source>/<ns>/<sa>
//	                        issuer, audience,        pod.uid
//	                        times, signature
//
// The pod needs a volume of its own for this:
//
//	projected:
//	  sources:
//	    - serviceAccountToken:
//	        path: token
//	        audience: https://agents.acme.example   # the token service, nothing else
//	        expirationSeconds: 600
//
// It promises that an accepted token was issued by the configured cluster to a
// pod, for the token service alone and for at most 15 minutes, and that `sub` and
// the `kubernetes.io` claim name the same service account. A token for the cloud
// (`sts.amazonaws.com`) or for the cluster's own API is refused (threat I5), and so
// is one that is bound to no pod, such as that of a secret.
//
// It does not ask the cluster whether the pod still exists.
package kubernetes

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

// MaxLife is the longest life of a token, `exp` - `iat`.
const MaxLife = 15 * time.Minute

const maxServiceAccount = 253 // bytes of a DNS subdomain

// Config configures a Source. Name, Issuer and Audience are required.
type Config struct {
	// Name is the name of the source in records and agent URIs: a DNS label. It
	// stands for the cluster; two clusters never share one.
	Name string
	// Issuer is the cluster's `iss`, byte for byte, such as
	// `https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE` or
	// `https://westeurope.oic.prod-aks.azure.com/<tenant>/<uuid>/` (with the slash) or
	// `https://container.googleapis.com/v1/projects/p/locations/l/clusters/c`.
	Issuer string
	// JWKSURL or JWKSFile are the cluster's keys, where its discovery document
	// cannot be reached; else leave both empty.
	JWKSURL, JWKSFile string
	// Audience is the URL of the token service.
	Audience string
	// Agents names agents otherwise than `k8s://<source>/<ns>/<sa>`.
	Agents map[ServiceAccount]identity.Agent

	// HTTP fetches keys; nil: a client of its own, without proxy.
	HTTP *http.Client
	// Now is the clock of the key cache; nil: time.Now.
	Now func() time.Time
	// Logger gets fetches and their failures; nil: none.
	Logger *slog.Logger
}

// ServiceAccount names a service account of the cluster.
type ServiceAccount struct{ Namespace, Name string }

// Source accepts the tokens of one cluster. It is safe for concurrent use, starts
// no goroutine, and needs no closing.
type Source struct {
	jwt    *workloadjwt.Verifier
	agents map[ServiceAccount]identity.Agent
}

var _ identity.Assertions = (*Source)(nil)

// New builds a Source. It fetches nothing.
func New(cfg Config) (*Source, error) {
	if err := workloadjwt.CheckServiceURL(cfg.Audience); err != nil {
		return nil, fmt.Errorf("configuring Kubernetes source %q: %w", cfg.Name, err)
	}
	for sa, agent := range cfg.Agents {
		if !sa.valid() || agent.IsZero() {
			return nil, fmt.Errorf("configuring Kubernetes source %q: %+v names no service account and its agent", cfg.Name, sa)
		}
	}
	jwt, err := workloadjwt.New(workloadjwt.Config{
		Name:       cfg.Name,
		Issuers:    []workloadjwt.Issuer{{URL: cfg.Issuer, JWKSURL: cfg.JWKSURL, JWKSFile: cfg.JWKSFile}},
		Audience:   cfg.Audience,
		Algorithms: []workloadjwt.Algorithm{workloadjwt.RS256, workloadjwt.ES256, workloadjwt.ES384},
		MaxLife:    MaxLife,
		HTTP:       cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring Kubernetes source %q: %w", cfg.Name, err)
	}
	return &Source{jwt: jwt, agents: maps.Clone(cfg.Agents)}, nil
}

// Authenticate implements identity.Assertions.
func (s *Source) Authenticate(ctx context.Context, assertionType, assertion string, now time.Time) (identity.Workload, error) {
	return s.jwt.Authenticate(ctx, assertionType, assertion, now, s.agent)
}

// agent applies the row of tokens.md §9.
func (s *Source) agent(c workloadjwt.Claims) (identity.Agent, error) {
	sa, err := parseSubject(c.Subject)
	if err != nil {
		return identity.Agent{}, err
	}
	var claims struct {
		Kubernetes struct {
			Namespace string `json:"namespace"`
			Pod       struct {
				UID string `json:"uid"`
			} `json:"pod"`
			ServiceAccount struct {
				Name string `json:"name"`
			} `json:"serviceaccount"`
		} `json:"kubernetes.io"`
	}
	if err := c.Decode(&claims); err != nil {
		return identity.Agent{}, err
	}
	k := claims.Kubernetes
	if bound := (ServiceAccount{k.Namespace, k.ServiceAccount.Name}); bound != sa {
		return identity.Agent{}, fmt.Errorf("sub names %+v, kubernetes.io %+v", sa, bound)
	}
	if k.Pod.UID == "" {
		return identity.Agent{}, errors.New("it is bound to no pod")
	}
	if agent, ok := s.agents[sa]; ok {
		return agent, nil
	}
	return identity.ParseAgent("k8s://" + s.jwt.Name() + "/" + sa.Namespace + "/" + sa.Name)
}

func parseSubject(sub string) (ServiceAccount, error) {
	rest, ok := strings.CutPrefix(sub, "system:serviceaccount:")
	ns, name, split := strings.Cut(rest, ":")
	sa := ServiceAccount{ns, name}
	if !ok || !split || !sa.valid() {
		return ServiceAccount{}, fmt.Errorf("sub %q names no service account", sub)
	}
	return sa, nil
}

// valid holds the names to what Kubernetes allows: a DNS label, a DNS subdomain.
// So they cannot step out of their place in an agent URI.
func (sa ServiceAccount) valid() bool {
	if !workloadjwt.IsLabel(sa.Namespace) || len(sa.Name) > maxServiceAccount {
		return false
	}
	for label := range strings.SplitSeq(sa.Name, ".") {
		if !workloadjwt.IsLabel(label) {
			return false
		}
	}
	return true
}
