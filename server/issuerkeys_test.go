package server

import (
	"errors"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// secondKey puts an EdDSA key beside the first, and returns both as they are
// configured.
func secondKey(t *testing.T, dataDir string) []config.Key {
	t.Helper()
	if _, err := CreateIssuerKey(dataDir, "issuer-2", string(token.EdDSA)); err != nil {
		t.Fatal(err)
	}
	for name, alg := range map[string]string{"issuer-2": "ES256", "../out": "ES256", "": "ES256", "issuer-3": "RS256"} {
		if _, err := CreateIssuerKey(dataDir, name, alg); err == nil {
			t.Errorf("made a key %q for %s", name, alg)
		}
	}
	return []config.Key{{File: "issuer.key"}, {File: "issuer-2.key"}}
}

// published is the key set that a server serves.
func published(t *testing.T, s *Server) (out []token.PublicKey) {
	t.Helper()
	w := httptest.NewRecorder()
	s.tokens.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", s.cfg.Tokens.Issuer+"/jwks", nil))
	out, err := token.ParseJWKS(w.Body.Bytes())
	if err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return out
}

func keyRecords(t *testing.T, s *Server) (out []string) {
	t.Helper()
	x, err := s.Records(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range x.Records(search.Filter{}) {
		if k := e.Record.KeyChange; k != nil && k.Role == record.RoleIssuer {
			out = append(out, string(k.Op)+" "+k.TokenKeyID)
		}
	}
	return out
}

// TestRotationByConfiguration: the operator lists a second key, restarts, and
// later takes the first away. Each restart keeps the ring, and the log that says
// so verifies.
func TestRotationByConfiguration(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	addrs := []string{d.gateway.Addr().String(), d.tokens.Addr().String()}
	offset := time.Duration(0)
	run := func(check func(s *Server)) {
		t.Helper()
		s, err := Start(t.Context(), d.cfg, Options{
			GatewayListener: d.gateway, TokensListener: d.tokens, Now: func() time.Time { return time.Now().Add(offset) },
		})
		if err != nil {
			t.Fatal(err)
		}
		check(s)
		d.stop(t, s)
		for i, l := range []*net.Listener{&d.gateway, &d.tokens} {
			if *l, err = net.Listen("tcp", addrs[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	var old, next token.PublicKey
	run(func(s *Server) {
		keys := published(t, s)
		if len(keys) != 1 || keys[0].Algorithm != token.ES256 {
			t.Fatalf("published at first: %+v", keys)
		}
		old = keys[0]
	})
	d.cfg.Tokens.Keys = secondKey(t, d.cfg.DataDir)
	run(func(s *Server) {
		keys := published(t, s)
		if len(keys) != 2 || keys[0].KeyID != old.KeyID || keys[1].Algorithm != token.EdDSA || !keys[1].NotBefore.Equal(keys[0].NotAfter) {
			t.Fatalf("published in the overlap: %+v", keys)
		}
		next = keys[1]
	})
	offset = sts.KeyLead + 2*time.Second
	d.cfg.Tokens.Keys = d.cfg.Tokens.Keys[1:]
	run(func(s *Server) {
		if keys := published(t, s); len(keys) != 2 || keys[0].KeyID != next.KeyID {
			t.Errorf("published after the switch: %+v", keys)
		}
	})
	offset += sts.KeyDrain + 2*time.Second
	run(func(s *Server) {
		if keys := published(t, s); len(keys) != 1 || keys[0].KeyID != next.KeyID {
			t.Errorf("published at the end: %+v", keys)
		}
		want := []string{"add " + old.KeyID, "add " + next.KeyID, "retire " + old.KeyID}
		if got := keyRecords(t, s); !slices.Equal(got, want) {
			t.Errorf("records: %q, want %q", got, want)
		}
	})
	_, _ = d.gateway.Close(), d.tokens.Close()
	if report := d.verify(t); report.Result() != evidence.ResultValid {
		var b strings.Builder
		_ = report.WriteText(&b)
		t.Errorf("a log with a rotation does not verify:\n%s", b.String())
	}
}

// TestC9KeyRevokedEndToEnd: over sockets, calls under tokens of both keys: the
// signing key is revoked, the next one takes its place at once, and the bundle
// that spans both verifies by the key records.
func TestC9KeyRevokedEndToEnd(t *testing.T) {
	c := newCluster(t)
	cfg := c.node("one", config.RoleGateway, config.RoleTokens, config.RoleLedger)
	cfg.Tokens.Keys = secondKey(t, cfg.DataDir)
	p := c.start(cfg)
	keys := published(t, p.server)
	before := p.login(p.toTokens())
	if code := p.call(p.toGateway(), before); code != "" {
		t.Fatalf("refused: %s", code)
	}
	if _, err := p.server.Revoke(t.Context(), sts.Revocation{Kind: token.RevokedKey, Value: keys[0].KeyID, Cause: "stolen", By: "operator"}); err != nil {
		t.Fatal(err)
	}
	if now := published(t, p.server); len(now) != 1 || now[0].KeyID != keys[1].KeyID {
		t.Errorf("published after the revocation: %+v", now)
	}
	after := p.login(p.toTokens())
	// A gateway asks for the keys again at most every five seconds.
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		code := p.call(p.toGateway(), after)
		if code == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a token of the next key is refused: %s", code)
		}
	}
	if code := p.call(p.toGateway(), before); code == "" {
		t.Error("a token of the revoked key passed")
	}
	p.verify()
}

// TestO3IssuerKeyFiles: a listed key that others may read, or that signs no
// tokens, ends the start.
func TestO3IssuerKeyFiles(t *testing.T) {
	d := newDeployment(t)
	defer func() { _, _ = d.gateway.Close(), d.tokens.Close() }()
	d.init(t)
	for name, k := range map[string]config.Key{
		"no file":          {File: "nothing.key"},
		"another's folder": {File: "/etc/hostname"},
		"a PKCS #11 URI":   {PKCS11: "pkcs11:object=x"},
	} {
		d.cfg.Tokens.Keys = []config.Key{k}
		if s, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens}); err == nil {
			t.Errorf("%s: started", name)
			d.stop(t, s)
		} else if errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "tokens.keys[0]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
