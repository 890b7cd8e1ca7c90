package rest_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/rest"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

func reader(t testing.TB) *rest.Reader {
	t.Helper()
	r, err := rest.New(rest.Config{Operations: []rest.Operation{
		{Name: "get", Method: "GET", Path: "/c/{id}", Query: []string{"limit", "q"}, Headers: []string{"X-Tenant"}},
		{Name: "me", Method: "GET", Path: "/c/me"},
		{Name: "put", Method: "PUT", Path: "/c/{id}/notes/{note}"},
		{Name: "file", Method: "POST", Path: "/f", Opaque: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzF6F7P4Read: what is accepted goes on as what was judged: read again, it is
// the same call, and nothing is in it that no fact tells.
func FuzzF6F7P4Read(f *testing.F) {
	for _, seed := range [][5]string{
		{"GET", "/c/1", "limit=1&q=a+b", "acme", ""},
		{"GET", "/c/me", "", "", ""},
		{"PUT", "/c/1/notes/2", "", "", `{"n\u0061me":1.0}`},
		{"GET", "/c/1", "limit=1&%6cimit=2", "", ""},
		{"GET", "/c//", "", "", ""},
		{"POST", "/f", "", "", "\x00"},
		{"GET", "/c/{id}", "q=%00", "", ""},
		{"GET", "/c/1", "q=%ff;limit=2", "a\x00", ""},
		{"PUT", "/c/1/notes/2", "", "", `{"a":1,"A":2}`},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], []byte(seed[4]))
	}
	r := reader(f)
	read := func(method, suffix, query string, h http.Header, body []byte) (gateway.Request, error) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Method, req.URL.RawQuery, req.Header = method, query, h
		return r.Read(req, suffix, body, gateway.Caller{})
	}
	f.Fuzz(func(t *testing.T, method, suffix, query, tenant string, body []byte) {
		h := http.Header{"X-Tenant": {tenant}, "Authorization": {"Bearer x"}, "Content-Type": {"application/json"}}
		got, err := read(method, suffix, query, h, body)
		if err != nil {
			return
		}
		if got.Doc.Err() != nil || got.Action != "http:"+method || got.Suffix != suffix || got.Header.Get("Authorization") != "" {
			t.Fatalf("read as %+v (%v)", got, got.Doc.Err())
		}
		again, err := read(got.Method, got.Suffix, got.Query, got.Header, got.Body)
		if err != nil || again.Name != got.Name || again.Query != got.Query || !bytes.Equal(again.Body, got.Body) {
			t.Fatalf("reads to\n%+v\nthen to\n%+v (%v)", got, again, err)
		}
		values, err := url.ParseQuery(got.Query)
		if err != nil {
			t.Fatalf("the query that goes on does not parse: %v", err)
		}
		for key, all := range values {
			fact, presence := got.Doc.Lookup("/http/query/" + key)
			if text, _ := fact.Text(); presence != scope.Present || len(all) != 1 || text != all[0] {
				t.Fatalf("query %q goes on unseen", got.Query)
			}
		}
		if tenants := got.Header["X-Tenant"]; len(tenants) > 0 {
			fact, _ := got.Doc.Lookup("/http/headers/x-tenant")
			if text, _ := fact.Text(); text != tenants[0] {
				t.Fatalf("header %q goes on unseen", tenants)
			}
		}
		if got.Name == "put" && len(got.Body) > 0 {
			sent, err := strictjson.Parse(body, strictjson.Limits{})
			on, err2 := strictjson.Parse(got.Body, strictjson.Limits{})
			if err != nil || err2 != nil || !on.Equal(sent) {
				t.Fatalf("%q goes on as %q", body, got.Body)
			}
		}
	})
}

// FuzzF10ReadGRPC: only a registered method of the one service is a call.
func FuzzF10ReadGRPC(f *testing.F) {
	g, err := rest.NewGRPC(rest.GRPCConfig{Service: "acme.v1.Customers", Methods: []string{"Get"}, Metadata: []string{"x-tenant"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/Get", "application/grpc+proto", "trailers", "acme", []byte{0, 0, 0, 0, 0})
	f.Add("Get", "application/grpc-web", "", "", []byte{})
	f.Add("/get", "application/json", "trailers, x", "a\nb", []byte(`{}`))
	f.Fuzz(func(t *testing.T, suffix, media, te, tenant string, body []byte) {
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.ProtoMajor = 2
		req.Header = http.Header{"Content-Type": {media}, "Te": {te}, "X-Tenant": {tenant}, "X-Other": {"x"}}
		got, err := g.Read(req, suffix, body, gateway.Caller{})
		if err != nil {
			return
		}
		if got.Name != "/acme.v1.Customers/Get" || got.Header.Get("X-Other") != "" || got.Doc.Err() != nil || !bytes.Equal(got.Body, body) {
			t.Fatalf("%q reads to %+v", suffix, got)
		}
	})
}
