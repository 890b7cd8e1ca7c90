// An agent that other agents ask, and that calls a tool for them: in before
// without Lineal, in the folder above with it.
package main

import (
	"context"
	"encoding/json"
	"iter"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2asrv"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	l, err := net.Listen("tcp", os.Getenv("HELPER_ADDRESS"))
	if err != nil {
		log.Fatal(err)
	}
	h := helper{db: &mcp.StreamableClientTransport{
		Endpoint: os.Getenv("DB_URL"), DisableStandaloneSSE: true,
		HTTPClient: http.DefaultClient,
	}}
	handler := a2asrv.NewJSONRPCHandler(a2asrv.NewHandler(h))
	log.Fatal(http.Serve(l, handler))
}

// helper answers each message with the customers of the region that it names.
type helper struct {
	db *mcp.StreamableClientTransport
}

func (h helper) Execute(ctx context.Context, call *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) {
		answer, err := h.customers(ctx, call.Message.Parts[0].Text())
		if err != nil {
			yield(nil, err)
			return
		}
		yield(a2a.NewMessage(a2a.MessageRoleAgent, a2a.NewTextPart(answer)), nil)
	}
}

func (h helper) customers(ctx context.Context, region string) (string, error) {
	session, err := mcp.NewClient(&mcp.Implementation{Name: "helper", Version: "1.0.0"}, nil).Connect(ctx, h.db, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = session.Close() }()
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "query", Arguments: map[string]any{
		"table": "customers", "columns": []string{"id", "name"}, "where": map[string]any{"region": region}, "limit": 3,
	}})
	if err != nil {
		return "", err
	}
	rows, err := json.Marshal(result.StructuredContent)
	return string(rows), err
}

func (helper) Cancel(context.Context, *a2asrv.ExecutorContext) iter.Seq2[a2a.Event, error] {
	return func(yield func(a2a.Event, error) bool) { yield(nil, a2a.ErrUnsupportedOperation) }
}
