package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/server"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// TestMain lets scripts run the program itself.
func TestMain(m *testing.M) {
	testscript.Main(removing{pgtest.Main(m)}, map[string]func(){"lineal": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := run(ctx, os.Args[1:], streams{out: os.Stdout, err: os.Stderr, env: os.Getenv})
		stop()
		os.Exit(code)
	}})
}

// TestScripts runs testdata/*.txt.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TMPDIR", os.TempDir()) // a script's own is too long for a Unix socket
			e.Values[runningKey{}] = new(atomic.Pointer[server.Server])
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"newkey": newKey, "flip": flip, "operate": operate, "settle": settle, "demoed": demoScript, "longago": longAgo, "trust": trust},
	})
}

// newKey makes an Ed25519 key: NAME.key, as a deployment keeps one, and NAME.pem,
// its public half.
func newKey(ts *testscript.TestScript, _ bool, args []string) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(pub)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	ts.Check(os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}

// flip changes one bit in the middle of a file; twice puts it back.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// longAgo runs `lineal ledger init`, `roll`, or a hold and its release with a
// configuration, a thousand days ago: the retention of what is closed then has ended.
func longAgo(ts *testscript.TestScript, _ bool, args []string) {
	cfg, err := config.Load(ts.MkAbs(args[1]))
	ts.Check(err)
	cfg.DataDir = ts.MkAbs("data")
	then := func() time.Time { return time.Now().AddDate(0, 0, -1000) }
	switch args[0] {
	case "init":
		ts.Check(server.Init(context.Background(), cfg.DataDir, cfg.Ledger, then, nil))
	case "hold":
		ts.Check(server.AddHold(context.Background(), cfg.DataDir, "early", "", "audit", then, nil))
		ts.Check(server.ReleaseHold(context.Background(), cfg.DataDir, "early", then, nil))
	case "roll":
		_, err := server.Roll(context.Background(), cfg, "", then, nil)
		ts.Check(err)
	}
}

// trust writes the policy file of the deployment in data, which requires nothing
// beyond what every bundle needs.
func trust(ts *testscript.TestScript, _ bool, args []string) {
	t, err := server.Trust(ts.MkAbs("data"), "https://sts.acme.example")
	ts.Check(err)
	t.Require = nil
	var text bytes.Buffer
	ts.Check(evidence.WritePolicy(&text, t))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text.Bytes(), 0o600))
}
