package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/server"
)

// DevOptions configure a world that goes on, for building an agent against.
type DevOptions struct {
	// Dir keeps the state: log, registry, addresses, policy. One that is empty or
	// not there begins anew. Empty: a temporary directory, removed at the end.
	Dir string
	// Port is the first of seven in a row, for a new directory; 0: free ones. They
	// stay the directory's.
	Port int
	// Agent and Person are who signs in where, for a sidecar beside:
	// [Dev.SignInFile].
	Agent, Person string
	// Say is told what was taken in and what was not; nil: nobody.
	Say func(string)
	// Now is the clock; if nil, the system's.
	Now func() time.Time
	// Logger is the operator's log; if nil, nothing is logged.
	Logger *slog.Logger
}

// The times of following files.
const (
	devSettle  = 100 * time.Millisecond // after the last event: a file is written in steps
	devRecheck = 2 * time.Second        // for file systems that tell nothing
	devSignIn  = 20 * time.Minute       // the policy wants a fresh sign-in each hour
)

// maxSocketDir is the longest directory that has its sockets in itself: the
// address of a socket has about 100 bytes.
const maxSocketDir = 50

// Dev is the demo's parts without its story: they run until it is closed, and
// take in what is changed below their directory.
//
//	DIR/dev/policy/*.cedar   the rules: in force at once
//	DIR/dev/dev.yaml         own tools and agents: everything starts anew with them
//
// What was wrong in a file is said, and the last good one stays.
type Dev struct {
	opts    DevOptions
	dir     string
	sockets string
	remove  []string // temporary directories
	state   devState
	world   *world
	serial  int64
	seen    map[string]string // what is in force: "policy", "own"
}

// StartDev starts everything. Close it, also after Run has failed.
func StartDev(ctx context.Context, opts DevOptions) (_ *Dev, err error) {
	if opts.Say == nil {
		opts.Say = func(string) {}
	}
	if opts.Now == nil {
		opts.Now = time.Now //nolint:forbidigo // the one default clock
	}
	d := &Dev{opts: opts, seen: map[string]string{}}
	if err := d.claim(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	own, err := d.readOwn(ctx)
	if err == nil {
		err = d.open(ctx, own)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// claim takes the directory: a world's own, or a new one.
func (d *Dev) claim() (err error) {
	if d.dir = d.opts.Dir; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "lineal-dev-"); err != nil {
			return err
		}
		d.remove = append(d.remove, d.dir)
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if d.sockets = filepath.Join(d.dir, "sockets"); len(d.dir) > maxSocketDir {
		if d.sockets, err = os.MkdirTemp("", "lineal-dev-"); err != nil {
			return err
		}
		d.remove = append(d.remove, d.sockets)
	}
	if d.state, err = readState(d.dir); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, begun := os.Stat(ownPath(d.dir)) // by a start that did not come far
	if entries, err := os.ReadDir(d.dir); err == nil && len(entries) > 0 && begun != nil {
		return fmt.Errorf("directory %s is not empty, and no world of lineal dev", d.dir)
	}
	if d.state.Ports, err = ports(d.opts.Port); err != nil {
		return err
	}
	d.state.Period = d.opts.Now().UTC().Format("2006-01")
	if err := newPrivate(d.dir); err != nil || begun == nil {
		return err
	}
	return durable.WriteFile(ownPath(d.dir), []byte(ownHelp), 0o600)
}

// open starts a world with the own parts.
func (d *Dev) open(ctx context.Context, own Own) error {
	w := newWorld(Options{Now: d.opts.Now, Logger: d.opts.Logger})
	w.dev, w.dir, d.world = &devWorld{state: d.state, own: own, socketDir: d.sockets}, d.dir, w
	for _, step := range []func(context.Context) error{
		w.openIdentities, w.openPlaces, w.openProvider, w.openVendor, w.forgetCustomers, w.openTools, w.openModel, w.equipAgents, w.openAgents,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("setting up: %w", err)
		}
	}
	if err := w.configure(); err != nil {
		return err
	}
	w.configureDev()
	if err := d.create(ctx); err != nil {
		return err
	}
	if err := d.writePolicy(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{w.startProduct, w.openPage} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(w.writeDeployment(), w.writeAgents()); err != nil {
		return err
	}
	return d.signIn(ctx)
}

// create makes the log and the first policy of a new world.
func (d *Dev) create(ctx context.Context) error {
	if _, err := os.Stat(statePath(d.dir)); err == nil {
		return nil
	}
	if err := server.Init(ctx, d.dir, d.world.cfg.Ledger, d.opts.Now, d.opts.Logger); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(policyDir(d.dir), "dev.cedar"), []byte(d.world.policyText()), 0o600); err != nil {
		return err
	}
	return writeState(d.dir, d.state)
}

// rules are the files of the policy folder. Each server of one's own has a first
// rule of its own there, to be changed.
func (d *Dev) rules() (map[string]string, error) {
	for _, t := range d.world.dev.own.Tools {
		path := filepath.Join(policyDir(d.dir), t.Name+".cedar")
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		rule := fmt.Sprintf("@id(\"%s-for-agents\")\npermit (principal in Group::\"agents\", action in Action::\"use\", resource in Service::%q);\n", t.Name, t.Name)
		if err := durable.WriteFile(path, []byte(rule), 0o600); err != nil {
			return nil, err
		}
	}
	files, err := filepath.Glob(filepath.Join(policyDir(d.dir), "*.cedar"))
	if err != nil {
		return nil, err
	}
	rules := map[string]string{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		rules[filepath.Base(path)] = string(text)
	}
	return rules, nil
}

// writePolicy makes the bundle of the folder. Its serial is the time, or the one
// after the last.
func (d *Dev) writePolicy() error {
	rules, err := d.rules()
	if err != nil {
		return err
	}
	d.serial = max(d.serial+1, d.opts.Now().UnixMilli())
	if err := d.world.writePolicy(rules, d.serial); err != nil {
		return fmt.Errorf("%s: %w", policyDir(d.dir), err)
	}
	d.seen["policy"] = fmt.Sprint(rules)
	return nil
}

// readOwn reads the own parts, and asks their servers for their tools.
func (d *Dev) readOwn(ctx context.Context) (Own, error) {
	own, err := readOwn(ownPath(d.dir))
	if err != nil {
		return own, err
	}
	text, err := os.ReadFile(ownPath(d.dir))
	if err != nil {
		return own, err
	}
	if err := own.approve(ctx); err != nil {
		return own, fmt.Errorf("%s: %w", ownPath(d.dir), err)
	}
	d.seen["own"] = string(text)
	return own, nil
}

// Deployment says where everything is.
func (d *Dev) Deployment() Deployment { return d.world.deployment() }

// OwnFile is dev.yaml, which is followed.
func (d *Dev) OwnFile() string { return ownPath(d.dir) }

// PolicyDir is where the rules are, which are followed.
func (d *Dev) PolicyDir() string { return policyDir(d.dir) }

// SidecarAddress is kept for a sidecar beside.
func (d *Dev) SidecarAddress() string { return d.world.dev.address(placeSidecar) }

// SignInFile holds the ID token of DevOptions.Person at DevOptions.Agent, while
// Run runs a fresh one.
func (d *Dev) SignInFile() string { return devFile(d.dir, "id_token") }

func (d *Dev) signIn(ctx context.Context) error {
	if d.opts.Agent == "" {
		return nil
	}
	for _, u := range d.Deployment().Users {
		if u.Username == d.opts.Person {
			return d.world.signInFile(ctx, d.opts.Agent, person{username: u.Username, password: u.Password}, d.SignInFile())
		}
	}
	return fmt.Errorf("no person %q", d.opts.Person)
}

// Run follows the files until ctx ends, which is no error, or something that
// runs has failed.
func (d *Dev) Run(ctx context.Context) error {
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = watch.Close() }()
	for _, dir := range []string{devFile(d.dir, ""), policyDir(d.dir)} {
		if err := watch.Add(dir); err != nil {
			return err
		}
	}
	settled, look, again := time.NewTimer(devSettle), time.NewTicker(devRecheck), time.NewTicker(devSignIn)
	defer settled.Stop()
	defer look.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.world.server.Failed():
			return err
		case <-watch.Events:
			settled.Reset(devSettle)
			continue
		case err := <-watch.Errors:
			d.opts.Say("files are looked at from time to time only: " + err.Error())
			continue
		case <-again.C:
			if err := d.signIn(ctx); err != nil {
				d.opts.Say("not signed in again: " + err.Error())
			}
			continue
		case <-settled.C:
		case <-look.C:
		}
		if err := d.follow(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// follow takes in what has changed. An error is one after which nothing runs.
func (d *Dev) follow(ctx context.Context) error {
	if text, err := os.ReadFile(ownPath(d.dir)); err == nil && string(text) != d.seen["own"] {
		d.seen["own"] = string(text) // said once, right or wrong
		own, err := d.readOwn(ctx)
		if err != nil {
			d.opts.Say("not taken in, what was stays: " + oneLine(err))
			return nil
		}
		if err := d.world.close(); err != nil {
			return err
		}
		if err := d.open(ctx, own); err != nil {
			return fmt.Errorf("starting anew with %s: %w", ownPath(d.dir), err)
		}
		d.opts.Say(fmt.Sprintf("taken in: %s, %d tools' servers and %d agents", ownPath(d.dir), len(own.Tools), len(own.Agents)))
		return nil
	}
	rules, err := d.rules()
	if err != nil || fmt.Sprint(rules) == d.seen["policy"] {
		return nil //nolint:nilerr // a file that is being replaced; the next look finds it
	}
	d.seen["policy"] = fmt.Sprint(rules)
	if err = d.writePolicy(); err == nil {
		err = d.world.server.ReloadPolicy(ctx)
	}
	if err != nil {
		d.opts.Say("not in force, the policy before stays: " + oneLine(err))
		return nil
	}
	d.opts.Say("in force: " + policyDir(d.dir))
	return nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Close ends everything.
func (d *Dev) Close() (err error) {
	if d.world != nil {
		err = d.world.close()
	}
	for _, dir := range d.remove {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
