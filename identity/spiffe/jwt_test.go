package spiffe_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

const jwtAudience = "https://sts.acme.example"

// bundle is that of a trust domain, with these keys.
func bundle(name string, keys ...issuertest.Key) *jwtbundle.Bundle {
	all := map[string]crypto.PublicKey{}
	for _, k := range keys {
		all[k.ID] = k.Private.Public()
	}
	return jwtbundle.FromJWTAuthorities(spiffeid.RequireTrustDomainFromString(name), all)
}

func jwtSource(t testing.TB, bundles jwtbundle.Source, domains ...string) *spiffe.JWTSource {
	t.Helper()
	s, err := spiffe.NewJWTSource(spiffe.JWTConfig{Audience: jwtAudience, TrustDomains: domains, Bundles: bundles})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jwtRig has a JWT-SVID as SPIRE writes one.
func jwtRig(source identity.Assertions, id string, key issuertest.Key) issuertest.Rig {
	return issuertest.Rig{
		Source: source, Type: identity.AssertionSPIFFE, Key: key, Agent: id, Name: "spiffe", Namer: "sub", NoIssuedAt: true,
		Header: map[string]any{"typ": "JWT"},
		Claims: map[string]any{
			"aud": []string{jwtAudience}, "exp": issuertest.Now + 300, "iat": issuertest.Now, "sub": id,
		},
		ForeignAudiences: []string{"sts.amazonaws.com", "vault", "spiffe://a.test/other"},
		Lookalikes: []string{
			"spiffe://b.test/agent", "spiffe://a.test.evil/agent", "spiffe://evil.a.test/agent", "spiffe://a.test", "spiffe://a.test/", "https://a.test/agent",
			"SPIFFE://a.test/agent", "spiffe://a.test:443/agent", "spiffe://u@a.test/agent", "spiffe://a.test/agent?x", "spiffe://a.test/agent#x",
			"spiffe://a.test/../agent", "spiffe://a.test//agent", "spiffe://a.test/%61gent", "agent",
		},
	}
}

func newJWTRig(t testing.TB, alg string) issuertest.Rig {
	t.Helper()
	key := issuertest.NewKey(t, "authority-1", alg)
	return jwtRig(jwtSource(t, bundle(td, key), td), client, key)
}

func TestJWTSVID(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384"} {
		r := newJWTRig(t, alg)
		r.Accept(t, r.JWT(t))
		r.Accept(t, r.JWT(t, issuertest.Header("JOSE", "typ")))
		r.Accept(t, r.JWT(t, issuertest.Claim("https://spire.a.test", "iss"))) // says nothing
	}
}

func TestI4JWTKeys(t *testing.T)      { newJWTRig(t, "ES256").Keys(t) }
func TestI5JWTAudience(t *testing.T)  { newJWTRig(t, "ES256").Audience(t) }
func TestI8JWTTimes(t *testing.T)     { newJWTRig(t, "ES256").Times(t, 0) }
func TestP10JWTHeaders(t *testing.T)  { newJWTRig(t, "ES256").Headers(t) }
func TestP9JWTSpellings(t *testing.T) { newJWTRig(t, "ES256").Spellings(t) }

// A federated domain's bundle vouches for that domain, and for no other; nor does
// the own one for it.
func TestI4JWTFederatedDomains(t *testing.T) {
	keyA, keyB := issuertest.NewKey(t, "k", "ES256"), issuertest.NewKey(t, "k", "ES256")
	set := jwtbundle.NewSet(bundle("a.test", keyA), bundle("b.test", keyB), bundle("c.test", keyB))
	source := jwtSource(t, set, "a.test", "b.test", "gone.test")
	a, b := jwtRig(source, "spiffe://a.test/agent", keyA), jwtRig(source, "spiffe://b.test/agent", keyB)
	a.Accept(t, a.JWT(t))
	b.Accept(t, b.JWT(t))
	a.Key, b.Key = keyB, keyA
	a.Refuse(t, a.JWT(t), identity.AssertionSignature)
	b.Refuse(t, b.JWT(t), identity.AssertionSignature)
	// Delivered, but not configured; configured, but not delivered.
	c, gone := jwtRig(source, "spiffe://c.test/agent", keyB), jwtRig(source, "spiffe://gone.test/agent", keyB)
	c.Refuse(t, c.JWT(t), identity.AssertionIssuer)
	gone.Refuse(t, gone.JWT(t), identity.AssertionUnavailable)
	// What the bundle source says about itself is checked.
	mixed := jwtRig(jwtSource(t, wrongBundles{bundle("b.test", keyB)}, "a.test"), "spiffe://a.test/agent", keyB)
	mixed.Refuse(t, mixed.JWT(t), identity.AssertionUnavailable)
	// An X.509 trust domain member's assertion of the other type is not for it.
	_, err := source.Authenticate(t.Context(), identity.AssertionJWT, a.JWT(t), time.Unix(issuertest.Now, 0))
	if !errors.Is(err, identity.ErrNoCredential) {
		t.Error(err)
	}
}

// wrongBundles gives the same bundle for every trust domain.
type wrongBundles struct{ b *jwtbundle.Bundle }

func (w wrongBundles) GetJWTBundleForTrustDomain(spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	return w.b, nil
}

func TestJWTConfigRefusals(t *testing.T) {
	for name, edit := range map[string]func(*spiffe.JWTConfig){
		"no audience":      func(c *spiffe.JWTConfig) { c.Audience = "" },
		"no service":       func(c *spiffe.JWTConfig) { c.Audience = "sts.amazonaws.com" },
		"no trust domain":  func(c *spiffe.JWTConfig) { c.TrustDomains = nil },
		"bad trust domain": func(c *spiffe.JWTConfig) { c.TrustDomains = append(c.TrustDomains, "A b") },
		"no bundles":       func(c *spiffe.JWTConfig) { c.Bundles = nil },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := spiffe.JWTConfig{Audience: jwtAudience, TrustDomains: []string{td}, Bundles: bundle(td)}
			if _, err := spiffe.NewJWTSource(cfg); err != nil {
				t.Fatal(err)
			}
			edit(&cfg)
			if _, err := spiffe.NewJWTSource(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// jwtAPI is a Workload API that delivers JWT bundles as it is told to.
type jwtAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	answers chan *workload.JWTBundlesResponse // nil: an error
}

func (a *jwtAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream workload.SpiffeWorkloadAPI_FetchJWTBundlesServer) error {
	for {
		select {
		case r := <-a.answers:
			if r == nil {
				return status.Error(codes.Unavailable, "away")
			}
			if err := stream.Send(r); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func serveJWTAPI(t testing.TB, api *jwtAPI) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "wl") //nolint:usetesting // t.TempDir is too long for a socket path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "api.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	workload.RegisterSpiffeWorkloadAPIServer(srv, api)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { srv.Stop(); serving.Wait() })
	return socket
}

func jwtBundles(t testing.TB, bundles map[string][]issuertest.Key) *workload.JWTBundlesResponse {
	t.Helper()
	r := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
	for name, keys := range bundles {
		var jwks []string
		for _, k := range keys {
			b, err := jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Use: "jwt-svid"}.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			jwks = append(jwks, string(b))
		}
		r.Bundles["spiffe://"+name] = []byte(`{"keys":[` + strings.Join(jwks, ",") + `]}`)
	}
	return r
}

// The whole way: bundles from a Workload API, rotation, federation, an outage.
func TestJWTBundlesOfTheWorkloadAPI(t *testing.T) {
	api := &jwtAPI{answers: make(chan *workload.JWTBundlesResponse, 4)}
	addr := serveJWTAPI(t, api)
	k1, k2, kb := issuertest.NewKey(t, "k1", "ES256"), issuertest.NewKey(t, "k2", "ES256"), issuertest.NewKey(t, "k1", "ES256")
	api.answers <- jwtBundles(t, map[string][]issuertest.Key{td: {k1}, "b.test": {kb}})
	bundles, err := spiffe.OpenJWTBundles(t.Context(), spiffe.JWTBundleConfig{Socket: addr, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = bundles.Close()
		}
	})
	source := jwtSource(t, bundles, td, "b.test")
	old, next, fed := jwtRig(source, client, k1), jwtRig(source, client, k2), jwtRig(source, "spiffe://b.test/agent", kb)
	old.Accept(t, old.JWT(t))
	next.Refuse(t, next.JWT(t), identity.AssertionKey)
	fed.Accept(t, fed.JWT(t))

	deliver := func(r *workload.JWTBundlesResponse) {
		t.Helper()
		updated := bundles.Updated()
		api.answers <- r
		wait(t, updated)
	}
	deliver(jwtBundles(t, map[string][]issuertest.Key{td: {k1, k2}, "b.test": {kb}}))
	old.Accept(t, old.JWT(t))
	next.Accept(t, next.JWT(t))
	deliver(jwtBundles(t, map[string][]issuertest.Key{td: {k2}})) // rotated; federation ended
	old.Refuse(t, old.JWT(t), identity.AssertionKey)
	next.Accept(t, next.JWT(t))
	fed.Refuse(t, fed.JWT(t), identity.AssertionUnavailable)

	// A broken update changes nothing; after an outage the watch goes on.
	updated := bundles.Updated()
	broken := jwtBundles(t, map[string][]issuertest.Key{td: {k1}})
	broken.Bundles["spiffe://b.test"] = []byte("{")
	api.answers <- broken
	api.answers <- nil
	next.Accept(t, next.JWT(t))
	api.answers <- jwtBundles(t, map[string][]issuertest.Key{td: {k1}})
	wait(t, updated)
	old.Accept(t, old.JWT(t))
	next.Refuse(t, next.JWT(t), identity.AssertionKey)

	closed = true
	if err := bundles.Close(); err != nil {
		t.Error(err)
	}
	old.Refuse(t, old.JWT(t), identity.AssertionUnavailable)
}

func TestOpenJWTBundlesFails(t *testing.T) {
	for _, socket := range []string{"", "relative/path", "http://127.0.0.1:1"} {
		if _, err := spiffe.OpenJWTBundles(t.Context(), spiffe.JWTBundleConfig{Socket: socket}); err == nil {
			t.Errorf("%q: opened", socket)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	nobody := filepath.Join(t.TempDir(), "s")
	if _, err := spiffe.OpenJWTBundles(ctx, spiffe.JWTBundleConfig{Socket: nobody}); err == nil || !strings.Contains(err.Error(), nobody) {
		t.Errorf("%v", err)
	}
}

func ExampleNewJWTSource() {
	// In a service: bundles, err := spiffe.OpenJWTBundles(ctx, spiffe.JWTBundleConfig{Socket: "/run/spire/agent.sock"})
	bundles := jwtbundle.NewSet()
	source, err := spiffe.NewJWTSource(spiffe.JWTConfig{
		Audience:     "https://sts.acme.example",
		TrustDomains: []string{"acme.example"},
		Bundles:      bundles,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = source.Authenticate(context.Background(), identity.AssertionSPIFFE, "not a token", time.Now())
	fmt.Println(err)
	// Output: assertion_malformed: source spiffe: byte 3 is outside the alphabet
}
