package config

import "testing"

// TestWitnesses: each way in which a witness can be written down wrongly is one
// error, and a quorum is of those that are there.
func TestWitnesses(t *testing.T) {
	good := Witness{Name: "w1", URL: "https://witness.example/w1", Key: "witness.example/w1+00000000+BA=="}
	with := func(change func(*Witness)) Ledger {
		w := good
		change(&w)
		return Ledger{Witnesses: []Witness{w}}
	}
	for name, l := range map[string]Ledger{
		"no name":       with(func(w *Witness) { w.Name = "" }),
		"no key":        with(func(w *Witness) { w.Key = "" }),
		"no url":        with(func(w *Witness) { w.URL = "" }),
		"a file":        with(func(w *Witness) { w.URL = "file:///witness" }),
		"a password":    with(func(w *Witness) { w.URL = "https://me:secret@witness.example" }),
		"twice":         {Witnesses: []Witness{good, good}},
		"no quorum":     {Witnesses: []Witness{good}, WitnessQuorum: 2},
		"none to count": {WitnessQuorum: 1},
	} {
		if errs := l.validateWitnesses(); len(errs) != 1 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if errs := (Ledger{Witnesses: []Witness{good}, WitnessQuorum: 1}).validateWitnesses(); errs != nil {
		t.Errorf("twin: %v", errs)
	}
}
