package demo

import (
	"context"
	crand "crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
)

const nameOperator = "operator"

// place is what listens at an address of its own.
type place int

const (
	placeGateway place = iota
	placeTokens
	placeProvider
	placeAdmin
	placePage
	placeProbes
	placeSidecar // that `lineal dev` runs beside
	placeCount
)

// devState is what must be the same after a restart: addresses are part of the
// names of issuers and audiences, and a log has the period that it began with.
type devState struct {
	Ports  []int  `json:"ports"` // by place
	Period string `json:"period"`
}

// devWorld is what is different about a world that goes on. Its methods take
// nil for a demo.
type devWorld struct {
	state     devState
	own       Own
	socketDir string
	key       string // of the page
	page      string // its URL with the key
}

// sockets is where Workload API sockets are; "": a temporary folder.
func (d *devWorld) sockets() string {
	if d == nil {
		return ""
	}
	return d.socketDir
}

func (d *devWorld) workloads() (names []string) {
	if d == nil {
		return nil
	}
	for _, a := range d.own.Agents {
		names = append(names, a.Name)
	}
	return append(names, nameOperator)
}

// applications are the own agents that sign persons in.
func (d *devWorld) applications() (names []string) {
	if d == nil {
		return nil
	}
	for _, a := range d.own.Agents {
		if a.People {
			names = append(names, a.Name)
		}
	}
	return names
}

// listen takes the port of a place: in a demo any free one. One that is taken
// is an error, and never another (E10).
func (d *devWorld) listen(at place) (net.Listener, error) {
	if d == nil {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	l, err := net.Listen("tcp", d.address(at))
	if err != nil {
		return nil, fmt.Errorf("%w; stop what uses the port, or begin with another --port in another directory", err)
	}
	return l, nil
}

func (d *devWorld) address(at place) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.state.Ports[at]))
}

// The range of which free ports are taken is below what systems give to
// connections by themselves: nobody is given one of them between two starts.
const firstPort, lastPort = 10_000, 32_000

// ports are so many in a row, or free ones if first is 0.
func ports(first int) ([]int, error) {
	if first != 0 {
		return row(first), nil
	}
	var last error
	for range 50 {
		//nolint:gosec // a port is no secret
		all := row(firstPort + rand.IntN(lastPort-firstPort-int(placeCount)))
		if last = free(all); last == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("no free ports: %w", last)
}

func row(first int) (all []int) {
	for i := range int(placeCount) {
		all = append(all, first+i)
	}
	return all
}

// free reports whether nobody listens at any of them.
func free(all []int) error {
	for _, port := range all {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// The files of a world that goes on, below its data directory.
func devFile(dir, name string) string   { return filepath.Join(dir, "dev", name) }
func statePath(dir string) string       { return devFile(dir, "state.json") }
func ownPath(dir string) string         { return devFile(dir, "dev.yaml") }
func agentPath(dir, name string) string { return devFile(dir, filepath.Join("agents", name+".json")) }
func policyDir(dir string) string       { return devFile(dir, "policy") }
func bundlePath(dir string) string      { return devFile(dir, filepath.Join("bundle", "policy.tar")) }

func readState(dir string) (devState, error) {
	var s devState
	data, err := os.ReadFile(statePath(dir))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil || len(s.Ports) != int(placeCount) || s.Period == "" {
		return s, fmt.Errorf("%s is not of this version of lineal dev; begin in another directory", statePath(dir))
	}
	return s, nil
}

func writeState(dir string, s devState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.WriteFile(statePath(dir), append(data, '\n'), 0o600)
}

// configureDev completes the configuration with what a demo has not.
func (w *world) configureDev() {
	w.cfg.ClockLeeway = 0 // the product's
	w.cfg.Ledger.Period = w.dev.state.Period
	w.cfg.Policy.Bundle = bundlePath(w.dir)
	w.cfg.Admin.Probes = w.dev.address(placeProbes)
	w.cfg.Admin.Operators = []config.Operator{{URI: agentURI(nameOperator).String(), Role: "operator"}}
	w.dev.own.configure(w.places, &w.cfg)
}

// deploy says what a demo has not.
func (d *devWorld) deploy(w *world, to *Deployment) {
	if d == nil {
		return
	}
	to.Admin, to.OperatorSocket, to.OperatorPage, to.Probes = "https://"+d.address(placeAdmin), w.agents[nameOperator].socket, d.page, "http://"+d.address(placeProbes)
	for _, t := range d.own.Tools {
		line, _ := d.own.detail(w.places, t.Name)
		to.Routes = append(to.Routes, DeployedRoute{Name: t.Name, Protocol: "mcp", Audience: w.places.mcp(t.Name), Details: details(line)})
	}
	for _, a := range d.own.Agents {
		entry := DeployedAgent{Name: a.Name, URI: agentURI(a.Name).String(), Socket: w.agents[a.Name].socket, Routes: a.Calls, Config: agentPath(w.dir, a.Name)}
		if a.People {
			entry.OIDCClient = a.Name
		}
		to.Agents = append(to.Agents, entry)
		if a.URL != "" {
			to.Routes = append(to.Routes, DeployedRoute{Name: a.Name, Protocol: "a2a", Audience: w.places.agent(a.Name), Details: details(d.own.asked(w.places, a)...)})
		}
	}
}

// writeAgents writes for each own agent what client.OpenAgentFile takes.
func (w *world) writeAgents() error {
	var files []durable.File
	for _, a := range w.dev.own.Agents {
		cfg := client.AgentConfig{
			Socket: w.agents[a.Name].socket, TrustDomain: trustDomain, Issuer: w.issuer,
			TokensID: agentURI(nameTokens), GatewayID: agentURI(nameGateway),
		}
		if a.URL != "" {
			cfg.Audience = w.places.agent(a.Name)
		}
		for _, route := range a.Calls {
			audience, lines := w.dev.own.call(w.places, route)
			cfg.Calls = append(cfg.Calls, client.Call{Audience: audience, Details: details(lines...)})
		}
		text, err := json.MarshalIndent(cfg, "", "  ")
		if err != nil {
			return err
		}
		files = append(files, durable.File{Path: agentPath(w.dir, a.Name), Data: append(text, '\n'), Mode: 0o600})
	}
	return durable.WriteFiles(files)
}

const pageCookie = "lineal-dev"

// openPage serves the operators' web page on this machine to whoever knows its
// key, as the operator: a browser has no certificate before the first success
// (E16). The key goes into a cookie, and out of the address.
func (w *world) openPage(context.Context) error {
	l, err := w.dev.listen(placePage)
	if err != nil {
		return err
	}
	w.dev.key = crand.Text()
	at := "http://" + l.Addr().String()
	w.dev.page = at + "/ui/?k=" + w.dev.key
	to := w.agents[nameOperator].source.HTTPClient(agentURI(nameTokens))
	target := &url.URL{Scheme: "https", Host: w.dev.address(placeAdmin)}
	proxy := &httputil.ReverseProxy{
		Transport: to.Transport, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Del("Cookie")
			p.Out.Header.Del("Origin") // it was compared here
		},
	}
	srv := &http.Server{Handler: w.dev.knowing(l.Addr().String(), proxy), ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	w.atClose(func(context.Context) error {
		err := srv.Close()
		serving.Wait()
		to.CloseIdleConnections()
		return err
	})
	return nil
}

// knowing lets in who has the key, at this address alone: no page of another
// site gets here under another name (threat S8).
func (d *devWorld) knowing(host string, next http.Handler) http.Handler {
	is := func(s string) bool { return subtle.ConstantTimeCompare([]byte(s), []byte(d.key)) == 1 }
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if r.Host != host || (origin != "" && origin != "http://"+host) {
			http.Error(rw, "not served here", http.StatusMisdirectedRequest)
			return
		}
		if r.Method == http.MethodGet && is(r.URL.Query().Get("k")) {
			http.SetCookie(rw, &http.Cookie{Name: pageCookie, Value: d.key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // loopback without TLS
			rw.Header().Set("Referrer-Policy", "no-referrer")
			http.Redirect(rw, r, r.URL.Path, http.StatusSeeOther)
			return
		}
		if c, err := r.Cookie(pageCookie); err != nil || !is(c.Value) {
			http.Error(rw, "open the address that lineal dev printed", http.StatusForbidden)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// signInFile writes the ID token of a person who signs in at an agent, for a
// sidecar.
func (w *world) signInFile(ctx context.Context, as string, p person, path string) error {
	idToken, err := w.signInAt(ctx, as, p)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(idToken+"\n"), 0o600)
}

// newPrivate makes the folders of a new world.
func newPrivate(dir string) error {
	var errs []error
	for _, d := range []string{dir, devFile(dir, ""), policyDir(dir), filepath.Dir(bundlePath(dir)), filepath.Dir(agentPath(dir, ""))} {
		errs = append(errs, durable.MkdirAll(d, 0o700))
	}
	return errors.Join(errs...)
}
