package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/identity"
)

// Client is an application at which persons log in directly (tokens.md §8, MCP
// clients). It is an Agent, too: that entry says whether it takes part and what
// it may ever hold.
type Client struct {
	// ID is `client_id`, and the URI under which it acts.
	ID identity.Agent
	// RedirectURIs are compared byte for byte, but for the port of a loopback
	// address (RFC 8252 §7.3).
	RedirectURIs []string
	// Auth is how it proves itself at the token endpoint: MethodNone,
	// MethodPrivateKeyJWT, or MethodSPIFFEX509 where ID is its SPIFFE ID.
	Auth identity.Method
	// Keys are its public keys, a JWK set (RFC 7517 §5), and KeysURL where they
	// are published; for MethodPrivateKeyJWT exactly one of the two is set.
	Keys    json.RawMessage
	KeysURL string
}

// Clients answers which clients are registered ahead, as of the call. It is
// safe for concurrent use.
type Clients interface {
	// Client returns the client, or ErrNotFound.
	Client(ctx context.Context, id identity.Agent) (Client, error)
}

// Check reports what every registry refuses in a Client by itself.
func (c Client) Check() error {
	switch {
	case c.ID.IsZero():
		return errors.New("client without id")
	case len(c.RedirectURIs) == 0:
		return errors.New("client without redirect URI")
	}
	for _, u := range c.RedirectURIs {
		if err := CheckRedirect(u); err != nil {
			return fmt.Errorf("redirect URI %.200q: %w", u, err)
		}
	}
	keys := len(c.Keys) > 0
	switch c.Auth {
	case identity.MethodPrivateKeyJWT:
		if keys == (c.KeysURL != "") {
			return errors.New("a client with private_key_jwt has either keys or their URL")
		}
	case identity.MethodNone, identity.MethodSPIFFEX509:
		if keys || c.KeysURL != "" {
			return fmt.Errorf("a client with %s has no keys", c.Auth)
		}
		if c.Auth == identity.MethodSPIFFEX509 && c.ID.TrustDomain() == "" {
			return fmt.Errorf("a client with %s is named by its SPIFFE ID", c.Auth)
		}
	default:
		return fmt.Errorf("clients do not prove themselves by %q", c.Auth)
	}
	return nil
}

// dangerous are schemes that a browser runs or reads itself.
var dangerous = []string{"about", "blob", "data", "file", "filesystem", "javascript", "vbscript", "view-source", "ws", "wss", "ftp"}

// CheckRedirect accepts a redirect URI: absolute, of printable ASCII, without
// fragment or user information; https, http on loopback, or the scheme of an
// application (RFC 8252 §7).
func CheckRedirect(s string) error {
	u, err := url.Parse(s)
	switch {
	case s == "" || len(s) > 2048:
		return errors.New("not of 1 to 2048 bytes")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\\\"<>^`{|}", r) }):
		return errors.New("holds a character that no URI holds")
	case err != nil || u.Scheme == "":
		return errors.New("not an absolute URI")
	case strings.Contains(s, "#") || u.User != nil:
		return errors.New("has a fragment or user information")
	case !strings.HasPrefix(s, u.Scheme+":"):
		return errors.New("its scheme is not in lower case")
	}
	switch u.Scheme {
	case "https", "http":
		if u.Opaque != "" || !plainHost(u.Hostname()) {
			return errors.New("has no plain host")
		}
		if u.Scheme == "http" && !IsLoopback(u.Hostname()) {
			return errors.New("is http, and not on loopback")
		}
	default:
		if slices.Contains(dangerous, u.Scheme) {
			return errors.New("is of a scheme that browsers run themselves")
		}
	}
	return nil
}

// plainHost accepts names and addresses without anything that could end a
// directive of a header.
func plainHost(h string) bool {
	return h != "" && strings.Trim(h, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:") == ""
}

// IsLoopback reports whether a host names this machine: 127.0.0.0/8, ::1, or
// localhost.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Redirects reports whether sent is one of the client's redirect URIs.
func (c Client) Redirects(sent string) bool {
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool { return sameRedirect(registered, sent) })
}

// sameRedirect compares byte for byte. Of an http URI on loopback the port is
// left out on both sides: a native application takes the one it gets.
func sameRedirect(registered, sent string) bool {
	if registered == sent {
		return true
	}
	if CheckRedirect(sent) != nil {
		return false
	}
	a, okA := withoutPort(registered)
	b, okB := withoutPort(sent)
	return okA && okB && a == b
}

// withoutPort cuts the port from an http URI on loopback.
func withoutPort(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || !IsLoopback(u.Hostname()) {
		return "", false
	}
	before, after, ok := strings.Cut(s, u.Host)
	if !ok || strings.HasSuffix(u.Host, ":") {
		return "", false
	}
	host := u.Host
	if port := u.Port(); port != "" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return before + host + after, true
}
