package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// TestO4StandingRedacts: the token that a callback rests on is in its seal and
// prints nowhere.
func TestO4StandingRedacts(t *testing.T) {
	s := Standing{token: "aaaa.bbbb.cccc", call: uuid.Must(uuid.NewV7()).String()}
	text, err := json.Marshal(Caller{Standing: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s", s, s, s, s), string(text), s.LogValue().String()} {
		if strings.Contains(printed, "bbbb") {
			t.Errorf("prints %s", printed)
		}
	}
	sealed, err := s.AppendSealed(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseSealed(sealed); err != nil || got != s {
		t.Errorf("comes back as another: %v", err)
	}
	if _, err := (Standing{}).AppendSealed(nil); err == nil {
		t.Error("the authority of nobody is sealed")
	}
}

// FuzzN1ParseSealed: nothing makes the reader of seals take more than a token is
// long, and what it reads it would write again.
func FuzzN1ParseSealed(f *testing.F) {
	good, err := Standing{token: "aaaa.bbbb.cccc", call: uuid.Must(uuid.NewV7()).String()}.AppendSealed(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSealed(b)
		if err != nil {
			return
		}
		again, err := s.AppendSealed(nil)
		if err != nil {
			t.Fatalf("%q is read, and not written: %v", b, err)
		}
		if got, err := ParseSealed(again); err != nil || got != s {
			t.Fatalf("%q reads to another (%v)", b, err)
		}
	})
}
