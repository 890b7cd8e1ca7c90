package server

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v4"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/internal/durable"
)

// ledgerFile says which log a data directory belongs to and where that is kept,
// so that readers of the log need only the directory. It may hold the password
// of the store; like the keys, nobody else may read it.
const ledgerFile = "ledger.yaml"

// noted is config.Ledger with its secrets in the open.
type noted struct {
	Family         string `yaml:"family"`
	Period         string `yaml:"period"`
	Region         string `yaml:"region"`
	DataClass      string `yaml:"data_class"`
	Store          string `yaml:"store,omitempty"`
	Persons        string `yaml:"persons,omitempty"`
	Node           string `yaml:"node,omitempty"`
	RequireStandby bool   `yaml:"require_standby,omitempty"`

	Witnesses     []config.Witness `yaml:"witnesses,omitempty"`
	WitnessQuorum int              `yaml:"witness_quorum,omitempty"`
}

// saveLedger notes the ledger in the directory.
func saveLedger(dataDir string, l config.Ledger) error {
	text, err := ledgerText(l)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dataDir, ledgerFile), text, 0o600)
}

func ledgerText(l config.Ledger) ([]byte, error) {
	return yaml.Dump(noted{
		Family: l.Family, Period: l.Period, Region: l.Region, DataClass: l.DataClass,
		Store: l.Store.Reveal(), Persons: l.Persons.Reveal(), Node: l.Node, RequireStandby: l.RequireStandby,
		Witnesses: l.Witnesses, WitnessQuorum: l.WitnessQuorum,
	})
}

// readLedger is the inverse of saveLedger.
func readLedger(dataDir string) (config.Ledger, error) {
	text, err := os.ReadFile(filepath.Join(dataDir, ledgerFile)) //nolint:gosec // the operator names the directory
	if err != nil {
		return config.Ledger{}, err
	}
	var n noted
	if err := yaml.Load(text, &n, yaml.WithKnownFields()); err != nil {
		return config.Ledger{}, fmt.Errorf("%s: %w", ledgerFile, err)
	}
	return config.Ledger{
		Family: n.Family, Period: n.Period, Region: n.Region, DataClass: n.DataClass,
		Store: config.Secret(n.Store), Persons: config.Secret(n.Persons), Node: n.Node, RequireStandby: n.RequireStandby,
		Witnesses: n.Witnesses, WitnessQuorum: n.WitnessQuorum,
	}, nil
}

// noteLedger keeps the file as the configuration is: a password may change. A
// directory without it holds no deployment, and one of another log or node is
// not this process's.
func noteLedger(dataDir string, l config.Ledger) error {
	was, err := readLedger(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no deployment: %w", dataDir, err)
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dataDir, rollingFile)); err == nil {
		return fmt.Errorf("%s: a roll of the log has begun: lineal ledger roll finishes it", dataDir)
	}
	if was.Family == l.Family && was.Node == l.Node && was.Period != l.Period {
		return fmt.Errorf("%s is of the period %s, not %s: lineal ledger roll opens the next", dataDir, was.Period, l.Period)
	}
	if was.Origin() != l.Origin() || was.Node != l.Node {
		return fmt.Errorf("%s is of node %q of %s, not of node %q of %s", dataDir, was.Node, was.Origin(), l.Node, l.Origin())
	}
	if (was.Store == "") != (l.Store == "") {
		return fmt.Errorf("%s keeps its log elsewhere than the configuration says: lineal ledger move takes it to PostgreSQL, and none back", dataDir)
	}
	before, err := ledgerText(was)
	if err != nil {
		return err
	}
	now, err := ledgerText(l)
	if err != nil || bytes.Equal(before, now) {
		return err
	}
	return saveLedger(dataDir, l)
}
