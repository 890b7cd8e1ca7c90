package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/lineal-auth/lineal/token"
)

// maxNonces bounds the servers whose nonces are kept.
const maxNonces = 256

// nonces keeps the last nonce of each server (RFC 9449 §8.2, §9).
type nonces struct {
	mu       sync.Mutex // guards byOrigin
	byOrigin map[string]string
}

func originOf(u *url.URL) string { return u.Scheme + "://" + strings.ToLower(u.Host) }

func (n *nonces) of(u *url.URL) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byOrigin[originOf(u)]
}

// keep takes the nonce of an answer, and reports whether there was one.
func (n *nonces) keep(u *url.URL, h http.Header) bool {
	nonce := h.Get("DPoP-Nonce")
	if nonce == "" || len(h.Values("DPoP-Nonce")) != 1 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byOrigin == nil || len(n.byOrigin) >= maxNonces {
		n.byOrigin = make(map[string]string)
	}
	n.byOrigin[originOf(u)] = nonce
	return true
}

// prove attaches a proof to a request; presented is the token it goes with, ""
// at the token endpoint. Without a key it does nothing.
func (c *Client) prove(r *http.Request, presented token.Raw) error {
	r.Header.Del("DPoP")
	if c.cfg.Proof == nil {
		return nil
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	jwt, err := c.cfg.Proof.Prove(r.Method, originOf(r.URL)+path, c.nonces.of(r.URL), presented)
	if err != nil {
		return fmt.Errorf("proving possession of the key: %w", err)
	}
	r.Header.Set("DPoP", jwt)
	return nil
}

// demandsNonce reports whether a refusal says that the proof lacked the nonce
// which it brings.
func demandsNonce(h http.Header) bool {
	for _, challenge := range h.Values("WWW-Authenticate") {
		if scheme, rest, _ := strings.Cut(challenge, " "); strings.EqualFold(scheme, "DPoP") && strings.Contains(rest, `error="use_dpop_nonce"`) {
			return true
		}
	}
	return false
}

// present puts the token, and the proof that it needs, on a request.
func (c *Client) present(r *http.Request, tok Token) error {
	if !tok.DPoP {
		r.Header.Del("DPoP")
		r.Header.Set("Authorization", "Bearer "+string(tok.Raw))
		return nil
	}
	if c.cfg.Proof == nil {
		return errNoProofKey
	}
	r.Header.Set("Authorization", "DPoP "+string(tok.Raw))
	return c.prove(r, tok.Raw)
}
