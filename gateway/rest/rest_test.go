package rest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/rest"
)

// TestNewRefuses: what two readers could take for different calls is no
// configuration, and no operation declares what carries authority.
func TestNewRefuses(t *testing.T) {
	get := func(name, path string) rest.Operation { return rest.Operation{Name: name, Method: "GET", Path: path} }
	with := func(change func(*rest.Operation)) []rest.Operation {
		o := rest.Operation{Name: "a", Method: "PUT", Path: "/a/{x}"}
		change(&o)
		return []rest.Operation{o}
	}
	for name, ops := range map[string][]rest.Operation{
		"nothing": nil, "no name": {get("", "/a")}, "relative": {get("a", "a")}, "empty segment": {get("a", "/a//b")}, "final slash": {get("a", "/a/")},
		"dot segment": {get("a", "/a/../b")}, "escape": {get("a", "/a%2fb")}, "half a parameter": {get("a", "/a/{x}y")}, "parameter twice": {get("a", "/{x}/{x}")},
		"query in the path": {get("a", "/a?b=c")}, "name twice": {get("a", "/a"), get("a", "/b")}, "path twice": {get("a", "/a/{x}"), get("b", "/a/{y}")},
		"neither is narrower":  {get("a", "/a/{x}"), get("b", "/{y}/b")},
		"unknown method":       with(func(o *rest.Operation) { o.Method = "PURGE" }),
		"CONNECT":              with(func(o *rest.Operation) { o.Method = "CONNECT" }),
		"opaque GET":           with(func(o *rest.Operation) { o.Method, o.Opaque = "GET", true }),
		"unread media type":    with(func(o *rest.Operation) { o.MediaTypes = []string{"text/plain"} }),
		"token in the query":   with(func(o *rest.Operation) { o.Query = []string{"access_token"} }),
		"method in the query":  with(func(o *rest.Operation) { o.Query = []string{"_method"} }),
		"Authorization":        with(func(o *rest.Operation) { o.Headers = []string{"authorization"} }),
		"method override":      with(func(o *rest.Operation) { o.Headers = []string{"X-HTTP-Method-Override"} }),
		"forwarded":            with(func(o *rest.Operation) { o.Headers = []string{"x-forwarded-host"} }),
		"the gateway's header": with(func(o *rest.Operation) { o.Headers = []string{"Lineal-Delegation"} }),
		"underscore":           with(func(o *rest.Operation) { o.Headers = []string{"X_Tenant"} }),
		"hop by hop":           with(func(o *rest.Operation) { o.Headers = []string{"Transfer-Encoding"} }),
	} {
		if _, err := rest.New(rest.Config{Operations: ops}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, ops := range map[string][]rest.Operation{
		"literal beside parameter": {get("a", "/a/{x}"), get("b", "/a/me")}, "other methods": append(with(func(*rest.Operation) {}), get("b", "/a/{y}")),
		"the route itself": {get("a", "")}, "merge patch": with(func(o *rest.Operation) { o.Method, o.MediaTypes = "PATCH", []string{"application/merge-patch+json"} }),
	} {
		if _, err := rest.New(rest.Config{Operations: ops}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, cfg := range map[string]rest.GRPCConfig{
		"no service": {Methods: []string{"Get"}}, "no methods": {Service: "a.B"}, "path in a method": {Service: "a.B", Methods: []string{"Get/x"}},
		"protocol metadata": {Service: "a.B", Methods: []string{"Get"}, Metadata: []string{"grpc-timeout"}},
		"binary metadata":   {Service: "a.B", Methods: []string{"Get"}, Metadata: []string{"x-bin"}},
		"authority":         {Service: "a.B", Methods: []string{"Get"}, Metadata: []string{"authorization"}},
	} {
		if _, err := rest.NewGRPC(cfg); err == nil {
			t.Errorf("gRPC, %s: accepted", name)
		}
	}
}

func ExampleReader() {
	r, err := rest.New(rest.Config{Operations: []rest.Operation{
		{Name: "customers.put", Method: "PUT", Path: "/customers/{id}", Query: []string{"dry_run"}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	req := httptest.NewRequest(http.MethodPut, "/http/crm/customers/C-1?dry_run=yes", strings.NewReader(""))
	req.Header.Set("Content-Type", "application/json")
	call, err := r.Read(req, "/customers/C-1", []byte(`{ "limit": 5 }`), gateway.Caller{})
	if err != nil {
		fmt.Println(err)
		return
	}
	id, _ := call.Doc.Lookup("/http/params/id")
	limit, _ := call.Doc.Lookup("/args/limit")
	text, _ := id.Text()
	fmt.Println(call.Action, call.Name, text, string(limit.AppendJSON(nil)))
	fmt.Println(call.Suffix, call.Query, string(call.Body))
	// Output:
	// http:PUT customers.put C-1 5
	// /customers/C-1 dry_run=yes {"limit":5}
}
