// Package handout hands a delegation token and the certificate it is bound to over to a program of any language, as files.
//
//	Workload API ──SVID──▶ token exchange ──▶ DIR/token, DIR/cert.pem, DIR/key.pem, DIR/ca.pem
//
// A token alone is of no use: every call must prove the key of the certificate
// that the token names. So both are fetched together, and written together,
// the secret ones with mode 0600 and each file atomically.
//
// It serves `lineal token`. Programs that can use a library take package
// client, which never writes a token to a disk.
package handout

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/internal/durable"
)

// Request says which token to get.
type Request struct {
	// Socket is the Workload API of the workload that will hold the token.
	Socket string
	// TokenURL is the token endpoint, TokenService the SPIFFE ID behind it.
	TokenURL, TokenService string
	// IDToken is the person's, issued to an OpenID client of this workload.
	IDToken string
	// Audience and Details are what the token is for.
	Audience string
	Details  []byte
	// Dir is where the files go; it is made with mode 0700.
	Dir string
}

// Files are the paths of what was handed out.
type Files struct {
	Token   string    `json:"token"`
	Cert    string    `json:"cert"`
	Key     string    `json:"key"`
	CA      string    `json:"ca"`
	Scope   string    `json:"scope"`
	Expires time.Time `json:"expires"`
}

const timeout = 30 * time.Second

// Get fetches certificate and token and writes the files.
func Get(ctx context.Context, r Request) (Files, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	peer, err := spiffeid.FromString(r.TokenService)
	if err != nil {
		return Files{}, fmt.Errorf("handing out a token: %w", err)
	}
	x, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(r.Socket))
	if err != nil {
		return Files{}, fmt.Errorf("asking %s for a certificate: %w", r.Socket, err)
	}
	if len(x.SVIDs) == 0 {
		return Files{}, errors.New("the Workload API issued no certificate")
	}
	svid := x.DefaultSVID()
	bundle, ok := x.Bundles.Get(svid.ID.TrustDomain())
	if !ok {
		return Files{}, fmt.Errorf("the Workload API has no bundle for %s", svid.ID.TrustDomain())
	}
	transport := &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(peer)), ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	c, err := client.New(client.Config{TokenURL: r.TokenURL, HTTP: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}})
	if err != nil {
		return Files{}, err
	}
	tok, err := c.Root(ctx, r.IDToken, client.Call{Audience: r.Audience, Details: r.Details})
	if err != nil {
		return Files{}, err
	}
	cert, key, err := svid.Marshal()
	if err != nil {
		return Files{}, fmt.Errorf("encoding the certificate: %w", err)
	}
	f := Files{
		Token: filepath.Join(r.Dir, "token"), Cert: filepath.Join(r.Dir, "cert.pem"), Key: filepath.Join(r.Dir, "key.pem"),
		CA: filepath.Join(r.Dir, "ca.pem"), Scope: tok.Scope, Expires: tok.Expires,
	}
	if err := durable.MkdirAll(r.Dir, 0o700); err != nil {
		return Files{}, err
	}
	return f, durable.WriteFiles([]durable.File{
		{Path: f.Token, Data: []byte(string(tok.Raw) + "\n"), Mode: 0o600},
		{Path: f.Key, Data: key, Mode: 0o600},
		{Path: f.Cert, Data: cert, Mode: 0o644},
		{Path: f.CA, Data: pemOf(bundle.X509Authorities()), Mode: 0o644},
	})
}

func pemOf(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
