package evidence

import (
	"strings"
	"testing"
)

func TestValidRange(t *testing.T) {
	w := newWorld(t)
	r := Verify(bundle(t, w.contents()), w.policy())
	t.Log("\n" + text(t, r))
	if r.ExitCode() != 0 {
		t.Fatal("not valid")
	}
	for _, f := range r.Findings() {
		if f.Status == NotProven {
			t.Errorf("%s is not proven", f.Dimension)
		}
	}
	_ = strings.Contains
}
