// Package a2aauth attaches tokens to the calls of the official Go SDK of A2A.
//
//	a2aclient.Client ──▶ Interceptor ──▶ client's pool ──▶ token for the agent ──▶ any of its bindings
//
// [client.Client.Transport] does the same for the bindings over HTTP, and makes
// DPoP proofs too; gRPC has no place for it. The connection must show the
// certificate that the tokens are bound to.
package a2aauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/a2aproject/a2a-go/v2/a2a"
	"github.com/a2aproject/a2a-go/v2/a2aclient"

	"github.com/lineal-auth/lineal/client"
)

// Interceptor is an [a2aclient.CallInterceptor] that attaches the token for one
// agent, under the delegation of the call's context.
type Interceptor struct {
	client *client.Client
	at     *url.URL
}

var _ a2aclient.CallInterceptor = (*Interceptor)(nil)

// New makes an Interceptor for the agent at a URL, which is under an audience
// that the client knows. It is asked for by URL because an endpoint of gRPC has
// none.
func New(c *client.Client, agent string) (*Interceptor, error) {
	at, err := url.Parse(agent)
	if err != nil || at.Host == "" {
		return nil, fmt.Errorf("a2aauth: agent %q is no absolute URL", agent)
	}
	return &Interceptor{client: c, at: at}, nil
}

// held is the key of the token in the context of a call.
type held struct{}

// Before implements [a2aclient.CallInterceptor]. What the program set by these
// names goes no further. Without a token the call is not made.
func (i *Interceptor) Before(ctx context.Context, req *a2aclient.Request) (context.Context, any, error) {
	t, err := i.client.Bearer(ctx, i.at)
	if err != nil {
		return ctx, nil, fmt.Errorf("calling %s: %w", i.at.Redacted(), err)
	}
	if req.ServiceParams == nil {
		req.ServiceParams = a2aclient.ServiceParams{}
	}
	for _, name := range client.Reserved() {
		delete(req.ServiceParams, strings.ToLower(name))
	}
	req.ServiceParams["authorization"] = []string{"Bearer " + string(t.Raw)}
	if parent := client.FromContext(ctx).Parent(); parent != "" {
		req.ServiceParams["lineal-parent"] = []string{parent}
	}
	return context.WithValue(ctx, held{}, t), nil, nil
}

// After implements [a2aclient.CallInterceptor]: a token that was refused is
// forgotten.
func (i *Interceptor) After(ctx context.Context, resp *a2aclient.Response) error {
	if t, ok := ctx.Value(held{}).(client.Token); ok && errors.Is(resp.Err, a2a.ErrUnauthenticated) {
		i.client.Refused(t.Raw, http.Header{})
	}
	return nil
}
