// Package pdp asks a remote policy decision point one question over HTTP, and takes nothing but one well-formed answer within a deadline.
//
//	question ──POST──▶ status 200? ──▶ JSON, small enough? ──▶ strict parse ──▶ answer
//	    │ deadline          │                  │                    │
//	    └───────────────────┴──────────────────┴────────────────────┴──▶ *Error: the driver denies
//
// Whatever else happens is an [Error] with a stable code and a text that is
// safe for a record: it holds nothing of what the peer sent. There is no retry,
// no redirect and no answer kept from an earlier question, because a decision
// is about one call (threat A7).
//
// What the answer means is the driver's to read.
package pdp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Code says why there is no answer. The values are stable.
type Code string

// The ways to have no answer.
const (
	CodeTimeout     Code = "decision_point_timeout"
	CodeUnreachable Code = "decision_point_unreachable"
	CodeStatus      Code = "decision_point_status"
	CodeTooLarge    Code = "decision_point_too_large"
	CodeMalformed   Code = "decision_point_malformed"
	CodeCredential  Code = "decision_point_credential" // ours was not to be had
)

// Error is a question that was not answered. Its text is safe for a record.
type Error struct {
	Code   Code
	Detail string // "status 503", "duplicate_name"; "" if the code says it all
	Err    error  // the cause, for the log; never part of the text
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

// Malformed is the error of an answer that a driver cannot take for one.
func Malformed(format string, args ...any) error {
	return &Error{Code: CodeMalformed, Detail: fmt.Sprintf(format, args...)}
}

// Unavailable reports whether the error says nothing about the question: the
// decision point was not reached, not in time, or not in order itself.
func Unavailable(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Code == CodeTimeout || e.Code == CodeUnreachable || e.Code == CodeStatus || e.Code == CodeCredential)
}

// The defaults of a Config. The deadline of a whole decision is the caller's
// context; this one is there so that none is without.
const (
	DefaultTimeout     = time.Second
	DefaultMaxResponse = 64 << 10
)

// Config configures a Client. All but URL may be left out.
type Config struct {
	// URL is where questions go: https, or http on a loopback address.
	URL string
	// HTTP carries the questions; if nil, a client that knows no proxy. Redirects
	// are never followed, whatever it says.
	HTTP *http.Client
	// Timeout bounds a question, together with the context's deadline.
	Timeout time.Duration
	// MaxResponse is the most bytes of an answer's body.
	MaxResponse int64
	// Bearer gives the token that proves us to the decision point; nil sends none.
	Bearer func(context.Context) (string, error)
}

// Client asks. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http http.Client
}

// New checks the configuration; it asks nothing yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("decision point: the URL is malformed")
	}
	switch {
	case u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("decision point: the URL has a host, no user and no fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		return nil, errors.New("decision point: the URL is https, or http on a loopback address")
	}
	if cfg.Timeout < 0 || cfg.MaxResponse < 0 {
		return nil, errors.New("decision point: timeout and size are not negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxResponse == 0 {
		cfg.MaxResponse = DefaultMaxResponse
	}
	c := &Client{cfg: cfg}
	if cfg.HTTP != nil {
		c.http = *cfg.HTTP
	} else {
		c.http.Transport = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, DisableCompression: true}
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http.Timeout = 0 // the context has the deadline
	return c, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// Ask posts the question and reads the answer, a JSON object. header is added
// to the request. Every error is an *Error.
func (c *Client) Ask(ctx context.Context, question strictjson.Value, header http.Header) (answer strictjson.Value, got http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := c.request(ctx, question, header)
	if err != nil {
		return strictjson.Value{}, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return strictjson.Value{}, nil, failure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := c.body(ctx, resp)
	if err != nil {
		return strictjson.Value{}, nil, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: int(c.cfg.MaxResponse), MaxDepth: 16})
	if err != nil {
		var bad *strictjson.Error
		detail := "no JSON"
		if errors.As(err, &bad) {
			detail = string(bad.Code)
		}
		return strictjson.Value{}, nil, &Error{Code: CodeMalformed, Detail: detail, Err: err}
	}
	if v.Kind() != strictjson.KindObject {
		return strictjson.Value{}, nil, Malformed("not an object")
	}
	return v, resp.Header, nil
}

func (c *Client) request(ctx context.Context, question strictjson.Value, header http.Header) (*http.Request, error) {
	body := question.AppendJSON(nil)
	if len(body) == 0 {
		return nil, Malformed("no question")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Code: CodeUnreachable, Err: err}
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if c.cfg.Bearer != nil {
		token, err := c.cfg.Bearer(ctx)
		if err != nil || token == "" {
			return nil, &Error{Code: CodeCredential, Err: err}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// body reads an answer of status 200 and type JSON, whole or not at all.
func (c *Client) body(ctx context.Context, resp *http.Response) ([]byte, error) {
	if resp.StatusCode != http.StatusOK {
		return nil, &Error{Code: CodeStatus, Detail: fmt.Sprintf("status %d", resp.StatusCode)}
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || !strings.EqualFold(media, "application/json") {
		return nil, Malformed("the content type is not application/json")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxResponse+1))
	if err != nil {
		return nil, failure(ctx, err)
	}
	if int64(len(body)) > c.cfg.MaxResponse {
		return nil, &Error{Code: CodeTooLarge}
	}
	return body, nil
}

// failure is an exchange that broke off: too late, or at all.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &Error{Code: CodeTimeout, Err: err}
	}
	return &Error{Code: CodeUnreachable, Err: err}
}
