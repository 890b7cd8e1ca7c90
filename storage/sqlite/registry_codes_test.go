package sqlite_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/storage/sqlite"
)

func openLogins(t *testing.T, dir string, now func() time.Time) *sqlite.Logins {
	t.Helper()
	l, err := sqlite.OpenLogins(t.Context(), sqlite.RegistryConfig{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func loginKey(s string) registry.LoginKey { return registry.KeyOf("test", s) }

// A step is taken once, by the browser that began it, before its end.
func TestX13LoginStepIsTakenOnce(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := openLogins(t, t.TempDir(), func() time.Time { return now })
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
	if got, err := l.Take(t.Context(), step.Key, step.Browser); err != nil || string(got.Body) != "b" || !got.Expires.Equal(step.Expires) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := l.Take(t.Context(), step.Key, step.Browser); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a second time: %v", err)
	}
	if err := l.Begin(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if _, err := l.Take(t.Context(), step.Key, step.Browser); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
}

// Of any number of callers one redeems a code; another use, also after a
// restart and after its end, ends the family, also one that is yet to begin.
func TestX13CodeIsRedeemedOnce(t *testing.T) {
	now, dir := time.Unix(1_800_000_000, 0), t.TempDir()
	clock := func() time.Time { return now }
	l := openLogins(t, dir, clock)
	for k := range 3 {
		code := registry.Code{
			Key: loginKey(fmt.Sprint("code", k)), Family: loginKey(fmt.Sprint("family", k)), Expires: now.Add(time.Minute), Body: []byte("b"),
		}
		if err := l.PutCode(t.Context(), code); err != nil {
			t.Fatal(err)
		}
	}
	var firsts atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, uses, err := l.Redeem(t.Context(), loginKey("code0")); err != nil {
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
	f := registry.Family{
		Key: loginKey("family0"), Code: loginKey("code0"), Current: loginKey("r0"), Person: "p", Client: "c",
		Begun: now, Expires: now.Add(time.Hour), Body: []byte("f"),
	}
	if err := l.BeginFamily(t.Context(), f); !errors.Is(err, registry.ErrExists) {
		t.Errorf("a family of a reused code: %v", err)
	}

	f.Key, f.Code = loginKey("family1"), loginKey("code1")
	if c, uses, err := l.Redeem(t.Context(), f.Code); err != nil || uses != 1 || c.Family != f.Key || string(c.Body) != "b" {
		t.Fatalf("%+v %d %v", c, uses, err)
	}
	if err := l.BeginFamily(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLogins(t, dir, clock)
	if got, err := l.Family(t.Context(), f.Key); err != nil || got.Current != f.Current || string(got.Body) != "f" {
		t.Fatalf("%+v, %v", got, err)
	}
	now = now.Add(2 * time.Minute)
	if _, uses, err := l.Redeem(t.Context(), f.Code); err != nil || uses != 2 {
		t.Errorf("after a restart and its end: %d, %v", uses, err)
	}
	if _, err := l.Family(t.Context(), f.Key); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("the family lives: %v", err)
	}
	if _, _, err := l.Redeem(t.Context(), loginKey("code2")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a code past its end: %v", err)
	}
	if _, _, err := l.Redeem(t.Context(), loginKey("no code")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("no code: %v", err)
	}
}

// One refresh token of a family may be used; what ended stays ended.
func TestX12FamilyRotatesAndEnds(t *testing.T) {
	now, dir := time.Unix(1_800_000_000, 0), t.TempDir()
	clock := func() time.Time { return now }
	l := openLogins(t, dir, clock)
	f := registry.Family{
		Key: loginKey("family"), Code: loginKey("code"), Current: loginKey("r0"), Person: "p", Client: "c",
		Begun: now, Expires: now.Add(time.Hour), Body: []byte("f"),
	}
	if err := l.BeginFamily(t.Context(), f); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a family without code: %v", err)
	}
	if err := l.PutCode(t.Context(), registry.Code{Key: f.Code, Family: f.Key, Expires: now.Add(time.Minute), Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
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
	rotate("r0", "r1", true)
	rotate("r0", "r2", false)
	rotate("r1", "r2", true)
	for _, end := range []struct {
		owner  registry.FamilyOwner
		before time.Time
	}{
		{registry.FamilyOwner{Person: "q"}, now},
		{registry.FamilyOwner{Client: "p"}, now},
		{registry.FamilyOwner{Person: "p"}, now.Add(-time.Second)},
	} {
		if err := l.EndFamilies(t.Context(), end.owner, end.before); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.EndFamilies(t.Context(), registry.FamilyOwner{}, now); err == nil {
		t.Error("the families of nobody were ended")
	}
	rotate("r2", "r3", true)
	rotate("r3", "r2", true)
	if err := l.EndFamilies(t.Context(), registry.FamilyOwner{Client: "c"}, now); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLogins(t, dir, clock)
	rotate("r2", "r3", false)
	if _, err := l.Family(t.Context(), f.Key); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("ended: %v", err)
	}
}
