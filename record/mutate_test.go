package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"
)

func goldens(t testing.TB) map[string]Record {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	rs := map[string]Record{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if rs[filepath.Base(f)], err = Parse(b); err != nil {
			t.Fatal(err)
		}
	}
	return rs
}

// leaves visits every scalar of v, and every optional and repeated part, with a
// function that changes it in place and one that changes it back.
func leaves(at string, v reflect.Value, visit func(at string, change, restore func())) {
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	restore := func() { v.Set(old) }
	switch v.Kind() {
	case reflect.String:
		visit(at, func() { v.SetString(v.String() + "x") }, restore)
	case reflect.Int64:
		visit(at, func() { v.SetInt(v.Int() + 1) }, restore)
	case reflect.Bool:
		visit(at, func() { v.SetBool(!v.Bool()) }, restore)
	case reflect.Pointer:
		if v.IsNil() {
			visit(at+" set", func() { v.Set(reflect.New(v.Type().Elem())) }, restore)
			return
		}
		visit(at+" unset", func() { v.SetZero() }, restore)
		leaves(at, v.Elem(), visit)
	case reflect.Slice:
		visit(at+" longer", func() { v.Set(reflect.Append(v.Slice3(0, v.Len(), v.Len()), reflect.Zero(v.Type().Elem()))) }, restore)
		if v.Len() > 0 {
			visit(at+" shorter", func() { v.Set(v.Slice(0, v.Len()-1)) }, restore)
		}
		for i := range v.Len() {
			leaves(fmt.Sprintf("%s[%d]", at, i), v.Index(i), visit)
		}
	case reflect.Map:
		visit(at+" more", func() { v.Set(reflect.ValueOf(map[string]int64{"other": 1})) }, restore)
		visit(at+" value", func() { v.Set(reflect.ValueOf(map[string]int64{"policy_denied": 4, "scope_exceeded": 4})) }, restore)
	case reflect.Struct:
		if v.Type() == detailsType {
			visit(at, func() { v.Set(reflect.ValueOf(Details{raw: `[{"type":"other"}]`, n: 1})) }, restore)
			return
		}
		for i := range v.NumField() {
			leaves(at+"."+v.Type().Field(i).Name, v.Field(i), visit)
		}
	default:
		panic("no mutation for " + v.Type().String())
	}
}

// L4: no member is outside of the hash. Every field of every kind is changed,
// whether the record is then still valid or not.
func TestL4EveryMemberIsHashed(t *testing.T) {
	for name, r := range goldens(t) {
		payload, _ := r.encode()
		want := Hash(payload)
		seen, n := map[string]string{want: "the record itself"}, 0
		try := func(at string, change, restore func()) {
			change()
			changed, _ := r.encode()
			restore()
			n++
			// Hashes differ among each other too, or two fields would be one.
			if other, ok := seen[Hash(changed)]; ok {
				t.Errorf("%s: changing %s gives the hash of %s", name, at, other)
			}
			seen[Hash(changed)] = at
		}
		leaves("header", reflect.ValueOf(&r.Header).Elem(), func(at string, change, restore func()) {
			if at != "header.Kind" { // it selects the body; next test
				try(at, change, restore)
			}
		})
		leaves("body", reflect.ValueOf(r.body()).Elem(), try)
		if again, _ := r.encode(); !bytes.Equal(again, payload) || n < 12 {
			t.Errorf("%s: %d mutations, restored %t", name, n, bytes.Equal(again, payload))
		}
	}
}

// L4, the other way round: every byte of a payload is of a member, so that a
// changed byte is refused or is another record.
func TestL4EveryByteIsAMember(t *testing.T) {
	for name, r := range goldens(t) {
		payload, err := r.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		// Parse compares what it encodes again with what it read, whatever the
		// kind: of a long payload a sample of bytes is enough.
		refused, step := 0, 1+len(payload)/250
		for i := 0; i < len(payload); i += step {
			changed := bytes.Clone(payload)
			changed[i] ^= 1
			got, err := Parse(changed)
			if err != nil {
				refused++
				continue
			}
			if reflect.DeepEqual(got, r) {
				t.Errorf("%s: byte %d is of no member", name, i)
			}
		}
		if refused == 0 || refused*step >= len(payload) {
			t.Errorf("%s: %d changes refused", name, refused)
		}
	}
}

func TestKindAndBodyMustAgree(t *testing.T) {
	for name, r := range goldens(t) {
		for _, k := range []Kind{
			KindDecision, KindOutcome, KindIssuance, KindRevocation, KindPolicy, KindKey, KindHeartbeat, KindGap,
			KindErasure, KindQuery, KindPeriod, "other", "",
		} {
			changed := r
			changed.Kind = k
			if _, err := changed.Canonical(); (err == nil) != (k == r.Kind) {
				t.Errorf("%s as %q: %v", name, k, err)
			}
		}
		two := r
		two.Gap, two.Erasure = &Gap{}, &Erasure{}
		if _, err := two.Canonical(); err == nil {
			t.Errorf("%s with a second body passes", name)
		}
		if _, err := (Record{Header: r.Header}).Canonical(); err == nil {
			t.Errorf("%s without body passes", name)
		}
	}
	if _, err := (Record{}).Canonical(); err == nil {
		t.Error("the zero record passes")
	}
}

// reference encodes by the standard library and two RFC 8785 libraries.
func reference(t *rapid.T, r Record) (a, b []byte) {
	merged := map[string]json.RawMessage{}
	for _, part := range []any{r.Header, r.body()} {
		raw, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			t.Fatal(err)
		}
		for k, v := range members {
			merged[k] = v
		}
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		t.Fatal(err)
	}
	// Here a nil slice is null, in a record it is [].
	raw = bytes.ReplaceAll(raw, []byte(`:null`), []byte(`:[]`))
	a, err = jcs.Transform(raw)
	if err != nil {
		t.Fatal(err)
	}
	v := jsontext.Value(bytes.Clone(raw))
	if err := v.Canonicalize(); err != nil {
		t.Fatal(err)
	}
	return a, v
}

// scramble sets every scalar of v to something drawn, and empties some of what
// can be empty. The result is seldom a valid record; the encoder must not care.
func scramble(t *rapid.T, v reflect.Value) {
	const safe = 1<<53 - 1
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringN(0, 12, -1).Draw(t, "text"))
	case reflect.Int64:
		v.SetInt(rapid.Int64Range(-safe, safe).Draw(t, "int"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Pointer:
		v.SetZero()
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			scramble(t, v.Elem())
		}
	case reflect.Slice:
		v.SetZero()
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			x := reflect.New(v.Type().Elem()).Elem()
			scramble(t, x)
			v.Set(reflect.Append(v, x))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.StringMatching(`[a-z_]{1,8}`), rapid.Int64Range(0, safe), 0, 3).Draw(t, "counts")))
	case reflect.Struct:
		if v.Type() == detailsType {
			return
		}
		for i := range v.NumField() {
			scramble(t, v.Field(i))
		}
	default:
		panic("nothing to draw for " + v.Type().String())
	}
}

// The encoder agrees with two other implementations of RFC 8785.
func TestEncoderAgreesWithTwoLibraries(t *testing.T) {
	all := goldens(t)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Header: Header{Kind: all[rapid.SampledFrom(names).Draw(t, "kind")].Kind}}
		b := r.fresh()
		kind := r.Kind
		scramble(t, reflect.ValueOf(&r.Header).Elem())
		scramble(t, reflect.ValueOf(b).Elem())
		r.Kind = kind
		got, _ := r.encode()
		one, two := reference(t, r)
		if !bytes.Equal(got, one) || !bytes.Equal(got, two) {
			t.Fatalf("encoder\n%s\njcs\n%s\njsontext\n%s", got, one, two)
		}
	})
}
