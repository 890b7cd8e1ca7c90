package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// TestTilePath holds the examples of C2SP tlog-tiles.
func TestTilePath(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{TilePath(0, 0, 256), "tile/0/000"},
		{TilePath(0, 1234067, 256), "tile/0/x001/x234/067"},
		{TilePath(1, 273, 17), "tile/1/273.p/17"},
		{TilePath(3, 999, 1), "tile/3/999.p/1"},
		{TilePath(0, 1000, 256), "tile/0/x001/000"},
		{BundlePath(999999, 256), "tile/entries/x999/999"},
		{BundlePath(1000000, 255), "tile/entries/x001/x000/000.p/255"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// rfc6962 is the tree hash by its definition, RFC 6962 section 2.1: a second
// opinion that shares no code with tlog.
func rfc6962(entries [][]byte) Hash {
	switch len(entries) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, entries[0]...))
	}
	k := 1
	for 2*k < len(entries) {
		k *= 2
	}
	l, r := rfc6962(entries[:k]), rfc6962(entries[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

// memory collects tiles.
type memory map[string][]byte

func (m memory) put(t *testing.T, files []TileFile) {
	t.Helper()
	for _, f := range files {
		if old, ok := m[f.Path]; ok && !bytes.Equal(old, f.Data) {
			t.Fatalf("%s changed", f.Path)
		}
		m[f.Path] = bytes.Clone(f.Data)
	}
}

func TestFrontierAgainstDefinition(t *testing.T) {
	const n = 1100
	var entries [][]byte
	tiles := memory{}
	f := &frontier{}
	check := map[int]bool{0: true, 1: true, 2: true, 3: true, 255: true, 256: true, 257: true, 511: true, 512: true, 513: true, 1024: true, n: true}
	for i := 0; ; i++ {
		if check[i] {
			got, err := f.root()
			if err != nil || got != rfc6962(entries) {
				t.Fatalf("root of %d: %x, %v", i, got, err)
			}
			tiles.put(t, f.partial())
		}
		if i == n {
			break
		}
		e := []byte(strings.Repeat("x", i%7) + fmt.Sprint(i))
		entries = append(entries, e)
		full, err := f.add(e)
		if err != nil {
			t.Fatal(err)
		}
		tiles.put(t, full)
	}
	// Every tile and every bundle that tlog wants for this tree is there.
	for _, want := range tlog.NewTiles(tileHeight, 0, n) {
		if data, ok := tiles[TilePath(want.L, want.N, want.W)]; !ok || len(data) != want.W*tlog.HashSize {
			t.Errorf("tile %v: %d bytes", want, len(data))
		}
		if want.L > 0 {
			continue
		}
		got, err := ParseBundle(tiles[BundlePath(want.N, want.W)])
		if err != nil || len(got) != want.W {
			t.Fatalf("bundle %d: %d entries, %v", want.N, len(got), err)
		}
		for i, e := range got {
			if !bytes.Equal(e, entries[want.N*tileWidth+int64(i)]) {
				t.Fatalf("bundle %d, entry %d: %q", want.N, i, e)
			}
		}
	}
}

func TestFrontierCloneIsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := &frontier{}
		n := rapid.IntRange(0, 300).Draw(t, "n")
		for i := range n {
			if _, err := f.add([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		before, err := f.root()
		if err != nil {
			t.Fatal(err)
		}
		c := f.clone()
		for i := range rapid.IntRange(1, 300).Draw(t, "more") {
			if _, err := c.add([]byte{byte(i), 1}); err != nil {
				t.Fatal(err)
			}
		}
		after, err := f.root()
		if err != nil || before != after || f.size != int64(n) {
			t.Fatalf("the original changed: %x, %x, %v", before, after, err)
		}
	})
}

func TestBundleRefuses(t *testing.T) {
	for name, bad := range map[string][]byte{
		"cut length": {0}, "cut entry": {0, 3, 'a', 'b'}, "257 entries": bytes.Repeat([]byte{0, 0}, 257),
	} {
		if _, err := ParseBundle(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := AppendBundleEntry(nil, make([]byte, MaxEntry+1)); err == nil {
		t.Error("an oversized entry was bundled")
	}
	if es, err := ParseBundle(bytes.Repeat([]byte{0, 1, 'x'}, 256)); err != nil || len(es) != 256 {
		t.Errorf("256 entries: %d, %v", len(es), err)
	}
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0})
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := ParseBundle(data)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			if again, err = AppendBundleEntry(again, e); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%x became %x", data, again)
		}
	})
}

func testKey(tb testing.TB, origin, seed string) (note.Signer, note.Verifier) {
	tb.Helper()
	h := sha256.Sum256([]byte(seed))
	s, v, err := NewCheckpointKey(origin, ed25519.NewKeyFromSeed(h[:]))
	if err != nil {
		tb.Fatal(err)
	}
	return s, v
}

func TestCheckpointRefuses(t *testing.T) {
	signer, v := testKey(t, "log.example/a", "a")
	good, err := signCheckpoint("log.example/a", 7, Hash{1}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := OpenCheckpoint(good.Note, v); err != nil || c.Size != 7 || c.Root != good.Root || c.Origin != good.Origin {
		t.Fatalf("the twin: %+v, %v", c, err)
	}
	root := strings.Split(string(good.Note), "\n")[2]
	for name, text := range map[string]string{
		"another origin":  "log.example/b\n7\n" + root + "\n",
		"empty origin":    "\n7\n" + root + "\n",
		"leading zero":    "log.example/a\n07\n" + root + "\n",
		"plus":            "log.example/a\n+7\n" + root + "\n",
		"negative":        "log.example/a\n-7\n" + root + "\n",
		"too large":       "log.example/a\n9223372036854775808\n" + root + "\n",
		"short root":      "log.example/a\n7\nAAAA\n",
		"loose base64":    "log.example/a\n7\n" + root[:42] + "B=\n",
		"no root":         "log.example/a\n7\n",
		"a space in size": "log.example/a\n7 \n" + root + "\n",
	} {
		msg, err := note.Sign(&note.Note{Text: text}, signer)
		if err != nil {
			t.Fatal(name, err)
		}
		if c, err := OpenCheckpoint(msg, v); err == nil {
			t.Errorf("%s was accepted: %+v", name, c)
		}
	}
	_, other := testKey(t, "log.example/a", "b")
	if _, err := OpenCheckpoint(good.Note, other); err == nil {
		t.Error("another key verified the checkpoint")
	}
	flipped := bytes.Replace(good.Note, []byte("\n7\n"), []byte("\n8\n"), 1)
	if _, err := OpenCheckpoint(flipped, v); err == nil {
		t.Error("a changed checkpoint verified")
	}
}

func FuzzCheckpointText(f *testing.F) {
	f.Add("log.example/a\n7\nAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Add("o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nextension\n")
	signer, v := testKey(f, "log.example/a", "a")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCheckpointText(text)
		if err != nil || c.Origin != v.Name() {
			return
		}
		again, err := signCheckpoint(c.Origin, c.Size, c.Root, signer)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(text, string(again.Note[:bytes.Index(again.Note, []byte("\n\n"))+1])) {
			t.Fatalf("%q is another form of %q", text, again.Note)
		}
	})
}

// TestO4KeyIsNotPrinted: the checkpoint key stays out of every format.
func TestO4KeyIsNotPrinted(t *testing.T) {
	s, _ := testKey(t, "log.example/a", "canary")
	seed := sha256.Sum256([]byte("canary"))
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		out := fmt.Sprintf(format, s)
		if strings.Contains(out, fmt.Sprint(seed[:4])[1:8]) || !strings.Contains(out, "log.example/a") {
			t.Errorf("%s prints %s", format, out)
		}
	}
}
