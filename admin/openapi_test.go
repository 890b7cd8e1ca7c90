package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/openapitest"
)

var described = openapitest.Parse(OpenAPI)

// TestOpenAPIListsTheAPI: the same paths and methods, and the same codes.
func TestOpenAPIListsTheAPI(t *testing.T) {
	want, got := map[string][]string{}, map[string][]string{}
	methods := func(of map[string]operation) []string { return slices.Sorted(maps.Keys(of)) }
	for name, c := range collections {
		want[prefix+name] = methods(c.all)
		if c.one != nil {
			want[prefix+name+"/{id}"] = methods(c.one)
		}
	}
	for path, item := range described.Paths {
		for method := range item {
			if method != "parameters" {
				got[path] = append(got[path], strings.ToUpper(method))
			}
		}
		slices.Sort(got[path])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-code +openapi):\n%s", diff)
	}
	for c, a := range answers {
		if a.Message == "" || http.StatusText(a.Status) == "" {
			t.Errorf("%s: %+v", c, a)
		}
	}
	if diff := cmp.Diff(openapitest.Names(answers), described.Codes()); diff != "" {
		t.Errorf("codes (-code +openapi):\n%s", diff)
	}
}

// TestOpenAPIDescribesWhatIsTold: the members of answers and requests are those
// of the code, both ways.
func TestOpenAPIDescribesWhatIsTold(t *testing.T) {
	members := func(v any) (names []string) {
		for i := range reflect.TypeOf(v).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	for name, v := range map[string]any{"WriterKey": WriterKey{}, "WriterRequest": writerRequest{}, "RevocationRequest": revocationRequest{}, "AgentShown": shown{}, "ClientShown": shown{}} {
		if diff := cmp.Diff(members(v), described.Properties(name)); diff != "" {
			t.Errorf("%s (-code +openapi):\n%s", name, diff)
		}
	}
	for name, c := range map[string]struct{ good, bad string }{
		"Refusal":           {`{"code":"not_found","message":"x","retryable":false}`, `{"code":"other","message":"x","retryable":false}`},
		"Agent":             {`{"uri":"spiffe://a/b","profile":"service","authority":[{"type":"x"}]}`, `{"uri":"spiffe://a/b","profile":"service","admin":true}`},
		"Resource":          {`{"uri":"https://a.test","callers":[]}`, `{"uri":"https://a.test","max_depth":8}`},
		"Issuer":            {`{"issuer":"https://a.test"}`, `{}`},
		"Client":            {`{"client_id":"x","redirect_uris":["x"],"auth":"none"}`, `{"client_id":"x","redirect_uris":[],"auth":"none"}`},
		"RevocationRequest": {`{"kind":"hop","value":"x","cause":"y"}`, `{"kind":"all","value":"x","cause":"y"}`},
		"WriterRequest":     {`{"op":"revoke","since":"2027-03-02T09:14:07Z","cause":"stolen"}`, `{"op":"lend"}`},
		"AgentPage":         {`{"items":[{"source":"api","revision":1,"entry":{"uri":"a","profile":"service"}}],"revision":1}`, `{"items":[{"source":"me","revision":1,"entry":{"uri":"a","profile":"service"}}],"revision":1}`},
	} {
		for text, valid := range map[string]bool{c.good: true, c.bad: false} {
			var v any
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Fatal(err)
			}
			if err := described.Schema(t, name).Validate(v); (err == nil) != valid {
				t.Errorf("%s: %s: valid %t, %v", name, text, valid, err)
			}
		}
	}
}
