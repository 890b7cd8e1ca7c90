package issuertest

import (
	"crypto/sha256"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/identity"
)

// Now is the time of the tests, as a Unix time.
const Now = 1795348800

// Rig is a source under test and one JWT that it accepts. All tries go through
// identity.FirstAssertions, as in production.
type Rig struct {
	Source identity.Assertions
	// Type is the assertion type; empty: identity.AssertionJWT.
	Type string
	// Key is the key of the issuer that the source trusts.
	Key Key
	// Header has the members beside alg and kid that the real issuer sends.
	Header map[string]any
	// Claims are those of the real issuer, good at Now.
	Claims map[string]any
	// Agent and Name are what the source makes of them.
	Agent, Name string
	// ForeignAudiences are those of tokens that the same issuer gives out for
	// other services (I5).
	ForeignAudiences []string
	// Lookalikes are values of Namer that are nearly right (I4).
	Lookalikes []string
	// Namer is the claim that selects the keys; empty: iss.
	Namer string
	// NoIssuedAt says that `iat` may be absent.
	NoIssuedAt bool
}

// Edit changes header or claims; a nil value removes.
type Edit func(header, claims map[string]any)

// Claim sets the claim at a path of names.
func Claim(value any, path ...string) Edit {
	return func(_, claims map[string]any) {
		for _, name := range path[:len(path)-1] {
			inner, _ := claims[name].(map[string]any)
			inner = maps.Clone(inner)
			claims[name] = inner
			claims = inner
		}
		set(claims, path[len(path)-1], value)
	}
}

// Header sets a header member.
func Header(value any, name string) Edit {
	return func(header, _ map[string]any) { set(header, name, value) }
}

func set(m map[string]any, name string, value any) {
	if value == nil {
		delete(m, name)
		return
	}
	m[name] = value
}

func (r Rig) parts(edits []Edit) (header, claims map[string]any) {
	header = map[string]any{"alg": r.Key.Algorithm, "kid": r.Key.ID}
	maps.Copy(header, r.Header)
	claims = maps.Clone(r.Claims)
	for _, e := range edits {
		e(header, claims)
	}
	return header, claims
}

// JWT is the good JWT, edited, signed by the issuer's key.
func (r Rig) JWT(t testing.TB, edits ...Edit) string {
	t.Helper()
	header, claims := r.parts(edits)
	return r.Key.Sign(t, header, claims)
}

func (r Rig) authenticate(t testing.TB, raw string, now time.Time) (identity.Workload, error) {
	t.Helper()
	kind := r.Type
	if kind == "" {
		kind = identity.AssertionJWT
	}
	return identity.FirstAssertions(r.Source).Authenticate(t.Context(), kind, raw, now)
}

// Accept asks the source to take raw at Now, as the workload of the Rig.
func (r Rig) Accept(t testing.TB, raw string) identity.Workload {
	t.Helper()
	w, err := r.authenticate(t, raw, time.Unix(Now, 0))
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	sum := sha256.Sum256([]byte(raw[:strings.LastIndexByte(raw, '.')]))
	want := identity.Workload{
		Agent: w.Agent, Method: identity.MethodWorkloadJWT, Source: r.Name,
		Credential: encode(sum[:]), NotAfter: w.NotAfter,
	}
	if r.Type == identity.AssertionSPIFFE {
		want.Method = identity.MethodSPIFFEJWT
	}
	if diff := cmp.Diff(want, w, cmp.AllowUnexported(identity.Agent{})); diff != "" {
		t.Fatal(diff)
	}
	if w.Agent.String() != r.Agent || w.NotAfter.Before(time.Unix(Now, 0).Add(-30*time.Second)) {
		t.Fatalf("%s until %s, want %s", w.Agent, w.NotAfter, r.Agent)
	}
	return w
}

// Refuse asks the source to refuse raw at Now, with this code.
func (r Rig) Refuse(t testing.TB, raw string, want identity.AssertionCode) {
	t.Helper()
	r.RefuseAt(t, raw, time.Unix(Now, 0), want)
}

// RefuseAt is Refuse at another time.
func (r Rig) RefuseAt(t testing.TB, raw string, now time.Time, want identity.AssertionCode) {
	t.Helper()
	w, err := r.authenticate(t, raw, now)
	refused, ok := errors.AsType[*identity.AssertionError](err)
	if !ok || refused.Code != want || refused.Err == nil {
		t.Errorf("got %+v, %v; want code %s", w, err, want)
	}
	if !cmp.Equal(w, identity.Workload{}, cmp.AllowUnexported(identity.Agent{})) {
		t.Errorf("a workload comes with the refusal: %+v", w)
	}
}

// Case is one way for a JWT to be wrong.
type Case struct {
	Name string
	Edit Edit
	Want identity.AssertionCode
}

// Wrong makes a Case.
func Wrong(name string, edit Edit, want identity.AssertionCode) Case {
	return Case{Name: name, Edit: edit, Want: want}
}

// Cases refuses each case, and accepts the good JWT before and after.
func (r Rig) Cases(t *testing.T, cases ...Case) {
	t.Helper()
	r.Accept(t, r.JWT(t))
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { r.Refuse(t, r.JWT(t, c.Edit), c.Want) })
	}
	r.Accept(t, r.JWT(t))
}

// Keys tries I4: keys that are not the issuer's, issuers that are not the
// configured one.
func (r Rig) Keys(t *testing.T) {
	t.Helper()
	r.Accept(t, r.JWT(t))
	other := NewKey(t, r.Key.ID, r.Key.Algorithm)
	header, claims := r.parts(nil)
	t.Run("other issuer's key of the same kid", func(t *testing.T) {
		r.Refuse(t, other.Sign(t, header, claims), identity.AssertionSignature)
	})
	namer := r.Namer
	if namer == "" {
		namer = "iss"
	}
	right, _ := r.Claims[namer].(string)
	for _, wrong := range append(r.Lookalikes, right+"/", strings.ToUpper(right)) {
		t.Run(namer+" "+wrong, func(t *testing.T) {
			w, err := r.authenticate(t, r.JWT(t, Claim(wrong, namer)), time.Unix(Now, 0))
			if err == nil {
				t.Errorf("accepted as %s", w.Agent)
			}
		})
	}
	t.Run("unknown kid", func(t *testing.T) {
		r.Refuse(t, r.JWT(t, Header("no-such-kid", "kid")), identity.AssertionKey)
	})
	r.Cases(t,
		Case{"no kid", Header(nil, "kid"), identity.AssertionMalformed},
		Case{"no " + namer, Claim(nil, namer), map[bool]identity.AssertionCode{
			true: identity.AssertionIssuer, false: identity.AssertionClaims,
		}[namer == "iss"]})
}

// Audience tries I5: tokens for other services, and for more than one.
func (r Rig) Audience(t *testing.T) {
	t.Helper()
	aud := r.Claims["aud"]
	if list, ok := aud.([]string); ok {
		aud = list[0]
	}
	right, _ := aud.(string)
	r.Accept(t, r.JWT(t, Claim(right, "aud")))
	r.Accept(t, r.JWT(t, Claim([]string{right}, "aud")))
	for _, foreign := range append(r.ForeignAudiences, right+"/", strings.ToUpper(right), right[:len(right)-1]) {
		r.Refuse(t, r.JWT(t, Claim(foreign, "aud")), identity.AssertionAudience)
		r.Refuse(t, r.JWT(t, Claim([]string{foreign}, "aud")), identity.AssertionAudience)
		r.Refuse(t, r.JWT(t, Claim([]string{right, foreign}, "aud")), identity.AssertionAudience)
		r.Refuse(t, r.JWT(t, Claim([]string{foreign, right}, "aud")), identity.AssertionAudience)
	}
	r.Cases(t,
		Case{"the right one twice", Claim([]string{right, right}, "aud"), identity.AssertionAudience},
		Case{"none", Claim(nil, "aud"), identity.AssertionClaims},
		Case{"empty", Claim("", "aud"), identity.AssertionAudience},
		Case{"empty list", Claim([]string{}, "aud"), identity.AssertionClaims},
		Case{"object", Claim(map[string]any{right: right}, "aud"), identity.AssertionClaims},
		Case{"nested list", Claim([][]string{{right}}, "aud"), identity.AssertionClaims},
	)
}

// Times tries I8, to the second. life is the longest the source allows; zero if
// only `exp` counts, at most 15 minutes ahead.
func (r Rig) Times(t *testing.T, life time.Duration) {
	t.Helper()
	seconds := int64(life / time.Second)
	ok := func(edits ...Edit) { t.Helper(); r.Accept(t, r.JWT(t, edits...)) }
	no := func(code identity.AssertionCode, edits ...Edit) { t.Helper(); r.Refuse(t, r.JWT(t, edits...), code) }
	iat := func(v any) Edit { return Claim(v, "iat") }
	exp := func(v any) Edit { return Claim(v, "exp") }
	nbf := func(v any) Edit { return Claim(v, "nbf") }

	// Expiry, with the leeway, and at each call.
	ok(nbf(nil), iat(int64(Now-60)), exp(int64(Now-30)))
	no(identity.AssertionTimes, nbf(nil), iat(int64(Now-60)), exp(int64(Now-31)))
	late := r.JWT(t, nbf(nil), iat(int64(Now)), exp(int64(Now+60)))
	r.Accept(t, late)
	r.RefuseAt(t, late, time.Unix(Now+60+31, 0), identity.AssertionTimes)
	// From the future.
	ok(nbf(nil), iat(int64(Now+30)), exp(int64(Now+60)))
	no(identity.AssertionTimes, nbf(nil), iat(int64(Now+31)), exp(int64(Now+60)))
	ok(nbf(int64(Now+30)), iat(int64(Now)), exp(int64(Now+60)))
	no(identity.AssertionTimes, nbf(int64(Now+31)), iat(int64(Now)), exp(int64(Now+60)))
	// Life.
	if life > 0 {
		ok(nbf(nil), iat(int64(Now)), exp(int64(Now)+seconds))
		no(identity.AssertionTimes, nbf(nil), iat(int64(Now)), exp(int64(Now)+seconds+1))
		no(identity.AssertionTimes, nbf(nil), iat(int64(Now)), exp(int64(Now)))
		no(identity.AssertionTimes, nbf(nil), iat(int64(Now+10)), exp(int64(Now+5)))
	} else {
		ok(nbf(nil), exp(int64(Now+15*60+30)))
		no(identity.AssertionTimes, nbf(nil), exp(int64(Now+15*60+31)))
	}
	if r.NoIssuedAt {
		ok(iat(nil))
	} else {
		no(identity.AssertionClaims, iat(nil))
	}
	no(identity.AssertionClaims, exp(nil))
	for _, wrong := range []any{"1795348860", true, -1, 0, 1795348860.5, 1e300, map[string]any{}} {
		no(identity.AssertionClaims, exp(wrong))
		no(identity.AssertionClaims, iat(wrong))
		no(identity.AssertionClaims, nbf(wrong))
	}
}

// Headers tries P10: algorithms, types, and keys that the JWT brings itself.
func (r Rig) Headers(t *testing.T) {
	t.Helper()
	r.Accept(t, r.JWT(t, Header("JWT", "typ")))
	r.Accept(t, r.JWT(t, Header(nil, "typ")))
	r.Accept(t, r.JWT(t, Header("c29tZXRoaW5n", "x5t"), Header("ignored", "nonce")))
	header, claims := r.parts([]Edit{Header("none", "alg")})
	unsigned := strings.Split(r.Key.Sign(t, header, claims), ".")
	r.Refuse(t, unsigned[0]+"."+unsigned[1]+".", identity.AssertionAlgorithm)
	r.Refuse(t, strings.Join(unsigned, "."), identity.AssertionAlgorithm)
	header, claims = r.parts([]Edit{Header("HS256", "alg")})
	r.Refuse(t, r.Key.hs256(t, header, claims, false), identity.AssertionAlgorithm)
	r.Refuse(t, r.Key.hs256(t, header, claims, true), identity.AssertionAlgorithm)
	var cases []Case
	for _, alg := range []string{"None", "NONE", "", "RS512", "PS256", "ES512", "EdDSA", strings.ToLower(r.Key.Algorithm)} {
		cases = append(cases, Case{"alg " + alg, Header(alg, "alg"), identity.AssertionAlgorithm})
	}
	for _, typ := range []string{"at+jwt", "application/at+jwt", "delegation-receipt+jwt", "dpop+jwt", "logout+jwt", "JWS"} {
		cases = append(cases, Case{"typ " + typ, Header(typ, "typ"), identity.AssertionAlgorithm})
	}
	evil := NewKey(t, r.Key.ID, "ES256")
	for name, value := range map[string]any{
		"jwk": evil.JWK(), "jku": "https://evil.test/keys", "x5u": "https://evil.test/cert", "x5c": []string{"MIIB"},
		"crit": []string{"exp"}, "b64": false, "zip": "DEF", "JWK": evil.JWK(), "Alg": "none", "KID": "other",
	} {
		cases = append(cases, Case{"header " + name, Header(value, name), identity.AssertionMalformed})
	}
	r.Cases(t, cases...)
}

// Spellings tries P1, P2 and P9: the same JWT written otherwise.
func (r Rig) Spellings(t *testing.T) {
	t.Helper()
	raw := r.JWT(t)
	r.Accept(t, raw)
	head, rest, _ := strings.Cut(raw, ".")
	for _, wrong := range []string{
		"", ".", "..", raw + "=", raw + "\n", "\n" + raw, " " + raw, raw + ".", "." + raw, head + "=." + rest, head + "\r\n." + rest,
		head + ".." + rest, head, raw + "." + raw, raw + "\x00", strings.Replace(raw, ".", "。", 1), strings.Repeat(".", 100000),
		raw + strings.Repeat("A", 16384),
	} {
		r.Refuse(t, wrong, identity.AssertionMalformed)
	}
	header, claims := r.parts(nil)
	h, c := marshal(t, header), marshal(t, claims)
	r.Accept(t, r.Key.SignRaw(t, h, c))
	again := func(name string) string { return `{"` + name + `":"x",` + c[1:] }
	for _, name := range []string{"iss", "sub", "aud", "exp", `s\u0075b`, "ISS", "Sub", "AUD"} {
		if name == "iss" && claims["iss"] == nil {
			continue // twice is more than not at all
		}
		r.Refuse(t, r.Key.SignRaw(t, h, again(name)), identity.AssertionClaims)
	}
	r.Refuse(t, r.Key.SignRaw(t, `{"alg":"none",`+h[1:], c), identity.AssertionMalformed)
	r.Refuse(t, r.Key.SignRaw(t, h, c+"{}"), identity.AssertionClaims)
	r.Refuse(t, r.Key.SignRaw(t, h, "\xef\xbb\xbf"+c), identity.AssertionClaims)
	r.Refuse(t, r.Key.SignRaw(t, h, "["+c+"]"), identity.AssertionClaims)
	r.Refuse(t, r.Key.SignRaw(t, h, ""), identity.AssertionClaims)
}
