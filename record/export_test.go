package record

import (
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Undo gives the JSON that details were recorded from, for tests.
func Undo(t interface{ Fatal(...any) }, d Details) string {
	v, err := strictjson.Parse([]byte(d.text()), strictjson.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err = unmark(v); err != nil {
		t.Fatal(err)
	}
	return string(v.AppendJSON(nil))
}
