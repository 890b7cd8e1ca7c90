package config

import (
	"errors"
	"fmt"
	"net/url"
)

// Witness cosigns the log's checkpoints (C2SP tlog-witness), so that not even
// the holder of the log's key can show two logs.
type Witness struct {
	// Name is for messages and metrics.
	Name string `yaml:"name"`
	// URL is the witness's, without /add-checkpoint.
	URL string `yaml:"url"`
	// Key is its key as C2SP signed-note writes it, of the type of Ed25519
	// cosignatures: "witness.example/w1+ad4f10c5+BB…".
	Key string `yaml:"key"`
}

// validateWitnesses checks the form; the key itself is read at start.
func (l Ledger) validateWitnesses() (errs []error) {
	names := make(map[string]bool)
	for i, w := range l.Witnesses {
		at := fmt.Sprintf("ledger.witnesses[%d]", i)
		if w.Name == "" || w.Key == "" || names[w.Name] {
			errs = append(errs, fmt.Errorf("%s: needs a name of its own and a key", at))
		}
		names[w.Name] = true
		if u, err := url.Parse(w.URL); err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, fmt.Errorf("%s.url: not an http or https URL", at))
		}
	}
	if l.WitnessQuorum < 0 || l.WitnessQuorum > len(l.Witnesses) {
		errs = append(errs, errors.New("ledger.witness_quorum: not between 1 and the number of witnesses"))
	}
	return errs
}
