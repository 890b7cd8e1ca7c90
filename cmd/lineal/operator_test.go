package main

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/devca"
	"github.com/lineal-auth/lineal/server"
)

// runningKey is where a script keeps its server.
type runningKey struct{}

// settle waits until everything that was recorded so far is published.
func settle(ts *testscript.TestScript, _ bool, _ []string) {
	at, ok := ts.Value(runningKey{}).(*atomic.Pointer[server.Server])
	if !ok || at.Load() == nil {
		ts.Fatalf("no server is running")
	}
	_, err := at.Load().Records(context.Background())
	ts.Check(err)
}

// operate starts a server with an admin API for a script, and tells it by the
// variables of `lineal agent` where it is, as the operator; AUDITOR and AGENT
// are the sockets of others, PROBES and DATA where its probes and records are.
func operate(ts *testscript.TestScript, _ bool, _ []string) {
	const domain = "ops.test"
	ca, err := devca.New(devca.Config{TrustDomain: domain})
	ts.Check(err)
	ts.Defer(func() { _ = ca.Close() })
	socket := func(path string) string {
		addr, err := ca.Serve(identity.MustParseAgent("spiffe://"+domain+path), devca.Profile{Loopback: true})
		ts.Check(err)
		return addr
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		return l
	}
	gateway, tokens, admin, probes := listen(), listen(), listen(), listen()
	ts.Check(probes.Close())
	data := ts.MkAbs("data")
	cfg := config.Config{
		TrustDomain: domain, DataDir: data, PublicURL: "https://" + gateway.Addr().String(),
		Gateway: config.Gateway{Socket: socket("/gateway")},
		Tokens: config.Tokens{
			Socket: socket("/tokens"), Issuer: "https://" + tokens.Addr().String() + "/sts", PersonIssuers: []string{"https://idp.ops.test"},
		},
		Ledger: config.Ledger{Family: "ledger.ops.test/std", Period: "2026-11", Region: "local", DataClass: "internal"},
		Policy: config.Policy{Bundle: filepath.Join(data, "policy.tar")},
		Agents: []config.Agent{{
			URI: "spiffe://" + domain + "/app", Name: "app",
			Authority: `[{"type":"urn:lineal:call:v1","locations":["https://a.test"],"actions":["llm:chat"],"names":["small"]}]`,
		}},
		Admin: &config.Admin{
			Address: admin.Addr().String(), Probes: probes.Addr().String(),
			Operators: []config.Operator{
				{URI: "spiffe://" + domain + "/ops/dana", Role: "operator"}, {URI: "spiffe://" + domain + "/ops/audit", Role: "auditor"},
			},
		},
	}
	ts.Check(server.Init(context.Background(), data, cfg.Ledger, time.Now, nil))
	ts.Check(writeBundle(cfg.DataDir, cfg.Policy.Bundle, `@id("chat") permit (principal, action == Action::"llm:chat", resource in Service::"openai");`, "openai"))
	running, err := server.Start(context.Background(), cfg, server.Options{GatewayListener: gateway, TokensListener: tokens, AdminListener: admin})
	ts.Check(err)
	if at, ok := ts.Value(runningKey{}).(*atomic.Pointer[server.Server]); ok {
		at.Store(running)
	}
	ts.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := running.Close(ctx); err != nil {
			ts.Logf("closing: %v", err)
		}
	})
	for name, value := range map[string]string{
		"LINEAL_ADMIN_URL": "https://" + admin.Addr().String(), "LINEAL_ADMIN_ID": "spiffe://" + domain + "/tokens",
		"SPIFFE_ENDPOINT_SOCKET": socket("/ops/dana"), "AUDITOR": socket("/ops/audit"), "AGENT": socket("/app"),
		"PROBES": "http://" + probes.Addr().String(), "DATA": data,
	} {
		ts.Setenv(name, value)
	}
}
