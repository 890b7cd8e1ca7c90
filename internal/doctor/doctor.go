// Package doctor walks the way of an agent's first call and says which step
// fails, why, and what to do.
//
//	configuration ─▶ dns ─▶ port ─▶ identity ─▶ clock ─▶ certificate ─▶ tls ─▶ discovery ─▶ sign-in
//	                                                   for each route: route ─▶ exchange ─▶ call
//
// It has what the agent has: the configuration of its sidecar, its Workload API,
// and its sign-in or a delegation. Every step is the real one, by the code that
// the agent's calls use, but for two that read what a failure hides: the clock
// step reads the far side's time before anything is judged by time, and the tls
// step tells a refused client certificate from a server that is not trusted.
//
// A step that fails ends those that rest on it, so that the first failure is the
// cause. Each cause has a stable [Code], a sentence and a remedy.
//
// [RunClient] takes the way of a client that has nothing but a URL instead, up to
// where a person would log in.
//
// It changes nothing but what its exchanges and calls leave in the ledger. The
// call is a harmless one where the protocol has one, or the body that it is
// given. It prints no token, and asks nobody but the agent's own services.
package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
)

// stepTimeout bounds each step where nothing is said.
const stepTimeout = 10 * time.Second

// Config configures a run. Only Sidecar, or Unread, is required.
type Config struct {
	// Unread is why the configuration could not be read; nil: it could.
	Unread error
	// Sidecar is the agent's configuration as it was read; it may be invalid.
	Sidecar config.Sidecar
	// IDToken is of the person who signed in, instead of Sidecar.IDTokenFile.
	IDToken config.Secret
	// Delegation is one that the agent was handed, to try it where requests bring
	// theirs; "": exchange and call are not tried there.
	Delegation config.Secret
	// Body is sent by POST to the one route that Sidecar has, instead of a harmless
	// call.
	Body []byte
	// Resolver finds hosts; nil: the system's.
	Resolver *net.Resolver
	// Timeout bounds each step; zero: 10 s.
	Timeout time.Duration
	// Now is the agent's clock; nil: the system's.
	Now func() time.Time
}

// Run takes every step that can be taken, in order.
func Run(ctx context.Context, cfg Config) Report {
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = stepTimeout
	}
	x := &visit{cfg: cfg, report: Report{OK: true}}
	x.peers = [2]*peer{{name: "gateway", id: cfg.Sidecar.GatewayID}, {name: "token service", id: cfg.Sidecar.TokensID}}
	for i, base := range []string{cfg.Sidecar.Gateway, cfg.Sidecar.Issuer} {
		if u, err := url.Parse(base); err == nil {
			x.peers[i].url = u
		}
	}
	x.way(ctx)
	for _, p := range x.peers {
		if p.http != nil {
			p.http.CloseIdleConnections()
		}
	}
	if x.client != nil {
		x.client.Close()
	}
	return x.report
}

// visit is one run, with what its steps found out.
type visit struct {
	cfg    Config
	report Report
	peers  [2]*peer // gateway, token service
	svid   *workloadapi.X509Context
	client *client.Client
	// authority is what the calls are made under; nil: nothing to try them with.
	authority *client.Delegation
}

// peer is one of the agent's two services.
type peer struct {
	name, id string
	url      *url.URL // nil: it has no URL that can be read
	http     *http.Client
}

func (x *visit) gateway() *peer { return x.peers[0] }
func (x *visit) tokens() *peer  { return x.peers[1] }

// check takes a step. It says what it saw, or gives a finding.
type check func(context.Context) (seen string, err error)

// way takes the steps that all routes share, then each route's.
func (x *visit) way(ctx context.Context) {
	on := x.step(ctx, true, "configuration", "", x.configuration)
	both := func(name string, do func(context.Context, *peer) (string, error)) {
		for _, p := range x.peers {
			on = x.step(ctx, on, name, p.name, func(ctx context.Context) (string, error) { return do(ctx, p) })
		}
	}
	both("dns", x.dns)
	both("port", x.port)
	on = x.step(ctx, on, "identity", "", x.identity)
	both("clock", x.clock)
	on = x.step(ctx, on, "certificate", "", x.certificate)
	both("tls", x.tls)
	on = x.step(ctx, on, "discovery", "", x.discovery)
	on = x.step(ctx, on, "sign-in", "", x.signIn)
	for _, r := range x.cfg.Sidecar.Routes {
		x.route(ctx, on, r)
	}
}

// route takes the steps of one route. What fails for one may pass for another.
func (x *visit) route(ctx context.Context, begin bool, r config.SidecarRoute) {
	var tok client.Token
	ok := x.step(ctx, begin, "route", r.Path, func(ctx context.Context) (string, error) { return x.findRoute(ctx, r.Path) })
	if ok && x.authority == nil {
		x.skip("exchange", r.Path, "no delegation to try it with: --delegation FILE")
		x.skip("call", r.Path, "no token")
		return
	}
	ok = x.step(ctx, ok, "exchange", r.Path, func(ctx context.Context) (seen string, err error) {
		tok, seen, err = x.exchange(ctx, r)
		return seen, err
	})
	probe := probeOf(r.Path, r.Details, x.cfg.Body)
	if ok && probe == nil {
		x.skip("call", r.Path, "no call of its protocol is without effect: --body JSON makes one")
		return
	}
	x.step(ctx, ok, "call", r.Path, func(ctx context.Context) (string, error) { return x.call(ctx, r, probe, tok) })
}

// step takes one step if begin says so, and reports whether the next can be.
func (x *visit) step(ctx context.Context, begin bool, name, of string, do check) bool {
	if !begin {
		x.skip(name, of, "after the failure above")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, x.cfg.Timeout)
	defer cancel()
	seen, err := do(ctx)
	if err == nil {
		x.report.Steps = append(x.report.Steps, Step{Name: name, Of: of, Result: Passed, Seen: seen})
		return true
	}
	var f *finding
	if !errors.As(err, &f) {
		f = find(CodeUnexpected, "%v", err)
	}
	x.report.fail(name, of, f)
	return false
}

func (x *visit) skip(name, of, why string) {
	x.report.Steps = append(x.report.Steps, Step{Name: name, Of: of, Result: Skipped, Seen: why})
}
