package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Bounds of a tool list that is fetched.
const (
	listTimeout  = 30 * time.Second
	maxListPages = 64
	maxListBytes = 16 << 20 // of one answer
)

// FetchTools asks an MCP server for its tools and gives the result of tools/list
// with the input schemas byte for byte, because they are pinned. It reads the
// messages itself: the library's client would decode a schema and lose the order
// of its members. header is added to each request.
func FetchTools(ctx context.Context, endpoint string, header http.Header) (list []byte, err error) {
	if u, err := url.Parse(endpoint); err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("listing tools: %q is no http or https URL", endpoint)
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	base := &http.Transport{DisableCompression: true}
	defer base.CloseIdleConnections()
	transport := &mcp.StreamableClientTransport{
		Endpoint: endpoint, HTTPClient: &http.Client{Transport: boundedTransport{base, header}}, DisableStandaloneSSE: true,
	}
	conn, err := transport.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing tools: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	tools, err := listTools(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("listing tools: %w", err)
	}
	return json.Marshal(map[string]any{"tools": tools})
}

// ApproveTools asks an MCP server for its tools and pins them as they are, for
// whoever answers for the server too.
func ApproveTools(ctx context.Context, endpoint string) (tools []config.Tool, err error) {
	list, err := FetchTools(ctx, endpoint, nil)
	if err != nil {
		return nil, err
	}
	var found struct {
		Tools []struct {
			Name        string          `json:"name"`
			InputSchema json.RawMessage `json:"inputSchema"`
		} `json:"tools"`
	}
	if err := strictjson.UnmarshalOpen(list, &found, strictjson.Limits{}); err != nil {
		return nil, err
	}
	for _, t := range found.Tools {
		tools = append(tools, config.Tool{Name: t.Name, InputSchema: string(t.InputSchema)})
	}
	return tools, nil
}

func listTools(ctx context.Context, conn mcp.Connection) (tools []json.RawMessage, err error) {
	const hello = `{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"lineal-policy","version":"1"}}`
	if _, err := askServer(ctx, conn, 1, "initialize", json.RawMessage(hello)); err != nil {
		return nil, err
	}
	done, err := jsonrpc.DecodeMessage([]byte(`{"jsonrpc":"2.0","method":"notifications/initialized"}`))
	if err != nil {
		return nil, err
	}
	if err := conn.Write(ctx, done); err != nil {
		return nil, err
	}
	params := json.RawMessage(`{}`)
	for page := range int64(maxListPages) {
		answer, err := askServer(ctx, conn, page+2, "tools/list", params)
		if err != nil {
			return nil, err
		}
		var list struct {
			Tools      []json.RawMessage `json:"tools"`
			NextCursor string            `json:"nextCursor"`
		}
		if err := json.Unmarshal(answer, &list); err != nil {
			return nil, err
		}
		tools = append(tools, list.Tools...)
		if list.NextCursor == "" {
			return tools, nil
		}
		if params, err = json.Marshal(map[string]string{"cursor": list.NextCursor}); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d pages", maxListPages)
}

// askServer sends a request and returns the result of its answer.
func askServer(ctx context.Context, conn mcp.Connection, id int64, method string, params json.RawMessage) (json.RawMessage, error) {
	text, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	if err != nil {
		return nil, err
	}
	request, err := jsonrpc.DecodeMessage(text)
	if err != nil {
		return nil, err
	}
	if err := conn.Write(ctx, request); err != nil {
		return nil, err
	}
	for {
		m, err := conn.Read(ctx)
		if err != nil {
			return nil, err
		}
		answer, ok := m.(*jsonrpc.Response)
		switch {
		case !ok || answer.ID.Raw() != id: // a notification, or the server's own request
		case answer.Error != nil:
			return nil, answer.Error
		default:
			return answer.Result, nil
		}
	}
}

// boundedTransport adds headers and bounds each answer.
type boundedTransport struct {
	base   http.RoundTripper
	header http.Header
}

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range t.header {
		r.Header[name] = values
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxListBytes), resp.Body}
	return resp, nil
}
