// An agent that calls a tool: in before without Lineal, in the folder above with
// it.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"
)

func main() {
	ctx := context.Background()
	server := &mcp.StreamableClientTransport{
		Endpoint:   os.Getenv("LINEAL_URL") + "/mcp/db",
		HTTPClient: oauth2.NewClient(ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: os.Getenv("LINEAL_TOKEN")})),
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1.0.0"}, nil).Connect(ctx, server, nil)
	if err != nil {
		log.Fatal(err)
	}
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "query", Arguments: map[string]any{
		"table": "customers", "columns": []string{"id", "name"}, "where": map[string]any{"region": "EU"}, "limit": 3,
	}})
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result.StructuredContent); err != nil {
		log.Fatal(err)
	}
	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
}
