package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/token"
)

// AgentConfig says who an agent's services are and what it calls. All but
// Audience, Calls, Now and Logger are required.
type AgentConfig struct {
	// Socket is the SPIFFE Workload API that issues the agent's identity, of
	// TrustDomain.
	Socket, TrustDomain string
	// Issuer is the token service's URL. TokensID and GatewayID are the SPIFFE IDs
	// of the token service and of the gateway, which the agent speaks with and with
	// nobody else.
	Issuer              string
	TokensID, GatewayID identity.Agent
	// Audience is the agent's own resource identifier, where others call it.
	Audience string
	// Calls are what it calls, and what it asks for there.
	Calls []Call
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger; if nil, nothing is logged.
	Logger *slog.Logger
}

// agentFile is an AgentConfig as JSON.
type agentFile struct {
	Socket      string         `json:"spiffe_socket"`
	TrustDomain string         `json:"trust_domain"`
	Issuer      string         `json:"issuer"`
	TokensID    identity.Agent `json:"tokens_id"`
	GatewayID   identity.Agent `json:"gateway_id"`
	Audience    string         `json:"audience,omitempty"`
	Calls       []agentCall    `json:"calls,omitempty"`
}

type agentCall struct {
	Audience string          `json:"audience"`
	Details  json.RawMessage `json:"authorization_details"`
}

// ReadAgentConfig reads a file of JSON: `spiffe_socket`, `trust_domain`, `issuer`,
// `tokens_id`, `gateway_id`, `audience` and `calls`, each with `audience` and
// `authorization_details`. A member that there is not is an error. It holds no
// secret.
func ReadAgentConfig(path string) (AgentConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return AgentConfig{}, fmt.Errorf("reading the agent's configuration: %w", err)
	}
	var f agentFile
	if err := strictjson.Unmarshal(data, &f, strictjson.Limits{}); err != nil {
		return AgentConfig{}, fmt.Errorf("reading the agent's configuration %s: %w", path, err)
	}
	cfg := AgentConfig{
		Socket: f.Socket, TrustDomain: f.TrustDomain, Issuer: f.Issuer, TokensID: f.TokensID, GatewayID: f.GatewayID, Audience: f.Audience,
	}
	for _, c := range f.Calls {
		cfg.Calls = append(cfg.Calls, Call{Audience: c.Audience, Details: c.Details})
	}
	return cfg, nil
}

// MarshalJSON is what [ReadAgentConfig] reads.
func (c AgentConfig) MarshalJSON() ([]byte, error) {
	f := agentFile{
		Socket: c.Socket, TrustDomain: c.TrustDomain, Issuer: c.Issuer, TokensID: c.TokensID, GatewayID: c.GatewayID, Audience: c.Audience,
	}
	for _, call := range c.Calls {
		f.Calls = append(f.Calls, agentCall{call.Audience, call.Details})
	}
	return json.Marshal(f)
}

// Agent is an agent's whole end: its identity, kept current, the tokens for its
// calls, and the server on which the gateway calls it.
//
//	gateway ──mTLS──▶ Serve ──▶ handler, delegation in its context ──▶ HTTP ──mTLS, token──▶ gateway
//
// It is safe for concurrent use. Close it.
type Agent struct {
	cfg     AgentConfig
	source  *spiffe.Source
	client  *Client
	gateway *http.Client
	tokens  *http.Client
	calls   *http.Client

	mu      sync.Mutex // guards what follows
	servers []*http.Server
	closed  bool
}

// OpenAgentFile is [OpenAgent] with the configuration in a file.
func OpenAgentFile(ctx context.Context, path string) (*Agent, error) {
	cfg, err := ReadAgentConfig(path)
	if err != nil {
		return nil, err
	}
	return OpenAgent(ctx, cfg)
}

// OpenAgent gets the agent's identity, which takes as long as the Workload API
// needs, at most 30 s or until ctx ends.
func OpenAgent(ctx context.Context, cfg AgentConfig) (_ *Agent, err error) {
	if cfg.Issuer == "" || cfg.TokensID.IsZero() || cfg.GatewayID.IsZero() {
		return nil, errors.New("opening agent: the issuer and the SPIFFE IDs of token service and gateway are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: cfg}
	if a.source, err = spiffe.Open(ctx, spiffe.Config{Socket: cfg.Socket, TrustDomain: cfg.TrustDomain, Now: cfg.Now, Logger: cfg.Logger}); err != nil {
		return nil, fmt.Errorf("opening agent: %w", err)
	}
	a.gateway, a.tokens = a.source.HTTPClient(cfg.GatewayID), a.source.HTTPClient(cfg.TokensID)
	if err := a.equip(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening agent: %w", err), a.source.Close())
	}
	return a, nil
}

// equip makes the client of the token service.
func (a *Agent) equip() error {
	cfg, err := ConfigFor(a.cfg.Issuer, token.RemoteConfig{HTTP: a.tokens, Now: a.cfg.Now, Logger: a.cfg.Logger})
	if err != nil {
		return err
	}
	cfg.Audience, cfg.Calls = a.cfg.Audience, a.cfg.Calls
	cfg.Thumbprint = func() string { return a.source.Current().Thumbprint }
	if a.client, err = New(cfg); err != nil {
		return err
	}
	a.calls = &http.Client{Transport: a.client.Transport(a.gateway.Transport), CheckRedirect: a.gateway.CheckRedirect}
	return nil
}

// ID is who the agent is.
func (a *Agent) ID() identity.Agent { return a.source.Agent() }

// Client is the client whose tokens [Agent.HTTP] uses.
func (a *Agent) Client() *Client { return a.client }

// HTTP gives SDKs the way to the gateway: each request goes with the token for
// it, on behalf of whom its context says.
func (a *Agent) HTTP() *http.Client { return a.calls }

// ListenAndServe is [Agent.Serve] at an address, "127.0.0.1:9001".
func (a *Agent) ListenAndServe(address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serving as %s: %w", a.ID(), err)
	}
	return a.Serve(l, h)
}

// Serve serves h to the gateway and to nobody else, over mTLS, with the
// delegation of each call in its context, until Close, which is no error. It
// closes l.
func (a *Agent) Serve(l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: a.onlyGateway(a.client.Receive(h)), TLSConfig: a.source.ServerTLS(), ReadHeaderTimeout: headerTimeout,
		ErrorLog: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelDebug),
	}
	if !a.track(srv) {
		return errors.Join(errClosed, l.Close())
	}
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving as %s: %w", a.ID(), err)
	}
	return nil
}

const headerTimeout = 10 * time.Second

func (a *Agent) track(srv *http.Server) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.servers = append(a.servers, srv)
	}
	return !a.closed
}

// onlyGateway answers who proves on this connection to be the gateway: what it
// hands over has been verified and decided upon, which nobody else can claim.
func (a *Agent) onlyGateway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if caller, err := a.source.Identify(r, a.cfg.Now()); err != nil || caller.Agent != a.cfg.GatewayID {
			a.cfg.Logger.WarnContext(r.Context(), "call refused", slog.String("caller", caller.Agent.String()), slog.String("cause", "it is not the gateway"))
			http.Error(w, "this agent answers its gateway alone", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Close ends servers, with the calls under way, and all connections.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.closed = true
	servers := a.servers
	a.mu.Unlock()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	a.client.Close()
	a.gateway.CloseIdleConnections()
	a.tokens.CloseIdleConnections()
	return errors.Join(append(errs, a.source.Close())...)
}
