package server

import (
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
)

// witnessConfig is what the sequencer needs to know of the witnesses.
func witnessConfig(l config.Ledger, now func() time.Time) (ledger.WitnessConfig, error) {
	w := ledger.WitnessConfig{Quorum: l.WitnessQuorum, Now: now}
	for _, c := range l.Witnesses {
		v, err := ledger.NewWitnessVerifier(c.Key)
		if err != nil {
			return w, fmt.Errorf("ledger.witnesses: %s: %w", c.Name, err)
		}
		w.Witnesses = append(w.Witnesses, ledger.Witness{Name: c.Name, URL: c.URL, Verifier: v})
	}
	return w, nil
}
