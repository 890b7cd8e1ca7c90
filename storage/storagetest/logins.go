package storagetest

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
)

// Logins is a driver of registry.Logins that can be closed.
type Logins interface {
	registry.Logins
	io.Closer
}

// RunLogins holds an engine to the contract of [registry.Logins].
func RunLogins(t *testing.T, open Registries) {
	run(
		t, open,
		part{"LoginStepIsTakenOnce", testLoginStepIsTakenOnce},
		part{"CodeIsRedeemedOnce", testCodeIsRedeemedOnce},
		part{"ReuseRacesFamily", testReuseRacesFamily},
		part{"FamilyRotatesAndEnds", testFamilyRotatesAndEnds},
	)
}

func loginKey(s string) registry.LoginKey { return registry.KeyOf("test", s) }

func family(k string, begun time.Time) registry.Family {
	return registry.Family{
		Key: loginKey("family" + k), Code: loginKey("code" + k), Current: loginKey("r0"), Person: "p", Client: "c",
		Begun: begun, Expires: begun.Add(time.Hour), Body: []byte("f"),
	}
}

func putCode(t *testing.T, l Logins, k string, now time.Time) {
	t.Helper()
	c := registry.Code{Key: loginKey("code" + k), Family: loginKey("family" + k), Expires: now.Add(time.Minute), Body: []byte("b")}
	if err := l.PutCode(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// testLoginStepIsTakenOnce: by the browser that began it, before its end.
func testLoginStepIsTakenOnce(t *testing.T, open Registries) {
	now := noon
	l := open.Logins(t, t.TempDir(), func() time.Time { return now })
	step := registry.LoginStep{Key: loginKey("state"), Browser: loginKey("browser"), Expires: now.Add(time.Minute), Body: []byte("b")}
	if err := l.Begin(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	if err := l.Begin(t.Context(), step); err == nil {
		t.Error("one key was kept twice")
	}
	if _, err := l.Take(t.Context(), step.Key, loginKey("another browser")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("another browser: %v", err)
	}
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got, err := l.Take(t.Context(), step.Key, step.Browser)
			switch {
			case err == nil && string(got.Body) == "b" && got.Expires.Equal(step.Expires):
				taken.Add(1)
			case !errors.Is(err, registry.ErrNotFound):
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times", taken.Load())
	}
	if err := l.Begin(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, err := l.Take(t.Context(), step.Key, step.Browser); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
	closeAll(t, l)
}

// testCodeIsRedeemedOnce: of any number of callers, at two replicas, one
// redeems a code; another use, also after a restart and after its end, ends the
// family.
func testCodeIsRedeemedOnce(t *testing.T, open Registries) {
	now, dir := noon, t.TempDir()
	clock := func() time.Time { return now }
	ls := []Logins{open.Logins(t, dir, clock), open.Logins(t, dir, clock)}
	putCode(t, ls[0], "0", now)
	putCode(t, ls[0], "1", now)
	putCode(t, ls[0], "2", now)
	var firsts atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			if _, uses, err := ls[i%2].Redeem(t.Context(), loginKey("code0")); err != nil {
				t.Error(err)
			} else if uses == 1 {
				firsts.Add(1)
			}
		})
	}
	all.Wait()
	if firsts.Load() != 1 {
		t.Errorf("%d first uses", firsts.Load())
	}
	if err := ls[0].BeginFamily(t.Context(), family("0", now)); !errors.Is(err, registry.ErrExists) {
		t.Errorf("a family of a reused code: %v", err)
	}
	f := family("1", now)
	if c, uses, err := ls[0].Redeem(t.Context(), f.Code); err != nil || uses != 1 || c.Family != f.Key || string(c.Body) != "b" {
		t.Fatalf("%+v %d %v", c, uses, err)
	}
	if err := ls[0].BeginFamily(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	closeAll(t, ls[0], ls[1])

	l := open.Logins(t, dir, clock)
	if got, err := l.Family(t.Context(), f.Key); err != nil || got.Current != f.Current || got.Person != "p" || got.Client != "c" || !got.Begun.Equal(f.Begun) || string(got.Body) != "f" {
		t.Fatalf("%+v, %v", got, err)
	}
	now = now.Add(2 * time.Minute)
	if _, uses, err := l.Redeem(t.Context(), f.Code); err != nil || uses != 2 {
		t.Errorf("after a restart and its end: %d, %v", uses, err)
	}
	if _, err := l.Family(t.Context(), f.Key); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the family lives: %v", err)
	}
	for _, k := range []string{"code2", "no code"} { // past its end; none
		if _, _, err := l.Redeem(t.Context(), loginKey(k)); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", k, err)
		}
	}
	closeAll(t, l)
	if _, _, err := l.Redeem(t.Context(), f.Code); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a database that is closed: %v", err)
	}
}

// testReuseRacesFamily: a code is used again at one replica while its family
// begins at another. Whichever comes first, the family does not live.
func testReuseRacesFamily(t *testing.T, open Registries) {
	dir, clock := t.TempDir(), func() time.Time { return noon }
	ls := []Logins{open.Logins(t, dir, clock), open.Logins(t, dir, clock)}
	for i := range 20 {
		f := family(fmt.Sprint(i), noon)
		putCode(t, ls[0], fmt.Sprint(i), noon)
		if _, uses, err := ls[0].Redeem(t.Context(), f.Code); err != nil || uses != 1 {
			t.Fatal(uses, err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if err := ls[0].BeginFamily(t.Context(), f); err != nil && !errors.Is(err, registry.ErrExists) {
				t.Error(err)
			}
		})
		both.Go(func() {
			if _, uses, err := ls[1].Redeem(t.Context(), f.Code); err != nil || uses != 2 {
				t.Error(uses, err)
			}
		})
		both.Wait()
		if _, err := ls[0].Family(t.Context(), f.Key); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("family %d of a reused code lives: %v", i, err)
		}
	}
	closeAll(t, ls[0], ls[1])
}

// testFamilyRotatesAndEnds: one refresh token of a family may be used; what
// ended stays ended.
func testFamilyRotatesAndEnds(t *testing.T, open Registries) {
	dir, clock := t.TempDir(), func() time.Time { return noon }
	l := open.Logins(t, dir, clock)
	f := family("", noon)
	if err := l.BeginFamily(t.Context(), f); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a family without code: %v", err)
	}
	putCode(t, l, "", noon)
	if _, _, err := l.Redeem(t.Context(), f.Code); err != nil {
		t.Fatal(err)
	}
	if err := l.BeginFamily(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	rotate := func(from, to string, want bool) {
		t.Helper()
		if got, err := l.Rotate(t.Context(), f.Key, loginKey(from), loginKey(to)); err != nil || got != want {
			t.Errorf("%s to %s: %t, %v", from, to, got, err)
		}
	}
	var rotated atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			ok, err := l.Rotate(t.Context(), f.Key, f.Current, loginKey(fmt.Sprint("race", i)))
			if err != nil {
				t.Error(err)
			}
			if ok {
				rotated.Add(1)
			}
		})
	}
	all.Wait()
	got, err := l.Family(t.Context(), f.Key)
	if err != nil || rotated.Load() != 1 {
		t.Fatalf("%d rotations of one token, %v", rotated.Load(), err)
	}
	if ok, err := l.Rotate(t.Context(), f.Key, got.Current, loginKey("r2")); err != nil || !ok {
		t.Fatal(ok, err)
	}
	for _, end := range []struct {
		owner  registry.FamilyOwner
		before time.Time
	}{
		{registry.FamilyOwner{Person: "q"}, noon},
		{registry.FamilyOwner{Client: "p"}, noon},
		{registry.FamilyOwner{Person: "p"}, noon.Add(-time.Second)},
	} {
		if err := l.EndFamilies(t.Context(), end.owner, end.before); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.EndFamilies(t.Context(), registry.FamilyOwner{}, noon); err == nil {
		t.Error("the families of nobody were ended")
	}
	rotate("r2", "r3", true)
	rotate("r3", "r2", true)
	if err := l.EndFamilies(t.Context(), registry.FamilyOwner{Client: "c"}, noon); err != nil {
		t.Fatal(err)
	}
	if err := l.EndFamily(t.Context(), loginKey("no family")); err != nil {
		t.Errorf("ending what is not there: %v", err)
	}
	closeAll(t, l)
	l = open.Logins(t, dir, clock)
	rotate("r2", "r3", false)
	if _, err := l.Family(t.Context(), f.Key); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("ended: %v", err)
	}
	closeAll(t, l)
}
