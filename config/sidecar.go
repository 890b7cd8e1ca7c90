package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The ways in which a sidecar learns for whom its agent calls.
const (
	DelegationRequest = "request"
	DelegationOwn     = "own"
)

// Sidecar is the configuration of `lineal sidecar` and `lineal run`, in a file
// of its own: one agent, and what it calls. Its numbers are at /metrics of the
// listener, to who has the secret.
type Sidecar struct {
	// Listen is a loopback address, "127.0.0.1:8402", or a socket,
	// "unix:///run/lineal/agent.sock", which answers this user alone. Default: a
	// free port, for `lineal run`.
	Listen string `yaml:"listen,omitempty"`
	// SecretFile is where the secret is written, mode 0600, that the agent presents
	// as its API key over TCP; it is another at each start. Default: none, for a
	// socket and for `lineal run`, which hands it over in the environment.
	SecretFile string `yaml:"secret_file,omitempty"`
	// Gateway is the gateway's public URL, GatewayID its SPIFFE ID.
	Gateway   string `yaml:"gateway"`
	GatewayID string `yaml:"gateway_id"`
	// Issuer is the token service's URL, TokensID its SPIFFE ID.
	Issuer   string `yaml:"issuer"`
	TokensID string `yaml:"tokens_id"`
	// Socket is the SPIFFE Workload API that issues the agent's identity.
	Socket      string `yaml:"spiffe_socket"`
	TrustDomain string `yaml:"trust_domain"`
	// Delegation is "request" (default): each request brings the Lineal-Delegation
	// of the call that the agent is serving; or "own": all calls are for the person
	// who signed in for this process.
	Delegation string `yaml:"delegation,omitempty"`
	// Audience is the agent's own resource identifier, the `aud` of what it is
	// handed; for "request" alone.
	Audience string `yaml:"audience,omitempty"`
	// IDTokenFile holds the ID token of the person who signed in, for "own"; it is
	// read at each use, so that it can be replaced. `lineal run --as` needs none.
	IDTokenFile string `yaml:"id_token_file,omitempty"`
	// FederationRule lets clients of Anthropic's API have the secret for a JWT-SVID
	// of this agent: their `ANTHROPIC_FEDERATION_RULE_ID`, which stands for the one
	// sign-in; for "own" and TCP alone. Default: none.
	FederationRule string `yaml:"federation_rule,omitempty"`
	// Routes are what the agent may call, and what it asks for.
	Routes []SidecarRoute `yaml:"routes"`
}

// SidecarRoute is one route of the gateway as the agent uses it.
type SidecarRoute struct {
	// Path is the route's, "/mcp/orders", "/a2a/research", "/openai/v1",
	// "/anthropic". The agent's base URL is the sidecar's with this path.
	Path string `yaml:"path"`
	// Details are the authorization_details that its calls need, as JSON without
	// `from`.
	Details string `yaml:"authorization_details"`
}

// LoadSidecar reads and checks a sidecar's file.
func LoadSidecar(path string) (Sidecar, error) {
	c, err := ReadSidecar(path)
	if err != nil {
		return Sidecar{}, err
	}
	if err := c.Validate(); err != nil {
		return Sidecar{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// ReadSidecar reads a sidecar's file and does not check what is in it.
func ReadSidecar(path string) (Sidecar, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Sidecar{}, fmt.Errorf("reading configuration: %w", err)
	}
	var c Sidecar
	if err := yaml.Load(data, &c, yaml.WithKnownFields(), yaml.WithUniqueKeys(), yaml.WithSingleDocument()); err != nil {
		return Sidecar{}, fmt.Errorf("reading configuration %s: %w", path, err)
	}
	return c, nil
}

// Validate lists everything that is wrong at once.
func (c Sidecar) Validate() error {
	var errs []error
	for _, n := range []needed{
		{"gateway_id", c.GatewayID},
		{"tokens_id", c.TokensID},
		{"spiffe_socket", c.Socket},
		{"trust_domain", c.TrustDomain},
	} {
		if n.value == "" {
			errs = append(errs, fmt.Errorf("%s: required", n.path))
		}
	}
	if err := baseURL(c.Gateway, false); err != nil {
		errs = append(errs, fmt.Errorf("gateway: %w", err))
	}
	if err := baseURL(c.Issuer, true); err != nil {
		errs = append(errs, fmt.Errorf("issuer: %w", err))
	}
	switch c.Delegation {
	case "", DelegationRequest:
		if c.Audience == "" {
			errs = append(errs, errors.New("audience: required where requests bring their delegation"))
		}
		if c.IDTokenFile != "" {
			errs = append(errs, errors.New("id_token_file: requests bring their delegation; set delegation: own"))
		}
		if c.FederationRule != "" {
			errs = append(errs, errors.New("federation_rule: an identity alone names no person; set delegation: own"))
		}
	case DelegationOwn:
	default:
		errs = append(errs, fmt.Errorf("delegation: %q is neither request nor own", c.Delegation))
	}
	if len(c.Routes) == 0 {
		errs = append(errs, errors.New("routes: at least one is required"))
	}
	for i, r := range c.Routes {
		if !strings.HasPrefix(r.Path, "/") || strings.HasSuffix(r.Path, "/") {
			errs = append(errs, fmt.Errorf("routes[%d].path: must begin with a slash and not end with one", i))
		}
		if r.Path == "/metrics" {
			errs = append(errs, fmt.Errorf("routes[%d].path: /metrics is the sidecar's own", i))
		}
		var details []json.RawMessage
		if err := json.Unmarshal([]byte(r.Details), &details); err != nil || len(details) == 0 {
			errs = append(errs, fmt.Errorf("routes[%d].authorization_details: must be a JSON array that is not empty", i))
		}
	}
	return errors.Join(errs...)
}
