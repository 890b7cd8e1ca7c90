// Package handout hands a delegation token and the certificate it is bound to over to a program of any language, as files.
//
//	Workload API ──SVID──▶ token exchange ──▶ DIR/token, DIR/cert.pem, DIR/key.pem, DIR/ca.pem
//
// A token alone is of no use: every call must prove the key of the certificate
// that the token names. So both are fetched together, and written together,
// the secret ones with mode 0600 and each file atomically. A program that
// exchanges tokens itself needs the certificate alone: [GetCertificate].
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

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
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
	Token string `json:"token"`
	Certificate
	Scope   string    `json:"scope"`
	Expires time.Time `json:"expires"`
}

// Certificate is whose certificate was handed out, and the paths of its files.
type Certificate struct {
	Agent string `json:"agent"`
	Cert  string `json:"cert"`
	Key   string `json:"key"`
	CA    string `json:"ca"`
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
	svid, bundle, err := fetch(ctx, r.Socket)
	if err != nil {
		return Files{}, err
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
	f := Files{Token: filepath.Join(r.Dir, "token"), Scope: tok.Scope, Expires: tok.Expires}
	var files []durable.File
	if f.Certificate, files, err = certificateFiles(r.Dir, svid, bundle); err != nil {
		return Files{}, err
	}
	if err := durable.MkdirAll(r.Dir, 0o700); err != nil {
		return Files{}, err
	}
	return f, durable.WriteFiles(append(files, durable.File{Path: f.Token, Data: []byte(string(tok.Raw) + "\n"), Mode: 0o600}))
}

// GetCertificate fetches the certificate of the workload behind socket and
// writes it, its key and the authority of its trust domain to dir.
func GetCertificate(ctx context.Context, socket, dir string) (Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	svid, bundle, err := fetch(ctx, socket)
	if err != nil {
		return Certificate{}, err
	}
	c, files, err := certificateFiles(dir, svid, bundle)
	if err != nil {
		return Certificate{}, err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return Certificate{}, err
	}
	return c, durable.WriteFiles(files)
}

// GetJWT fetches a JWT-SVID of the workload behind socket for one audience and
// writes it to path, mode 0600. It lives minutes: helpers of SPIFFE write such a
// file again and again.
func GetJWT(ctx context.Context, socket, audience, path string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}, workloadapi.WithAddr(socket))
	if err != nil {
		return fmt.Errorf("fetching a JWT-SVID: %w", err)
	}
	return durable.WriteFile(path, []byte(svid.Marshal()+"\n"), 0o600)
}

// fetch asks a Workload API for its workload's certificate.
func fetch(ctx context.Context, socket string) (*x509svid.SVID, *x509bundle.Bundle, error) {
	x, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(socket))
	if err != nil {
		return nil, nil, fmt.Errorf("asking %s for a certificate: %w", socket, err)
	}
	if len(x.SVIDs) == 0 {
		return nil, nil, errors.New("the Workload API issued no certificate")
	}
	svid := x.DefaultSVID()
	bundle, ok := x.Bundles.Get(svid.ID.TrustDomain())
	if !ok {
		return nil, nil, fmt.Errorf("the Workload API has no bundle for %s", svid.ID.TrustDomain())
	}
	return svid, bundle, nil
}

func certificateFiles(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) (Certificate, []durable.File, error) {
	cert, key, err := svid.Marshal()
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("encoding the certificate: %w", err)
	}
	c := Certificate{
		Agent: svid.ID.String(),
		Cert:  filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}
	return c, []durable.File{
		{Path: c.Key, Data: key, Mode: 0o600},
		{Path: c.Cert, Data: cert, Mode: 0o644},
		{Path: c.CA, Data: pemOf(bundle.X509Authorities()), Mode: 0o644},
	}, nil
}

func pemOf(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
