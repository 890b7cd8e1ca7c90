// Package devca is a certificate authority for development: it serves the
// SPIFFE Workload API to the workloads of one machine, from memory, until it
// is closed.
//
//	               ┌────────────────────── CA ──────────────────────┐
//	workload A ───▶│ A.sock ─▶ X.509-SVID, JWT-SVID of A, rotated   │
//	workload B ───▶│ B.sock ─▶ X.509-SVID, JWT-SVID of B, rotated   │
//	curl, Node ◀───│ Issue, WriteBundle: PEM files                  │
//	               └────────────────────────────────────────────────┘
//
// It promises what a workload relies on in production, in the same bytes: the
// gRPC service of the SPIFFE Workload API with its security header, leaf
// certificates as the X.509-SVID standard wants them, short lives, a new SVID
// pushed at half the life of the last one.
//
// It does not attest. In development all workloads are processes, or only
// parts of one process, of the same user, so that neither a process id nor a
// user id tells them apart. The socket is the identity: one agent per socket,
// each socket of mode 0600 in a directory of mode 0700. Whoever may open a
// socket is its agent, and that is every process of this user. The keys of
// the authority exist only in memory and end with the process.
package devca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// DefaultTTL is the life of an SVID where none is configured.
	DefaultTTL = 5 * time.Minute
	// minTTL keeps the half-life above the one-second resolution of X.509 times.
	minTTL = 2 * time.Second
	// authorityTTL is the life of the authority itself: longer than any
	// development session, shorter than a certificate that is worth stealing.
	authorityTTL = 30 * 24 * time.Hour
	// backdate makes a fresh certificate valid for a peer whose clock is late.
	backdate = 30 * time.Second
)

// Config configures a CA. Only TrustDomain is required.
type Config struct {
	// TrustDomain is the SPIFFE trust domain, such as "demo.lineal.test".
	TrustDomain string
	// Dir holds the sockets. It is created with mode 0700; one that exists
	// must be private already. Empty: a temporary directory, removed by Close.
	// A socket address has at most about 100 bytes, so keep the path short.
	Dir string
	// TTL is the life of an SVID; zero: DefaultTTL. At least two seconds.
	TTL time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logger gets one line per served socket and rotation; nil: none.
	Logger *slog.Logger
}

// CA is a running development authority. Its methods are safe for concurrent
// use. Close ends it and waits for everything it started.
type CA struct {
	td      spiffeid.TrustDomain
	dir     string
	ownsDir bool
	ttl     time.Duration
	now     func() time.Time
	logger  *slog.Logger

	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	jwtKey *ecdsa.PrivateKey
	jwtKID string

	ctx     context.Context // ended by Close; bounds every stream
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex // guards what follows
	closed    bool
	workloads map[string]*workload // by agent URI
	federated map[spiffeid.TrustDomain]*x509bundle.Bundle
}

// New creates the authority's keys and starts its rotation.
func New(cfg Config) (*CA, error) {
	td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("starting development CA: %w", err)
	}
	ca := &CA{
		td: td, ttl: cfg.TTL, now: cfg.Now, logger: cfg.Logger,
		workloads: map[string]*workload{},
		federated: map[spiffeid.TrustDomain]*x509bundle.Bundle{},
	}
	if ca.ttl == 0 {
		ca.ttl = DefaultTTL
	}
	if ca.ttl < minTTL {
		return nil, fmt.Errorf("starting development CA: TTL %s is below %s", ca.ttl, minTTL)
	}
	if ca.now == nil {
		ca.now = time.Now //nolint:forbidigo // the one default clock
	}
	if ca.logger == nil {
		ca.logger = slog.New(slog.DiscardHandler)
	}
	if err := ca.createAuthority(); err != nil {
		return nil, fmt.Errorf("starting development CA: %w", err)
	}
	if err := ca.createJWTKey(); err != nil {
		return nil, fmt.Errorf("starting development CA: %w", err)
	}
	if ca.dir, ca.ownsDir, err = privateDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("starting development CA: %w", err)
	}
	ca.ctx, ca.cancel = context.WithCancel(context.Background())
	ca.running.Go(ca.rotateLoop)
	return ca, nil
}

// TrustDomain returns the trust domain's name.
func (ca *CA) TrustDomain() string { return ca.td.Name() }

// Bundle returns the X.509 authorities of the trust domain.
func (ca *CA) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(ca.td, []*x509.Certificate{ca.cert})
}

// BundlePEM returns the authorities as PEM, for clients that take a CA file.
func (ca *CA) BundlePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// WriteBundle writes BundlePEM to path, atomically, with mode 0644.
func (ca *CA) WriteBundle(path string) error {
	if err := writeFile(path, ca.BundlePEM(), 0o644); err != nil {
		return fmt.Errorf("writing CA bundle: %w", err)
	}
	return nil
}

// Federate makes the bundle of another trust domain known to every workload,
// now and in later updates, under that domain's own name.
func (ca *CA) Federate(b *x509bundle.Bundle) error {
	if b.TrustDomain() == ca.td {
		return errors.New("federating: the bundle is that of the own trust domain")
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.federated[b.TrustDomain()] = b.Clone()
	for _, w := range ca.workloads {
		w.announce()
	}
	return nil
}

// Close stops all sockets, waits for every stream and goroutine, and removes
// the sockets. It is idempotent.
func (ca *CA) Close() error {
	ca.mu.Lock()
	first := !ca.closed
	ca.closed = true
	workloads := make([]*workload, 0, len(ca.workloads))
	for _, w := range ca.workloads {
		workloads = append(workloads, w)
	}
	ca.mu.Unlock()

	ca.cancel()
	for _, w := range workloads {
		w.server.Stop() // waits for the handlers; unlinks the socket
	}
	ca.running.Wait()
	if first && ca.ownsDir {
		if err := os.RemoveAll(ca.dir); err != nil {
			return fmt.Errorf("closing development CA: %w", err)
		}
	}
	return nil
}

func (ca *CA) createAuthority() (err error) {
	if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := ca.now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Lineal"}, CommonName: "development CA " + ca.td.Name()},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityTTL),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{ca.td.ID().URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.key.Public(), ca.key)
	if err != nil {
		return err
	}
	ca.cert, err = x509.ParseCertificate(der)
	return err
}

// bundles returns all bundles a workload is told of, sorted by trust domain.
func (ca *CA) bundles() []*x509bundle.Bundle {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	all := make([]*x509bundle.Bundle, 0, 1+len(ca.federated))
	for _, b := range ca.federated {
		all = append(all, b)
	}
	all = append(all, ca.Bundle())
	slices.SortFunc(all, func(a, b *x509bundle.Bundle) int { return a.TrustDomain().Compare(b.TrustDomain()) })
	return all
}

// privateDir returns a directory that only this user may enter, made if needed.
func privateDir(dir string) (path string, owned bool, err error) {
	if dir == "" {
		path, err = os.MkdirTemp("", "lineal-ca-") // mode 0700
		return path, true, err
	}
	if path, err = filepath.Abs(dir); err != nil {
		return "", false, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", false, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", false, err
	}
	if !info.IsDir() {
		return "", false, fmt.Errorf("%s is not a directory", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return "", false, fmt.Errorf("%s has mode %04o: others could use the identities in it; want 0700", path, perm)
	}
	return path, false, nil
}

// writeFile replaces path by a file of the given mode. The content is never
// readable under a wider mode, also where path existed with one.
func writeFile(path string, content []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".lineal-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
