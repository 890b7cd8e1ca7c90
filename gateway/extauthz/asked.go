package extauthz

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
)

// partialBody is Envoy's word on whether the body is whole.
const partialBody = "X-Envoy-Auth-Partial-Body"

// asked is a call as a proxy tells it.
type asked struct {
	method, target, host, protocol string
	header                         http.Header
	body                           []byte
	address                        string // of the caller, "192.0.2.1:4711"; unverified
	certificate                    string // of the caller, PEM in percent-encoding; "" for none
	principal                      string // of the caller; "" for none
	badCertificate                 bool   // there is more than one, or it cannot be read
	size                           int64  // of the body as the proxy counts it; 0 if it does not say
	unsaid                         bool   // nothing says whether a body was kept back
	twoWays                        bool   // it says one thing twice, and not the same
}

var errTwoWays = errors.New("the request can be read in two ways")

// decide puts the call to the gateway. What cannot be the call that the proxy
// sends on is put to it as one that nobody can read, so that it is recorded.
func (s *Server) decide(ctx context.Context, a asked) gateway.Verdict {
	r, err := a.request(ctx)
	if err != nil {
		r.Body = io.NopCloser(failing{err})
	}
	return s.cfg.Gateway.Authorize(r, s.through)
}

func (s *Server) through(route string) gateway.Through {
	switch {
	case slices.Contains(s.cfg.Unseen, route):
		return gateway.ThroughUnseen
	case slices.Contains(s.cfg.Routes, route):
		return gateway.ThroughWhole
	}
	return gateway.NotThrough
}

// failing is a body of which nothing can be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// request is the call as the gateway reads it. It is never nil; with an error its
// body is not the call's.
func (a asked) request(ctx context.Context) (*http.Request, error) {
	r := (&http.Request{
		Method: a.method, RequestURI: a.target, Host: a.host, Header: a.header, RemoteAddr: a.address, Proto: a.protocol,
		URL: &url.URL{}, Body: http.NoBody, ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if strings.HasPrefix(a.protocol, "HTTP/2") {
		r.ProtoMajor, r.ProtoMinor = 2, 0
	}
	u, err := url.ParseRequestURI(a.target)
	if err != nil {
		r.RequestURI = "" // no target at all, which the gateway refuses
		return r, errTwoWays
	}
	r.URL = u
	r.TLS = a.connection()
	if a.twoWays {
		return r, errTwoWays
	}
	if err := a.whole(); err != nil {
		return r, err
	}
	r.Body = io.NopCloser(bytes.NewReader(a.body))
	return r, nil
}

func hasBody(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodDelete
}

// whole says whether the body is all that the caller sends (threat F11).
func (a asked) whole() error {
	partial, length := a.header.Values(partialBody), a.header.Values("Content-Length")
	said := len(partial) == 1 && partial[0] == "false"
	counted := len(partial) == 0 && a.size == int64(len(a.body)) // agentgateway has no other word; -1 stands for a part
	switch {
	case len(partial) > 0 && !said, a.unsaid, len(length) > 1:
		return gateway.ErrBodyPartial
	case len(length) == 1:
		n, err := strconv.ParseUint(length[0], 10, 63)
		if err != nil || n != uint64(len(a.body)) {
			return gateway.ErrBodyPartial
		}
		return nil
	case len(a.body) > 0 && (said || counted):
		return nil
	case len(a.body) > 0, hasBody(a.method), len(a.header.Values("Transfer-Encoding")) > 0:
		return gateway.ErrBodyPartial // of an unknown length, and nobody says that it is whole
	}
	return nil
}

// connection is the caller's as its proxy tells it; nil if it showed no
// certificate. One that cannot be read, or is of another principal, is a
// handshake that was not completed: no source takes it for an identity.
func (a asked) connection() *tls.ConnectionState {
	if a.certificate == "" && !a.badCertificate {
		return nil
	}
	none := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	text, err := url.PathUnescape(a.certificate)
	if err != nil || a.badCertificate {
		return none
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return none
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || a.principal != "" && !slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.String() == a.principal }) {
		return none
	}
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert}}
}

// forwardedCert reads X-Forwarded-Client-Cert, in which Envoy, told to sanitise
// and set it, has exactly one element. More than one could be the caller's own.
func forwardedCert(fields []string) (certificate, principal string, bad bool) {
	if len(fields) != 1 {
		return "", "", true
	}
	quoted := false
	parts := strings.FieldsFunc(fields[0], func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		bad = bad || c == ',' && !quoted || c == '\\'
		return c == ';' && !quoted
	})
	seen := map[string]bool{}
	for _, p := range parts {
		key, value, _ := strings.Cut(p, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		value = strings.Trim(value, `"`)
		bad = bad || seen[key] && key != "uri" && key != "dns"
		seen[key] = true
		switch key {
		case "cert":
			certificate = value
		case "uri":
			bad = bad || principal != ""
			principal = value
		}
	}
	return certificate, principal, bad || quoted
}
