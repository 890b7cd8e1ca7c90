package ocsf_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/export/ocsf"
	"github.com/lineal-auth/lineal/record"
)

var update = flag.Bool("update", false, "write the golden files")

// schema is an excerpt of the published schema of one version: the two classes
// with all that they inherit and no profile applied, the objects that events use,
// and the data types.
type schema struct {
	Version string
	Types   map[string]struct {
		Type, Regex string
		MaxLen      int `json:"max_len"`
		Range       []float64
	}
	Classes map[string]struct {
		shape
		UID         int
		Caption     string
		CategoryUID int `json:"category_uid"`
	}
	Objects map[string]shape
}

type shape struct {
	Attributes  map[string]attribute
	Constraints struct {
		AtLeastOne []string `json:"at_least_one"`
	}
}

type attribute struct {
	Type, Object    string
	Array, Required bool
	Enum            map[string]string
}

func published(t *testing.T) schema {
	t.Helper()
	b, err := os.ReadFile("testdata/ocsf-1.8.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if s.Version != ocsf.SchemaVersion || len(s.Classes) != 2 || len(s.Objects) < 10 {
		t.Fatalf("the schema is %s with %d classes", s.Version, len(s.Classes))
	}
	return s
}

// judge says what is wrong with an event.
func (s schema) judge(event []byte) []string {
	var doc map[string]any
	if err := json.Unmarshal(event, &doc); err != nil {
		return []string{err.Error()}
	}
	for _, class := range s.Classes {
		if doc["class_uid"] != float64(class.UID) {
			continue
		}
		wrong := s.object("", doc, class.shape)
		activity, _ := doc["activity_id"].(float64)
		if doc["type_uid"] != float64(class.UID*100)+activity {
			wrong = append(wrong, "type_uid is not of class and activity")
		}
		if doc["category_uid"] != float64(class.CategoryUID) || doc["class_name"] != class.Caption {
			wrong = append(wrong, "category or name is not the class's")
		}
		return wrong
	}
	return []string{fmt.Sprintf("class %v is not in the schema", doc["class_uid"])}
}

func (s schema) object(at string, doc map[string]any, sh shape) (wrong []string) {
	for name, a := range sh.Attributes {
		if _, there := doc[name]; a.Required && !there {
			wrong = append(wrong, at+name+" is required")
		}
	}
	if one := sh.Constraints.AtLeastOne; len(one) > 0 && !slices.ContainsFunc(one, func(n string) bool { return doc[n] != nil }) {
		wrong = append(wrong, at+" has none of "+strings.Join(one, ", "))
	}
	for name, v := range doc {
		a, known := sh.Attributes[name]
		if !known {
			wrong = append(wrong, at+name+" is not in the schema")
			continue
		}
		values := []any{v}
		if a.Array {
			list, is := v.([]any)
			if !is {
				wrong = append(wrong, at+name+" is no array")
			}
			values = list
		}
		for _, v := range values {
			wrong = append(wrong, s.value(at+name, v, a)...)
		}
	}
	return wrong
}

func (s schema) value(at string, v any, a attribute) []string {
	if len(a.Enum) > 0 {
		if _, known := a.Enum[fmt.Sprint(v)]; !known {
			return []string{fmt.Sprintf("%s: %v is not in the list", at, v)}
		}
	}
	if a.Object != "" {
		doc, is := v.(map[string]any)
		switch sh, known := s.Objects[a.Object]; {
		case !is:
			return []string{at + " is no object"}
		case known:
			return s.object(at+".", doc, sh)
		case a.Object == "object": // unmapped may hold anything
			return nil
		default:
			return []string{at + ": object " + a.Object + " is not in the excerpt"}
		}
	}
	dt := s.Types[a.Type]
	base := a.Type
	if dt.Type != "" {
		base = dt.Type
	}
	switch base {
	case "string_t":
		text, is := v.(string)
		if !is || dt.MaxLen > 0 && len(text) > dt.MaxLen || dt.Regex != "" && !regexp.MustCompile(dt.Regex).MatchString(text) {
			return []string{fmt.Sprintf("%s: %v is no %s", at, v, a.Type)}
		}
	case "integer_t", "long_t":
		n, is := v.(float64)
		if !is || n != math.Trunc(n) || base == "integer_t" && math.Abs(n) > math.MaxInt32 {
			return []string{fmt.Sprintf("%s: %v is no %s", at, v, a.Type)}
		}
	case "boolean_t":
		if _, is := v.(bool); !is {
			return []string{fmt.Sprintf("%s: %v is no boolean", at, v)}
		}
	case "json_t":
	default:
		return []string{at + ": type " + a.Type + " is not in the excerpt"}
	}
	return nil
}

// samples are records of every kind, the golden ones of package record.
func samples(t *testing.T) map[string]export.Entry {
	t.Helper()
	files, err := filepath.Glob("../../record/testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]export.Entry)
	kinds := make(map[record.Kind]bool)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		e, err := export.NewEntry("ledger.example/std/2027-03", 7, bytes.TrimSpace(b))
		if err != nil {
			continue // an envelope, or one that is wrong on purpose
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = e
		kinds[e.Record.Kind] = true
	}
	if len(kinds) != 12 {
		t.Fatalf("samples of %d kinds of record, want all 12", len(kinds))
	}
	return out
}

// TestEventsAreOfTheSchema holds the event of every kind of record to the
// published schema: what it requires is there, and nothing that it does not know.
func TestEventsAreOfTheSchema(t *testing.T) {
	s := published(t)
	for name, e := range samples(t) {
		event, err := ocsf.Event(e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range s.judge(event) {
			t.Errorf("%s: %s", name, w)
		}
	}
}

// TestSchemaFindsWhatIsWrong is the negative of the test above: without it a
// judge that passes everything would not show.
func TestSchemaFindsWhatIsWrong(t *testing.T) {
	s := published(t)
	event, err := ocsf.Event(samples(t)["decision"])
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]any){
		"no actor":           func(d map[string]any) { delete(d, "actor") },
		"empty actor":        func(d map[string]any) { d["actor"] = map[string]any{} },
		"unknown member":     func(d map[string]any) { d["chain"] = []any{} },
		"unknown below":      func(d map[string]any) { d["api"].(map[string]any)["tool"] = "x" },
		"severity not in it": func(d map[string]any) { d["severity_id"] = 7 },
		"text for a number":  func(d map[string]any) { d["time"] = "2027" },
		"type_uid":           func(d map[string]any) { d["type_uid"] = 600301 },
		"other class":        func(d map[string]any) { d["class_uid"] = 3002 },
		"no operation":       func(d map[string]any) { delete(d["api"].(map[string]any), "operation") },
	} {
		var doc map[string]any
		if err := json.Unmarshal(event, &doc); err != nil {
			t.Fatal(err)
		}
		change(doc)
		changed, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.judge(changed)) == 0 {
			t.Errorf("%s: nothing is found wrong", name)
		}
	}
}

// TestGoldenEvents keeps the bytes: receivers parse them.
func TestGoldenEvents(t *testing.T) {
	var got bytes.Buffer
	all := samples(t)
	for _, name := range []string{
		"decision", "decision-deny", "erasure", "gap", "heartbeat", "issuance", "issuance-refused", "key", "outcome", "outcome-model", "period",
		"policy", "query", "registry", "registry-refused", "revocation",
	} {
		event, err := ocsf.Event(all[name])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s\n", event)
	}
	const path = "testdata/events.jsonl"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("events differ from %s; run with -update and look at the difference", path)
	}
}

func ExampleEvent() {
	payload, err := os.ReadFile("../../record/testdata/heartbeat.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	entry, err := export.NewEntry("ledger.example/std/2027-03", 12, bytes.TrimSpace(payload))
	if err != nil {
		fmt.Println(err)
		return
	}
	event, err := ocsf.Event(entry)
	fmt.Println(strings.Contains(string(event), `"class_uid":6002`), err)
	// Output: true <nil>
}
