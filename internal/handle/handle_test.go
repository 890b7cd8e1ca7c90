package handle

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func box(t testing.TB, secret byte, at time.Time) *Box {
	t.Helper()
	b, err := New(bytes.Repeat([]byte{secret}, KeySize), func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// TestOpen: a seal opens for what it is about, on its day and the next, with
// the same secret, and in no other case.
func TestOpen(t *testing.T) {
	sealed, err := box(t, 1, noon).Seal("session of /mcp/a", []byte("upstream's"))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := box(t, 1, noon).Seal("session of /mcp/a", []byte("upstream's")); again == sealed {
		t.Error("two seals of the same are equal")
	}
	for name, c := range map[string]struct {
		secret byte
		about  string
		at     time.Time
		sealed string
		ok     bool
	}{
		"same":                   {1, "session of /mcp/a", noon, sealed, true},
		"next day":               {1, "session of /mcp/a", noon.Add(24 * time.Hour), sealed, true},
		"the day after":          {1, "session of /mcp/a", noon.Add(48 * time.Hour), sealed, false},
		"before it was made":     {1, "session of /mcp/a", noon.Add(-24 * time.Hour), sealed, false},
		"another secret":         {2, "session of /mcp/a", noon, sealed, false},
		"another route":          {1, "session of /mcp/b", noon, sealed, false},
		"another kind":           {1, "state of /mcp/a", noon, sealed, false},
		"no seal":                {1, "session of /mcp/a", noon, "upstream's", false},
		"empty":                  {1, "session of /mcp/a", noon, "", false},
		"prefix alone":           {1, "session of /mcp/a", noon, "ln1.", false},
		"no ciphertext":          {1, "session of /mcp/a", noon, sealed[:12], false},
		"cut":                    {1, "session of /mcp/a", noon, sealed[:len(sealed)-4], false},
		"longer":                 {1, "session of /mcp/a", noon, sealed + "AAAA", false},
		"padded":                 {1, "session of /mcp/a", noon, sealed + "=", false},
		"with a newline":         {1, "session of /mcp/a", noon, sealed[:20] + "\n" + sealed[20:], false},
		"another of its letters": {1, "session of /mcp/a", noon, strings.Replace(sealed, sealed[30:31], other(sealed[30]), 1), false},
	} {
		plain, err := box(t, c.secret, c.at).Open(c.about, c.sealed)
		if (err == nil) != c.ok || (c.ok && string(plain) != "upstream's") || (!c.ok && !errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
	}
}

func other(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(make([]byte, 31), time.Now); err == nil {
		t.Error("a short secret")
	}
	if _, err := New(make([]byte, KeySize), nil); err == nil {
		t.Error("no clock")
	}
}

// FuzzOpen: nobody's string opens but the one that was sealed, which is a
// constant here because each process of a fuzzing run seals another.
func FuzzOpen(f *testing.F) {
	const sealed = "ln1.AABRLK0XgOfdN57yCNBuqU0sivL_KTdJ5Dp9UZhk-9Cc"
	b := box(f, 1, noon)
	if plain, err := b.Open("x", sealed); err != nil || string(plain) != "y" {
		f.Fatalf("%q, %v", plain, err)
	}
	f.Add(sealed)
	f.Add("ln1.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if plain, err := b.Open("x", s); err == nil && s != sealed {
			t.Fatalf("%q opens as %q", s, plain)
		}
	})
}
