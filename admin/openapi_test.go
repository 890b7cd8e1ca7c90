package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"
)

// description is the part of openapi.yaml that is held to the code.
type description struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components struct {
		Schemas map[string]any `yaml:"schemas"`
	} `yaml:"components"`
}

func describe(t *testing.T) description {
	t.Helper()
	var d description
	if err := yaml.Unmarshal(OpenAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

var schemas sync.Map // by name: reading them costs more than a test does

// schemaOf gives the schema of a component.
func schemaOf(t *testing.T, name string) *jsonschema.Resolved {
	t.Helper()
	if s, ok := schemas.Load(name); ok {
		return s.(*jsonschema.Resolved)
	}
	defs, err := json.Marshal(map[string]any{"$defs": describe(t).Components.Schemas, "$ref": "#/$defs/" + name})
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(defs), "#/components/schemas/", "#/$defs/")), &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	schemas.Store(name, r)
	return r
}

// TestOpenAPIListsTheAPI: the same paths and methods, and the same codes.
func TestOpenAPIListsTheAPI(t *testing.T) {
	d := describe(t)
	want, got := map[string][]string{}, map[string][]string{}
	methods := func(of map[string]operation) []string { return slices.Sorted(maps.Keys(of)) }
	for name, c := range collections {
		want[prefix+name] = methods(c.all)
		if c.one != nil {
			want[prefix+name+"/{id}"] = methods(c.one)
		}
	}
	for path, item := range d.Paths {
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
	var codes []string
	for c, a := range answers {
		codes = append(codes, string(c))
		if a.Message == "" || http.StatusText(a.Status) == "" {
			t.Errorf("%s: %+v", c, a)
		}
	}
	slices.Sort(codes)
	refusal := d.Components.Schemas["Refusal"].(map[string]any)["properties"].(map[string]any)["code"].(map[string]any)["enum"].([]any)
	var listed []string
	for _, c := range refusal {
		listed = append(listed, fmt.Sprint(c))
	}
	slices.Sort(listed)
	if diff := cmp.Diff(codes, listed); diff != "" {
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
	d := describe(t)
	for name, v := range map[string]any{"WriterKey": WriterKey{}, "WriterRequest": writerRequest{}, "RevocationRequest": revocationRequest{}, "AgentShown": shown{}, "ClientShown": shown{}} {
		listed := slices.Sorted(maps.Keys(d.Components.Schemas[name].(map[string]any)["properties"].(map[string]any)))
		if diff := cmp.Diff(members(v), listed); diff != "" {
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
			if err := schemaOf(t, name).Validate(v); (err == nil) != valid {
				t.Errorf("%s: %s: valid %t, %v", name, text, valid, err)
			}
		}
	}
}
