package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lineal-auth/lineal/identity"
)

// Profile says what else stands in an agent's certificates. The zero value is
// that of a client.
type Profile struct {
	// TTL is the life; zero: that of the CA.
	TTL time.Duration
	// Loopback adds the names localhost, 127.0.0.1 and ::1, so that clients
	// which know no SPIFFE, such as curl and Node, can verify a server.
	Loopback bool
	// DNSNames are further names of a server.
	DNSNames []string
}

// Credential is a certificate with its private key. It prints and logs as the
// certificate alone.
type Credential struct {
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Issue makes a certificate for agent, which must be a SPIFFE ID with a path
// in the CA's trust domain. It is meant for files (WriteFiles) of clients that
// cannot use a socket; nobody renews it.
func (ca *CA) Issue(agent identity.Agent, p Profile) (*Credential, error) {
	id, err := ca.checkAgent(agent)
	if err != nil {
		return nil, fmt.Errorf("issuing certificate: %w", err)
	}
	c, err := ca.issue(id, p)
	if err != nil {
		return nil, fmt.Errorf("issuing certificate for %s: %w", id, err)
	}
	return c, nil
}

func (ca *CA) checkAgent(agent identity.Agent) (spiffeid.ID, error) {
	id, err := spiffeid.FromString(agent.String())
	if err != nil {
		return spiffeid.ID{}, err
	}
	if !id.MemberOf(ca.td) {
		return spiffeid.ID{}, fmt.Errorf("%s is not in trust domain %s", id, ca.td)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, fmt.Errorf("%s is the trust domain itself, not a workload", id)
	}
	return id, nil
}

// issue makes a leaf as the X.509-SVID standard §4 wants it: one URI SAN, not
// a CA, key usage digitalSignature alone.
func (ca *CA) issue(id spiffeid.ID, p Profile) (*Credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ttl := p.TTL
	if ttl == 0 {
		ttl = ca.ttl
	}
	if ttl < 0 {
		return nil, fmt.Errorf("negative life %s", ttl)
	}
	now := ca.now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Lineal development"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id.URL()},
		DNSNames:              p.DNSNames,
	}
	if tmpl.NotAfter.After(ca.cert.NotAfter) {
		tmpl.NotAfter = ca.cert.NotAfter
	}
	if p.Loopback {
		tmpl.DNSNames = append([]string{"localhost"}, p.DNSNames...)
		tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Credential{leaf: leaf, key: key}, nil
}

// Leaf returns the certificate.
func (c *Credential) Leaf() *x509.Certificate { return c.leaf }

// TLS returns certificate and key for a tls.Config.
func (c *Credential) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.leaf.Raw}, PrivateKey: c.key, Leaf: c.leaf}
}

// CertificatePEM returns the certificate as PEM.
func (c *Credential) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.leaf.Raw})
}

// KeyPEM returns the private key as PEM (PKCS #8). It is a secret.
func (c *Credential) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// WriteFiles writes the certificate with mode 0644 and the key with mode 0600,
// each replaced atomically.
func (c *Credential) WriteFiles(certFile, keyFile string) error {
	key, err := c.KeyPEM()
	if err != nil {
		return err
	}
	if err := writeFile(keyFile, key, 0o600); err != nil {
		return fmt.Errorf("writing private key: %w", err)
	}
	if err := writeFile(certFile, c.CertificatePEM(), 0o644); err != nil {
		return fmt.Errorf("writing certificate: %w", err)
	}
	return nil
}

// String names the certificate, never the key.
func (c *Credential) String() string {
	if c == nil || c.leaf == nil || len(c.leaf.URIs) == 0 {
		return "no credential"
	}
	return fmt.Sprintf("certificate of %s until %s", c.leaf.URIs[0], c.leaf.NotAfter.UTC().Format(time.RFC3339))
}

// Format prints String for every verb, %#v included, so that no format of a
// log line can reach the key.
func (c *Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c *Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// newSerial returns a random serial number of 127 bits (RFC 5280 §4.1.2.2: positive).
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
