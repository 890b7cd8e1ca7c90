package spiffe_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/identity/spiffe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs whatever it is told to, unlike internal/devca.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, td string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.cert = sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: td},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{mustURL(t, "spiffe://"+td)},
	}, nil, a.key, a.key)
	return a
}

// leaf signs a good SVID for uri, after edit has changed it.
func (a *authority) leaf(t testing.TB, uri string, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"test"}},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{mustURL(t, uri)},
	}
	if edit != nil {
		edit(tmpl)
	}
	cert := sign(t, tmpl, a.cert, key, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// workloadAPI is a Workload API that delivers what it is told to.
type workloadAPI struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer
	addr string

	mu      sync.Mutex
	resp    *workloadpb.X509SVIDResponse // nil: no identity issued
	changed chan struct{}
}

func serveWorkloadAPI(t testing.TB, resp *workloadpb.X509SVIDResponse) *workloadAPI {
	t.Helper()
	dir, err := os.MkdirTemp("", "wl") //nolint:usetesting // t.TempDir is too long for a socket path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	api := &workloadAPI{addr: "unix://" + ln.Addr().String(), resp: resp, changed: make(chan struct{})}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	workloadpb.RegisterSpiffeWorkloadAPIServer(srv, api)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { srv.Stop(); serving.Wait() })
	return api
}

func (a *workloadAPI) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream workloadpb.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	for {
		a.mu.Lock()
		resp, changed := a.resp, a.changed
		a.mu.Unlock()
		if resp == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// deliver pushes the next answer and waits until src has taken it.
func (a *workloadAPI) deliver(t testing.TB, src *spiffe.Source, resp *workloadpb.X509SVIDResponse) {
	t.Helper()
	updated := src.Updated()
	a.push(resp)
	wait(t, updated)
}

func (a *workloadAPI) push(resp *workloadpb.X509SVIDResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resp = resp
	close(a.changed)
	a.changed = make(chan struct{})
}

func wait(t testing.TB, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Fatal("no update came")
	}
}

// answer is the Workload API's message for one SVID. Each federated authority
// is listed under the trust domain of its certificate.
func answer(t testing.TB, a *authority, svid tls.Certificate, federated ...*authority) *workloadpb.X509SVIDResponse {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	resp := &workloadpb.X509SVIDResponse{
		Svids: []*workloadpb.X509SVID{{
			SpiffeId: svid.Leaf.URIs[0].String(), X509Svid: svid.Leaf.Raw, X509SvidKey: key, Bundle: a.cert.Raw,
		}},
		FederatedBundles: map[string][]byte{},
	}
	for _, f := range federated {
		resp.FederatedBundles[f.cert.URIs[0].String()] = f.cert.Raw
	}
	return resp
}

// open opens a source of trust domain td on the API, closed with the test.
func open(t testing.TB, addr, td string, now func() time.Time) *spiffe.Source {
	t.Helper()
	src, err := spiffe.Open(t.Context(), spiffe.Config{
		Socket: addr, TrustDomain: td, Now: now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}
