package spiffe

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/identity"
)

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 90 * time.Second
)

// ServerTLS returns a configuration for a listener. It presents the current
// SVID and asks for a client certificate without requiring one, because who
// comes without is answered by the token layer (401); a certificate that is
// sent and not acceptable ends the handshake. A resumed session is verified
// like a new one. Leave its Certificates empty: crypto/tls prefers them to the
// SVID for clients that send no server name.
func (s *Source) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		Time:       s.now,
		ClientAuth: tls.RequestClientCert, // VerifyConnection verifies, against one bundle
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.certificate()
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			_, err := s.verifyPeer(cs)
			return err
		},
	}
}

// ClientTLS returns a configuration for connections to the one peer that
// match accepts. The peer is verified by its SPIFFE ID, never by its host
// name. It presents the current SVID, and only after the peer was accepted.
func (s *Source) ClientTLS(match func(identity.Agent) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		Time:               s.now,
		InsecureSkipVerify: true, // replaced by VerifyConnection, which knows the SPIFFE rules
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.certificate()
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("verifying server: it sent no certificate")
			}
			peer, err := s.verifyPeer(cs)
			if err != nil {
				return err
			}
			if match == nil {
				return errors.New("verifying server: no peer is configured")
			}
			return match(peer)
		},
	}
}

// Exactly matches the one agent.
func Exactly(agent identity.Agent) func(identity.Agent) error {
	return func(got identity.Agent) error {
		if agent.IsZero() || got != agent {
			return fmt.Errorf("verifying server: it is %s, expected %s", got, agent)
		}
		return nil
	}
}

func (s *Source) certificate() (*tls.Certificate, error) {
	st, err := s.load()
	if err != nil {
		return nil, err
	}
	return &st.svid, nil
}

func (s *Source) verifyPeer(cs tls.ConnectionState) (identity.Agent, error) {
	st, err := s.load()
	if err != nil {
		return identity.Agent{}, err
	}
	peer, err := st.verify(cs.PeerCertificates, s.now())
	if err != nil {
		return identity.Agent{}, fmt.Errorf("verifying peer: %w", err)
	}
	return peer.agent, nil
}

// HTTPClient returns a client for the one peer: mutual TLS, HTTP/2 where the
// peer offers it, no proxy, no redirect followed (the 3xx is the answer), no
// total timeout. Its connections are its own, and none is used beyond the SVID
// it was opened with: a token that is bound to the current certificate never
// travels under an older one. CloseIdleConnections frees them.
func (s *Source) HTTPClient(peer identity.Agent) *http.Client {
	return &http.Client{
		Transport: &transport{source: s, tls: s.ClientTLS(Exactly(peer))},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// transport is an http.Transport for each certificate in turn.
type transport struct {
	source *Source
	tls    *tls.Config

	mu         sync.Mutex // guards what follows
	thumbprint string
	current    *http.Transport
	retired    []*http.Transport // may still have answers under way
}

// maxRetired is how many old transports are told again to close what has
// become idle; older ones do so by their idle timeout.
const maxRetired = 4

// RoundTrip sends r on a connection of the current certificate.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	tr, err := t.take()
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the contract of http.RoundTripper
		}
		return nil, err
	}
	return tr.RoundTrip(r)
}

// take returns the transport of the current certificate.
func (t *transport) take() (*http.Transport, error) {
	st, err := t.source.load()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.thumbprint == st.credential.Thumbprint {
		return t.current, nil
	}
	if t.current != nil {
		t.retired = append(t.retired, t.current)
		t.retired = t.retired[max(0, len(t.retired)-maxRetired):]
		closeIdle(t.retired)
	}
	config := t.tls.Clone()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &st.svid, nil // this one, also if a newer one comes while it dials
	}
	t.thumbprint = st.credential.Thumbprint
	t.current = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: handshakeTimeout,
		IdleConnTimeout:     idleTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // an answer is as long as what came (threat N2)
	}
	return t.current, nil
}

// CloseIdleConnections closes connections that carry no request.
func (t *transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	closeIdle(t.retired)
	if t.current != nil {
		closeIdle([]*http.Transport{t.current})
	}
}

func closeIdle(all []*http.Transport) {
	for _, tr := range all {
		tr.CloseIdleConnections()
	}
}
