package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Identity lists the platforms whose JWTs workloads authenticate by at the token
// service, beside their certificates. Each JWT must be for the issuer URL of the
// token service alone, and comes with a certificate or a DPoP proof. Each name is
// a DNS label, and each issuer stands once. A workload is an agent as soon as
// its URI is listed among the agents.
type Identity struct {
	// SPIFFEJWT accepts JWT-SVIDs of the trust domain, by the token service's
	// Workload API, which must deliver JWT bundles; default false.
	SPIFFEJWT bool `yaml:"spiffe_jwt,omitempty"`
	// Federated are SPIFFE trust domains beside trust_domain whose workloads are
	// accepted, each by its own bundle alone, which the Workload APIs must deliver
	// (SPIRE: federatesWith); default: none.
	Federated  []string     `yaml:"federated,omitempty"`
	Kubernetes []Kubernetes `yaml:"kubernetes,omitempty"`
	AWS        []AWS        `yaml:"aws,omitempty"`
	Azure      []Azure      `yaml:"azure,omitempty"`
	GCP        []GCP        `yaml:"gcp,omitempty"`
	OIDC       []OIDC       `yaml:"oidc,omitempty"`
}

// Kubernetes is a cluster (EKS, AKS, GKE or any other) and the projected service
// account tokens of its pods.
type Kubernetes struct {
	// Name stands for the cluster in agent URIs: k8s://<name>/<namespace>/<account>.
	Name string `yaml:"name"`
	// Issuer is the cluster's `iss`, byte for byte.
	Issuer string `yaml:"issuer"`
	// JWKSURL or JWKSFile are its keys; default: those of its discovery document.
	JWKSURL  string `yaml:"jwks_url,omitempty"`
	JWKSFile string `yaml:"jwks_file,omitempty"`
	// Agents name service accounts otherwise than by their default URI; default: none.
	Agents []ServiceAccount `yaml:"agents,omitempty"`
}

// ServiceAccount gives a service account of a cluster the URI of an agent.
type ServiceAccount struct {
	Namespace string `yaml:"namespace"`
	Account   string `yaml:"account"`
	Agent     string `yaml:"agent"`
}

// AWS is an account with outbound identity federation. Agents are named by ARN.
type AWS struct {
	Name string `yaml:"name"`
	// Issuer is the account's: https://<id>.tokens.sts.global.api.aws.
	Issuer string `yaml:"issuer"`
	// Account is its id, 12 digits.
	Account string `yaml:"account"`
}

// Azure is an Entra tenant and its managed identities. Agents are
// azure://<tenant>/<object id>.
type Azure struct {
	Name   string `yaml:"name"`
	Tenant string `yaml:"tenant"`
	// Application is the `aud` of tokens for the token service's own application,
	// which nothing else uses.
	Application string `yaml:"application"`
}

// GCP lists service accounts of Google Cloud. Their issuer is one for all of
// Google, so there is at most one such entry. Agents are gcp://<id>.
type GCP struct {
	Name     string       `yaml:"name"`
	Accounts []GCPAccount `yaml:"accounts"`
}

// GCPAccount is a service account.
type GCPAccount struct {
	// ID is its unique id, 21 digits, not its email address.
	ID string `yaml:"id"`
	// Project is the id of the project that its instances run in.
	Project string `yaml:"project"`
}

// OIDC is any other issuer, such as GitHub Actions
// (https://token.actions.githubusercontent.com). Agents are <issuer>#<subject>.
type OIDC struct {
	Name string `yaml:"name"`
	// Issuer is its `iss`, byte for byte.
	Issuer string `yaml:"issuer"`
	// JWKSURL or JWKSFile are its keys; default: those of its discovery document.
	JWKSURL  string `yaml:"jwks_url,omitempty"`
	JWKSFile string `yaml:"jwks_file,omitempty"`
	// Algorithms are of RS256, ES256, ES384.
	Algorithms []string `yaml:"algorithms"`
	// MaxLife bounds the life of its JWTs; default 1 h.
	MaxLife time.Duration `yaml:"max_life,omitempty"`
	// Subjects are the workloads that are accepted, each by its exact `sub`.
	Subjects []Subject `yaml:"subjects"`
}

// Subject is a workload of an OIDC issuer.
type Subject struct {
	Subject string `yaml:"subject"`
	// Claims must have exactly these values too; default: none. A `sub` that is made
	// of names needs them: names change hands, ids do not (`repository_id`).
	Claims map[string]string `yaml:"claims,omitempty"`
}

// validate checks that no two sources can be taken for each other. own is the
// own trust domain.
func (i Identity) validate(own string) (errs []error) {
	names, issuers := map[string]bool{}, map[string]bool{}
	once := func(kind, name, issuer string) {
		if name == "" || issuer == "" {
			errs = append(errs, fmt.Errorf("identity.%s: each needs a name and its issuer or tenant", kind))
			return
		}
		if names[name] {
			errs = append(errs, fmt.Errorf("identity.%s: two sources named %s", kind, name))
		}
		if issuers[issuer] {
			errs = append(errs, fmt.Errorf("identity.%s: %s stands twice", kind, issuer))
		}
		names[name], issuers[issuer] = true, true
	}
	domains := map[string]bool{own: true}
	for _, d := range i.Federated {
		if d == "" || domains[d] || strings.ContainsAny(d, ":/ ") || d != strings.ToLower(d) {
			errs = append(errs, fmt.Errorf("identity.federated: %q is no trust domain, the own one, or stands twice", d))
		}
		domains[d] = true
	}
	if i.SPIFFEJWT {
		once("spiffe_jwt", "spiffe", "spiffe")
	}
	for _, k := range i.Kubernetes {
		once("kubernetes", k.Name, k.Issuer)
	}
	for _, a := range i.AWS {
		once("aws", a.Name, a.Issuer)
	}
	for _, a := range i.Azure {
		once("azure", a.Name, a.Tenant)
	}
	for _, o := range i.OIDC {
		once("oidc", o.Name, o.Issuer)
	}
	for _, g := range i.GCP {
		once("gcp", g.Name, "https://accounts.google.com")
	}
	if len(i.GCP) > 1 {
		errs = append(errs, errors.New("identity.gcp: more than one entry; list all accounts in one"))
	}
	return errs
}
