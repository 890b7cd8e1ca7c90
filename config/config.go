// Package config is the configuration file, one documented struct.
//
// [Load] reads YAML strictly: an unknown or doubled key, or a value of another
// type, is an error with file and line. [Config.Validate] checks what one value
// alone can show; what needs the rest of the world (a socket that answers, a
// bundle that is signed) is checked by package server at start.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Config is the whole configuration. A field without "default" is required.
type Config struct {
	// PublicURL is the external base URL of the gateway, scheme and host.
	// Every audience starts with it.
	PublicURL string `yaml:"public_url"`
	// TrustDomain is the SPIFFE trust domain of this deployment.
	TrustDomain string `yaml:"trust_domain"`
	// DataDir holds keys, ledger and registry; created by `lineal ledger init`
	// and by the demo, mode 0700.
	DataDir string `yaml:"data_dir"`
	// ClockLeeway is the clock difference allowed; default 30 s. A smaller one
	// is for machines that share a clock.
	ClockLeeway time.Duration `yaml:"clock_leeway,omitempty"`
	// Roles are what this process runs of "gateway", "tokens" and "ledger", which
	// sequences; default: all three. Processes with other roles share its PostgreSQL
	// store, and keep only the keys that their own roles need.
	Roles []Role `yaml:"roles,omitempty"`

	Gateway Gateway `yaml:"gateway"`
	Tokens  Tokens  `yaml:"tokens"`
	Ledger  Ledger  `yaml:"ledger"`
	Policy  Policy  `yaml:"policy"`
	Agents  []Agent `yaml:"agents"`
	// Identity lists platforms that vouch for workloads; default: none, and
	// workloads authenticate by their certificates alone.
	Identity  Identity  `yaml:"identity,omitempty"`
	Upstreams Upstreams `yaml:"upstreams"`
	// ExtAuthz answers proxies that ask whether they may send a call on (Envoy's
	// external authorization); default: none.
	ExtAuthz *ExtAuthz `yaml:"ext_authz,omitempty"`
	// Admin is the API for operators and the probes; default: none.
	Admin *Admin `yaml:"admin,omitempty"`
	// Feeds send the records on, to a file, a syslog receiver or a webhook; default:
	// none.
	Feeds []Feed `yaml:"feeds,omitempty"`
}

// Gateway is the gateway's listener and identity. All gateways of a deployment
// have one identity. A process without this role needs only spiffe_id.
type Gateway struct {
	// Address to listen on, "127.0.0.1:8443".
	Address string `yaml:"address"`
	// Socket is the SPIFFE Workload API that issues the gateway's identity.
	Socket string `yaml:"spiffe_socket"`
	// ID is the gateway's SPIFFE ID where another process runs it; default: the
	// one that the socket gives.
	ID string `yaml:"spiffe_id,omitempty"`
}

// Tokens is the token service. All processes that run it have one issuer and one
// identity. A process without this role needs only issuer and spiffe_id.
type Tokens struct {
	// Issuer is its URL, the `iss` of every token: scheme, host and path.
	Issuer  string `yaml:"issuer"`
	Address string `yaml:"address"`
	Socket  string `yaml:"spiffe_socket"`
	// ID is the token service's SPIFFE ID where another process runs it; default:
	// the one that the socket gives.
	ID string `yaml:"spiffe_id,omitempty"`
	// Lifetime of a delegation token; default 5 min.
	Lifetime time.Duration `yaml:"lifetime,omitempty"`
	// Keys are the keys that sign tokens and receipts, in the order in which they
	// sign: each until the next begins. Default: issuer.key in the data directory.
	// To rotate, append the new key; remove the old one when it has retired.
	Keys []Key `yaml:"keys,omitempty"`
	// PersonIssuers are the OpenID providers whose logins are accepted.
	PersonIssuers []string `yaml:"person_issuers"`
	// Login lets persons log in directly at clients, MCP clients above all;
	// default: they cannot.
	Login *Login `yaml:"login,omitempty"`
	// Clients are the applications at which they do, registered ahead.
	Clients []Client `yaml:"clients,omitempty"`
	// Partners are the token services of other organisations; default: none.
	Partners []Partner `yaml:"partners,omitempty"`
}

// Key is a private key on P-256 (ES256) or Ed25519 (EdDSA), in a file or in a
// PKCS #11 token.
type Key struct {
	// File is PKCS #8 in PEM, mode 0600; a relative name is below keys in the data
	// directory. Made by `lineal key new`.
	File string `yaml:"file,omitempty"`
	// PKCS11 is the key's URI (RFC 7512) in place of a file:
	// "pkcs11:token=lineal;object=issuer-2?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/secrets/pin".
	PKCS11 string `yaml:"pkcs11,omitempty"`
	// UseFrom is from when the key signs; default: as soon as every verifier knows
	// it, ten minutes after it was first listed. Never earlier.
	UseFrom time.Time `yaml:"use_from,omitempty"`
}

// Login is the provider at which persons log in when a client sends them to the
// token service, and the token service's own registration there. Its redirect
// URI is <issuer>/callback.
type Login struct {
	// Issuer is one of person_issuers.
	Issuer   string `yaml:"issuer"`
	ClientID string `yaml:"client_id"`
	// ClientSecret is empty for a public client; PKCE is used in any case.
	ClientSecret Secret `yaml:"client_secret,omitempty"`
	// MaxAge is how long ago a person may have signed in; default 1 h.
	MaxAge time.Duration `yaml:"max_age,omitempty"`
	// Refresh is how long a client gets new tokens before the person must log in
	// again; default 8 h, at most 30 days.
	Refresh time.Duration `yaml:"refresh,omitempty"`
	// Documents lets clients in that nobody registered, by their Client ID
	// Metadata Documents; default: none.
	Documents *Documents `yaml:"client_documents,omitempty"`
}

// Documents says how Client ID Metadata Documents are fetched: from public
// addresses alone.
type Documents struct {
	// AllowLoopback also allows loopback addresses, for development.
	AllowLoopback bool `yaml:"allow_loopback,omitempty"`
	// CA is a PEM file of authorities of hosts; default: the system's.
	CA string `yaml:"ca,omitempty"`
}

// Client is an application at which persons log in.
type Client struct {
	// ID is its client_id, a URI: policies and records name it by it.
	ID   string `yaml:"client_id"`
	Name string `yaml:"name"`
	// RedirectURIs are exact, but for the port of a loopback address.
	RedirectURIs []string `yaml:"redirect_uris"`
	// Auth is "none" (default), "private_key_jwt", or "spiffe_x509" for a workload
	// that is named by its SPIFFE ID.
	Auth string `yaml:"auth,omitempty"`
	// Keys is a file with its JWK set, or KeysURL where it is, for private_key_jwt.
	Keys    string `yaml:"keys,omitempty"`
	KeysURL string `yaml:"keys_url,omitempty"`
	// Authority is all that it may ever hold, as an agent's. Empty for one that
	// is listed among the agents.
	Authority string `yaml:"authority,omitempty"`
}

// Agent is a registered workload.
type Agent struct {
	// URI is the identity that it proves: a SPIFFE ID, or what a platform's source
	// makes of its JWT.
	URI  string `yaml:"uri"`
	Name string `yaml:"name"`
	// Service marks an application that is no agent.
	Service bool `yaml:"service,omitempty"`
	// Authority is all that it may ever hold: authorization_details as JSON,
	// without `from`.
	Authority string `yaml:"authority"`
	// OIDCClients are the clients under which it logs persons in.
	OIDCClients []OIDCClient `yaml:"oidc_clients,omitempty"`
}

// OIDCClient is a client registration at an OpenID provider.
type OIDCClient struct {
	Issuer   string `yaml:"issuer"`
	ClientID string `yaml:"client_id"`
}

// Upstreams are the routes of the gateway, by protocol.
type Upstreams struct {
	MCP []MCP `yaml:"mcp,omitempty"`
	A2A []A2A `yaml:"a2a,omitempty"`
	LLM []LLM `yaml:"llm,omitempty"`
	// HTTP are plain HTTP services, at /http/<name>; GRPC are gRPC services, each
	// at /<package.Service>, which is the only path that its clients call.
	HTTP []HTTP `yaml:"http,omitempty"`
	GRPC []GRPC `yaml:"grpc,omitempty"`
}

// Upstream is what every route has.
type Upstream struct {
	// Name is the service's name in policy and in the path: /mcp/<name>.
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
	// Peer is the upstream's SPIFFE ID. The gateway speaks mTLS with it and
	// with nobody else. Empty: TLS or loopback without a peer identity.
	Peer string `yaml:"peer,omitempty"`
	// TokenLifetime is the longest life of a token for this route; default the
	// token service's.
	TokenLifetime time.Duration `yaml:"token_lifetime,omitempty"`
	// MaxStaleness is how old the knowledge of revocations may be on this route
	// before calls are refused (503), and the bound within which a revocation
	// ends them; default 15 s, more than the 5 s of the feed's heartbeat.
	MaxStaleness time.Duration `yaml:"max_staleness,omitempty"`
	// RequireDPoP has every token for this route bound by DPoP (RFC 9449), also
	// where the client has a certificate; default: a certificate binds.
	RequireDPoP bool `yaml:"require_dpop,omitempty"`
	// AllowUnbound accepts tokens that are bound to no key, which live two minutes
	// at most: who steals one can use it. For clients that can prove no key;
	// records mark them.
	AllowUnbound bool `yaml:"allow_unbound,omitempty"`
	// Partner is the issuer of the organisation behind the route, one of
	// tokens.partners, and Resource the name of its API there: the gateway, which
	// must be among the agents, gets a grant for each call and redeems it; the
	// agent sees neither. Default: the upstream is of this organisation.
	Partner  string `yaml:"partner,omitempty"`
	Resource string `yaml:"partner_resource,omitempty"`
	// LoginDefault is what a person grants a client here that asks for nothing in
	// particular, authorization_details as JSON without `from`; default: nothing.
	LoginDefault string `yaml:"login_default,omitempty"`
}

// MCP is a Model Context Protocol server.
type MCP struct {
	Upstream `yaml:",inline"`
	Tools    []Tool `yaml:"tools"`
	// ResourceSets name resources by template, where the server has too many to
	// name; default: none, and each resource is known by its URI alone.
	ResourceSets []ResourceSet `yaml:"resource_sets,omitempty"`
	// ServerRequests are what the server may ask of its clients, if policy permits
	// it too: sampling, elicitation, roots; default: nothing.
	ServerRequests []string `yaml:"server_requests,omitempty"`
	// ElicitationHosts are the hosts to which an elicitation may send a person;
	// default: none.
	ElicitationHosts []string `yaml:"elicitation_hosts,omitempty"`
	// Handles says who may use a task, as for an agent; default: "agent".
	Handles string `yaml:"handles,omitempty"`
	// Exchange is where the server's tokens come from, if it takes those of another
	// issuer; default: it gets none.
	Exchange *Exchange `yaml:"exchange,omitempty"`
}

// ResourceSet is a resource template of an MCP server. Delegations and policies
// know all its resources by the set's name.
type ResourceSet struct {
	Name string `yaml:"name"`
	// Template is the URI template as the server lists it, "file:///logs/{day}".
	Template string `yaml:"template"`
}

// Tool is an approved tool of an MCP server.
type Tool struct {
	Name string `yaml:"name"`
	// InputSchema is the JSON Schema as the server lists it, pinned.
	InputSchema string `yaml:"input_schema"`
	// Reads says that the tool only reads; default: it writes.
	Reads bool `yaml:"reads,omitempty"`
	// Atoms are pointers to arguments whose values records name, "/table".
	Atoms []string `yaml:"atoms,omitempty"`
	// SQL names the argument that holds one PostgreSQL SELECT, "/query". Its
	// table, columns and predicates can then be delegated; only its canonical form
	// is sent. Left out: no argument is read as SQL.
	SQL string `yaml:"sql,omitempty"`
	// Tasks lets the tool be called as a task, which goes on after its answer;
	// default: it is called and answers.
	Tasks bool `yaml:"tasks,omitempty"`
}

// A2A is an agent.
type A2A struct {
	Upstream `yaml:",inline"`
	// Agent is the registered agent behind the route, which gets the verified
	// token to go on with. It must be Peer.
	Agent string `yaml:"agent"`
	// Versions of the protocol that are served, of "1.0" and "0.3"; default: both.
	// They are not translated: list what the agent speaks.
	Versions []string `yaml:"versions,omitempty"`
	// RPCPath and RESTPath are where the agent has its JSON-RPC and HTTP+JSON
	// bindings, "/rpc", below url; default: both at url itself.
	RPCPath  string `yaml:"rpc_path,omitempty"`
	RESTPath string `yaml:"rest_path,omitempty"`
	// GRPCURL is where the agent speaks the gRPC binding of 1.0, over TLS, as the
	// same peer; default: it does not. Its clients dial the gateway itself and can
	// name no path, so one agent of a gateway has it.
	GRPCURL string `yaml:"grpc_url,omitempty"`
	// Handles says who may use a task or context: "agent" (default), the person
	// that it was made for through the same agent; "person", that person through
	// any agent; "delegation", only within the delegation that made it.
	Handles string `yaml:"handles,omitempty"`
	// Push says what becomes of a client's wish to be called back: "deny" (default),
	// or "rewrite": the agent gets a callback of the gateway's, which the gateway
	// sends on to the client's URL while the token lives under which it was asked
	// for; token_lifetime says how long that is.
	Push string `yaml:"push,omitempty"`
	// PushNetworks are networks to which callbacks may go besides the public
	// internet, "10.20.0.0/16"; default: none.
	PushNetworks []string `yaml:"push_networks,omitempty"`
	// PushCA is a PEM file of authorities of the hosts of callbacks; default: the
	// system's.
	PushCA string `yaml:"push_ca,omitempty"`
	// Card is the agent's card, which is served rewritten and signed anew;
	// default: none is served.
	Card *Card `yaml:"card,omitempty"`
}

// Card says where an agent's card is and how it is known to be its own.
type Card struct {
	// URL of the card, "https://research.example/.well-known/agent-card.json". It
	// is fetched as calls are sent, so it is where the agent is.
	URL string `yaml:"url"`
	// Keys is a file with the JWK set of who may sign it, each with kid and alg;
	// default: it is known by its digest.
	Keys string `yaml:"keys,omitempty"`
	// Digest is what an unsigned card is known by: base64url(SHA-256) of its
	// canonical form (RFC 8785), as the log says it; default: it must be signed.
	Digest string `yaml:"digest,omitempty"`
	// ExtendedDigest is the same for the card that the agent shows to callers with a
	// token; default: it must be signed.
	ExtendedDigest string `yaml:"extended_digest,omitempty"`
	// Mode is "rewrite" (default), served with the gateway's URLs and signed by it,
	// or "verify", served as the agent made it once it was verified: its URLs lead
	// past the gateway.
	Mode string `yaml:"mode,omitempty"`
}

// How a card is served.
const (
	CardRewrite = "rewrite"
	CardVerify  = "verify"
)

// Secret is text that never prints.
type Secret string

const redacted = "[redacted]"

// String and GoString redact.
func (Secret) String() string { return redacted }

// GoString redacts.
func (Secret) GoString() string { return redacted }

// MarshalText keeps the secret out of every encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML keeps the secret out of a printed configuration.
func (Secret) MarshalYAML() (any, error) { return redacted, nil }

// UnmarshalText reads the secret.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(b)
	return nil
}

// Reveal is the secret itself, for the one place that sends it.
func (s Secret) Reveal() string { return string(s) }

// Load reads and validates a configuration file.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	cfg, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// Parse reads and validates YAML.
func Parse(data []byte) (Config, error) {
	var cfg Config
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields(), yaml.WithUniqueKeys(true))
	if err != nil {
		return Config{}, err
	}
	if err := loader.Load(&cfg); err != nil {
		return Config{}, err
	}
	return cfg, cfg.Validate()
}

// Validate checks the values, all of them, and joins what is wrong.
func (c Config) Validate() error {
	var errs []error
	need := func(path, value string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s: required", path))
		}
	}
	need("data_dir", c.DataDir)
	need("trust_domain", c.TrustDomain)
	for _, n := range c.identitiesNeeded() {
		need(n.path, n.value)
	}
	need("ledger.family", c.Ledger.Family)
	need("ledger.period", c.Ledger.Period)
	need("ledger.region", c.Ledger.Region)
	need("ledger.data_class", c.Ledger.DataClass)
	errs = append(errs, c.validateSharing()...)
	if err := baseURL(c.PublicURL, false); err != nil {
		errs = append(errs, fmt.Errorf("public_url: %w", err))
	}
	if err := baseURL(c.Tokens.Issuer, true); err != nil {
		errs = append(errs, fmt.Errorf("tokens.issuer: %w", err))
	}
	errs = append(errs, c.Policy.validate()...)
	errs = append(errs, c.Tokens.validateLogin()...)
	errs = append(errs, c.Tokens.validateKeys()...)
	errs = append(errs, c.validatePartners()...)
	errs = append(errs, c.Identity.validate(c.TrustDomain)...)
	errs = append(errs, c.validateAdmin()...)
	errs = append(errs, c.validateModels()...)
	errs = append(errs, c.validateFeeds()...)
	if len(c.Agents) == 0 {
		errs = append(errs, errors.New("agents: at least one is required"))
	}
	errs = append(errs, c.Upstreams.validateHTTP()...)
	errs = append(errs, c.validateExtAuthz()...)
	overGRPC := -1
	for i, a := range c.Upstreams.A2A {
		if a.GRPCURL != "" {
			if u, err := url.Parse(a.GRPCURL); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
				errs = append(errs, fmt.Errorf("upstreams.a2a[%d].grpc_url: want https:// and a host alone", i))
			}
			if overGRPC >= 0 {
				errs = append(errs, fmt.Errorf("upstreams.a2a[%d].grpc_url: upstreams.a2a[%d] has it", i, overGRPC))
			}
			overGRPC = i
		}
		if a.Agent == "" || a.Peer != a.Agent {
			errs = append(errs, fmt.Errorf("upstreams.a2a[%d]: agent and peer must name the same agent: it gets the token", i))
		}
		errs = append(errs, a.validatePush(i)...)
		if a.Card != nil && !slices.Contains([]string{"", CardRewrite, CardVerify}, a.Card.Mode) {
			errs = append(errs, fmt.Errorf("upstreams.a2a[%d].card.mode: %q is neither %s nor %s", i, a.Card.Mode, CardRewrite, CardVerify))
		}
	}
	return errors.Join(errs...)
}

func (a A2A) validatePush(i int) (errs []error) {
	if !slices.Contains([]string{"", PushDeny, PushRewrite}, a.Push) {
		errs = append(errs, fmt.Errorf("upstreams.a2a[%d].push: %q is neither %s nor %s", i, a.Push, PushDeny, PushRewrite))
	}
	if a.Push != PushRewrite && (len(a.PushNetworks) > 0 || a.PushCA != "") {
		errs = append(errs, fmt.Errorf("upstreams.a2a[%d]: push_networks and push_ca are for push: %s", i, PushRewrite))
	}
	for _, n := range a.PushNetworks {
		if p, err := netip.ParsePrefix(n); err != nil || p != p.Masked() {
			errs = append(errs, fmt.Errorf("upstreams.a2a[%d].push_networks: %q is no network, such as 10.20.0.0/16", i, n))
		}
	}
	return errs
}

// What becomes of a wish to be called back.
const (
	PushDeny    = "deny"
	PushRewrite = "rewrite"
)

func (t Tokens) validateKeys() (errs []error) {
	for i, k := range t.Keys {
		if (k.File == "") == (k.PKCS11 == "") {
			errs = append(errs, fmt.Errorf("tokens.keys[%d]: either file or pkcs11 is required", i))
		}
		if i > 0 && !k.UseFrom.IsZero() && !k.UseFrom.After(t.Keys[i-1].UseFrom) {
			errs = append(errs, fmt.Errorf("tokens.keys[%d].use_from: must be after that of the key before", i))
		}
	}
	return errs
}

func (t Tokens) validateLogin() (errs []error) {
	if t.Login == nil {
		if len(t.Clients) > 0 {
			errs = append(errs, errors.New("tokens.clients: nobody logs in without tokens.login"))
		}
		return errs
	}
	if !slices.Contains(t.PersonIssuers, t.Login.Issuer) {
		errs = append(errs, errors.New("tokens.login.issuer: must be one of person_issuers"))
	}
	if t.Login.ClientID == "" {
		errs = append(errs, errors.New("tokens.login.client_id: required"))
	}
	for i, c := range t.Clients {
		if c.ID == "" || len(c.RedirectURIs) == 0 {
			errs = append(errs, fmt.Errorf("tokens.clients[%d]: client_id and redirect_uris are required", i))
		}
	}
	return errs
}

// baseURL checks an external URL: https, without query, fragment or user
// information, and without a path where none is meant.
func baseURL(s string, path bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || s == "":
		return errors.New("required: scheme and host")
	case u.Scheme != "https":
		return errors.New("must be https")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("must be scheme and host alone")
	case !path && u.Path != "":
		return errors.New("must have no path and no final slash")
	case strings.HasSuffix(u.Path, "/"):
		return errors.New("must not end with a slash")
	}
	return nil
}
