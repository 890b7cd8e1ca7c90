package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/broker"
)

// broker gets an upstream's tokens of another issuer (gateway.md §7).
func (s *Server) broker(e *config.Exchange) (gateway.Broker, error) {
	roots := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA != "" {
		pem, err := os.ReadFile(e.CA)
		if err != nil {
			return nil, fmt.Errorf("exchange.ca: %w", err)
		}
		if roots.RootCAs = x509.NewCertPool(); !roots.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("exchange.ca: %s holds no certificate", e.CA)
		}
	}
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: roots, ForceAttemptHTTP2: true, DisableCompression: true,
			IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 5 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.idle = append(s.idle, client)
	return broker.New(broker.Config{
		TokenURL: e.TokenURL, ClientID: e.ClientID, ClientSecret: e.ClientSecret.Reveal(),
		Audience: e.Audience, Resource: e.Resource, Scope: e.Scope, HTTP: client, Now: s.now,
	})
}
