// Command client calls through the gateway with the official Go client, in both
// eras of the protocol: what each case must come to is checked, and printed as a
// count.
//
//	client < the JSON object that the rig printed
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

const wait = 2 * time.Minute

// rig is where the gateway is, and who gives tokens.
type rig struct {
	Front   string `json:"front"`
	Control string `json:"control"`
}

func main() {
	var r rig
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := r.runAll(ctx); err != nil {
		fail(err)
	}
	fmt.Printf("{\"go\":%d}\n", passed)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "client:", err)
	os.Exit(1)
}

var passed int

// check counts what holds and ends the run at what does not.
func check(name string, ok bool, got ...any) {
	if !ok {
		fail(fmt.Errorf("%s: %v", name, got))
	}
	passed++
}

// ask asks the rig's control.
func (r rig) ask(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Control+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("control: %s: %s", path, body)
	}
	return string(body), err
}

// connection is one session of the client, and what its transport saw.
type connection struct {
	*mcp.ClientSession
	tokens   *tokens
	codes    []string // Lineal-Code of each answer that has one, in order
	progress func(float64)
}

// RoundTrip notes how the gateway refused.
func (c *connection) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil && resp.Header.Get("Lineal-Code") != "" {
		c.codes = append(c.codes, resp.Header.Get("Lineal-Code"))
	}
	return resp, err
}

func (r rig) connect(ctx context.Context, route, version string) (*connection, error) {
	c := &connection{tokens: &tokens{rig: r, route: route}}
	if err := c.tokens.renew(ctx); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	client := mcp.NewClient(&mcp.Implementation{Name: "another-make", Version: "1"}, &mcp.ClientOptions{
		Logger: quiet,
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
			c.progress(req.Params.Progress)
		},
	})
	var err error
	c.ClientSession, err = client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: r.Front + "/mcp/" + route, HTTPClient: &http.Client{Transport: c}, MaxRetries: -1,
		DisableStandaloneSSE: true, OAuthHandler: c.tokens,
	}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	return c, err
}

// call calls a tool that takes a name.
func (c *connection) call(ctx context.Context, tool, name string) (string, error) {
	params := &mcp.CallToolParams{Name: tool, Arguments: map[string]any{"name": name}}
	if tool == "count" {
		params.SetProgressToken(name)
	}
	result, err := c.CallTool(ctx, params)
	if err != nil {
		return "", err
	}
	text, ok := result.Content[0].(*mcp.TextContent)
	if !ok || result.IsError {
		return "", fmt.Errorf("result %+v", result)
	}
	return text.Text, nil
}

// lives checks that a session is of use.
func (c *connection) lives(ctx context.Context, name string) {
	got, err := c.call(ctx, "hello", "you")
	check(name, err == nil && got == "hello you", got, err)
}

// runAll begins with the sessions whose tokens are to end.
func (r rig) runAll(ctx context.Context) error {
	versions := []string{"2026-07-28", "2025-11-25"}
	briefs := make([]*connection, len(versions))
	for i, version := range versions {
		var err error
		if briefs[i], err = r.connect(ctx, "brief", version); err != nil {
			return fmt.Errorf("%s: %w", version, err)
		}
		defer func() { _ = briefs[i].Close() }()
	}
	for _, version := range versions {
		if err := r.run(ctx, version); err != nil {
			return fmt.Errorf("%s: %w", version, err)
		}
	}
	for _, c := range briefs {
		if err := expired(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (r rig) run(ctx context.Context, version string) error {
	c, err := r.connect(ctx, "stays", version)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	check("version", c.InitializeResult().ProtocolVersion == version, c.InitializeResult())
	c.lives(ctx, "call")
	r.streams(ctx, c, "go-"+version)
	refused(ctx, c)
	c.lives(ctx, "lives on after a refusal")
	return r.down(ctx, version)
}

var reference = regexp.MustCompile(`^Refused by policy\. Request [0-9a-f-]{36}\.$`)

// refused checks that a refusal is told with code and reason.
func refused(ctx context.Context, c *connection) {
	got, err := c.call(ctx, "forbidden", "you")
	var e *jsonrpc.Error
	if !errors.As(err, &e) {
		check("refused by policy", false, got, err)
	}
	var data struct {
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
		Retryable *bool  `json:"retryable"`
	}
	err = json.Unmarshal(e.Data, &data)
	check("refused by policy", err == nil && e.Code == -31403 && data.Code == "policy_denied" && data.Retryable != nil && !*data.Retryable, e, string(e.Data))
	check("reason", reference.MatchString(e.Message) && strings.Contains(e.Message, data.RequestID), e.Message)
}

// streams checks that a caller hears of its call before it ends: count waits for
// what is done when its first word is heard.
func (r rig) streams(ctx context.Context, c *connection, name string) {
	heard := make(chan float64, 8)
	c.progress = func(n float64) { heard <- n }
	type answer struct {
		text string
		err  error
	}
	ended := make(chan answer, 1)
	go func() {
		text, err := c.call(ctx, "count", name)
		ended <- answer{text, err}
	}()
	next := func() float64 {
		select {
		case n := <-heard:
			return n
		case a := <-ended:
			check("heard before the end", false, a)
		case <-ctx.Done():
			check("heard in time", false, ctx.Err())
		}
		return 0
	}
	check("streams", next() == 1)
	got, err := c.call(ctx, "go_on", name)
	check("another call while one streams", err == nil && got == "going on", got, err)
	a := <-ended
	check("end of the stream", a.err == nil && a.text == "counted", a)
	rest := []float64{<-heard, <-heard}
	check("in order", rest[0] == 2 && rest[1] == 3, rest)
}

// down checks that a server that is gone is told, and the client is of use.
func (r rig) down(ctx context.Context, version string) error {
	c, err := r.connect(ctx, "go-"+version, version)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	c.lives(ctx, "before the server ends")
	if _, err := r.ask(ctx, "/end/go-"+version); err != nil {
		return err
	}
	c.codes = nil
	for _, name := range []string{"upstream down", "upstream still down"} { // the second is no "session closed"
		got, err := c.call(ctx, "hello", "you")
		check(name, err != nil && len(c.codes) > 0 && c.codes[len(c.codes)-1] == "upstream_unreachable", got, err, c.codes)
		c.codes = nil
	}
	return nil
}

// expired checks that a token that ended is challenged, and that the session goes
// on with another.
func expired(ctx context.Context, c *connection) error {
	if err := c.tokens.wait(ctx); err != nil {
		return err
	}
	c.codes = nil
	c.lives(ctx, "goes on with a new token")
	check("expired token", len(c.codes) == 1 && c.codes[0] == "token_expired", c.codes)
	check("challenge", c.tokens.challenged && c.tokens.metadata != "", *c.tokens)
	return nil
}

// tokens holds a token for one route; challenged, it asks for another.
type tokens struct {
	rig        rig
	route      string
	raw        string
	challenged bool
	metadata   string // where the challenge says that the login is described
}

func (t *tokens) renew(ctx context.Context) (err error) {
	t.raw, err = t.rig.ask(ctx, "/token/"+t.route)
	return err
}

// TokenSource implements auth.OAuthHandler.
func (t *tokens) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: t.raw}), nil
}

// Authorize implements auth.OAuthHandler.
func (t *tokens) Authorize(ctx context.Context, _ *http.Request, resp *http.Response) error {
	defer func() { _ = resp.Body.Close() }()
	challenges, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return err
	}
	for _, c := range challenges {
		if c.Scheme == "bearer" && c.Params["error"] == "invalid_token" {
			t.challenged, t.metadata = resp.StatusCode == http.StatusUnauthorized, c.Params["resource_metadata"]
		}
	}
	return t.renew(ctx)
}

// wait waits until the token has ended for the gateway, whose clock may be a
// second behind.
func (t *tokens) wait(ctx context.Context) error {
	parts := strings.Split(t.raw, ".")
	if len(parts) != 3 {
		return errors.New("the token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(time.Unix(claims.Exp+2, 0))):
		return nil
	}
}
