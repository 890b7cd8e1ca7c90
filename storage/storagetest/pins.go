package storagetest

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

// Pins is a driver of registry.Pins that can be closed.
type Pins interface {
	registry.Pins
	io.Closer
}

// RunPins holds an engine to the contract of [registry.Pins].
func RunPins(t *testing.T, open Registries) {
	run(
		t, open,
		part{"PinsSurviveRestart", testPinsSurviveRestart},
		part{"OneFirstKey", testOneFirstKey},
		part{"PinsAreForgottenLate", testPinsAreForgottenLate},
		part{"PinFailsClosed", testPinFailsClosed},
	)
}

func wantPin(t *testing.T, p registry.Pins, credential, key string, until time.Time, want string) {
	t.Helper()
	if got, err := p.Pin(t.Context(), credential, key, until); err != nil || got != want {
		t.Errorf("pin of %q to %q: %q, %v; want %q", credential, key, got, err, want)
	}
}

// testPinsSurviveRestart: the first key is the one at all replicas, and after a
// restart too.
func testPinsSurviveRestart(t *testing.T, open Registries) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	a, b := open.Pins(t, dir, nil), open.Pins(t, dir, nil)
	wantPin(t, a, "jwt-1", "jkt:1", until, "jkt:1")
	wantPin(t, a, "jwt-1", "jkt:2", until, "jkt:1")
	wantPin(t, b, "jwt-1", "jkt:2", until, "jkt:1")
	wantPin(t, b, "jwt-2", "jkt:2", until, "jkt:2") // another JWT, another key
	wantPin(t, a, "jwt-2", "jkt:1", until, "jkt:2")
	closeAll(t, a, b)
	c := open.Pins(t, dir, nil)
	wantPin(t, c, "jwt-1", "jkt:2", until, "jkt:1")
	wantPin(t, c, "jwt-1", "jkt:1", until, "jkt:1")
	closeAll(t, c)
}

// testOneFirstKey: of any number of keys at once, at two replicas, one is the
// first, and all are told which.
func testOneFirstKey(t *testing.T, open Registries) {
	dir, until := t.TempDir(), time.Now().Add(time.Minute)
	replicas := []Pins{open.Pins(t, dir, nil), open.Pins(t, dir, nil)}
	got := make([]string, 40)
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() {
			var err error
			if got[i], err = replicas[i%2].Pin(t.Context(), "jwt", fmt.Sprintf("jkt:%d", i), until); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, key := range got {
		if key == "" || key != got[0] {
			t.Fatalf("caller %d was told %q, caller 0 %q", i, key, got[0])
		}
	}
	closeAll(t, replicas[0], replicas[1])
}

// testPinsAreForgottenLate: what is forgotten ended long before, whatever came
// in between.
func testPinsAreForgottenLate(t *testing.T, open Registries) {
	now := noon
	p := open.Pins(t, t.TempDir(), func() time.Time { return now })
	until := now.Add(time.Minute)
	wantPin(t, p, "a", "jkt:1", until, "jkt:1")
	now = until.Add(9 * time.Minute) // a clock that is ahead
	wantPin(t, p, "b", "jkt:1", now.Add(time.Minute), "jkt:1")
	wantPin(t, p, "a", "jkt:2", until, "jkt:1")
	now = until.Add(11 * time.Minute)
	wantPin(t, p, "c", "jkt:1", now.Add(time.Minute), "jkt:1")
	wantPin(t, p, "a", "jkt:2", until, "jkt:2") // forgotten: its age alone refuses it now
	wantPin(t, p, "b", "jkt:2", now.Add(time.Minute), "jkt:1")
	closeAll(t, p)
}

// testPinFailsClosed: whatever goes wrong, no key is told.
func testPinFailsClosed(t *testing.T, open Registries) {
	until := time.Now().Add(time.Minute)
	p := open.Pins(t, t.TempDir(), nil)
	for name, pin := range map[string]func() (string, error){
		"no credential": func() (string, error) { return p.Pin(t.Context(), "", "jkt:1", until) },
		"no key":        func() (string, error) { return p.Pin(t.Context(), "jwt", "", until) },
		"no end":        func() (string, error) { return p.Pin(t.Context(), "jwt", "jkt:1", time.Time{}) },
	} {
		if key, err := pin(); key != "" || err == nil {
			t.Errorf("%s: %q, %v", name, key, err)
		}
	}
	wantPin(t, p, "jwt", "jkt:1", until, "jkt:1") // the twin
	closeAll(t, p)
	if key, err := p.Pin(t.Context(), "jwt", "jkt:1", until); key != "" || err == nil {
		t.Errorf("a store that is closed: %q, %v", key, err)
	}
}
