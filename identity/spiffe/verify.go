package spiffe

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lineal-auth/lineal/identity"
)

// maxVerified bounds the cache of verified certificates. Only a certificate
// of the own trust domain gets in, so its size is that of the organisation's
// live SVIDs on one process.
const maxVerified = 4096

// Identify returns the workload that holds the certificate of r's connection,
// if that certificate is acceptable at now. A request without TLS or without a
// client certificate is identity.ErrNoCredential.
//
// It costs a hash and a map lookup once a certificate is known.
func (s *Source) Identify(r *http.Request, now time.Time) (identity.Workload, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return identity.Workload{}, identity.ErrNoCredential
	}
	st, err := s.load()
	if err != nil {
		return identity.Workload{}, err
	}
	if !r.TLS.HandshakeComplete { // the peer has not proven that it holds the key
		return identity.Workload{}, errors.New("identifying workload: TLS handshake is not complete")
	}
	peer, err := st.verify(r.TLS.PeerCertificates, now)
	if err != nil {
		return identity.Workload{}, fmt.Errorf("identifying workload: %w", err)
	}
	return identity.Workload{
		Agent: peer.agent, Method: identity.MethodSPIFFEX509, Source: s.name,
		Thumbprint: peer.thumbprint, NotAfter: peer.notAfter,
	}, nil
}

// verifier verifies chains against one bundle of one trust domain and
// remembers the leaves it accepted. A changed bundle gets a new verifier, so
// that no verdict outlives the authorities it rests on.
type verifier struct {
	td     spiffeid.TrustDomain
	bundle *x509bundle.Bundle
	roots  *x509.CertPool

	mu       sync.RWMutex // guards verified
	verified map[[sha256.Size]byte]verified
}

// verified is an accepted leaf. The times are those of its whole chain.
type verified struct {
	agent               identity.Agent
	thumbprint          string
	notBefore, notAfter time.Time
}

func newVerifier(bundle *x509bundle.Bundle) *verifier {
	v := &verifier{
		td: bundle.TrustDomain(), bundle: bundle.Clone(), roots: x509.NewCertPool(),
		verified: map[[sha256.Size]byte]verified{},
	}
	for _, c := range v.bundle.X509Authorities() {
		v.roots.AddCert(c)
	}
	return v
}

// verify accepts a chain, leaf first, at now. Certificates of the connection
// are only hints to a path; what is remembered is true of the leaf alone.
func (v *verifier) verify(chain []*x509.Certificate, now time.Time) (verified, error) {
	key := sha256.Sum256(chain[0].Raw)
	v.mu.RLock()
	known, ok := v.verified[key]
	v.mu.RUnlock()
	if !ok {
		var err error
		if known, err = v.verifyChain(chain, now); err != nil {
			return verified{}, err
		}
		known.thumbprint = base64.RawURLEncoding.EncodeToString(key[:])
		v.remember(key, known)
	}
	if err := checkLife(known, now); err != nil {
		return verified{}, err
	}
	return known, nil
}

func (v *verifier) remember(key [sha256.Size]byte, peer verified) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for old := range v.verified {
		if len(v.verified) < maxVerified {
			break
		}
		delete(v.verified, old) // any: it is verified again when it comes back
	}
	v.verified[key] = peer
}

// verifyChain applies tokens.md §9, row 1.
func (v *verifier) verifyChain(chain []*x509.Certificate, now time.Time) (verified, error) {
	leaf := chain[0]
	agent, err := v.checkLeaf(leaf)
	if err != nil {
		return verified{}, err
	}
	opts := x509.VerifyOptions{
		Roots:         v.roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   withinLife(leaf, now),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	paths, err := leaf.Verify(opts)
	if err != nil {
		return verified{}, fmt.Errorf("certificate of %s: %w", agent, err)
	}
	peer := verified{agent: agent}
	for _, path := range paths { // the path that lasts longest
		notBefore, notAfter := path[0].NotBefore, path[0].NotAfter
		for _, c := range path[1:] {
			if c.NotBefore.After(notBefore) {
				notBefore = c.NotBefore
			}
			if c.NotAfter.Before(notAfter) {
				notAfter = c.NotAfter
			}
		}
		if notAfter.After(peer.notAfter) {
			peer.notBefore, peer.notAfter = notBefore, notAfter
		}
	}
	return peer, nil
}

// checkLeaf applies the rules of the X.509-SVID standard §4 that need no path.
func (v *verifier) checkLeaf(leaf *x509.Certificate) (identity.Agent, error) {
	if n := len(leaf.URIs); n != 1 {
		return identity.Agent{}, fmt.Errorf("certificate has %d URI SANs, not one", n)
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return identity.Agent{}, fmt.Errorf("certificate's URI SAN: %w", err)
	}
	switch {
	case !id.MemberOf(v.td):
		return identity.Agent{}, fmt.Errorf("certificate of %s: not in trust domain %s", id, v.td)
	case id.Path() == "":
		return identity.Agent{}, fmt.Errorf("certificate of %s: names a trust domain, not a workload", id)
	case leaf.IsCA:
		return identity.Agent{}, fmt.Errorf("certificate of %s: is a CA", id)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return identity.Agent{}, fmt.Errorf("certificate of %s: key usage lacks digitalSignature", id)
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return identity.Agent{}, fmt.Errorf("certificate of %s: key usage has keyCertSign or cRLSign", id)
	}
	return identity.ParseAgent(id.String())
}

// withinLife moves now into the life of the certificate where the leeway
// allows it; else the path verification refuses.
func withinLife(leaf *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.After(leaf.NotAfter) && !now.After(leaf.NotAfter.Add(Leeway)):
		return leaf.NotAfter
	case now.Before(leaf.NotBefore) && !now.Before(leaf.NotBefore.Add(-Leeway)):
		return leaf.NotBefore
	default:
		return now
	}
}

func checkLife(peer verified, now time.Time) error {
	if now.After(peer.notAfter.Add(Leeway)) {
		return fmt.Errorf("certificate of %s: expired at %s, now is %s", peer.agent,
			peer.notAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.Before(peer.notBefore.Add(-Leeway)) {
		return fmt.Errorf("certificate of %s: not valid before %s, now is %s", peer.agent,
			peer.notBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}
