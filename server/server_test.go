package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/internal/pgtest"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/policy/cedar/cedartest"
	"github.com/lineal-auth/lineal/record"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(killedAt); step != "" { // a process of TestL2KilledAtEachStep
		if err := callAndBeKilled(step, os.Getenv(killedDir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if step := os.Getenv(killedRotation); step != "" { // a process of TestL6KilledWhileRotating
		if err := rotateAndBeKilled(step, os.Getenv(killedDir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

const trustDomain = "server.test"

// deployment is a configuration that could start, in a directory of its own,
// with the listeners its URLs name.
type deployment struct {
	cfg             config.Config
	ca              *devca.CA
	gateway, tokens net.Listener
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	ca, err := devca.New(devca.Config{TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	socket := func(path string) string {
		addr, err := ca.Serve(identity.MustParseAgent("spiffe://"+trustDomain+path), devca.Profile{Loopback: true})
		if err != nil {
			t.Fatal(err)
		}
		return addr
	}
	d := &deployment{ca: ca, cfg: config.Config{
		TrustDomain: trustDomain, DataDir: filepath.Join(t.TempDir(), "data"),
		Gateway: config.Gateway{Socket: socket("/gateway")}, Tokens: config.Tokens{Socket: socket("/tokens")},
		Ledger: config.Ledger{Family: "ledger.test/std", Period: "2026-11", Region: "local", DataClass: "internal"},
		Agents: []config.Agent{{
			URI: "spiffe://" + trustDomain + "/app", Name: "app",
			Authority: mayChat("https://a.test"),
		}},
	}}
	d.cfg.Policy.Bundle = filepath.Join(d.cfg.DataDir, "policy.tar")
	d.listen(t)
	return d
}

// listen takes fresh ports, as each start of a server needs.
func (d *deployment) listen(t *testing.T) {
	t.Helper()
	var err error
	if d.gateway, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if d.tokens, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	d.cfg.PublicURL = "https://" + d.gateway.Addr().String()
	d.cfg.Tokens.Issuer = "https://" + d.tokens.Addr().String() + "/sts"
}

func (d *deployment) init(t *testing.T) {
	t.Helper()
	if err := Init(t.Context(), d.cfg.DataDir, d.cfg.Ledger, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	put(t, d.cfg.Policy.Bundle, d.bundle(t, 1, `@id("chat") permit (principal, action == Action::"llm:chat", resource in Service::"openai");`, "openai"))
}

// bundle is a policy bundle of this deployment, of one file.
func (d *deployment) bundle(t *testing.T, serial int64, rules string, services ...string) []byte {
	t.Helper()
	key, err := ManifestKey(d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := cedartest.Bundle(key, serial, rules, services...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (d *deployment) start(t *testing.T) *Server {
	t.Helper()
	s, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (d *deployment) stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// verify exports the log and verifies it offline under the policy file.
func (d *deployment) verify(t *testing.T) evidence.Report {
	t.Helper()
	return judge(t, d.cfg.DataDir, d.cfg.Tokens.Issuer)
}

// TestRestart runs a deployment twice: the second run continues the log of the
// first, and the whole of it verifies offline.
func TestRestart(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	var sizes []int
	for range 2 {
		s := d.start(t)
		x, err := s.Records(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, x.Len())
		d.stop(t, s)
		d.listen(t)
	}
	_ = d.gateway.Close()
	_ = d.tokens.Close()
	// Per run: three first heartbeats and the policy; three last heartbeats.
	if sizes[0] < 6 || sizes[1] < sizes[0]+7 {
		t.Fatalf("log had %d, then %d records: a run did not continue the log", sizes[0], sizes[1])
	}
	report := d.verify(t)
	if report.Result() != evidence.ResultValid {
		var b strings.Builder
		_ = report.WriteText(&b)
		t.Fatalf("log of two runs does not verify:\n%s", b.String())
	}
}

func TestOnlyInitCreatesALog(t *testing.T) {
	d := newDeployment(t)
	defer func() { _, _ = d.gateway.Close(), d.tokens.Close() }()
	if _, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens}); err == nil {
		t.Fatal("a server started without a deployment")
	}
	if _, err := os.Stat(filepath.Join(d.cfg.DataDir, "ledger.db")); err == nil {
		t.Fatal("a start created a ledger")
	}
	d.init(t)
	if err := Init(t.Context(), d.cfg.DataDir, d.cfg.Ledger, time.Now, nil); err == nil {
		t.Fatal("a second init replaced a deployment's keys")
	}
}

// TestO3ReadableKey: a key file that others may read ends the start.
func TestO3ReadableKey(t *testing.T) {
	d := newDeployment(t)
	defer func() { _, _ = d.gateway.Close(), d.tokens.Close() }()
	d.init(t)
	path := filepath.Join(d.cfg.DataDir, keysDir, "issuer.key")
	if err := os.Chmod(path, 0o640); err != nil { //nolint:gosec // the very mistake under test
		t.Fatal(err)
	}
	_, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens})
	if err == nil || !strings.Contains(err.Error(), "0600") {
		t.Fatalf("started with a readable key: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d.listen(t)
	d.stop(t, d.start(t))
}

// TestA1NoPolicyNoStart: without a bundle signed by this deployment's key
// there is no start.
func TestA1NoPolicyNoStart(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"changed": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.Replace(b, []byte(`"chat"`), []byte(`"chut"`), 1), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t)
			defer func() { _, _ = d.gateway.Close(), d.tokens.Close() }()
			d.init(t)
			spoil(t, d.cfg.Policy.Bundle)
			if _, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens}); err == nil {
				t.Fatal("started")
			}
		})
	}
}

// hashOf is the record hash of an envelope.
func hashOf(t *testing.T, envelope []byte) string {
	t.Helper()
	e, err := record.Open(envelope)
	if err != nil {
		t.Fatal(err)
	}
	return record.Hash(e.Payload)
}

// TestAdmission: the sequencer gives an index only to what follows its
// writer's last record under its key. Each refusal stands beside what passes.
func TestAdmission(t *testing.T) {
	d := newDeployment(t)
	_ = d.gateway.Close()
	_ = d.tokens.Close()
	d.init(t)
	keys, err := loadKeys(d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	w := &forger{t: t, keys: keys, log: d.cfg.Ledger.Family}
	admin, gateway := w.signer(keys.manifest), w.signer(keys.gateway)
	introduce := w.key(gateway.KeyID(), writerGateway, keys)

	first, hash := w.seal(w.beat(writerGateway, record.RoleGateway, gateway, "run"), 0, "", gateway)
	second, _ := w.seal(w.beat(writerGateway, record.RoleGateway, gateway, "run"), 1, hash, gateway)
	gap, _ := w.seal(w.beat(writerGateway, record.RoleGateway, gateway, "run"), 2, hash, gateway)
	fork, _ := w.seal(w.beat(writerGateway, record.RoleGateway, gateway, "run"), 1, record.Hash([]byte("another")), gateway)
	foreign, _ := w.seal(w.beat(writerTokens, record.RoleTokenService, gateway, "run"), 0, "", gateway)
	key, keyHash := w.seal(introduce, 0, "", admin)
	otherRole, _ := w.seal(w.beat(writerGateway, record.RoleTokenService, gateway, "run"), 0, "", gateway)
	ended := func(op record.KeyOp, by record.Signer, seq int64, prev string) []byte {
		r := w.head(record.KindKey, writerGateway, record.RoleGateway, by, "run")
		if by.KeyID() == admin.KeyID() {
			r.Writer.ID, r.Writer.Role, r.Writer.Run = writerAdmin, record.RoleAdmin, runID("admin")
		}
		change := *introduce.KeyChange
		change.Op = op
		r.KeyChange = &change
		e, _ := w.seal(r, seq, prev, by)
		return e
	}
	retire, revoke := ended(record.KeyRetire, admin, 1, keyHash), ended(record.KeyRevoke, admin, 1, keyHash)
	readded := ended(record.KeyAdd, admin, 2, hashOf(t, retire))

	broken := bytes.Clone(first)
	broken[len(broken)-10] ^= 1

	for name, c := range map[string]struct {
		envelopes [][]byte
		admitted  bool // the last one
	}{
		"in order":                {[][]byte{key, first, second}, true},
		"key never introduced":    {[][]byte{first}, false},
		"seq jumps":               {[][]byte{key, first, gap}, false},
		"prev of another record":  {[][]byte{key, first, fork}, false},
		"twice":                   {[][]byte{key, first, first}, false},
		"signs for another":       {[][]byte{key, foreign}, false},
		"signature broken":        {[][]byte{key, broken}, false},
		"not an envelope":         {[][]byte{key, []byte("{}")}, false},
		"first is not the start":  {[][]byte{key, second}, false},
		"under another role":      {[][]byte{key, otherRole}, false},
		"the key retired":         {[][]byte{key, first, retire}, true},
		"after it was retired":    {[][]byte{key, first, retire, second}, false},
		"after it was revoked":    {[][]byte{key, first, revoke, second}, false},
		"first when retired":      {[][]byte{key, retire, first}, false},
		"retired and added again": {[][]byte{key, retire, readded}, false},
		"retired by a writer":     {[][]byte{key, ended(record.KeyRetire, gateway, 0, "")}, false},
		"revoked by a writer":     {[][]byte{key, ended(record.KeyRevoke, gateway, 0, "")}, false},
		"a new key record by key": {[][]byte{key, w.selfIntroduction(gateway)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdmission(manifestKey(t, keys), nothing)
			for i, e := range c.envelopes {
				err := a.admit(e)
				if last := i == len(c.envelopes)-1; !last && err != nil {
					t.Fatalf("envelope %d: %v", i, err)
				} else if last && (err == nil) != c.admitted {
					t.Fatalf("admitted %v, want %v: %v", err == nil, c.admitted, err)
				}
			}
		})
	}

	t.Run("key changes in mid-batch", func(t *testing.T) {
		// The keys change at an index, not at a batch: what a retired key signed
		// before is admitted, what it signs after is not, and its successor goes on.
		w := &forger{t: t, keys: keys, log: w.log}
		next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
		successor := w.signer(next)
		retire, introduced := introduce, introduce
		change := *introduce.KeyChange
		change.Op = record.KeyRetire
		retire.ID, retire.KeyChange = newID(), &change
		other := *introduce.KeyChange
		other.KeyID, other.PublicKey = successor.KeyID(), base64.RawURLEncoding.EncodeToString(public(t, next))
		introduced.ID, introduced.KeyChange = newID(), &other
		retired, retiredHash := w.seal(retire, 1, keyHash, admin)
		added, _ := w.seal(introduced, 2, retiredHash, admin)
		onward, _ := w.seal(w.beat(writerGateway, record.RoleGateway, successor, "run"), 1, hash, successor)
		verdicts, err := newAdmission(manifestKey(t, keys), nothing).check(t.Context(), 0, []ledger.Candidate{
			{Envelope: key}, {Envelope: first}, {Envelope: onward}, {Envelope: retired}, {Envelope: second}, {Envelope: added}, {Envelope: onward},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, admitted := range []bool{true, true, false, true, false, true, true} {
			if (verdicts[i] == nil) != admitted {
				t.Errorf("record %d of the batch: %v", i, verdicts[i])
			}
		}
	})

	// Another process adds entries between this one's start and its lease.
	log := [][]byte{key, first}
	a := newAdmission(manifestKey(t, keys), func(_ context.Context, _ string, from, to int64) iter.Seq2[ledger.Entry, error] {
		return func(yield func(ledger.Entry, error) bool) {
			for i := from; i < min(to, int64(len(log))); i++ {
				if !yield(ledger.Entry{Index: i, Envelope: log[i]}, nil) {
					return
				}
			}
		}
	})
	if err := a.catchUp(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	candidates := []ledger.Candidate{{Envelope: second}, {Envelope: broken}}
	if verdicts, err := a.check(t.Context(), 2, candidates); err != nil || verdicts[0] != nil || verdicts[1] == nil {
		t.Errorf("after another process: %v, %v", verdicts, err)
	}
	if _, err := a.check(t.Context(), 3, nil); err != nil {
		t.Errorf("after its own step: %v", err)
	}
	if _, err := a.check(t.Context(), 4, nil); err == nil {
		t.Error("judged without an entry that is before")
	}
}
