package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/lineal-auth/lineal/config"
)

// newDBServer is the database behind MCP. Beside `query` it has a tool that no
// operator approved.
func newDBServer(db *database) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "customer-database", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: toolQuery, Description: "Ask for rows of one table."},
		func(ctx context.Context, _ *mcp.CallToolRequest, q question) (*mcp.CallToolResult, rows, error) {
			out, err := db.query(ctx, q)
			return nil, out, err
		})
	mcp.AddTool(s, &mcp.Tool{Name: toolExport, Description: "Return a whole table."},
		func(ctx context.Context, _ *mcp.CallToolRequest, in struct {
			Table string `json:"table"`
		},
		) (*mcp.CallToolResult, rows, error) {
			out, err := db.query(ctx, question{Table: in.Table, Columns: tables[in.Table], Limit: 1 << 30})
			return nil, out, err
		})
	return s
}

// newCRMServer is the CRM behind MCP.
func newCRMServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "crm", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{Name: toolLookup, Description: "Look up the entry of a customer."},
		func(_ context.Context, _ *mcp.CallToolRequest, in struct {
			Customer string `json:"customer"`
		},
		) (*mcp.CallToolResult, note, error) {
			out, err := lookUp(in.Customer)
			return nil, out, err
		})
	return s
}

// approve pins tools as an operator would who reads the server's list once:
// each with exactly the input schema that the server sends.
func approve(ctx context.Context, s *mcp.Server, tools ...config.Tool) ([]config.Tool, error) {
	schemas, err := listed(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("listing tools: %w", err)
	}
	for i, t := range tools {
		schema, ok := schemas[t.Name]
		if !ok {
			return nil, fmt.Errorf("approving tool %s: the server does not list it", t.Name)
		}
		tools[i].InputSchema = string(schema)
	}
	return tools, nil
}

// listed asks the server for its tools and returns their input schemas, byte
// for byte. It reads the messages itself, because the client of the library
// would decode a schema and lose the order of its members.
func listed(ctx context.Context, s *mcp.Server) (_ map[string]json.RawMessage, err error) {
	near, far := mcp.NewInMemoryTransports()
	session, err := s.Connect(ctx, far, nil)
	if err != nil {
		return nil, err
	}
	conn, err := near.Connect(ctx)
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	defer func() {
		err = errors.Join(err, conn.Close(), session.Wait())
	}()
	const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",` +
		`"capabilities":{},"clientInfo":{"name":"operator","version":"1"}}}`
	if _, err := ask(ctx, conn, hello); err != nil {
		return nil, err
	}
	if err := send(ctx, conn, `{"jsonrpc":"2.0","method":"notifications/initialized"}`); err != nil {
		return nil, err
	}
	answer, err := ask(ctx, conn, `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`)
	if err != nil {
		return nil, err
	}
	var list struct {
		Tools []struct {
			Name        string          `json:"name"`
			InputSchema json.RawMessage `json:"inputSchema"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(list.Tools))
	for _, t := range list.Tools {
		out[t.Name] = t.InputSchema
	}
	return out, nil
}

func send(ctx context.Context, conn mcp.Connection, message string) error {
	m, err := jsonrpc.DecodeMessage([]byte(message))
	if err != nil {
		return err
	}
	return conn.Write(ctx, m)
}

// ask sends a request and returns the result of the next answer.
func ask(ctx context.Context, conn mcp.Connection, request string) (json.RawMessage, error) {
	if err := send(ctx, conn, request); err != nil {
		return nil, err
	}
	for {
		m, err := conn.Read(ctx)
		if err != nil {
			return nil, err
		}
		if answer, ok := m.(*jsonrpc.Response); ok {
			return answer.Result, answer.Error
		}
	}
}
