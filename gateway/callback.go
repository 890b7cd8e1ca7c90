package gateway

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/token"
)

// Receiver is a Protocol whose upstream calls back: below the route it has paths
// at which not a client calls the upstream, but the upstream a client, with
// something that the client asked for.
//
//	client ──"call me at X"──▶ gateway ──"call me at <seal>"──▶ upstream
//	     X ◀──────────────── gateway ◀──────── <seal> ─────────
//
// Such a call goes the seven steps too. It rests on the token of the call that
// asked for it, and ends with that: what a person revokes, or lets run out, is
// delivered to nobody.
type Receiver interface {
	// Receives reports whether a path below the route is one of those.
	Receives(suffix string) bool
	// Open opens the seal in the path. presented says that the request carries the
	// seal's own credential. An error is a *Refusal.
	Open(r *http.Request, suffix string) (s Standing, presented bool, err error)
}

// Standing is the authority under which a call was made, for a callback that it
// asks for. It holds the caller's token: it may be kept in a seal alone, and
// prints as nothing. The zero value is the authority of nobody. It is
// comparable.
type Standing struct{ token, call string }

// String and GoString redact.
func (Standing) String() string { return "[redacted]" }

// GoString redacts.
func (s Standing) GoString() string { return s.String() }

// LogValue redacts.
func (s Standing) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText redacts: no encoding but that of a seal holds it.
func (s Standing) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// AppendSealed appends the bytes that a seal keeps: the call's id and the token,
// whose three parts are decoded and compressed.
func (s Standing) AppendSealed(b []byte) ([]byte, error) {
	id, err := uuid.Parse(s.call)
	if err != nil {
		return nil, fmt.Errorf("standing: %w", err)
	}
	out := bytes.NewBuffer(append(b, id[:]...))
	z, err := flate.NewWriter(out, flate.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("standing: %w", err)
	}
	for part := range strings.SplitSeq(s.token, ".") {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || len(raw) > token.MaxBytes {
			return nil, errors.New("standing: not a compact token")
		}
		if _, err := z.Write(append([]byte{byte(len(raw) >> 8), byte(len(raw))}, raw...)); err != nil {
			return nil, fmt.Errorf("standing: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("standing: %w", err)
	}
	return out.Bytes(), nil
}

var errStanding = errors.New("standing: not what a seal keeps")

// ParseSealed reads what AppendSealed appended.
func ParseSealed(b []byte) (Standing, error) {
	if len(b) < len(uuid.UUID{}) {
		return Standing{}, errStanding
	}
	id, b := uuid.UUID(b[:16]), b[16:]
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), token.MaxBytes))
	if err != nil {
		return Standing{}, errStanding
	}
	var parts []string
	for len(raw) >= 2 {
		n := int(raw[0])<<8 | int(raw[1])
		if raw = raw[2:]; n > len(raw) {
			return Standing{}, errStanding
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(raw[:n]))
		raw = raw[n:]
	}
	if len(raw) > 0 || len(parts) != 3 {
		return Standing{}, errStanding
	}
	return Standing{token: strings.Join(parts, "."), call: id.String()}, nil
}

// verifyCallback is step 2 of a callback: the seal is ours, who brings it is the
// agent behind the route, by its connection or by the seal's own credential, and
// what it rests on is still in force.
func (c *call) verifyCallback(r Receiver) error {
	c.callback = true
	s, presented, err := r.Open(c.r, c.suffix)
	if err != nil {
		return err
	}
	switch {
	case c.route.Callbacks == nil:
		return Refuse(CodeOperationUnknown, "a callback on a route that has none")
	case c.workload != nil && !c.route.Delegate.IsZero() && c.workload.Agent != c.route.Delegate: // a seal that leaked
		c.badProof = true
		return &Refusal{Code: CodeProofInvalid, Reason: string(token.CodeBindingMismatch), Err: fmt.Errorf("a callback of %s by %s", c.route.Delegate, c.workload.Agent)}
	case !presented && (c.workload == nil || c.route.Delegate.IsZero()):
		return Refuse(CodeTokenMissing, "a callback by nobody")
	}
	c.raw, c.parent = s.token, s.call
	want := token.Want{Audience: c.route.audience, Binding: token.BindingUnchecked, MaxStaleness: c.route.MaxStaleness}
	if c.verified, err = c.g.cfg.Verifier.Verify(c.r.Context(), c.raw, want); err != nil {
		return err
	}
	c.claimed, err = identity.ParseAgent(c.verified.Chain.Leaf().ClientID)
	return err
}

// delivery builds the request of a callback to the URL that the client named,
// from the judged call alone. It carries no credential but the client's own.
func (c *call) delivery(ctx context.Context) (*http.Request, error) {
	out, err := http.NewRequestWithContext(ctx, c.request.Method, c.request.Callback, bytes.NewReader(c.request.Body))
	if err != nil {
		return nil, err
	}
	for name, values := range c.request.Header {
		out.Header[name] = values
	}
	out.Header.Set("Lineal-Request-Id", c.id)
	out.Header.Set("User-Agent", "lineal-gateway")
	return out, nil
}

// callbackTimeout bounds how long a client may take to take in a callback.
const callbackTimeout = 30 * time.Second

// timeout bounds the wait for response headers, and of a callback for all of it.
func (c *call) timeout() time.Duration {
	if c.callback {
		return callbackTimeout
	}
	return c.route.HeaderTimeout
}

// transport is what sends this call.
func (c *call) transport() http.RoundTripper {
	if c.request.Callback != "" {
		return c.route.Callbacks
	}
	return c.route.Transport
}
