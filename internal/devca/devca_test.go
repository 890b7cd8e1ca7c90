package devca_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	alpha = identity.MustParseAgent("spiffe://dev.test/team/alpha")
	beta  = identity.MustParseAgent("spiffe://dev.test/team/beta")
)

func newCA(t *testing.T, cfg devca.Config) *devca.CA {
	t.Helper()
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "dev.test"
	}
	ca, err := devca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca
}

func serve(t *testing.T, ca *devca.CA, agent identity.Agent) string {
	t.Helper()
	addr, err := ca.Serve(agent, devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func dial(t *testing.T, addr string) *workloadapi.Client {
	t.Helper()
	c, err := workloadapi.New(t.Context(), workloadapi.WithAddr(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// go-spiffe, the reference client, takes every message.
func TestX509WithReferenceClient(t *testing.T) {
	ca, other := newCA(t, devca.Config{}), newCA(t, devca.Config{TrustDomain: "other.test"})
	if err := ca.Federate(other.Bundle()); err != nil {
		t.Fatal(err)
	}
	c := dial(t, serve(t, ca, alpha))
	got, err := c.FetchX509Context(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	svid := got.DefaultSVID()
	if svid.ID.String() != alpha.String() || len(got.SVIDs) != 1 {
		t.Errorf("got %d SVIDs, the first of %s", len(got.SVIDs), svid.ID)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, ca.Bundle()); err != nil {
		t.Error(err)
	}
	leaf := svid.Certificates[0]
	if len(leaf.URIs) != 1 || leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("leaf: %d URIs, CA %t, key usage %b", len(leaf.URIs), leaf.IsCA, leaf.KeyUsage)
	}
	if life := time.Until(leaf.NotAfter); life > devca.DefaultTTL {
		t.Errorf("life %s is above %s", life, devca.DefaultTTL)
	}
	bundles, err := c.FetchX509Bundles(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []*devca.CA{ca, other} {
		b, err := bundles.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(want.TrustDomain()))
		if err != nil || !b.Equal(want.Bundle()) {
			t.Errorf("bundle of %s: %v", want.TrustDomain(), err)
		}
	}
}

func TestJWTWithReferenceClient(t *testing.T) {
	ca := newCA(t, devca.Config{})
	c := dial(t, serve(t, ca, alpha))
	svid, err := c.FetchJWTSVID(bounded(t), jwtsvid.Params{Audience: "https://issuer.test"})
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := c.FetchJWTBundles(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{"https://issuer.test"}); err != nil {
		t.Error(err)
	}
	if got, err := c.ValidateJWTSVID(bounded(t), svid.Marshal(), "https://issuer.test"); err != nil || got.ID.String() != alpha.String() {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.ValidateJWTSVID(bounded(t), svid.Marshal(), "https://other.test"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another audience: %v", err)
	}
	elsewhere := dial(t, serve(t, newCA(t, devca.Config{}), alpha))
	if _, err := elsewhere.ValidateJWTSVID(bounded(t), svid.Marshal(), "https://issuer.test"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another authority: %v", err)
	}
	params := jwtsvid.Params{Audience: "x", Subject: spiffeid.RequireFromString(beta.String())}
	if _, err := c.FetchJWTSVID(bounded(t), params); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another workload's identity: %v", err)
	}
}

// O9: one agent per socket, which is private to the user.
func TestO9SocketIsTheIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	ca := newCA(t, devca.Config{Dir: dir})
	for _, agent := range []identity.Agent{alpha, beta} {
		addr := serve(t, ca, agent)
		svid, err := dial(t, addr).FetchX509SVID(bounded(t))
		if err != nil || svid.ID.String() != agent.String() {
			t.Errorf("%s: %v, %v", agent, svid, err)
		}
		info, err := os.Stat(strings.TrimPrefix(addr, "unix://"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("socket: %v, %v", info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("after Close: %v, %v", left, err)
	}
}

func TestO3OpenDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := devca.New(devca.Config{TrustDomain: "dev.test", Dir: dir}); err == nil {
		t.Error("a directory that the group may enter was taken")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	newCA(t, devca.Config{Dir: dir})
}

func TestSecurityHeaderIsRequired(t *testing.T) {
	addr := serve(t, newCA(t, devca.Config{}), alpha)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	api := workloadpb.NewSpiffeWorkloadAPIClient(conn)
	for _, tc := range []struct {
		header []string
		want   codes.Code
	}{
		{nil, codes.InvalidArgument},
		{[]string{"workload.spiffe.io", "false"}, codes.InvalidArgument},
		{[]string{"workload.spiffe.io", "true", "workload.spiffe.io", "true"}, codes.InvalidArgument},
		{[]string{"workload.spiffe.io", "true"}, codes.OK},
	} {
		ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(bounded(t), metadata.Pairs(tc.header...)))
		stream, err := api.FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != tc.want {
			t.Errorf("stream, header %v: %v", tc.header, err)
		}
		_, err = api.FetchJWTSVID(ctx, &workloadpb.JWTSVIDRequest{Audience: []string{"a"}})
		if status.Code(err) != tc.want {
			t.Errorf("call, header %v: %v", tc.header, err)
		}
		cancel()
	}
}

// The SVID is renewed at half its life, by the wall clock of the Config.
func TestRotationByClock(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	ca := newCA(t, devca.Config{TTL: time.Hour, Now: clock})
	src, err := workloadapi.NewX509Source(bounded(t), workloadapi.WithClientOptions(workloadapi.WithAddr(serve(t, ca, alpha))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	first, err := src.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(31 * time.Minute)
	mu.Unlock()
	if err := src.WaitUntilUpdated(bounded(t)); err != nil {
		t.Fatal("no rotation after half of the life:", err)
	}
	second, err := src.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if !second.Certificates[0].NotAfter.After(first.Certificates[0].NotAfter) {
		t.Error("the new SVID does not live longer")
	}
}

func TestServeRefuses(t *testing.T) {
	ca := newCA(t, devca.Config{})
	serve(t, ca, alpha)
	for name, agent := range map[string]string{
		"served already":       alpha.String(),
		"another trust domain": "spiffe://other.test/x",
		"the domain itself":    "spiffe://dev.test",
		"no SPIFFE ID":         "https://dev.test/x",
	} {
		if addr, err := ca.Serve(identity.MustParseAgent(agent), devca.Profile{}); err == nil {
			t.Errorf("%s: served at %s", name, addr)
		}
	}
	if _, err := ca.Serve(beta, devca.Profile{TTL: time.Second}); err == nil {
		t.Error("a life that X.509 times cannot halve was taken")
	}
	if _, err := ca.Serve(identity.Agent{}, devca.Profile{}); err == nil {
		t.Error("nobody was served")
	}
	serve(t, ca, beta)
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Serve(identity.MustParseAgent("spiffe://dev.test/late"), devca.Profile{}); err == nil {
		t.Error("served after Close")
	}
}

// A socket that another process serves is not taken over; one left behind is.
func TestSocketInUse(t *testing.T) {
	dir, err := os.MkdirTemp("", "ca") //nolint:usetesting // t.TempDir is too long for a socket path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	one, two := newCA(t, devca.Config{Dir: dir}), newCA(t, devca.Config{Dir: dir})
	addr := serve(t, one, alpha)
	if _, err := two.Serve(alpha, devca.Profile{}); err == nil {
		t.Error("took over a live socket")
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(addr, "unix://")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as after a crash
	_ = ln.Close()
	if got := serve(t, two, alpha); got != addr {
		t.Errorf("%s, want %s", got, addr)
	}
}

// The files serve clients that know no SPIFFE: names and CA are verified the
// usual way.
func TestIssueFiles(t *testing.T) {
	ca := newCA(t, devca.Config{})
	dir := t.TempDir()
	bundle, certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	if err := os.WriteFile(keyFile, nil, 0o644); err != nil { // must not keep its mode
		t.Fatal(err)
	}
	cred, err := ca.Issue(alpha, devca.Profile{TTL: time.Hour, Loopback: true, DNSNames: []string{"alpha.dev.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cred.WriteFiles(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	if err := ca.WriteBundle(bundle); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{bundle: 0o644, certFile: 0o644, keyFile: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ln) })
	defer func() { _ = srv.Close(); serving.Wait() }()

	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		resp, err := (&http.Client{Transport: tr}).Get("https://" + host + ":" + port)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		_ = resp.Body.Close()
	}
}

// O4: no way of printing a credential shows its key.
func TestO4CredentialIsRedacted(t *testing.T) {
	cred, err := newCA(t, devca.Config{}).Issue(alpha, devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("cred", cred))
	asJSON, err := json.Marshal(cred) //nolint:staticcheck // that nothing comes out is what is tested
	if err != nil {
		t.Fatal(err)
	}
	want := cred.String()
	for _, got := range []string{fmt.Sprintf("%v", cred), fmt.Sprintf("%+v", cred), fmt.Sprintf("%#v", cred), fmt.Sprintf("%x", cred)} {
		if got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
	if string(asJSON) != "{}" || !strings.Contains(log.String(), want) {
		t.Errorf("JSON %s, log %s", asJSON, log.String())
	}
}
