package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/a2aproject/a2a-go/v2/log"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/token"
)

// workTime bounds what one agent does for one message.
const workTime = 2 * time.Minute

// agent is a workload that calls: its identity, its tokens, its connections.
type agent struct {
	name   string
	uri    identity.Agent
	socket string // SPIFFE Workload API
	source *spiffe.Source

	gateway  *http.Client // mTLS to the gateway, without a token
	tokens   *http.Client // mTLS to the token service
	verifier *token.Verifier
	lineal   *client.Client
	tap      *tap
	calls    *http.Client // to the gateway, with the token for each call
}

// agentConfig is what an agent must know: where tokens come from, and what it
// asks for.
type agentConfig struct {
	issuer   string
	audience string // its own, as an agent that is called; "" if it is not
	calls    []client.Call
	now      func() time.Time
	logger   *slog.Logger
}

// equip gives an agent its connections.
func (a *agent) equip(cfg agentConfig) (err error) {
	a.gateway = a.source.HTTPClient(agentURI(nameGateway))
	a.tokens = a.source.HTTPClient(agentURI(nameTokens))
	own, err := client.ConfigFor(cfg.issuer, token.RemoteConfig{HTTP: a.tokens, Now: cfg.now, Logger: cfg.logger})
	if err != nil {
		return fmt.Errorf("equipping %s: %w", a.name, err)
	}
	own.Audience, own.Calls = cfg.audience, cfg.calls
	own.Thumbprint = func() string { return a.source.Current().Thumbprint }
	if a.lineal, err = client.New(own); err != nil {
		return fmt.Errorf("equipping %s: %w", a.name, err)
	}
	a.verifier = own.Verifier
	a.tap = newTap(a.gateway.Transport)
	a.calls = &http.Client{Transport: a.lineal.Transport(a.tap), CheckRedirect: a.gateway.CheckRedirect}
	return nil
}

// closeIdle ends connections that carry nothing.
func (a *agent) closeIdle() {
	for _, c := range []*http.Client{a.gateway, a.tokens} {
		if c != nil {
			c.CloseIdleConnections()
		}
	}
}

// task is what is handed from agent to agent. These agents read no prose: what
// they need stands beside the question.
type task struct {
	Question string `json:"-"`
	Region   string `json:"region"`
	Customer string `json:"customer,omitempty"`
}

func (t task) message() (*a2a.Message, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	return a2a.NewMessage(a2a.MessageRoleUser, a2a.NewTextPart(t.Question), a2a.NewDataPart(fields)), nil
}

func readTask(m *a2a.Message) (t task, err error) {
	for _, p := range m.Parts {
		if data := p.Data(); data != nil {
			b, err := json.Marshal(data)
			if err != nil {
				return t, err
			}
			if err := json.Unmarshal(b, &t); err != nil {
				return t, err
			}
			continue
		}
		t.Question += p.Text()
	}
	if t.Question == "" || t.Region == "" {
		return t, errors.New("a task without question or region")
	}
	return t, nil
}

// hand gives a task to the agent at a route of the gateway, over A2A, and
// returns its answer.
func (a *agent) hand(ctx context.Context, url string, t task) (string, error) {
	ctx = log.AttachLogger(ctx, slog.New(slog.DiscardHandler)) // else the library takes slog's default
	c, err := a2aclient.NewFromEndpoints(ctx,
		[]*a2a.AgentInterface{a2a.NewAgentInterface(url, a2a.TransportProtocolJSONRPC)}, a2aclient.WithJSONRPCTransport(a.calls))
	if err != nil {
		return "", fmt.Errorf("%s calling %s: %w", a.name, url, err)
	}
	defer func() { _ = c.Destroy() }()
	m, err := t.message()
	if err != nil {
		return "", fmt.Errorf("%s calling %s: %w", a.name, url, err)
	}
	result, err := c.SendMessage(ctx, &a2a.SendMessageRequest{Message: m})
	if err != nil {
		return "", fmt.Errorf("%s calling %s: %w", a.name, url, err)
	}
	answer, ok := result.(*a2a.Message)
	if !ok {
		return "", fmt.Errorf("%s calling %s: answered with a %T, not a message", a.name, url, result)
	}
	text := ""
	for _, p := range answer.Parts {
		text += p.Text()
	}
	return text, nil
}

// useTools opens an MCP session with a route of the gateway for f.
func (a *agent) useTools(ctx context.Context, url string, f func(*mcp.ClientSession) error) error {
	c := mcp.NewClient(&mcp.Implementation{Name: a.name, Version: "1.0.0"}, nil)
	s, err := c.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: a.calls, DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		return fmt.Errorf("%s calling %s: %w", a.name, url, err)
	}
	err = f(s)
	return errors.Join(err, s.Close())
}

// callTool calls one tool and reads its structured answer into out.
func callTool(ctx context.Context, s *mcp.ClientSession, tool string, args, out any) error {
	res, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		return fmt.Errorf("calling tool %s: %w", tool, err)
	}
	if res.IsError {
		return fmt.Errorf("calling tool %s: %w", tool, res.GetError())
	}
	b, err := json.Marshal(res.StructuredContent)
	if err != nil {
		return fmt.Errorf("calling tool %s: %w", tool, err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("calling tool %s: %w", tool, err)
	}
	return nil
}

// work is what an agent does with a task. call is the id of the call that
// brought it.
type work func(ctx context.Context, call string, t task) (string, error)

// handler serves the agent over A2A. The delegation that arrived with a call
// is in the context of its work; the library keeps the request's values, but
// not its end, so work ends by its own time.
func (a *agent) handler(do work, failed func(error)) http.Handler {
	rpc := a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(executor{a, do, failed}, a2asrv.WithLogger(slog.New(slog.DiscardHandler))))
	return a.lineal.Receive(rpc)
}

// executor makes an agent's work what the A2A library runs.
type executor struct {
	agent  *agent
	do     work
	failed func(error)
}

func (e executor) Execute(ctx context.Context, ec *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		ctx, cancel := context.WithTimeout(ctx, workTime)
		defer cancel()
		answer, err := e.run(ctx, ec)
		if err != nil {
			e.failed(fmt.Errorf("%s: %w", e.agent.name, err))
			yield(nil, fmt.Errorf("%w: this agent could not do its work", a2a.ErrInternalError))
			return
		}
		yield(a2a.NewMessage(a2a.MessageRoleAgent, a2a.NewTextPart(answer)), nil)
	}
}

func (e executor) run(ctx context.Context, ec *a2asrv.ExecutorContext) (string, error) {
	if client.FromContext(ctx) == nil {
		return "", errors.New("the call brought no delegation")
	}
	t, err := readTask(ec.Message)
	if err != nil {
		return "", err
	}
	call := ""
	if values, ok := ec.ServiceParams.Get("Lineal-Request-Id"); ok && len(values) == 1 {
		call = values[0]
	}
	return e.do(ctx, call, t)
}

// Cancel is not used: an answer is one message, so there is never a task.
func (executor) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) { yield(nil, a2a.ErrUnsupportedOperation) }
}
