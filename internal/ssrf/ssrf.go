// Package ssrf fetches a document whose address a stranger chose, and reaches nothing but the public internet.
//
//	URL ──▶ form ──▶ resolve ──▶ every address public? ──▶ dial that address ──▶ TLS ──▶ 200, bounded body
//	         └─────────┴────────────────┴─ refused: no connection
//
// It promises that a connection goes only to an address that was checked: the
// name is resolved once, the answer is checked, and what was checked is dialled
// (threats D1, D2). There is no redirect, no proxy, no cookie, no compression,
// and an end of time and size to everything.
//
// [Client.Transport] sends other requests to such addresses, under the same rules.
//
// It does not judge the document, and does not know whose it is but by the
// certificate of the host.
package ssrf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The defaults, those of tokens.md §8.
const (
	DefaultTimeout  = 5 * time.Second
	DefaultMaxBytes = 64 << 10
)

// maxURL bounds a URL, in bytes.
const maxURL = 2048

// Resolver resolves names. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config configures a Client. The zero value reaches the public internet.
type Config struct {
	// Resolver; nil: the system's.
	Resolver Resolver
	// Roots are the authorities of hosts; nil: the system's.
	Roots *x509.CertPool
	// Loopback also allows loopback addresses. It is for development and tests.
	Loopback bool
	// Also are addresses that are allowed besides public ones, such as a network of
	// the operator's own.
	Also []netip.Prefix
	// Timeout bounds a whole fetch; zero: DefaultTimeout.
	Timeout time.Duration
	// MaxBytes bounds a document; zero: DefaultMaxBytes.
	MaxBytes int64
	// Now is the clock of certificates; nil: time.Now.
	Now func() time.Time
}

// Client fetches documents. It is safe for concurrent use and keeps no
// connection.
type Client struct {
	cfg  Config
	http *http.Client
}

// New builds a Client.
func New(cfg Config) *Client {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	c := &Client{cfg: cfg}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:       nil, // not even the environment's: a proxy would choose the address
			DialContext: c.dial,
			TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots, Time: cfg.Now,
			},
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Document is what a host answered.
type Document struct {
	Body   []byte
	Header http.Header
}

// Get fetches an https URL. Anything but a 200 with a bounded body is an error,
// a redirect too.
func (c *Client) Get(ctx context.Context, raw string) (Document, error) {
	d, err := c.get(ctx, raw)
	if err != nil {
		return Document{}, fmt.Errorf("fetching document: %w", err)
	}
	return d, nil
}

func (c *Client) get(ctx context.Context, raw string) (Document, error) {
	if err := CheckURL(raw); err != nil {
		return Document{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, http.NoBody)
	if err != nil {
		return Document{}, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity") // nothing is unpacked (threat N2)
	req.Header.Set("User-Agent", "lineal")
	resp, err := c.http.Do(req)
	if err != nil {
		return Document{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return Document{}, fmt.Errorf("the host answered %d", resp.StatusCode)
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return Document{}, errors.New("the body is encoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, c.cfg.MaxBytes))
	if err == nil {
		err = ctx.Err() // a host can end its answer well when it sees that we gave up
	}
	if err != nil {
		return Document{}, err
	}
	return Document{Body: body, Header: resp.Header}, nil
}

// Transport sends any request to where Get would go, under the same rules for
// URL and address; it has no bounds of time and size but the request's own.
func (c *Client) Transport() http.RoundTripper { return transport{c} }

type transport struct{ c *Client }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := CheckURL(r.URL.String()); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, fmt.Errorf("sending to a stranger's URL: %w", err)
	}
	return t.c.http.Transport.RoundTrip(r)
}

// CheckURL accepts an https URL with a host and a path below the root, of
// printable ASCII, without user information, query, fragment or dot segments,
// spelled as it is sent.
func CheckURL(raw string) error {
	if raw == "" || len(raw) > maxURL {
		return fmt.Errorf("URL of %d bytes, not 1 to %d", len(raw), maxURL)
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return errors.New("URL holds a character that is not allowed")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https" || u.Opaque != "":
		return errors.New("URL is not https")
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return errors.New("URL has user information, a query or a fragment")
	case u.Path == "" || u.Path == "/":
		return errors.New("URL has no path")
	case u.String() != raw:
		return errors.New("URL is not in normal form")
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return errors.New("URL has a dot segment")
		}
	}
	return checkHost(u)
}

// checkHost refuses hosts that resolvers spell in more than one way: a number,
// an address with a zone, a final dot.
func checkHost(u *url.URL) error {
	host := u.Hostname()
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("port is no number from 1 to 65535")
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" || addr.Is4In6() || addr.String() != host {
			return errors.New("host is an address in another spelling")
		}
		return nil
	}
	if host == "" || len(host) > 253 {
		return errors.New("host is no name")
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || l[0] == '-' || l[len(l)-1] == '-' {
			return errors.New("host is no name in lower case")
		}
	}
	// Some resolvers read `2130706433`, `0x7f.1` and `127.1` as addresses.
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return errors.New("host ends in a number")
	}
	return nil
}

// dial resolves, checks and dials the checked address.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		a = a.Unmap()
		if !c.allows(a) {
			return nil, fmt.Errorf("%s is at %s, which is not public", host, a)
		}
		addrs[i] = a
	}
	var last error
	for _, a := range addrs[:min(len(addrs), 4)] {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

func (c *Client) allows(a netip.Addr) bool {
	return Public(a) || c.cfg.Loopback && a.IsLoopback() ||
		slices.ContainsFunc(c.cfg.Also, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := c.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return append([]netip.Addr(nil), addrs...), nil
}

// Public reports whether a is a unicast address of the public internet, by the
// special-purpose registries of IANA (RFC 6890). An IPv6 address that carries
// an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is not: where it leads
// is not what was checked.
func Public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return false
	}
	if a.Is6() && !global6.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// global6 is all that is assigned as global unicast (RFC 4291 §2.4).
var global6 = netip.MustParsePrefix("2000::/3")

var special = func() (ps []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}()
