package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

// listingOf reads a manifest as [Verify] does.
func listingOf(b []byte) (listing, error) {
	return readListing(sourceOf(b), member{name: manifestFile, size: uint32(len(b))})
}

// filesOf are the files of a listing, and how many it gave.
func filesOf(l listing) (out map[string]string, n int) {
	out = map[string]string{}
	for f := range l.files() {
		out[f.name] = f.hash
		n++
	}
	return out, n
}

// TestManifestInAnotherSpelling: a manifest that is signed, and has other white space
// or another order than Write's, is read whole and is as good.
func TestManifestInAnotherSpelling(t *testing.T) {
	w := newWorld(t)
	for name, spell := range map[string]func(raw []byte) []byte{
		"as written": bytes.Clone,
		"compact": func(raw []byte) []byte {
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		},
		"files first": func(raw []byte) []byte {
			var all map[string]json.RawMessage // which are written by name
			if err := json.Unmarshal(raw, &all); err != nil {
				t.Fatal(err)
			}
			b, err := json.MarshalIndent(all, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := repack(t, bundle(t, w.contents()), func(m map[string][]byte) {
				raw := spell(m[manifestFile])
				sig, err := testSigner(t, manifestID).sign(manifestText(origin, sha256.Sum256(raw)))
				if err != nil {
					t.Fatal(err)
				}
				m[manifestFile], m[manifestNote] = raw, sig
				if l, err := listingOf(raw); err != nil || (l.lines != nil) != (name == "as written") {
					t.Errorf("by lines %t, %v", l.lines != nil, err)
				}
			})
			if r := judged(t, b, w.policy()); r.ExitCode() != 0 {
				t.Error(text(t, r))
			}
		})
	}
}

// FuzzListing: what is read by lines is what the whole manifest says.
func FuzzListing(f *testing.F) {
	m := manifest{
		Version: manifestVersion, Mode: ModeRange, Origin: origin, To: 2, Query: "every\n \"files\": {\n record", Created: "2027-03-09T08:00:00Z",
		Files: map[string]string{"records/0.json": digest(nil), "records/1.json": digest([]byte{1}), lastFile: digest([]byte{2})},
	}
	raw, err := m.bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(bytes.Replace(raw, []byte("records/1"), []byte("records/0"), 1)) // twice
	f.Add(bytes.Replace(raw, []byte("records/1"), []byte(`records\u002f1`), 1))
	f.Add(bytes.Replace(raw, []byte("\n }\n}\n"), []byte("\n },\n \"log\": \"\"\n}\n"), 1))
	f.Add(bytes.Replace(raw, []byte(` "v": 1,`), []byte(" \"v\": 1,\n \"files\": {\n },"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wantErr := parseManifest(b)
		got, err := listingOf(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("by lines %v, whole %v", err, wantErr)
		}
		if err != nil {
			return
		}
		files, n := filesOf(got)
		if n != len(want.Files) || !maps.Equal(files, want.Files) || got.sum != sha256.Sum256(b) {
			t.Fatalf("by lines %v, whole %v", slices.Sorted(maps.Keys(files)), slices.Sorted(maps.Keys(want.Files)))
		}
		want.Files, got.Files = nil, nil
		if got.manifest.Origin != want.Origin || got.Query != want.Query || got.From != want.From || got.To != want.To || got.Mode != want.Mode || got.Created != want.Created {
			t.Fatalf("by lines %+v, whole %+v", got.manifest, want)
		}
	})
}
