package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// configuration is what can be wrong without asking anybody.
func (x *visit) configuration(context.Context) (string, error) {
	c := x.cfg.Sidecar
	if x.cfg.Unread != nil {
		return "", find(CodeConfigUnreadable, "%v", x.cfg.Unread)
	}
	if err := c.Validate(); err != nil {
		if trimmed := strings.TrimRight(c.Issuer, "/"); trimmed != c.Issuer {
			return "", find(CodeIssuerSlash, "issuer: %s, expected %s", c.Issuer, trimmed)
		}
		return "", find(CodeConfigInvalid, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, p := range x.peers {
		agent, err := identity.ParseAgent(p.id)
		if err != nil {
			return "", find(CodeConfigInvalid, "SPIFFE ID of the %s: %v", p.name, err)
		}
		if id, err := spiffeid.FromString(agent.String()); err != nil || id.TrustDomain().Name() != c.TrustDomain {
			return "", find(CodeTrustDomain, "the %s is %s, and trust_domain is %s", p.name, p.id, c.TrustDomain)
		}
	}
	return fmt.Sprintf("%d routes", len(c.Routes)), nil
}

func (x *visit) dns(ctx context.Context, p *peer) (string, error) {
	host := p.url.Hostname()
	if net.ParseIP(host) != nil {
		return host + " is an address", nil
	}
	resolver := x.cfg.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	found, err := resolver.LookupHost(ctx, host)
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound:
		return "", find(CodeHostUnknown, "%s: %v", host, err)
	case err != nil:
		return "", find(CodeDNSUnavailable, "%s: %v", host, err)
	}
	return host + " is " + strings.Join(found, ", "), nil
}

func (x *visit) port(ctx context.Context, p *peer) (string, error) {
	conn, err := x.dialer().DialContext(ctx, "tcp", address(p))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", find(CodePortRefused, "%v", err)
	case err != nil:
		return "", find(CodePortUnreachable, "%v", err)
	}
	return conn.RemoteAddr().String() + " answers", conn.Close()
}

func (x *visit) dialer() *net.Dialer { return &net.Dialer{Resolver: x.cfg.Resolver} }

func address(p *peer) string {
	port := p.url.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(p.url.Hostname(), port)
}

// identity asks the Workload API who this process is. When it is, is judged
// later: a clock that is wrong would take the blame away.
func (x *visit) identity(ctx context.Context) (string, error) {
	socket := x.cfg.Sidecar.Socket
	if strings.HasPrefix(socket, "/") {
		socket = "unix://" + socket
	}
	got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(socket))
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return "", find(CodeUnregistered, "%s: %v", socket, err)
	case err != nil:
		return "", find(CodeWorkloadAPI, "%s: %v", socket, err)
	case len(got.SVIDs) == 0:
		return "", find(CodeUnregistered, "%s gave no certificate", socket)
	}
	id := got.DefaultSVID().ID
	x.report.Agent = id.String()
	if id.TrustDomain().Name() != x.cfg.Sidecar.TrustDomain {
		return "", find(CodeTrustDomain, "the agent is %s, and trust_domain is %s", id, x.cfg.Sidecar.TrustDomain)
	}
	if _, ok := got.Bundles.Get(id.TrustDomain()); !ok {
		return "", find(CodeWorkloadAPI, "%s has no bundle of %s", socket, id.TrustDomain())
	}
	x.svid = got
	return id.String(), nil
}

func (x *visit) bundle() *x509bundle.Bundle {
	b, _ := x.svid.Bundles.Get(x.svid.DefaultSVID().ID.TrustDomain())
	return b
}

// clock compares this clock with a service's, by the Date of an answer
// (RFC 9110 §6.6.1). The connection is held to the server's identity, but not to
// its certificate's life, which the wrong clock would misjudge; it shows no
// certificate of ours, and nothing but the time is believed.
func (x *visit) clock(ctx context.Context, p *peer) (string, error) {
	c := x.clientTo(p, false, func(leaf *x509.Certificate) time.Time {
		return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	})
	defer c.CloseIdleConnections()
	begun := x.cfg.Now()
	got, err := get(ctx, c, p.url.Scheme+"://"+p.url.Host+"/")
	if err != nil {
		return "not compared: " + err.Error(), nil // the tls step says why
	}
	theirs, err := http.ParseTime(got.header.Get("Date"))
	if err != nil {
		return "not compared: the answer has no Date", nil
	}
	ended := x.cfg.Now()
	ours := begun.Add(ended.Sub(begun) / 2)
	apart := ours.Sub(theirs) - time.Second/2 // Date has whole seconds
	seen := fmt.Sprintf("here %s, at the %s %s: %s apart", ours.UTC().Format(time.RFC3339), p.name, theirs.UTC().Format(time.RFC3339), apart.Round(time.Second).Abs())
	if apart.Abs() > spiffe.Leeway+time.Second/2 {
		return "", find(CodeClockSkew, "%s, and %s is allowed", seen, spiffe.Leeway)
	}
	return seen, nil
}

// certificate is whether the agent's own is in force, by a clock that is right.
func (x *visit) certificate(context.Context) (string, error) {
	leaf, now := x.svid.DefaultSVID().Certificates[0], x.cfg.Now()
	seen := fmt.Sprintf("from %s until %s", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	switch {
	case !now.Before(leaf.NotAfter):
		return "", find(CodeSVIDExpired, "%s; it is %s", seen, now.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return "", find(CodeSVIDEarly, "%s; it is %s", seen, now.UTC().Format(time.RFC3339))
	}
	return seen, nil
}

// tls makes the connection that the agent's calls use.
func (x *visit) tls(ctx context.Context, p *peer) (string, error) {
	p.http = x.clientTo(p, true, func(*x509.Certificate) time.Time { return x.cfg.Now() })
	got, err := get(ctx, p.http, p.url.Scheme+"://"+p.url.Host+"/")
	if err == nil {
		return fmt.Sprintf("%s, %s", p.id, tls.VersionName(got.tls)), nil
	}
	var f *finding
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &f):
		return "", f
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "", find(CodeServerExpired, "%v", err)
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return "", find(CodeServerTrust, "%v", err)
	case strings.Contains(err.Error(), "remote error: tls:"): // an alert; crypto/tls has no type for those of a peer
		return "", find(CodeSVIDRefused, "%v", err)
	}
	return "", find(CodeTLS, "%v", err)
}

// clientTo connects to one peer, whose certificate is judged as of a time.
func (x *visit) clientTo(p *peer, mutual bool, at func(leaf *x509.Certificate) time.Time) *http.Client {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // replaced by VerifyConnection, which knows the SPIFFE rules
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return find(CodeTLS, "the server sent no certificate")
			}
			id, _, err := x509svid.Verify(cs.PeerCertificates, x.bundle(), x509svid.WithTime(at(cs.PeerCertificates[0])))
			if err != nil {
				return untrusted(cs.PeerCertificates[0], err)
			}
			if id.String() != p.id {
				return find(CodeServerIdentity, "at %s is %s, expected %s", address(p), id, p.id)
			}
			return nil
		},
	}
	if mutual {
		svid := x.svid.DefaultSVID()
		own := &tls.Certificate{PrivateKey: svid.PrivateKey}
		for _, c := range svid.Certificates {
			own.Certificate = append(own.Certificate, c.Raw)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg, DialContext: x.dialer().DialContext, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       x.cfg.Timeout,
	}
}

// untrusted says which certificate did not verify; the cause stays in the error.
func untrusted(leaf *x509.Certificate, err error) error {
	who := "no SPIFFE ID"
	if id, iderr := x509svid.IDFromCert(leaf); iderr == nil {
		who = id.String()
	}
	return fmt.Errorf("the certificate of %s, from %s until %s: %w", who, leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), err)
}

// maxAnswer bounds what is read of one answer.
const maxAnswer = 256 << 10

// answer is what a service said.
type answer struct {
	code   int
	status string // "404 Not Found"
	header http.Header
	tls    uint16 // version
	body   []byte
}

func get(ctx context.Context, c *http.Client, url string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	return send(c, req)
}

// send reads the answer, as far as it is bounded.
func send(c *http.Client, req *http.Request) (answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	a := answer{code: resp.StatusCode, status: resp.Status, header: resp.Header, body: body}
	if resp.TLS != nil {
		a.tls = resp.TLS.Version
	}
	return a, err
}
