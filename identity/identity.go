// Package identity names the parties, a natural person or an attested workload, and how a workload proves itself.
//
// A person is a [Person]: the issuer that vouches for the reference and the
// reference itself, a random string that carries no name. A workload is an
// [Agent]: one URI, by default its SPIFFE ID. Neither can be built but by
// parsing, and the zero value of each is invalid.
//
// A [Workload] is the answer to "who is on this connection". It comes from a
// [Source], a driver in a folder below this one, and from nothing else: no
// header, body member or address is ever an identity.
//
// The package reads no clock, opens no file and no connection.
package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxURI bounds an agent URI and an issuer, in bytes.
const maxURI = 2048

// Agent is the URI of a registered workload: a SPIFFE ID, an ARN, or one of
// the URIs that a source derives (tokens.md §9). It is immutable and
// comparable; two agents are the same exactly if their URIs are equal byte
// for byte. The zero value names nobody.
type Agent struct{ uri string }

// ParseAgent reads an agent URI: absolute, with a scheme, at most 2,048 bytes
// of printable ASCII, without white space, query or user information.
// A fragment is allowed, because generic OpenID workloads are `<iss>#<sub>`.
func ParseAgent(s string) (Agent, error) {
	if err := checkURI(s); err != nil {
		return Agent{}, fmt.Errorf("parsing agent URI: %w", err)
	}
	return Agent{uri: s}, nil
}

// MustParseAgent is ParseAgent for constants; it panics on an error.
func MustParseAgent(s string) Agent {
	a, err := ParseAgent(s)
	if err != nil {
		panic(err)
	}
	return a
}

func (a Agent) String() string { return a.uri }

// IsZero reports whether a is the zero value, which names nobody.
func (a Agent) IsZero() bool { return a.uri == "" }

// MarshalText gives the URI; the zero value is an error.
func (a Agent) MarshalText() ([]byte, error) {
	if a.IsZero() {
		return nil, errors.New("agent is not set")
	}
	return []byte(a.uri), nil
}

// UnmarshalText is ParseAgent.
func (a *Agent) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAgent(string(b))
	return err
}

// TrustDomain returns the SPIFFE trust domain of the agent, or "" where its
// URI is not a SPIFFE ID.
func (a Agent) TrustDomain() string {
	rest, ok := strings.CutPrefix(a.uri, "spiffe://")
	if !ok {
		return ""
	}
	td, _, _ := strings.Cut(rest, "/")
	return td
}

// Party is an issuer-qualified subject, as `act` and `may_act` name one
// (RFC 8693 §4.1, §4.4): Issuer is the namespace of Subject, not a signer.
type Party struct {
	Issuer  string
	Subject string
}

// IsZero reports whether p names nobody.
func (p Party) IsZero() bool { return p == Party{} }

// Person is a natural person as tokens and records name one: the issuer of
// the reference and the reference, a random string that is never reused and
// carries no name. The zero value names nobody.
type Person struct {
	issuer string
	ref    string
}

// ParsePerson checks and builds a Person. ref is 1 to 128 characters of the
// base64url alphabet.
func ParsePerson(issuer, ref string) (Person, error) {
	if err := checkURI(issuer); err != nil {
		return Person{}, fmt.Errorf("parsing person: issuer: %w", err)
	}
	if ref == "" || len(ref) > 128 {
		return Person{}, errors.New("parsing person: reference must have 1 to 128 characters")
	}
	for _, c := range []byte(ref) {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return Person{}, errors.New("parsing person: reference holds a character outside base64url")
		}
	}
	return Person{issuer: issuer, ref: ref}, nil
}

// Issuer is the token issuer in whose namespace Ref stands.
func (p Person) Issuer() string { return p.issuer }

// Ref is the reference, the `sub` of every token of the chain.
func (p Person) Ref() string { return p.ref }

// IsZero reports whether p is the zero value.
func (p Person) IsZero() bool { return p.ref == "" }

// String is `<issuer>#<ref>`, the person's name in policy.
func (p Person) String() string {
	if p.IsZero() {
		return ""
	}
	return p.issuer + "#" + p.ref
}

// Method is how a workload proved itself on a request; the values are those
// of `req.auth` in a receipt.
type Method string

// The methods of tokens.md §4. MethodNone stands for "nothing was proven".
const (
	MethodSPIFFEX509    Method = "spiffe_x509"
	MethodSPIFFEJWT     Method = "spiffe_jwt"
	MethodWorkloadJWT   Method = "workload_jwt"
	MethodPrivateKeyJWT Method = "private_key_jwt"
	MethodNone          Method = "none"
)

// Workload is an authenticated workload on one connection or request. It says
// nothing about what the workload may do.
type Workload struct {
	// Agent is who it is.
	Agent Agent
	// Method is how it proved that.
	Method Method
	// Source is the name of the configured source that accepted the proof.
	Source string
	// Thumbprint is the SHA-256 of the DER certificate the workload holds the
	// key of on this connection, unpadded base64url (`x5t#S256`, RFC 8705
	// §3.1), or "" where the proof is no certificate.
	Thumbprint string
	// Credential is H of the JWT that proved it (tokens.md §1): the unpadded
	// base64url SHA-256 of its JWS signing input, which stays the same when the
	// signature is respelled. It is "" where the proof is no JWT.
	Credential string
	// NotAfter is when the proof ends; zero if it has no end of its own. A JWT is
	// accepted until then plus the leeway of 30 s, and so must be remembered.
	NotAfter time.Time
}

// ErrNoCredential says that the request carries nothing this source reads.
// It is not a refusal: another source, or the token's own binding rule, decides.
var ErrNoCredential = errors.New("no workload credential on the connection")

// Source authenticates the workload on a request.
//
// Identify is called for every request, also on a kept connection, and must
// check validity at now (threat I8). It returns ErrNoCredential if the request
// has no credential of its kind, and any other error if it has one that is not
// acceptable; such an error refuses the request. A Source is safe for
// concurrent use.
type Source interface {
	Identify(r *http.Request, now time.Time) (Workload, error)
}

// SourceFunc makes a function a Source.
type SourceFunc func(r *http.Request, now time.Time) (Workload, error)

// Identify calls f.
func (f SourceFunc) Identify(r *http.Request, now time.Time) (Workload, error) { return f(r, now) }

// Thumbprint is `x5t#S256` of a certificate (RFC 8705 §3.1): the unpadded
// base64url SHA-256 of its DER encoding.
func Thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func checkURI(s string) error {
	if s == "" {
		return errors.New("empty")
	}
	if len(s) > maxURI {
		return fmt.Errorf("longer than %d bytes", maxURI)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return errors.New("holds a character that is not printable ASCII")
		}
	}
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("not a URI")
	}
	if u.Scheme == "" {
		return errors.New("not absolute: it has no scheme")
	}
	if u.User != nil {
		return errors.New("holds user information")
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("holds a query")
	}
	return nil
}
