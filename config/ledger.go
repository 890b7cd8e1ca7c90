package config

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Ledger names the log, and where it is kept.
type Ledger struct {
	// Family is the log's family, "ledger.acme.example/std".
	Family string `yaml:"family"`
	// Period is the period of the family now open, "2026-11". To open the next,
	// change it and run lineal ledger roll.
	Period    string `yaml:"period"`
	Region    string `yaml:"region"`
	DataClass string `yaml:"data_class"`

	// Retention is how long the bodies of a period are kept once it is closed.
	// Default: for ever.
	Retention Retention `yaml:"retention,omitempty"`

	// Store is a PostgreSQL database for ledger and registries, which any number of
	// processes share: "postgres://lineal@db.internal/lineal?sslmode=verify-full".
	// A password is better left to PGPASSFILE. Default: SQLite files in data_dir,
	// for one process.
	Store Secret `yaml:"store,omitempty"`
	// Persons is the PostgreSQL database of the person map, for processes with the
	// role tokens: another one than store, with a login and backups of its own,
	// because who reads it knows who is behind every record. Default with SQLite: a
	// file in data_dir.
	Persons Secret `yaml:"persons,omitempty"`
	// Node names this process among those that share the store, and so its writers:
	// gateway-<node>. No two may have one name: the later ends the earlier. Default:
	// none, and the writers are called gateway, tokens and admin.
	Node string `yaml:"node,omitempty"`
	// RequireStandby refuses a PostgreSQL server without synchronous standbys; set
	// it where failover goes to a replica. Default: false.
	RequireStandby bool `yaml:"require_standby,omitempty"`

	// Witnesses must have cosigned a checkpoint before it is published. They are
	// not asked before calls: those go on while a witness is out. Default: none.
	Witnesses []Witness `yaml:"witnesses,omitempty"`
	// WitnessQuorum is how many of them must have. Default: all.
	WitnessQuorum int `yaml:"witness_quorum,omitempty"`

	// Fsck is the check of the whole log that the process makes which sequences.
	// Default: each day.
	Fsck Fsck `yaml:"fsck,omitempty"`
}

// Fsck says when the open period is read from its first entry to its last, and
// every tile, bundle, checkpoint, signature and link between records checked. What
// is found is an alarm in the log and in the metrics.
type Fsck struct {
	// Interval is from the end of one check to the next, an hour at least. The first
	// after a start comes after a twenty-fourth of it, unless the last was less than
	// an interval ago. Default: 24h.
	Interval time.Duration `yaml:"interval,omitempty"`
	// EntriesPerSecond bounds what it reads, so that calls do not notice; every entry
	// is read twice. Default: 2000.
	EntriesPerSecond int `yaml:"entries_per_second,omitempty"`
	// Off: not at all. Then `lineal ledger fsck` is for somebody to run. Default: false.
	Off bool `yaml:"off,omitempty"`
}

// Every is Interval, or its default.
func (f Fsck) Every() time.Duration { return cmp.Or(f.Interval, 24*time.Hour) }

// Rate is EntriesPerSecond, or its default.
func (f Fsck) Rate() int { return cmp.Or(f.EntriesPerSecond, 2000) }

func (f Fsck) validate() error {
	switch {
	case f.Off && (f.Interval != 0 || f.EntriesPerSecond != 0):
		return errors.New("ledger.fsck: off, and nothing else")
	case f.Interval != 0 && f.Interval < time.Hour:
		return errors.New("ledger.fsck.interval: an hour at least; off: true turns it off")
	case f.EntriesPerSecond < 0:
		return errors.New("ledger.fsck.entries_per_second: must be positive")
	}
	return nil
}

// Retention bounds the life of records. It is written into the record that closes
// a period, and holds for that one: a later change is for periods to come.
type Retention struct {
	// KeepDays is for how many days after its end nothing of a period may be
	// deleted. Default: 0, nothing ever is.
	KeepDays int `yaml:"keep_days,omitempty"`
	// DeleteWithinDays is within how many days after that it must be, by lineal
	// ledger prune. Default: 30.
	DeleteWithinDays int `yaml:"delete_within_days,omitempty"`
}

// DeleteWithin is DeleteWithinDays, or its default.
func (r Retention) DeleteWithin() int { return cmp.Or(r.DeleteWithinDays, 30) }

// Origin is the log's origin, the name in its checkpoints.
func (l Ledger) Origin() string { return l.Family + "/" + l.Period }

// Role is a part of the product that a process runs.
type Role string

// The roles.
const (
	RoleGateway Role = "gateway"
	RoleTokens  Role = "tokens"
	RoleLedger  Role = "ledger"
)

// AllRoles are the roles of a process that names none.
func AllRoles() []Role { return []Role{RoleGateway, RoleTokens, RoleLedger} }

// Runs reports whether this process has a role.
func (c Config) Runs(r Role) bool { return len(c.Roles) == 0 || slices.Contains(c.Roles, r) }

// nodeName keeps writer ids readable, and apart from each other.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// validateSharing checks what several processes on one store rest on.
func (c Config) validateSharing() (errs []error) {
	for _, r := range c.Roles {
		if !slices.Contains(AllRoles(), r) {
			errs = append(errs, fmt.Errorf("roles: %q is none of %q", r, AllRoles()))
		}
	}
	l := c.Ledger
	errs = append(errs, l.validateWitnesses()...)
	if err := l.Fsck.validate(); err != nil {
		errs = append(errs, err)
	}
	if r := l.Retention; r.KeepDays < 0 || r.DeleteWithinDays < 0 || r.KeepDays > 36_500 || r.DeleteWithinDays > 3_650 || r.KeepDays == 0 && r.DeleteWithinDays > 0 {
		errs = append(errs, errors.New("ledger.retention: keep_days is 0 to 36500, delete_within_days 0 to 3650 and not without the other"))
	}
	if l.Node != "" && !nodeName.MatchString(l.Node) {
		errs = append(errs, fmt.Errorf("ledger.node: %q is not of lower-case letters, digits and inner hyphens, 32 at most", l.Node))
	}
	if l.Store == "" {
		for _, r := range AllRoles() {
			if !c.Runs(r) {
				errs = append(errs, fmt.Errorf("roles: without %s: only processes with a PostgreSQL store (ledger.store) can share the work", r))
			}
		}
		if l.Persons != "" || l.RequireStandby {
			errs = append(errs, errors.New("ledger.persons, ledger.require_standby: are for a PostgreSQL store (ledger.store)"))
		}
		return errs
	}
	for _, u := range []struct {
		path  string
		value Secret
	}{{"ledger.store", l.Store}, {"ledger.persons", l.Persons}} {
		if u.value != "" && !strings.HasPrefix(u.value.Reveal(), "postgres://") && !strings.HasPrefix(u.value.Reveal(), "postgresql://") {
			errs = append(errs, fmt.Errorf("%s: must begin with postgres://", u.path)) // the value may hold a password
		}
	}
	switch {
	case c.Runs(RoleTokens) && l.Persons == "":
		errs = append(errs, errors.New("ledger.persons: required with a PostgreSQL store"))
	case l.Persons == l.Store:
		errs = append(errs, errors.New("ledger.persons: must be another database than ledger.store"))
	}
	return errs
}

type needed struct{ path, value string }

// identitiesNeeded are the settings without which this process cannot prove who
// it is, or does not know who the others are.
func (c Config) identitiesNeeded() (out []needed) {
	gateway, tokens := c.Runs(RoleGateway), c.Runs(RoleTokens)
	switch {
	case gateway:
		out = append(out, needed{"gateway.spiffe_socket", c.Gateway.Socket})
	case tokens:
		out = append(out, needed{"gateway.spiffe_id", c.Gateway.ID})
	}
	switch {
	case tokens:
		out = append(out, needed{"tokens.spiffe_socket", c.Tokens.Socket})
	case gateway:
		out = append(out, needed{"tokens.spiffe_id", c.Tokens.ID})
	}
	return out
}
