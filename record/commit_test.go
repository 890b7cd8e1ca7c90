package record_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

func parse(t testing.TB, raw string) strictjson.Value {
	t.Helper()
	v, err := strictjson.Parse([]byte(raw), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCommit(t *testing.T) {
	// RFC 4231 §4.2, test case 1: a key of 20 bytes, zero padded as HMAC pads it.
	var salt [32]byte
	for i := range 20 {
		salt[i] = 0x0b
	}
	const want = "sDRMYdjbOFNcqK_OrwvxK4gdwgDJgz2nJuk3bC4yz_c"
	if got := record.Commit(salt, []byte("Hi There")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// L4: a commitment is no digest of the data alone, and depends on each byte
	// of both.
	base := record.Commit(salt, []byte("EU"))
	if base == h("EU") {
		t.Error("the commitment is an unsalted digest")
	}
	for i := range salt {
		other := salt
		other[i] ^= 1
		if record.Commit(other, []byte("EU")) == base {
			t.Errorf("salt byte %d does not matter", i)
		}
	}
	if record.Commit(salt, []byte("EV")) == base || record.Commit(salt, []byte("EU\x00")) == base {
		t.Error("the data does not matter")
	}
	if !hmac.Equal([]byte(record.Commit(salt, []byte("EU"))), []byte(base)) {
		t.Error("not deterministic")
	}
}

// RFC 9901 §4.2.1 and §4.2.3: the disclosures and the digest printed there.
func TestDisclosureRFC9901(t *testing.T) {
	const family = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
	d, err := record.ParseDisclosure(family)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Digest(), "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	v, _ := d.Value().Text()
	if d.Salt() != "_26bc4LT-ac6q2KI6cBW5es" || d.Name() != "family_name" || v != "Möbius" || d.Encoded() != family {
		t.Errorf("read as %q, %q, %q", d.Salt(), d.Name(), v)
	}
	// The same without white space is another disclosure.
	compact, err := record.NewDisclosure("_26bc4LT-ac6q2KI6cBW5es", "family_name", strictjson.String("Möbius"))
	if err != nil {
		t.Fatal(err)
	}
	if compact.Encoded() != "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsImZhbWlseV9uYW1lIiwiTcO2Yml1cyJd" || compact.Digest() == d.Digest() {
		t.Errorf("made %s", compact)
	}
}

func TestDisclosure(t *testing.T) {
	salt := record.SaltText([32]byte{1})
	d, err := record.NewDisclosure(salt, "/args/amount", parse(t, "12.50"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(d.JSON()), `["`+salt+`","/args/amount",12.50]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sum := sha256.Sum256([]byte(d.Encoded()))
	if d.Digest() != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Error("the digest is not of the encoded disclosure")
	}
	again, err := record.ParseDisclosure(d.Encoded())
	if err != nil || again.Digest() != d.Digest() || again.Value().Literal() != "12.50" {
		t.Errorf("came back as %s, %v", again.JSON(), err)
	}
	if got := string(d.Commitment().AppendJSON(nil)); got != `{"$sd":"`+d.Digest()+`"}` {
		t.Errorf("commitment %s", got)
	}
	for name, bad := range map[string]string{
		"short salt":   `["012345678901234567890","n",1]`,
		"no name":      `["` + salt + `","",1]`,
		"two parts":    `["` + salt + `",1]`,
		"four parts":   `["` + salt + `","n",1,2]`,
		"object":       `{"salt":"` + salt + `"}`,
		"salt number":  `[1,"n",1]`,
		"duplicate":    `["` + salt + `","n",{"a":1,"a":2}]`,
		"trailing":     `["` + salt + `","n",1]x`,
		"bad UTF-8":    "[\"" + salt + "\",\"n\",\"\xff\"]",
		"not JSON":     `x`,
		"empty string": ``,
	} {
		if _, err := record.ParseDisclosure(base64.RawURLEncoding.EncodeToString([]byte(bad))); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	for name, bad := range map[string]string{
		"padding":    d.Encoded() + "=",
		"line break": d.Encoded()[:8] + "\n" + d.Encoded()[8:],
		"standard":   strings.ReplaceAll(d.Encoded(), "_", "/") + "+",
	} {
		if _, err := record.ParseDisclosure(bad); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if _, err := record.NewDisclosure(salt, "n", strictjson.Value{}); err == nil {
		t.Error("no value accepted")
	}
	if _, err := record.NewDisclosure("short", "n", strictjson.Bool(true)); err == nil {
		t.Error("a short salt accepted")
	}
}

func TestInputDigest(t *testing.T) {
	d, err := record.NewDisclosure(record.SaltText([32]byte{1}), "/args/table", strictjson.String("orders"))
	if err != nil {
		t.Fatal(err)
	}
	doc := strictjson.Object(
		strictjson.Member{Name: "now", Value: strictjson.Int(1803978846)},
		strictjson.Member{Name: "args", Value: strictjson.Object(strictjson.Member{Name: "/args/table", Value: d.Commitment()})},
	)
	got, err := record.InputDigest(doc)
	if err != nil {
		t.Fatal(err)
	}
	if want := h(`{"args":{"/args/table":{"$sd":"` + d.Digest() + `"}},"now":1803978846}`); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	reordered, err := record.InputDigest(parse(t, `{"now":1803978846,"args":{"/args/table":{"$sd":"`+d.Digest()+`"}}}`))
	if err != nil || reordered != got {
		t.Errorf("order matters: %s, %v", reordered, err)
	}
	for _, bad := range []string{`[]`, `1`, `{"n":1.5}`, `{"n":[{"m":9007199254740993}]}`} {
		if _, err := record.InputDigest(parse(t, bad)); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}

// O4: a disclosure in a log line shows its digest, not its value.
func TestO4DisclosureIsRedacted(t *testing.T) {
	salt := record.SaltText([32]byte{7})
	d, err := record.NewDisclosure(salt, "/args/iban", strictjson.String("DE02120300000000202051"))
	if err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(struct{ D record.Disclosure }{d})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).LogAttrs(t.Context(), slog.LevelInfo, "m", slog.Any("d", d))
	for _, out := range []string{
		string(js), log.String(), fmt.Sprint(d), fmt.Sprintf("%+v", d), fmt.Sprintf("%#v", d), fmt.Sprintf("%+v", []record.Disclosure{d}),
	} {
		if strings.Contains(out, "DE0212") || strings.Contains(out, salt) || strings.Contains(out, d.Encoded()[20:40]) {
			t.Errorf("the value is in %q", out)
		}
		if !strings.Contains(out, d.Digest()) {
			t.Errorf("the digest is not in %q", out)
		}
	}
}

func FuzzParseDisclosure(f *testing.F) {
	f.Add("WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0")
	f.Fuzz(func(t *testing.T, encoded string) {
		d, err := record.ParseDisclosure(encoded)
		if err == nil && (d.Encoded() != encoded || d.Value().IsZero()) {
			t.Fatalf("accepted, but written again as %q", d.Encoded())
		}
	})
}
