package record_test

import (
	"testing"

	"github.com/gowebpki/jcs"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// FuzzInputDigestIsJCS: the digest is of what another implementation of RFC 8785
// writes, whatever the names and values.
func FuzzInputDigestIsJCS(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"b":1,"a":[true,null,{"z":"\u20ac","y":"\u0000\"\\"}],"":{}}`, `{"\ud83d\ude00":1,"\ufb33":2,"\ue000":3,"\u00f6":4,"\r":5,"1":6}`,
		`{"a":-9007199254740991}`, `{"a":1.0}`, `{"\ud83d\ude00a":1,"\ud83d\ude00":2,"aa":3,"a":4}`, `{"a":"<>&\u2028\u007f"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := strictjson.Parse(data, strictjson.Limits{})
		if err != nil {
			return
		}
		got, err := record.InputDigest(v)
		if err != nil {
			return
		}
		want, err := jcs.Transform(v.AppendJSON(nil))
		if err != nil || got != record.Hash(want) {
			t.Fatalf("%s: digest %s, of the other's %s it is %s (%v)", data, got, want, record.Hash(want), err)
		}
	})
}
