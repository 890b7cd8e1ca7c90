package feed

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/ssrf"
)

// Webhook posts batches to a URL, signed as the Standard Webhooks specification
// says, and takes a 2xx as the acknowledgement of the whole batch.
//
//	POST /hook
//	webhook-id: lineal_7_9_jmY…      the same for the same records, however often they come
//	webhook-timestamp: 1803978847
//	webhook-signature: v1,K5oZ…      HMAC-SHA-256 over id.timestamp.body, one for each secret
//
//	{"type":"lineal.records","timestamp":"…","data":{"origin":"…","first":7,"next":10,"records":[…]}}
//
// What the receiver writes is not read, and a redirect is not followed.
type Webhook struct {
	URL string
	// Secrets sign, each on its own, so that one is replaced while both are known.
	Secrets []Secret
	// Authorization is the value of that header; "": none. It is asked for at each
	// delivery, so that it can change.
	Authorization func() (string, error)
	// HTTP reaches what it may, follows no redirect and has a timeout: over
	// [ssrf.Client.Transport].
	HTTP *http.Client
	// Type is `type` of the body; "": DefaultType.
	Type   string
	Encode Encode
	Now    func() time.Time
}

// DefaultType is `type` of a webhook's body.
const DefaultType = "lineal.records"

// Secret is a webhook's signing key. It never prints.
type Secret struct{ key []byte }

const secretPrefix = "whsec_"

// ParseSecret reads `whsec_` and the key in base64, of 24 to 64 bytes.
func ParseSecret(s string) (Secret, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return Secret{}, errors.New("the secret is not whsec_ and 24 to 64 bytes in base64")
	}
	return Secret{key}, nil
}

const redacted = "[redacted]"

// String redacts.
func (Secret) String() string { return redacted }

// GoString redacts.
func (Secret) GoString() string { return redacted }

// LogValue redacts.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the secret out of every encoding.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// sign is one signature of the specification.
func (s Secret) sign(id string, at int64, body []byte) string {
	h := hmac.New(sha256.New, s.key)
	_, _ = fmt.Fprintf(h, "%s.%d.", id, at) // a hash takes everything
	_, _ = h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// Check says what of the settings cannot be.
func (w *Webhook) Check() error {
	switch {
	case w.HTTP == nil || w.Encode == nil || w.Now == nil:
		return errors.New("webhook: client, encoding and clock are required")
	case len(w.Secrets) == 0:
		return errors.New("webhook: without a secret nobody knows whose it is")
	}
	for _, s := range w.Secrets {
		if len(s.key) == 0 {
			return errors.New("webhook: an empty secret")
		}
	}
	if err := ssrf.CheckURL(w.URL); err != nil {
		return fmt.Errorf("webhook: url: %w", err)
	}
	return nil
}

// Deliver implements Sink.
func (w *Webhook) Deliver(ctx context.Context, b Batch) error {
	body, err := w.body(b)
	if err != nil {
		return err
	}
	header, err := w.header(b, body)
	if err != nil {
		return fmt.Errorf("posting to webhook: %w", err)
	}
	status, answer, err := w.post(ctx, header, body)
	if err != nil {
		return fmt.Errorf("posting to webhook: %w", err)
	}
	if status/100 == 2 {
		return nil
	}
	return fmt.Errorf("posting to webhook: %w", &RefusedError{
		Reason:     "status " + strconv.Itoa(status),
		TooMuch:    len(b.Entries) > 1 && tooMuch(status),
		RetryAfter: retryAfter(answer.Get("Retry-After")),
	})
}

// post gives what the receiver answered, but not what it wrote.
func (w *Webhook) post(ctx context.Context, header http.Header, body []byte) (status int, answer http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = header
	res, err := w.HTTP.Do(req)
	if err != nil {
		return 0, nil, err
	}
	return res.StatusCode, res.Header, res.Body.Close()
}

// tooMuch are the answers after which a smaller batch shows which record it is
// that is refused.
func tooMuch(status int) bool {
	return status == http.StatusRequestEntityTooLarge || status == http.StatusBadRequest || status == http.StatusUnprocessableEntity
}

// retryAfter reads seconds; a date says too much of the receiver's clock.
func retryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

func (w *Webhook) body(b Batch) ([]byte, error) {
	kind := w.Type
	if kind == "" {
		kind = DefaultType
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `{"type":%q,"timestamp":%q,"data":{"origin":%s,"first":%d,"next":%d,"records":[`,
		kind, b.Entries[len(b.Entries)-1].Record.Time, strconv.QuoteToASCII(b.Origin), b.First(), b.Last()+1)
	for i, e := range b.Entries {
		line, err := w.Encode(e)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(line)
	}
	out.WriteString("]}}")
	return out.Bytes(), nil
}

func (w *Webhook) header(b Batch, body []byte) (http.Header, error) {
	sum := sha256.Sum256(body)
	id := fmt.Sprintf("lineal_%d_%d_%s", b.First(), b.Last(), base64.RawURLEncoding.EncodeToString(sum[:12]))
	at := w.Now().Unix()
	var signatures []string
	for _, s := range w.Secrets {
		signatures = append(signatures, s.sign(id, at, body))
	}
	h := http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"lineal"}, "Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at, 10)},
		"Webhook-Signature": {strings.Join(signatures, " ")},
	}
	if w.Authorization != nil {
		v, err := w.Authorization()
		if err != nil {
			return nil, err
		}
		h.Set("Authorization", v)
	}
	return h, nil
}

// Close implements Sink.
func (w *Webhook) Close() error { return nil }
