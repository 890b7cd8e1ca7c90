package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
)

// attack is one thing that must not work.
type attack struct {
	name string
	text string // what is tried, in one sentence without the end
	try  func(context.Context) (attempt, error)
	want wanted
	// after is when it can be tried at the earliest; zero: at once.
	after time.Time
}

// wanted is how the attack must be answered and recorded.
type wanted struct {
	status int
	code   string // as the attacker sees it
	reason string // as it is recorded
	// claimed and proven are the short names that the record of a call must
	// have for its caller; empty: none.
	claimed, proven string
	exchange        bool // at the token service, not at the gateway
	policyDenies    bool // policy, too, must have refused
}

// attempt is how it was answered.
type attempt struct {
	status int
	code   string
	id     string // Lineal-Request-Id
}

// assault makes the attacks, those first that need not wait. Each is told when
// it was answered and its record found.
func (w *world) assault(ctx context.Context, attacks []attack) error {
	var late []attack
	for _, a := range attacks {
		if !a.after.IsZero() {
			late = append(late, a)
			continue
		}
		if err := w.make(ctx, a); err != nil {
			return err
		}
	}
	for _, a := range late {
		if left := a.after.Sub(w.opts.Now()); left > time.Second {
			w.tell(Event{Type: TypeWait, Text: fmt.Sprintf("The last attack waits %d s for a token to end.", int(left.Seconds()+0.5))})
		}
		if err := w.waitUntil(ctx, a.after); err != nil {
			return err
		}
		if err := w.make(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) waitUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(t.Sub(w.opts.Now()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// make makes one attack and judges how it went.
func (w *world) make(ctx context.Context, a attack) error {
	got, err := a.try(ctx)
	if err != nil {
		return fmt.Errorf("attack %s: %w", a.name, err)
	}
	x, err := w.server.Records(ctx)
	if err != nil {
		return fmt.Errorf("attack %s: %w", a.name, err)
	}
	result, err := judge(a, got, x)
	if err == nil && w.reached(got.id) {
		result.Refused, err = false, errors.New("it reached its goal")
	}
	if err != nil {
		w.differs("attack %s: %v", a.name, err)
	}
	w.summary.Attacks = append(w.summary.Attacks, result)
	e := Event{
		Type: TypeAttack, Name: a.name, Decision: refused, Status: result.Status, Code: result.Code, Reason: result.Reason,
		Call: got.id, Record: result.Record, Text: fmt.Sprintf("%s: %s with %d %s, recorded as %s.", a.text, refused, result.Status, result.Code, result.Reason),
	}
	if !result.Refused {
		e.Decision = ""
		e.Text = fmt.Sprintf("%s: NOT as it must be: %v.", a.text, err)
	}
	w.tell(e)
	return nil
}

// reached reports whether a call came through to anything behind the gateway.
func (w *world) reached(call string) bool {
	if w.model != nil && w.model.saw(call) {
		return true
	}
	for _, u := range w.served {
		if u.saw(call) {
			return true
		}
	}
	return false
}

// judge compares how an attack was answered, and what the ledger has of it,
// with how it must be. An error means that they differ.
func judge(a attack, got attempt, x *search.Index) (AttackResult, error) {
	result := AttackResult{Name: a.name, Status: got.status, Code: got.code}
	if got.status != a.want.status || got.code != a.want.code {
		return result, fmt.Errorf("answered %d %q instead of %d %q", got.status, got.code, a.want.status, a.want.code)
	}
	found, err := x.Find(got.id)
	if err != nil {
		return result, fmt.Errorf("call %q is not in the ledger: %w", got.id, err)
	}
	for _, e := range found {
		reason, err := a.want.matches(e.Record, got.id)
		if errors.Is(err, errOther) {
			continue
		}
		result.Record, result.Reason = e.Record.ID, reason
		result.Refused = err == nil
		return result, err
	}
	return result, fmt.Errorf("call %q has no record of a refusal", got.id)
}

// errOther says that a record is about something else.
var errOther = errors.New("another record")

// matches checks the record of a refusal.
func (want wanted) matches(r record.Record, id string) (reason string, err error) {
	if want.exchange {
		if r.Issuance == nil || r.ID != id {
			return "", errOther
		}
		if i := r.Issuance; i.Result != record.Refused || i.Reason != want.reason {
			return i.Reason, fmt.Errorf("recorded as %s %q instead of %q", i.Result, i.Reason, want.reason)
		}
		return r.Issuance.Reason, nil
	}
	d := r.Decision
	if d == nil || d.CallID != id {
		return "", errOther
	}
	if d.Verdict.Effect != record.Deny || d.Verdict.Reason != want.reason {
		return d.Verdict.Reason, fmt.Errorf("recorded as %s %q instead of deny %q", d.Verdict.Effect, d.Verdict.Reason, want.reason)
	}
	if got := [2]string{shortName(d.Caller.Claimed), shortName(d.Caller.Proven)}; got != [2]string{want.claimed, want.proven} {
		return d.Verdict.Reason, fmt.Errorf("the record has %q for the caller", got)
	}
	if want.policyDenies && d.Verdict.Policy != record.Denied {
		return d.Verdict.Reason, fmt.Errorf("policy is recorded as %s", d.Verdict.Policy)
	}
	return d.Verdict.Reason, nil
}

// callWith makes one bare tools/call, as an attacker would who has no library.
func callWith(ctx context.Context, c *http.Client, endpoint, token, tool string, args any) (attempt, error) {
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": 1, "method": "tools/call",
		"params": map[string]any{"name": tool, "arguments": args, "_meta": map[string]any{
			"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": map[string]any{},
		}},
	})
	if err != nil {
		return attempt{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return attempt{}, err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
	} {
		r.Header.Set(name, value)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(r)
	if err != nil {
		return attempt{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return attempt{status: resp.StatusCode, code: resp.Header.Get("Lineal-Code"), id: resp.Header.Get("Lineal-Request-Id")}, err
}

// exchangeFor asks the token service for a token, as any OAuth client would.
func exchangeFor(ctx context.Context, c *http.Client, issuer, subject, audience, details string) (attempt, error) {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {subject},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		"resource":           {audience}, "authorization_details": {details},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return attempt{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(r)
	if err != nil {
		return attempt{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return attempt{}, err
	}
	return attempt{status: resp.StatusCode, code: answer.Error, id: resp.Header.Get("Lineal-Request-Id")}, nil
}

// newStranger is a client on a connection without a certificate. It knows the
// authority, so that it is not the TLS library that stops it.
func (w *world) newStranger() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.ca.BundlePEM())
	c := newPlainClient()
	c.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return c
}
