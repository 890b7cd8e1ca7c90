package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/token"
)

// Assertion is a JWT in which a platform says who this workload is: a projected
// service account token, a JWT-SVID, a token of a cloud's metadata service. It
// must be for the token service alone.
type Assertion struct {
	// Type is `client_assertion_type`: identity.AssertionJWT or
	// identity.AssertionSPIFFE.
	Type string
	JWT  token.Raw // a live credential; it prints redacted
}

// maxAssertion bounds an assertion, in bytes.
const maxAssertion = 16 << 10

var errAssertionUnproven = errors.New("client: an assertion needs a key to prove: Proof, or a certificate and its Thumbprint")

// AssertionFile gives the assertion in a file, as kubelet and SPIFFE helpers
// write it. It is read at each token request, because they replace it. typ is
// as in [Assertion].
func AssertionFile(typ, path string) func(context.Context) (Assertion, error) {
	return func(context.Context) (Assertion, error) {
		f, err := os.Open(path)
		if err != nil {
			return Assertion{}, fmt.Errorf("reading assertion: %w", err)
		}
		defer func() { _ = f.Close() }()
		text, err := io.ReadAll(io.LimitReader(f, maxAssertion+1))
		if err != nil {
			return Assertion{}, fmt.Errorf("reading assertion: %w", err)
		}
		return Assertion{Type: typ, JWT: token.Raw(strings.TrimSpace(string(text)))}, nil
	}
}

// assert asks for the assertion of one token request; nil if none is configured.
func (c *Client) assert(ctx context.Context) (*Assertion, error) {
	if c.cfg.Assertion == nil {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	a, err := c.cfg.Assertion(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("getting the client assertion: %w", err)
	case a.Type != identity.AssertionJWT && a.Type != identity.AssertionSPIFFE:
		return nil, fmt.Errorf("getting the client assertion: type %.100q", a.Type)
	case a.JWT == "" || len(a.JWT) > maxAssertion:
		return nil, fmt.Errorf("getting the client assertion: %d bytes", len(a.JWT))
	}
	return &a, nil
}
