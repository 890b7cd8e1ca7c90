package evidence

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func pack(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeContainer(&b, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack reads a container as [Verify] does, and checks it.
func unpack(b []byte) ([]file, error) {
	src := sourceOf(b)
	members, err := readContainer(src)
	if err == nil {
		err = checkContainer(src, members)
	}
	var files []file
	for _, m := range members {
		files = append(files, file{m.name, src.data(m)})
	}
	return files, errors.Join(err, src.err)
}

func small() []file {
	return []file{
		{"records/0.json", []byte("first")}, {manifestNote, []byte("sig")}, {manifestFile, []byte("{}")}, {"records/1.json", nil},
	}
}

// TestContainerIsZip reads the container with the standard library, which also
// checks checksums.
func TestContainerIsZip(t *testing.T) {
	b := pack(t, small()...)
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		got[f.Name] = string(data)
	}
	for _, f := range small() {
		want[f.name] = string(f.data)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

// TestContainerOfManyFiles has more files than a plain directory can count.
func TestContainerOfManyFiles(t *testing.T) {
	const n = 65_540
	files := make([]file, n)
	for i := range files {
		files[i] = file{fmt.Sprintf("records/%d.json", i), []byte{byte(i)}}
	}
	b := pack(t, files...)
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(z.File) != n {
		t.Fatalf("the standard library reads %d files, %v", len(z.File), err)
	}
	back, err := unpack(b)
	if err != nil || len(back) != n {
		t.Fatalf("%d files, %v", len(back), err)
	}
}

func TestContainerOrder(t *testing.T) {
	files, err := unpack(pack(t, small()...))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.name)
	}
	if got := strings.Join(names, " "); got != "manifest.json manifest.sig records/0.json records/1.json" {
		t.Fatal(got)
	}
}

// TestL4ContainerEveryByte flips every bit of a container, cuts it at every
// place and adds to it: the check must notice each, and say where, unless the
// change lies in the data of a file, which then differs.
func TestL4ContainerEveryByte(t *testing.T) {
	b := pack(t, small()...)
	check := func(what string, changed []byte) {
		t.Helper()
		_, err := unpack(changed)
		if err == nil || err.Error() == "" {
			t.Fatalf("%s: not noticed", what)
		}
	}
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			check(fmt.Sprintf("byte %d bit %d", i, bit), c)
		}
		check(fmt.Sprintf("cut at %d", i), b[:i])
		check(fmt.Sprintf("byte %d doubled", i), append(append(bytes.Clone(b[:i]), b[i]), b[i:]...))
	}
	check("appended", append(bytes.Clone(b), 0))
	check("prepended", append([]byte{0}, b...))
	check("twice", append(bytes.Clone(b), b...))
}

func TestContainerRefusesTwins(t *testing.T) {
	var b bytes.Buffer
	if err := writeContainer(&b, []file{{"a", nil}, {"a", []byte("x")}}); err == nil {
		t.Fatal("two files with one name are written")
	}
	if err := writeContainer(&b, []file{{strings.Repeat("a", 256), nil}}); err == nil {
		t.Fatal("an overlong name is written")
	}
}

func FuzzContainer(f *testing.F) {
	var b bytes.Buffer
	if err := writeContainer(&b, small()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := unpack(b)
		if err != nil {
			return
		}
		// What passes is exactly what the writer writes.
		if got := pack(t, files...); !bytes.Equal(got, b) {
			t.Fatal("accepted, but written otherwise")
		}
	})
}
