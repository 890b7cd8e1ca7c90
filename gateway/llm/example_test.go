package llm_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/llm"
)

// A reader says what a request asks for, each model of it, and refuses what the
// provider would reach on its own side.
func Example() {
	reader := llm.NewAnthropic(llm.Config{})
	ask := func(body string) {
		r := httptest.NewRequest(http.MethodPost, "/anthropic/v1/messages", nil)
		r.Header.Set("Content-Type", "application/json")
		got, err := reader.Read(r, "/v1/messages", []byte(body), gateway.Caller{})
		var refusal *gateway.Refusal
		if errors.As(err, &refusal) {
			fmt.Println(refusal.Code)
			return
		}
		fmt.Println(got.Needed)
	}
	ask(`{"model":"small","max_tokens":9,"messages":[],"fallbacks":[{"model":"large"}]}`)
	ask(`{"model":"small","max_tokens":9,"messages":[],"mcp_servers":[{"type":"url","url":"https://mcp.example","name":"x"}]}`)
	// Output:
	// [llm:chat small llm:chat large]
	// provider_tool_denied
}
