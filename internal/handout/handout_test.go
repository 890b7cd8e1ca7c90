package handout_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/handout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The files are a pair that TLS takes, the key for its owner alone; nothing is
// written for who has no Workload API.
func TestGetCertificate(t *testing.T) {
	ca, err := devca.New(devca.Config{TrustDomain: "acme.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	}()
	agent := identity.MustParseAgent("spiffe://acme.test/a")
	socket, err := ca.Serve(agent, devca.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "files")
	got, err := handout.GetCertificate(t.Context(), socket, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Agent != agent.String() {
		t.Errorf("of %s", got.Agent)
	}
	if _, err := tls.LoadX509KeyPair(got.Cert, got.Key); err != nil {
		t.Error(err)
	}
	for path, mode := range map[string]os.FileMode{got.Key: 0o600, got.Cert: 0o644, got.CA: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	if _, err := handout.GetCertificate(t.Context(), "not a socket", other); err == nil {
		t.Error("a certificate of no Workload API")
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("files of a refusal: %v", err)
	}
}
