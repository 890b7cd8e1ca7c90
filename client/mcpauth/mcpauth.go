// Package mcpauth gives the official Go SDK of MCP its tokens as it asks for them.
//
//	StreamableClientTransport{OAuthHandler} ──▶ Handler ──▶ client's pool ──▶ token for the server
//
// [client.Client.Transport] does the same below the SDK, and more: it makes DPoP
// proofs and names the call being served. This is for programs that configure
// authorization where the SDK expects it. The connection's HTTP client must show
// the certificate that the tokens are bound to.
//
// It never starts a login: who may not make a call does not get further by one.
package mcpauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"golang.org/x/oauth2"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/token"
)

// Handler is an [auth.OAuthHandler] whose tokens come from a client's pool. The
// delegation is that of the context with which the SDK's client connects, since
// the SDK asks for tokens under that one.
type Handler struct {
	client *client.Client
	at     *url.URL
}

var _ auth.OAuthHandler = (*Handler)(nil)

// maxAnswer bounds what is read of a refusal, bytes.
const maxAnswer = 64 << 10

// ErrRefused says that the server's gateway refused a call for which no other
// token helps. Its text has the gateway's code.
var ErrRefused = errors.New("the call is refused")

// New makes a Handler for one server's endpoint, an absolute URL under an
// audience that the client knows.
func New(c *client.Client, endpoint string) (*Handler, error) {
	at, err := url.Parse(endpoint)
	if err != nil || at.Host == "" {
		return nil, fmt.Errorf("mcpauth: endpoint %q is no absolute URL", endpoint)
	}
	return &Handler{client: c, at: at}, nil
}

// TokenSource implements [auth.OAuthHandler].
func (h *Handler) TokenSource(ctx context.Context) (oauth2.TokenSource, error) {
	return source{ctx: ctx, h: h}, nil
}

// source asks the pool at each call, so that a token is fresh.
type source struct {
	ctx context.Context //nolint:containedctx // an oauth2.TokenSource is asked without one
	h   *Handler
}

// Token implements [oauth2.TokenSource].
func (s source) Token() (*oauth2.Token, error) {
	t, err := s.h.client.Bearer(s.ctx, s.h.at)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: string(t.Raw), TokenType: "Bearer", Expiry: t.Expires}, nil
}

// Authorize implements [auth.OAuthHandler]. It returns nil, upon which the SDK
// sends the request once more, only where the workload's certificate rotated
// under a token in the pool; otherwise ErrRefused.
func (h *Handler) Authorize(_ context.Context, req *http.Request, resp *http.Response) error {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	code := resp.Header.Get("Lineal-Code")
	if resp.StatusCode == http.StatusUnauthorized {
		raw, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
		if h.client.Refused(token.Raw(raw), resp.Header) {
			return nil
		}
	}
	if code == "" {
		code = http.StatusText(resp.StatusCode)
	}
	return fmt.Errorf("%w: %s", ErrRefused, code)
}
