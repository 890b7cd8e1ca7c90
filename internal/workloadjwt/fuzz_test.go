package workloadjwt_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/workloadjwt"
	"github.com/lineal-auth/lineal/internal/workloadjwt/issuertest"
)

func jsonUnmarshal(b []byte, dst any) error { return json.Unmarshal(b, dst) }

// FuzzAuthenticate throws strings at a whole source: nothing but what the issuer
// signed is accepted, and every refusal has a code.
func FuzzAuthenticate(f *testing.F) {
	w := newWorld(f)
	raw := w.JWT(f)
	signed := raw[:strings.LastIndexByte(raw, '.')]
	for _, seed := range []string{
		"", "..", raw, raw + "=", raw + "\n", issuertest.Respell(f, raw, w.Key), signed + ".",
		w.JWT(f, issuertest.Header("none", "alg")), w.JWT(f, issuertest.Claim("other", "aud")),
		w.Key.SignRaw(f, `{"alg":"ES256","kid":"k1","crit":["x"]}`, `{}`),
		w.Key.SignRaw(f, `{"alg":"ES256","kid":"k1"}`, `{"sub":"a","sub":"b"}`),
	} {
		f.Add(seed)
	}
	all := identity.FirstAssertions(w.Source)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := all.Authenticate(t.Context(), identity.AssertionJWT, s, w.clock.now())
		if err == nil {
			if !strings.HasPrefix(s, signed+".") || got.Agent.String() != w.Agent {
				t.Fatalf("accepted %q as %s", s, got.Agent)
			}
			return
		}
		if refused, ok := errors.AsType[*identity.AssertionError](err); !ok || refused.Code == "" || refused.Error() == "" {
			t.Fatalf("no refusal: %v", err)
		}
	})
}

// FuzzSigned signs any header and payload with the issuer's key: whatever is
// accepted says exactly what two readers of JSON read in it.
func FuzzSigned(f *testing.F) {
	w := newWorld(f)
	good := `{"iss":"` + issA + `","sub":"w1","aud":"` + audience + `","iat":1795348800,"exp":1795349400}`
	f.Add(`{"alg":"ES256","kid":"k1"}`, good)
	f.Add(`{"alg":"ES256","kid":"k1","typ":"jwt","x5t":"a"}`, strings.Replace(good, `"w1"`, `"w2"`, 1))
	f.Add(`{"alg":"ES256","kid":"k1","kid":"k1"}`, good)
	f.Add(`{"alg":"ES256","kid":"k1"}`, `{"Sub":"w2",`+good[1:])
	f.Add(`{"alg":"ES256","kid":"k1"}`, strings.Replace(good, `1795349400`, `1.7953494e9`, 1))
	all := identity.FirstAssertions(w.Source)
	f.Fuzz(func(t *testing.T, header, payload string) {
		if len(header)+len(payload) > 4096 {
			return
		}
		got, err := all.Authenticate(t.Context(), identity.AssertionJWT, w.Key.SignRaw(t, header, payload), w.clock.now())
		if err != nil {
			return
		}
		var h struct{ Alg, Kid, Crit, Jwk, Jku, X5c, X5u, B64, Zip any }
		var c struct {
			Iss, Sub string
			Aud      any
			Exp      float64
		}
		if err := json.Unmarshal([]byte(header), &h); err != nil || h.Alg != "ES256" || h.Kid != "k1" ||
			h.Crit != nil || h.Jwk != nil || h.Jku != nil || h.X5c != nil || h.X5u != nil || h.B64 != nil || h.Zip != nil {
			t.Fatalf("accepted header %q (%v)", header, err)
		}
		if err := json.Unmarshal([]byte(payload), &c); err != nil || c.Iss != issA || got.Agent.String() != c.Iss+"#"+c.Sub {
			t.Fatalf("accepted %q as %s (%v)", payload, got.Agent, err)
		}
		if list, ok := c.Aud.([]any); ok && len(list) == 1 {
			c.Aud = list[0]
		}
		if c.Aud != audience || got.NotAfter.Unix() != int64(c.Exp) || int64(c.Exp) < issuertest.Now-30 {
			t.Fatalf("accepted %q until %s", payload, got.NotAfter)
		}
	})
}

// FuzzParse: the front filter takes nothing that is not in its one spelling.
func FuzzParse(f *testing.F) {
	w := newWorld(f)
	f.Add(w.JWT(f))
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIiwia2lkIjoiYSJ9.e30.AB")
	f.Fuzz(func(t *testing.T, s string) {
		jws, err := workloadjwt.Parse(s)
		if err != nil {
			return
		}
		if len(s) > workloadjwt.MaxBytes || strings.Count(s, ".") != 2 || strings.ContainsAny(s, "=\r\n +/") || jws.KeyID() == "" || len(jws.Hash()) != 43 {
			t.Fatalf("accepted %q", s)
		}
	})
}
