package unverified_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/unverified"
)

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// TestClaims: what is no compact JWT has no claims, and no error repeats it.
func TestClaims(t *testing.T) {
	v, err := unverified.Claims(jwt(`{"jti":"a","exp":1795349100,"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	jti, _ := v.Get("jti")
	if got, ok := jti.Text(); !ok || got != "a" {
		t.Errorf("jti %q", got)
	}
	if got, err := unverified.Expiry(v); err != nil || !got.Equal(time.Unix(1795349100, 0)) {
		t.Errorf("%v, %v", got, err)
	}
	for _, raw := range []string{
		"", "secret", "a.secret", jwt(`{}`) + ".secret", "e30.secret!.c2ln", jwt(`secret`), jwt(`{"a":1,"a":"secret"}`), jwt(`{}`) + "\n.", "e30.e3o.c2ln",
	} {
		if _, err := unverified.Claims(raw); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", raw, err)
		}
	}
	for _, payload := range []string{`{}`, `{"exp":"1795349100"}`, `{"exp":1.5}`, `{"exp":null}`} {
		v, err := unverified.Claims(jwt(payload))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unverified.Expiry(v); err == nil {
			t.Errorf("%s ends at %v", payload, got)
		}
	}
}
