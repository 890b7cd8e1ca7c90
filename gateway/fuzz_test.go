package gateway_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// FuzzP4ReadJSONRPC: what is read is sent on as the same tree, and reads to the
// same again; what is refused has an id only if one can be read without doubt.
func FuzzP4ReadJSONRPC(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"find","arguments":{"a":1.0e0}}}`, `{"jsonrpc":"2.0","method":"x"}`,
		` { "method" : "\u0078" , "id" : "é" , "jsonrpc":"2.0" } `, `[{"jsonrpc":"2.0","id":1,"method":"x"}]`, `{"jsonrpc":"2.0","id":1,"result":{}}`,
		`{"jsonrpc":"2.0","id":1,"Method":"x","method":"y"}`, `{"jsonrpc":"2.0","id":1.5,"method":"x"}`, `{"jsonrpc":"2.0","id":9007199254740993,"method":"x"}`,
		`{"jsonrpc":"2.0","id":-0,"method":"x","params":{}}`, `{"jsonrpc":"2.0","id":1,"method":"x"}{}`, "\ufeff{}", `{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := gateway.ReadJSONRPC(body)
		if err != nil {
			return
		}
		sent, err := strictjson.Parse(body, strictjson.Limits{})
		if err != nil {
			t.Fatalf("read, but not parsed: %v", err)
		}
		on, err := strictjson.Parse(m.Body, strictjson.Limits{})
		if err != nil || !on.Equal(sent) {
			t.Fatalf("%q goes on as %q (%v)", body, m.Body, err)
		}
		again, err := gateway.ReadJSONRPC(m.Body)
		if err != nil || !bytes.Equal(again.Body, m.Body) || again.Method != m.Method || !again.ID.Equal(m.ID) || !again.Params.Equal(m.Params) {
			t.Fatalf("%q reads to %+v, then to %+v (%v)", body, m, again, err)
		}
		if id := gateway.PeekID(body); !id.Equal(m.ID) {
			t.Fatalf("id %v, peeked %v", m.ID, id)
		}
	})
}

// FuzzD2FetchHost: a host that is given is in one spelling, and the same again.
func FuzzD2FetchHost(f *testing.F) {
	for _, seed := range []string{"https://a.test/x", "HTTP://A.Test:80", "https://u@a.test", "https://a.test.", `https://a\b`, "https://[::1]:1/", "//a.test", "https://%61.test", "https://a.test@b.test#c", "https://\u212a.test"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		host, err := gateway.FetchHost(raw)
		if err != nil {
			return
		}
		lowered := strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			return r
		}, raw)
		if !strings.Contains(lowered, host) {
			t.Fatalf("%q has host %q, which is not written there", raw, host)
		}
		for _, c := range []byte(host) {
			if c <= ' ' || c > '~' || 'A' <= c && c <= 'Z' || bytes.IndexByte([]byte(`/\@%#?`), c) >= 0 {
				t.Fatalf("%q has host %q", raw, host)
			}
		}
		if bytes.IndexByte([]byte(host), ':') >= 0 {
			host = "[" + host + "]"
		}
		if again, err := gateway.FetchHost("https://" + host + "/"); err != nil || "["+again+"]" != host && again != host {
			t.Fatalf("host %q reads to %q (%v)", host, again, err)
		}
	})
}
