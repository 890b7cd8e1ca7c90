package spiffe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
)

const (
	td     = "a.test"
	server = "spiffe://a.test/gateway"
	client = "spiffe://a.test/agent"
)

// whoami answers with the agent that src identifies, or 401, or 403.
func whoami(src *spiffe.Source, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := src.Identify(r, now())
		switch {
		case errors.Is(err, identity.ErrNoCredential):
			w.WriteHeader(http.StatusUnauthorized)
		case err != nil:
			w.WriteHeader(http.StatusForbidden)
		default:
			w.Header().Set("Thumbprint", who.Thumbprint)
			_, _ = io.WriteString(w, who.Agent.String())
		}
	})
}

// listen serves h over TLS on loopback and returns the URL. (The TLS of
// httptest would put its own certificate before the SVID.)
func listen(t testing.TB, config *tls.Config, h http.Handler) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.ServeTLS(ln, "", "") })
	t.Cleanup(func() { _ = srv.Close(); serving.Wait() })
	return "https://" + ln.Addr().String()
}

// presenting is a client that presents one certificate and trusts any server.
func presenting(t testing.TB, cert *tls.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: config}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

type reply struct {
	Status           int
	Body, Thumbprint string
	Reused           bool
}

func get(t testing.TB, c *http.Client, url string, header ...string) (reply, error) {
	t.Helper()
	var got reply
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { got.Reused = i.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	got.Status, got.Body, got.Thumbprint = resp.StatusCode, string(body), resp.Header.Get("Thumbprint")
	return got, err
}

// defects are the ways in which an SVID can be wrong (I3); edit makes one.
func defects(t testing.TB) map[string]func(*x509.Certificate) {
	t.Helper()
	uri := func(uris ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, u := range uris {
				c.URIs = append(c.URIs, mustURL(t, u))
			}
		}
	}
	return map[string]func(*x509.Certificate){
		"no URI SAN":           func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"a.test"} },
		"two URI SANs":         uri(client, "spiffe://a.test/other"),
		"one URI SAN twice":    uri(client, client),
		"SPIFFE and other URI": uri(client, "https://a.test/agent"),
		"not a SPIFFE ID":      uri("https://a.test/agent"),
		"other trust domain":   uri("spiffe://b.test/agent"),
		"look-alike domain":    uri("spiffe://a.test.evil.test/agent"),
		"trust domain alone":   uri("spiffe://a.test"),
		"CA":                   func(c *x509.Certificate) { c.IsCA = true },
		"no digitalSignature":  func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement },
		"no key usage":         func(c *x509.Certificate) { c.KeyUsage = 0 },
		"keyCertSign":          func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"cRLSign":              func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"expired":              func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-spiffe.Leeway - 5*time.Second) },
		"not yet valid":        func(c *x509.Certificate) { c.NotBefore = time.Now().Add(spiffe.Leeway + 30*time.Second) },
		"unknown critical field": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		},
	}
}

func TestI3MalformedClientCertificate(t *testing.T) {
	ca := newAuthority(t, td)
	src := open(t, serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, server, nil))).addr, td, nil)
	strict := listen(t, src.ServerTLS(), whoami(src, time.Now))
	// A listener that verifies nothing: Identify does not lean on the handshake.
	lax := src.ServerTLS()
	lax.VerifyConnection = nil
	unverified := listen(t, lax, whoami(src, time.Now))

	for name, edit := range defects(t) {
		t.Run(name, func(t *testing.T) {
			cert := ca.leaf(t, client, edit)
			if got, err := get(t, presenting(t, &cert), strict); err == nil {
				t.Errorf("handshake succeeded, answer %+v", got)
			}
			got, err := get(t, presenting(t, &cert), unverified)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != http.StatusForbidden {
				t.Errorf("Identify accepted it: %+v", got)
			}
		})
	}
	t.Run("good twin", func(t *testing.T) {
		cert := ca.leaf(t, client, nil)
		want := reply{Status: http.StatusOK, Body: client, Thumbprint: identity.Thumbprint(cert.Leaf)}
		for _, url := range []string{strict, unverified} {
			got, err := get(t, presenting(t, &cert), url)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
	})
}

func TestI3MalformedServerCertificate(t *testing.T) {
	ca := newAuthority(t, td)
	src := open(t, serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, "spiffe://a.test/caller", nil))).addr, td, nil)
	dial := func(t *testing.T, cert tls.Certificate) error {
		t.Helper()
		url := listen(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.NotFoundHandler())
		conn, err := (&tls.Dialer{Config: src.ClientTLS(spiffe.Exactly(identity.MustParseAgent(client)))}).
			DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	for name, edit := range defects(t) {
		t.Run(name, func(t *testing.T) {
			if err := dial(t, ca.leaf(t, client, edit)); err == nil {
				t.Error("accepted")
			}
		})
	}
	t.Run("other agent of the domain", func(t *testing.T) {
		if err := dial(t, ca.leaf(t, "spiffe://a.test/agent2", nil)); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("good twin", func(t *testing.T) {
		if err := dial(t, ca.leaf(t, client, nil)); err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody matches without a match", func(t *testing.T) {
		for _, match := range []func(identity.Agent) error{nil, spiffe.Exactly(identity.Agent{})} {
			cert := ca.leaf(t, client, nil)
			url := listen(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.NotFoundHandler())
			conn, err := (&tls.Dialer{Config: src.ClientTLS(match)}).
				DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://"))
			if err == nil {
				_ = conn.Close()
				t.Error("accepted")
			}
		}
	})
}

// I4: authorities of one trust domain never vouch for another, and a
// federated bundle makes no peer acceptable.
func TestI4BundlesKeptApart(t *testing.T) {
	a, b := newAuthority(t, "a.test"), newAuthority(t, "b.test")
	src := open(t, serveWorkloadAPI(t, answer(t, a, a.leaf(t, server, nil), b)).addr, td, nil)
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	for _, tc := range []struct {
		name   string
		signer *authority
		id     string
		ok     bool
	}{
		{"A signs for A", a, "spiffe://a.test/agent", true},
		{"B signs for A", b, "spiffe://a.test/agent", false},
		{"A signs for B", a, "spiffe://b.test/agent", false},
		{"B signs for B", b, "spiffe://b.test/agent", false},
		{"a stranger of the same name signs for A", newAuthority(t, "a.test"), "spiffe://a.test/agent", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := tc.signer.leaf(t, tc.id, nil)
			got, err := get(t, presenting(t, &cert), url)
			if ok := err == nil && got.Status == http.StatusOK; ok != tc.ok {
				t.Errorf("accepted = %t, want %t (%+v, %v)", ok, tc.ok, got, err)
			}
		})
	}
}

// I8: an expiry inside a kept connection ends its identity, and the leeway is
// exactly 30 seconds.
func TestI8ExpiryInsideKeptConnection(t *testing.T) {
	ca := newAuthority(t, td)
	src := open(t, serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, server, nil))).addr, td, nil)
	var clock atomic.Pointer[time.Time]
	set := func(at time.Time) { clock.Store(&at) }
	set(time.Now())
	url := listen(t, src.ServerTLS(), whoami(src, func() time.Time { return *clock.Load() }))

	cert := ca.leaf(t, client, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) })
	c := presenting(t, &cert)
	for i, step := range []struct {
		at   time.Time
		want int
	}{
		{time.Now(), http.StatusOK},
		{cert.Leaf.NotAfter, http.StatusOK},
		{cert.Leaf.NotAfter.Add(spiffe.Leeway), http.StatusOK},
		{cert.Leaf.NotAfter.Add(spiffe.Leeway + time.Nanosecond), http.StatusForbidden},
		{cert.Leaf.NotAfter.Add(24 * time.Hour), http.StatusForbidden},
		{cert.Leaf.NotBefore.Add(-spiffe.Leeway), http.StatusOK},
		{cert.Leaf.NotBefore.Add(-spiffe.Leeway - time.Nanosecond), http.StatusForbidden},
	} {
		set(step.at)
		got, err := get(t, c, url)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != step.want {
			t.Errorf("step %d: status %d, want %d", i, got.Status, step.want)
		}
		if i > 0 && !got.Reused {
			t.Errorf("step %d: a new connection; the test proves nothing", i)
		}
	}
}

// I8, I4: an authority that left the bundle ends live connections and
// resumable sessions, not only new handshakes.
func TestI8AuthorityLeavesBundle(t *testing.T) {
	old, next := newAuthority(t, td), newAuthority(t, td)
	api := serveWorkloadAPI(t, answer(t, old, old.leaf(t, server, nil)))
	src := open(t, api.addr, td, nil)
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))

	cert := old.leaf(t, client, nil)
	kept, resuming := presenting(t, &cert), presenting(t, &cert)
	var resumed atomic.Bool
	config := resuming.Transport.(*http.Transport).TLSClientConfig
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	config.VerifyConnection = func(cs tls.ConnectionState) error { resumed.Store(cs.DidResume); return nil }
	for _, c := range []*http.Client{kept, resuming} {
		if got, err := get(t, c, url); err != nil || got.Status != http.StatusOK {
			t.Fatal(got, err)
		}
	}
	resuming.CloseIdleConnections()
	if got, err := get(t, resuming, url); err != nil || got.Status != http.StatusOK || !resumed.Load() {
		t.Fatalf("twin: session was not resumed: %+v, %v", got, err)
	}

	api.deliver(t, src, answer(t, next, next.leaf(t, server, nil)))
	got, err := get(t, kept, url)
	if err != nil || got.Status != http.StatusForbidden || !got.Reused {
		t.Errorf("kept connection: %+v, %v; want 403 on the same connection", got, err)
	}
	resuming.CloseIdleConnections()
	if got, err := get(t, resuming, url); err == nil {
		t.Errorf("resumed session: %+v; want a failed handshake", got)
	}
	fresh := next.leaf(t, client, nil)
	if got, err := get(t, presenting(t, &fresh), url); err != nil || got.Status != http.StatusOK {
		t.Errorf("certificate of the new authority: %+v, %v", got, err)
	}
}

// I1, I7: no header is an identity.
func TestI1HeadersAreNoIdentity(t *testing.T) {
	ca := newAuthority(t, td)
	src := open(t, serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, server, nil))).addr, td, nil)
	cert := ca.leaf(t, client, nil)
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	headers := []string{
		"X-Forwarded-Client-Cert", "URI=" + client, "Client-Cert", ":" + client + ":",
		"X-Spiffe-Id", client, "Authorization", "Bearer " + client,
	}
	got, err := get(t, presenting(t, nil), url, headers...)
	if err != nil || got.Status != http.StatusUnauthorized {
		t.Errorf("headers alone: %+v, %v; want 401", got, err)
	}
	got, err = get(t, presenting(t, &cert), url, "X-Forwarded-Client-Cert", "URI=spiffe://a.test/admin")
	if err != nil || got.Body != client {
		t.Errorf("headers beside a certificate: %+v, %v; want %s", got, err, client)
	}
	// Plain HTTP has no credential at all.
	_, err = src.Identify(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody), time.Now())
	if !errors.Is(err, identity.ErrNoCredential) {
		t.Errorf("plain HTTP: %v", err)
	}
	// A certificate whose key was never proven is none.
	unproven := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	unproven.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
	if who, err := src.Identify(unproven, time.Now()); err == nil {
		t.Errorf("unfinished handshake: %+v", who)
	}
}

// Rotation keeps a live server and a live client working, and the client
// presents the new certificate from the next request on.
func TestRotation(t *testing.T) {
	ca, err := devca.New(devca.Config{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	serve := func(id string) *spiffe.Source {
		addr, err := ca.Serve(identity.MustParseAgent(id), devca.Profile{Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		return open(t, addr, td, nil)
	}
	srv, cli := serve(server), serve(client)
	url := listen(t, srv.ServerTLS(), whoami(srv, time.Now))
	c := cli.HTTPClient(identity.MustParseAgent(server))
	t.Cleanup(c.CloseIdleConnections)

	var last string
	for range 5 {
		for i := range 2 {
			got, err := get(t, c, url)
			want := reply{Status: http.StatusOK, Body: client, Thumbprint: cli.Current().Thumbprint, Reused: i > 0}
			if err != nil || !cmp.Equal(got, want) {
				t.Fatal(err, cmp.Diff(want, got))
			}
		}
		if cli.Current().Thumbprint == last {
			t.Fatal("the certificate did not change")
		}
		last = cli.Current().Thumbprint
		srvUpdated, cliUpdated := srv.Updated(), cli.Updated()
		if err := ca.Rotate(); err != nil {
			t.Fatal(err)
		}
		wait(t, srvUpdated)
		wait(t, cliUpdated)
	}
	if got, want := cli.Agent().String(), client; got != want {
		t.Errorf("agent %s, want %s", got, want)
	}
}

func TestHTTPClient(t *testing.T) {
	ca := newAuthority(t, td)
	src := open(t, serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, client, nil))).addr, td, nil)
	srv := ca.leaf(t, server, nil)
	url := listen(t, &tls.Config{Certificates: []tls.Certificate{srv}, NextProtos: []string{"h2", "http/1.1"}},
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Thumbprint", r.Proto)
			http.Redirect(w, r, "https://evil.test/", http.StatusFound)
		}))
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")

	c := src.HTTPClient(identity.MustParseAgent(server))
	defer c.CloseIdleConnections()
	got, err := get(t, c, url)
	if err != nil || got.Status != http.StatusFound || got.Thumbprint != "HTTP/2.0" {
		t.Errorf("%+v, %v; want the redirect itself, by HTTP/2", got, err)
	}
	other := src.HTTPClient(identity.MustParseAgent("spiffe://a.test/gateway2"))
	defer other.CloseIdleConnections()
	if got, err := get(t, other, url); err == nil {
		t.Errorf("another peer answered: %+v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	a, b := newAuthority(t, "a.test"), newAuthority(t, "b.test")
	good := answer(t, a, a.leaf(t, client, nil))
	absent := "unix://" + filepath.Join(t.TempDir(), "absent.sock")
	for _, tc := range []struct {
		name string
		cfg  spiffe.Config
		want string
	}{
		{"no socket", spiffe.Config{TrustDomain: td}, "no Workload API socket is configured"},
		{"relative socket", spiffe.Config{Socket: "api.sock", TrustDomain: td}, "scheme"},
		{"no trust domain", spiffe.Config{Socket: absent}, "trust domain"},
		{"absent socket", spiffe.Config{Socket: absent, TrustDomain: td}, "no SPIFFE Workload API answers at " + absent},
		{"no identity", spiffe.Config{Socket: serveWorkloadAPI(t, nil).addr, TrustDomain: td}, "issues no identity to this workload"},
		{
			"SVID of another trust domain",
			spiffe.Config{Socket: serveWorkloadAPI(t, answer(t, b, b.leaf(t, "spiffe://b.test/x", nil), a)).addr, TrustDomain: td},
			"spiffe://b.test/x is not in the configured trust domain a.test",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			src, err := spiffe.Open(ctx, tc.cfg)
			if err == nil {
				_ = src.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
	t.Run("good twin", func(t *testing.T) {
		api := serveWorkloadAPI(t, good)
		open(t, api.addr, td, nil)
		open(t, strings.TrimPrefix(api.addr, "unix://"), td, nil)
	})
}

// The identity appears while Open waits, as with SPIRE after a registration.
func TestOpenWaitsForIdentity(t *testing.T) {
	ca := newAuthority(t, td)
	api := serveWorkloadAPI(t, nil)
	resp := answer(t, ca, ca.leaf(t, client, nil))
	var waiting sync.WaitGroup
	waiting.Go(func() {
		time.Sleep(20 * time.Millisecond)
		api.push(resp)
	})
	defer waiting.Wait()
	if got := open(t, api.addr, td, nil).Agent().String(); got != client {
		t.Errorf("agent %s, want %s", got, client)
	}
}

// An update that cannot be used leaves the last good identity in place.
func TestBadUpdateKeepsLastGood(t *testing.T) {
	a, b := newAuthority(t, "a.test"), newAuthority(t, "b.test")
	api := serveWorkloadAPI(t, answer(t, a, a.leaf(t, server, nil)))
	src := open(t, api.addr, td, nil)
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	before := src.Current()

	api.push(answer(t, b, b.leaf(t, "spiffe://b.test/gateway", nil)))
	api.push(answer(t, a, a.leaf(t, "spiffe://a.test/admin", nil))) // another agent
	bad := answer(t, a, a.leaf(t, server, nil))
	bad.Svids[0].Bundle = nil
	api.push(bad)

	cert := a.leaf(t, client, nil)
	if got, err := get(t, presenting(t, &cert), url); err != nil || got.Status != http.StatusOK {
		t.Errorf("%+v, %v", got, err)
	}
	if got := src.Current(); got != before {
		t.Errorf("now %+v, before %+v", got, before)
	}
	good := a.leaf(t, server, nil)
	api.deliver(t, src, answer(t, a, good))
	if got := src.Current().Thumbprint; got != identity.Thumbprint(good.Leaf) {
		t.Error("the good update after the bad ones was not taken")
	}
}

func TestClosedSourceRefuses(t *testing.T) {
	ca := newAuthority(t, td)
	src, err := spiffe.Open(t.Context(), spiffe.Config{
		Socket: serveWorkloadAPI(t, answer(t, ca, ca.leaf(t, server, nil))).addr, TrustDomain: td,
	})
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.leaf(t, client, nil)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert.Leaf}}
	if _, err := src.Identify(r, time.Now()); err != nil {
		t.Errorf("open: %v", err)
	}
	for range 2 {
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := src.Identify(r, time.Now()); !errors.Is(err, spiffe.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := src.HTTPClient(identity.MustParseAgent(server)).Get("https://127.0.0.1:1"); !errors.Is(err, spiffe.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	config := src.ServerTLS()
	if _, err := config.GetCertificate(nil); !errors.Is(err, spiffe.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func BenchmarkIdentify(b *testing.B) {
	ca := newAuthority(b, td)
	src := open(b, serveWorkloadAPI(b, answer(b, ca, ca.leaf(b, server, nil))).addr, td, nil)
	cert := ca.leaf(b, client, nil)
	r := &http.Request{TLS: &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert.Leaf}}}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := src.Identify(r, now); err != nil {
			b.Fatal(err)
		}
	}
}
