// Package adminclient is the operator's end of the admin API (package admin).
//
//	operator's Workload API ─▶ SVID ─▶ mTLS with exactly one server ─▶ /admin/v1/…
//
// It speaks to the server whose SPIFFE ID it is told and to nobody else, and
// proves itself by its own certificate; there is no password and no token. It
// reads documents as they are and checks none: the server does.
package adminclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// maxAnswer bounds what is read of one answer.
const maxAnswer = 16 << 20

// Config configures a Client. URL, Server and Socket are required.
type Config struct {
	// URL is the base URL of the admin listener, "https://127.0.0.1:8401".
	URL string
	// Server is its SPIFFE ID, that of the token service.
	Server string
	// Socket is the Workload API that issues the operator's certificate.
	Socket string
	// Timeout bounds each request; zero: 30 s.
	Timeout time.Duration
	// Logger; nil: nothing is logged.
	Logger *slog.Logger
}

// Client speaks to one server. Close it.
type Client struct {
	base   string
	source *spiffe.Source
	http   *http.Client
}

// Error is a refusal of the server.
type Error struct {
	Status    int    `json:"-"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	Detail    string `json:"detail"`
	Retryable bool   `json:"retryable"`
}

func (e *Error) Error() string {
	text := e.Code + ": " + e.Message
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// Entry is an entry of the registry.
type Entry struct {
	Source   string          `json:"source"`
	Revision int64           `json:"revision"`
	Excluded string          `json:"excluded,omitempty"`
	Entry    json.RawMessage `json:"entry"`
}

// Revocation is one of the list.
type Revocation struct {
	Seq    int64      `json:"seq"`
	Kind   string     `json:"kind"`
	Value  string     `json:"value"`
	Before *time.Time `json:"before,omitempty"`
	Ends   *time.Time `json:"ends,omitempty"`
}

// NewRevocation is what is to be revoked.
type NewRevocation struct {
	Kind   string     `json:"kind"`
	Value  string     `json:"value"`
	Before *time.Time `json:"before,omitempty"`
	Ends   *time.Time `json:"ends,omitempty"`
	Cause  string     `json:"cause"`
}

// WriterKey is a key of a writer of the log.
type WriterKey struct {
	Writer    string `json:"writer"`
	Role      string `json:"role,omitempty"`
	KeyID     string `json:"keyid"`
	PublicKey string `json:"public_key"`
	State     string `json:"state"`
	Period    string `json:"period"`
	Index     int64  `json:"index"`
	EndPeriod string `json:"end_period,omitempty"`
	EndIndex  int64  `json:"end_index,omitempty"`
	Stolen    string `json:"stolen,omitempty"`
	Cause     string `json:"cause,omitempty"`
}

// WriterChange is what is to be done to a writer's keys: rotate, add, retire or
// revoke.
type WriterChange struct {
	Op        string     `json:"op"`
	KeyID     string     `json:"keyid,omitempty"`
	PublicKey string     `json:"public_key,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Cause     string     `json:"cause,omitempty"`
	Gone      bool       `json:"gone,omitempty"`
}

// KeyChanged is a key record that was made.
type KeyChanged struct {
	Op     string `json:"op"`
	Writer string `json:"writer"`
	KeyID  string `json:"keyid"`
	Record string `json:"record"`
}

// Open fetches the operator's certificate.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	server, err := identity.ParseAgent(cfg.Server)
	if err != nil || server.TrustDomain() == "" {
		return nil, fmt.Errorf("the server's identity %q is no SPIFFE ID", cfg.Server)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("the admin URL %q is not https://host:port", cfg.URL)
	}
	source, err := spiffe.Open(ctx, spiffe.Config{Socket: cfg.Socket, TrustDomain: server.TrustDomain(), Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("fetching the operator's certificate: %w", err)
	}
	c := &Client{base: "https://" + u.Host + "/admin/v1/", source: source, http: source.HTTPClient(server)}
	if c.http.Timeout = cfg.Timeout; c.http.Timeout <= 0 {
		c.http.Timeout = 30 * time.Second
	}
	return c, nil
}

// Close ends connections and the following of the certificate.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.source.Close()
}

// List returns all entries of a collection: agents, resources, issuers, clients.
func (c *Client) List(ctx context.Context, collection string) ([]Entry, error) {
	all := []Entry{}
	for after := ""; ; {
		var page struct {
			Items    []Entry `json:"items"`
			Next     string  `json:"next"`
			Revision int64   `json:"revision"`
		}
		path := collection + "?limit=1000"
		if after != "" {
			path += "&after=" + url.QueryEscape(after)
		}
		if err := c.do(ctx, http.MethodGet, path, "", "", nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" || page.Next <= after { // the last, or no end
			return all, nil
		}
		after = page.Next
	}
}

// Get returns one entry.
func (c *Client) Get(ctx context.Context, collection, id string) (e Entry, err error) {
	err = c.do(ctx, http.MethodGet, at(collection, id), "", "", nil, &e)
	return e, err
}

// Put registers an entry where revision is 0, and else changes the one of that
// revision.
func (c *Client) Put(ctx context.Context, collection, id string, revision int64, document []byte) (e Entry, err error) {
	header, value := "If-None-Match", "*"
	if revision > 0 {
		header, value = "If-Match", fmt.Sprintf("%q", fmt.Sprint(revision))
	}
	err = c.do(ctx, http.MethodPut, at(collection, id), header, value, document, &e)
	return e, err
}

// Delete removes the entry of that revision.
func (c *Client) Delete(ctx context.Context, collection, id string, revision int64) error {
	return c.do(ctx, http.MethodDelete, at(collection, id), "If-Match", fmt.Sprintf("%q", fmt.Sprint(revision)), nil, nil)
}

// Revoke ends authority, and returns the number of the revocation.
func (c *Client) Revoke(ctx context.Context, r NewRevocation) (int64, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	var made struct {
		Seq int64 `json:"seq"`
	}
	err = c.do(ctx, http.MethodPost, "revocations", "", "", body, &made)
	return made.Seq, err
}

// Revocations returns the list after a number, oldest first.
func (c *Client) Revocations(ctx context.Context, after int64) ([]Revocation, error) {
	all := []Revocation{}
	for {
		var page struct {
			Items   []Revocation `json:"items"`
			Through int64        `json:"through"`
			Last    int64        `json:"last"`
		}
		if err := c.do(ctx, http.MethodGet, fmt.Sprintf("revocations?limit=1000&after=%d", after), "", "", nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Through <= after || page.Through >= page.Last {
			return all, nil
		}
		after = page.Through
	}
}

// Writers lists the keys of the log's writers.
func (c *Client) Writers(ctx context.Context) ([]WriterKey, error) {
	var page struct {
		Items []WriterKey `json:"items"`
	}
	err := c.do(ctx, http.MethodGet, "writers", "", "", nil, &page)
	return page.Items, err
}

// ChangeWriter changes the keys of a writer, and returns the key records that
// were made.
func (c *Client) ChangeWriter(ctx context.Context, id string, w WriterChange) ([]KeyChanged, error) {
	body, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	var made struct {
		Changes []KeyChanged `json:"changes"`
	}
	err = c.do(ctx, http.MethodPost, at("writers", id), "", "", body, &made)
	return made.Changes, err
}

// Status returns what is in force, as the server words it.
func (c *Client) Status(ctx context.Context) (s json.RawMessage, err error) {
	err = c.do(ctx, http.MethodGet, "status", "", "", nil, &s)
	return s, err
}

func at(collection, id string) string { return collection + "/" + url.PathEscape(id) }

func (c *Client) do(ctx context.Context, method, path, header, value string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the admin API: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer: %w", err)
	case len(answer) > maxAnswer:
		return errors.New("reading the answer: it is too long")
	case resp.StatusCode >= 300:
		refusal := &Error{Status: resp.StatusCode}
		if err := strictjson.UnmarshalOpen(answer, refusal, strictjson.Limits{}); err != nil || refusal.Code == "" {
			return fmt.Errorf("the server answered %s", resp.Status)
		}
		return refusal
	case into == nil:
		return nil
	}
	if err := strictjson.UnmarshalOpen(answer, into, strictjson.Limits{MaxBytes: maxAnswer}); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}
