// Package issuertest stands in for the clouds: issuers of workload JWTs that
// answer over real HTTPS under their real names, and the refusals that every
// source of such identities owes.
//
//	Network.Client ──dial any host──▶ one TLS server ──▶ Issuer by host and path: discovery, keys
//	                                  certificate for the name asked
//
// A source under test is configured as in production, with the issuer's own URL;
// only its http.Client leads to the Network. A [Rig] holds a source, its issuer's
// key and the claims of one good JWT, and tries what is wrong for all of them.
//
// It is for tests, and signs whatever it is told to.
package issuertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Network is an internet of issuers on one loopback port. It ends with the test.
type Network struct {
	server *httptest.Server
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	client *http.Client

	mu    sync.Mutex // guards what follows
	hosts map[string]bool
	pages map[string]func() (int, any) // by URL without scheme
	count map[string]int               // of answers, the same
}

// NewNetwork starts a Network.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n := &Network{hosts: map[string]bool{}, pages: map[string]func() (int, any){}, count: map[string]int{}}
	var err error
	if n.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	now := time.Now() //nolint:forbidigo // that of real TLS handshakes, whatever the clock under test says
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuertest"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if n.ca, err = n.sign(template, template, n.caKey); err != nil {
		t.Fatal(err)
	}
	n.server = httptest.NewUnstartedServer(http.HandlerFunc(n.serve))
	n.server.TLS = &tls.Config{GetCertificate: n.certificate}
	n.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	n.server.StartTLS()
	t.Cleanup(n.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(n.ca)
	address := n.server.Listener.Addr().String()
	n.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DisableKeepAlives: true,
	}}
	return n
}

// Client returns a client for which the Network is the internet.
func (n *Network) Client() *http.Client { return n.client }

// Page serves an answer at an https URL; answer gives status and body: a string
// as it is, all else as JSON.
func (n *Network) Page(t testing.TB, at string, answer func() (int, any)) {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" {
		t.Fatalf("%q is no https URL", at)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[u.Hostname()] = true
	n.pages[u.Host+u.Path] = answer
}

// Fetches says how often the page was asked for.
func (n *Network) Fetches(at string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count[strings.TrimPrefix(at, "https://")]
}

func (n *Network) serve(w http.ResponseWriter, r *http.Request) {
	page := r.Host + r.URL.Path
	n.mu.Lock()
	answer := n.pages[page]
	n.count[page]++
	n.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	status, body := answer()
	if to, ok := body.(*url.URL); ok {
		http.Redirect(w, r, to.String(), status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if text, ok := body.(string); ok {
		_, _ = io.WriteString(w, text)
		return
	}
	_ = json.NewEncoder(w).Encode(body)
}

func (n *Network) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	n.mu.Lock()
	known := n.hosts[hello.ServerName]
	n.mu.Unlock()
	if !known {
		return nil, errors.New("no such host")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := n.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{hello.ServerName},
		NotBefore: n.ca.NotBefore, NotAfter: n.ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, n.ca, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}, nil
}

func (n *Network) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), n.caKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Issuer publishes whatever it is told to. Its methods are safe for concurrent
// use.
type Issuer struct {
	// URL is its `iss`.
	URL string
	// DiscoveryURL and KeysURL are its pages.
	DiscoveryURL, KeysURL string

	mu        sync.Mutex // guards what follows
	discovery map[string]any
	keys      []any
	down      bool
}

// Issuer puts an issuer on the Network, with its keys at keysURL, which may be of
// another host.
func (n *Network) Issuer(t testing.TB, iss, keysURL string, keys ...Key) *Issuer {
	t.Helper()
	i := &Issuer{
		URL: iss, DiscoveryURL: strings.TrimSuffix(iss, "/") + "/.well-known/openid-configuration", KeysURL: keysURL,
		discovery: map[string]any{
			"issuer": iss, "jwks_uri": keysURL, "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		},
	}
	i.Publish(keys...)
	n.Page(t, i.DiscoveryURL, func() (int, any) { return i.answer(func() any { return i.discovery }) })
	n.Page(t, keysURL, func() (int, any) { return i.answer(func() any { return map[string]any{"keys": i.keys} }) })
	return i
}

func (i *Issuer) answer(body func() any) (int, any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.down {
		return http.StatusServiceUnavailable, "{}"
	}
	// Encoded here: under the lock.
	b, err := json.Marshal(body())
	if err != nil {
		return http.StatusInternalServerError, err.Error()
	}
	return http.StatusOK, string(b)
}

// Publish replaces the key set.
func (i *Issuer) Publish(keys ...Key) {
	var all []any
	for _, k := range keys {
		all = append(all, k.JWK())
	}
	i.PublishRaw(all...)
}

// PublishRaw replaces the key set by anything.
func (i *Issuer) PublishRaw(keys ...any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Announce sets a member of the discovery document.
func (i *Issuer) Announce(name string, value any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.discovery[name] = value
}

// Down makes it answer 503, or answer again.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}
