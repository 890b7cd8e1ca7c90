package demo

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/devca"
)

// nameVendor is the maker of an MCP client that nobody registered; documentPath
// is where it says on its web site what its client is.
const (
	nameVendor   = "vendor"
	documentPath = "/mcp-client.json"
)

// openVendor serves the client ID metadata document of an MCP client that runs
// on its user's computer, any such client.
func (w *world) openVendor(context.Context) error {
	cred, err := w.ca.Issue(agentURI(nameVendor), devca.Profile{Loopback: true})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.document = "https://" + l.Addr().String() + documentPath
	body, err := json.Marshal(map[string]any{
		"client_id": w.document, "client_name": "Demo MCP client", "token_endpoint_auth_method": "none",
		"redirect_uris": []string{"http://127.0.0.1/callback", "http://localhost/callback"},
		"grant_types":   []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	srv := &http.Server{
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cred.TLS()}}, ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != documentPath {
				http.NotFound(rw, r)
				return
			}
			rw.Header().Set("Content-Type", "application/json")
			rw.Header().Set("Cache-Control", "max-age=3600")
			_, _ = rw.Write(body)
		}),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.ServeTLS(l, "", "") })
	w.atClose(func(context.Context) error {
		err := srv.Close()
		serving.Wait()
		return err
	})
	return nil
}

// desktopRoute is the database for people's own MCP clients, which can prove no
// key: the one route here whose tokens may be unbound, and the least authority.
func (w *world) desktopRoute(db config.MCP) config.MCP {
	db.Name, db.AllowUnbound = routeDesktop, true
	db.LoginDefault = string(details(w.places.readDesktop()))
	return db
}

// configureLogin lets people log in directly at a client.
func (w *world) configureLogin() error {
	ca := filepath.Join(w.dir, "vendor-ca.pem")
	if err := w.ca.WriteBundle(ca); err != nil {
		return fmt.Errorf("writing the vendor's authority: %w", err)
	}
	w.cfg.Tokens.Login = &config.Login{
		Issuer: w.idp.Issuer(), ClientID: nameTokens, Documents: &config.Documents{AllowLoopback: true, CA: ca},
	}
	return nil
}
