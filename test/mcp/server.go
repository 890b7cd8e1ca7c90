package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// steps are how often `count` says how far it is.
const steps = 3

// goOn bounds how long `count` waits for its caller.
const goOn = time.Minute

// counting are the calls of `count` that wait.
type counting struct {
	mu    sync.Mutex
	waits map[string]chan struct{} // by name
}

// wait is the channel of a name, closed by `go_on`.
func (c *counting) wait(name string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits[name] == nil {
		c.waits[name] = make(chan struct{})
	}
	return c.waits[name]
}

type named struct {
	Name string `json:"name"`
}

// newServer is an MCP server of the official Go SDK for both eras:
//
//	hello      greets
//	forbidden  says what nobody hears: policy forbids it
//	count      says how far it is, and after the first time waits for go_on
//	go_on      lets count end, so that a client that hears nothing before the end waits for ever
func newServer() http.Handler {
	quiet := slog.New(slog.DiscardHandler)
	s := mcp.NewServer(&mcp.Implementation{Name: "counter", Version: "1"}, &mcp.ServerOptions{Logger: quiet})
	c := &counting{waits: map[string]chan struct{}{}}
	add := func(name string, run func(context.Context, *mcp.CallToolRequest, string) (string, error)) {
		mcp.AddTool(s, &mcp.Tool{Name: name, Description: name}, func(ctx context.Context, req *mcp.CallToolRequest, in named) (*mcp.CallToolResult, any, error) {
			text, err := run(ctx, req, in.Name)
			if err != nil {
				return nil, nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
		})
	}
	add("hello", func(_ context.Context, _ *mcp.CallToolRequest, name string) (string, error) {
		return "hello " + name, nil
	})
	add("forbidden", func(context.Context, *mcp.CallToolRequest, string) (string, error) { return "a secret", nil })
	add("go_on", func(_ context.Context, _ *mcp.CallToolRequest, name string) (string, error) {
		close(c.wait(name))
		return "going on", nil
	})
	add("count", c.count)
	at := func(*http.Request) *mcp.Server { return s }
	modern := mcp.NewStreamableHTTPHandler(at, &mcp.StreamableHTTPOptions{Stateless: true, Logger: quiet})
	legacy := mcp.NewStreamableHTTPHandler(at, &mcp.StreamableHTTPOptions{Logger: quiet})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") >= "2026-07-28" {
			modern.ServeHTTP(w, r)
			return
		}
		legacy.ServeHTTP(w, r)
	})
}

func (c *counting) count(ctx context.Context, req *mcp.CallToolRequest, name string) (string, error) {
	token := req.Params.GetProgressToken()
	if token == nil {
		return "", errors.New("the caller wants to hear nothing")
	}
	for n := 1; n <= steps; n++ {
		if err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: float64(n), Total: steps}); err != nil {
			return "", err
		}
		if n > 1 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, goOn)
		defer cancel()
		select {
		case <-c.wait(name):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "counted", nil
}
