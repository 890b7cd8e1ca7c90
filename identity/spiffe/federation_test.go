package spiffe_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/devca"
)

const partner = "spiffe://b.test/agent"

// openFederated is open with a.test and, beside it, federated domains.
func openFederated(t *testing.T, addr string, federated ...string) *spiffe.Source {
	t.Helper()
	src, err := spiffe.Open(t.Context(), spiffe.Config{
		Socket: addr, TrustDomain: td, Federated: federated, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	})
	return src
}

// TestI4FederatedDomains: a federated domain's bundle vouches for its own ids,
// and no bundle for another's, whatever else is right about the certificate.
func TestI4FederatedDomains(t *testing.T) {
	a, b, c := newAuthority(t, "a.test"), newAuthority(t, "b.test"), newAuthority(t, "c.test")
	src := openFederated(t, serveWorkloadAPI(t, answer(t, a, a.leaf(t, server, nil), b, c)).addr, "b.test", "gone.test")
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	for _, tc := range []struct {
		name   string
		signer *authority
		id     string
		ok     bool
	}{
		{"A signs for A", a, client, true},
		{"B signs for B", b, partner, true},
		{"B signs for A", b, client, false},
		{"A signs for B", a, partner, false},
		{"C, delivered and not configured, signs for C", c, "spiffe://c.test/agent", false},
		{"C signs for B", c, partner, false},
		{"B signs for a domain that is configured and not delivered", b, "spiffe://gone.test/agent", false},
		{"B signs for a domain below its own", b, "spiffe://sub.b.test/agent", false},
		{"B signs for itself, not for a workload", b, "spiffe://b.test", false},
		{"a stranger of B's name signs for B", newAuthority(t, "b.test"), partner, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := tc.signer.leaf(t, tc.id, nil)
			got, err := get(t, presenting(t, &cert), url)
			if ok := err == nil && got.Status == http.StatusOK && got.Body == tc.id; ok != tc.ok {
				t.Errorf("accepted = %t, want %t (%+v, %v)", ok, tc.ok, got, err)
			}
		})
	}
	for name, edit := range defects(t) { // I3, in a federated domain too
		if name == "other trust domain" { // which is this one
			continue
		}
		cert := b.leaf(t, partner, edit)
		if got, err := get(t, presenting(t, &cert), url); err == nil && got.Status == http.StatusOK {
			t.Errorf("%s: accepted (%+v)", name, got)
		}
	}
	// An intermediate of the other domain does not bridge the two.
	inter := b.leaf(t, "spiffe://a.test", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	})
	bridge := &authority{cert: inter.Leaf, key: inter.PrivateKey.(*ecdsa.PrivateKey)}
	cert := bridge.leaf(t, client, nil)
	cert.Certificate = append(cert.Certificate, inter.Certificate...)
	if got, err := get(t, presenting(t, &cert), url); err == nil && got.Status == http.StatusOK {
		t.Errorf("A's id below B's intermediate: accepted (%+v)", got)
	}
}

// TestI8FederatedRotation: a federated bundle that changes takes over, on kept
// connections too, and with the bundle goes everybody of the domain.
func TestI8FederatedRotation(t *testing.T) {
	a, before, after := newAuthority(t, "a.test"), newAuthority(t, "b.test"), newAuthority(t, "b.test")
	own := a.leaf(t, server, nil)
	api := serveWorkloadAPI(t, answer(t, a, own, before))
	src := openFederated(t, api.addr, "b.test")
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	oldCert, newCert, mine := before.leaf(t, partner, nil), after.leaf(t, partner, nil), a.leaf(t, client, nil)
	old, fresh, local := presenting(t, &oldCert), presenting(t, &newCert), presenting(t, &mine)
	is := func(what string, c *http.Client, want bool) {
		t.Helper()
		got, err := get(t, c, url)
		if ok := err == nil && got.Status == http.StatusOK; ok != want {
			t.Errorf("%s: accepted = %t, want %t (%+v, %v)", what, ok, want, got, err)
		}
	}
	is("the old authority", old, true)
	is("the next one, not delivered yet", fresh, false)
	both := answer(t, a, own, before)
	both.FederatedBundles["spiffe://b.test"] = append(append([]byte(nil), before.cert.Raw...), after.cert.Raw...)
	api.deliver(t, src, both)
	is("the old authority, both delivered", old, true)
	is("the next one, both delivered", fresh, true)
	api.deliver(t, src, answer(t, a, own, after))
	is("the old authority, on its kept connection, no longer delivered", old, false)
	is("the next one", fresh, true)
	api.deliver(t, src, answer(t, a, own))
	is("a domain that went away, on a kept connection", fresh, false)
	is("the own domain", local, true)
	api.deliver(t, src, answer(t, a, own, after))
	again := presenting(t, &newCert)
	is("a domain that came back", again, true)
}

// TestI4FederatedReferenceServer: two domains of the development CA, one
// federated with the other by its Workload API.
func TestI4FederatedReferenceServer(t *testing.T) {
	domain := func(name string) *devca.CA {
		ca, err := devca.New(devca.Config{TrustDomain: name, TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ca.Close() })
		return ca
	}
	a, b := domain("a.test"), domain("b.test")
	addr, err := a.Serve(identity.MustParseAgent(server), devca.Profile{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	src := openFederated(t, addr, "b.test")
	url := listen(t, src.ServerTLS(), whoami(src, time.Now))
	cred, err := b.Issue(identity.MustParseAgent(partner), devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	cert := cred.TLS()
	if got, err := get(t, presenting(t, &cert), url); err == nil && got.Status == http.StatusOK {
		t.Errorf("before it is federated: %+v", got)
	}
	updated := src.Updated()
	if err := a.Federate(x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("b.test"), b.Bundle().X509Authorities())); err != nil {
		t.Fatal(err)
	}
	wait(t, updated)
	if got, err := get(t, presenting(t, &cert), url); err != nil || got.Body != partner {
		t.Errorf("federated: %+v, %v", got, err)
	}
}

func TestFederatedConfigRefusals(t *testing.T) {
	for name, federated := range map[string][]string{
		"the own domain": {td}, "twice": {"b.test", "b.test"}, "no domain": {"B test"}, "an id": {"spiffe://b.test/agent"},
	} {
		if _, err := spiffe.Open(t.Context(), spiffe.Config{Socket: "unix:///nowhere", TrustDomain: td, Federated: federated}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
