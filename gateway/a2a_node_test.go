package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity/spiffe"
)

// TestA2ATypeScriptClients runs the TypeScript client, which .ci/a2a-clients
// installs, against the gateway of this test and a real agent.
func TestA2ATypeScriptClients(t *testing.T) {
	dir := os.Getenv("LINEAL_NODE_CLIENTS")
	if dir == "" {
		t.Skip("LINEAL_NODE_CLIENTS names no folder with the installed clients")
	}
	w := newWorld(t, withBindings(bindings(t)), withNoSix())
	agent := a2aAgent()
	w.up.answers(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte("crash")) {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		agent(rw, r)
	})
	cert, key := w.certificate()
	config, err := json.Marshal(map[string]string{
		"url": w.url + "/a2a/peer", "token": w.a2aToken(alice, research), "cert": cert, "key": key, "ca": string(shared.ca.BundlePEM()),
		"expired": w.token(mint{audience: w.url + "/a2a/peer", grants: [][]detail{{w.a2aAll()}}, issued: time.Now().Add(-time.Hour)}),
	})
	must(t, err)
	file := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(file, config, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join(dir, "a2a-client.mjs"), file)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, w.log.String())
	}
	t.Logf("a2a-client: %s", bytes.TrimSpace(out))
	refused := map[string]int{}
	for _, d := range w.decisions() {
		refused[d.Verdict.Reason]++
	}
	for _, reason := range []gateway.Code{"policy_denied", "handle_unknown", "token_expired"} {
		if refused[string(reason)] != 3 {
			t.Errorf("%d records of %s, want one for each binding", refused[string(reason)], reason)
		}
	}
}

// certificate is research's, as files have it.
func (w *world) certificate() (cert, key string) {
	w.t.Helper()
	c, err := shared.sources[research].ClientTLS(spiffe.Exactly(gatewayA)).GetClientCertificate(&tls.CertificateRequestInfo{})
	must(w.t, err)
	var chain strings.Builder
	for _, der := range c.Certificate {
		must(w.t, pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(w.t, err)
	return chain.String(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
