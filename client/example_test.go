package client_test

import (
	"fmt"
	"net/http"

	"github.com/lineal-auth/lineal/client"
)

// An agent wraps its handler, and calls on with what it was given: no more than
// one table, although the person delegated two.
func Example() {
	c, err := client.New(client.Config{
		TokenURL: "https://sts.acme.example/token",
		HTTP:     &http.Client{}, // in earnest: (*spiffe.Source).HTTPClient, so that tokens are bound to the workload
		Audience: "https://gw.acme.example/a2a/research",
		Calls: []client.Call{{
			Audience: "https://gw.acme.example/mcp/db",
			Details: []byte(`[{"type":"urn:lineal:call:v1","locations":["https://gw.acme.example/mcp/db"],
				"actions":["mcp:tools/call"],"names":["query"],"args":"closed",
				"where":{"/args":{"op":"fields","keys":["table"]},"/args/table":{"op":"one_of","values":["orders"]}}}]`),
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	calls := &http.Client{Transport: c.Transport(http.DefaultTransport)} // for the agent's SDKs
	handler := c.Receive(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		out, _ := http.NewRequestWithContext(r.Context(), http.MethodPost, "https://gw.acme.example/mcp/db", nil)
		_, err := calls.Do(out)
		fmt.Println(err)
	}))

	// A call that came without a delegation is served, and goes nowhere.
	in, _ := http.NewRequest(http.MethodPost, "https://research.acme.example/", nil)
	handler.ServeHTTP(nil, in)
	// Output:
	// Post "https://gw.acme.example/mcp/db": calling https://gw.acme.example/mcp/db: the delegation has ended: the context carries none
}
