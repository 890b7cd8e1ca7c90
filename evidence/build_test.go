package evidence

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// build is bundle by a [Builder] that works on disk.
func build(t testing.TB, c Contents, dir string) []byte {
	t.Helper()
	b, err := NewBuilder(c, dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(b.Seal(&out), b.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestBuilderWritesTheSame: on disk and in memory, given at once or one by one, a
// bundle has the same bytes, and nothing stays on disk.
func TestBuilderWritesTheSame(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.permit()
		w.deny()
	}
	c := w.contents()
	c.Exchanges = [][]byte{[]byte("b"), []byte("a")}
	dir := t.TempDir()
	want := bundle(t, c)
	if !bytes.Equal(build(t, c, dir), want) {
		t.Error("on disk it has other bytes")
	}
	rest := c
	rest.Records, rest.Receipts, rest.Policies, rest.Disclosures, rest.Exchanges = nil, nil, nil, nil, nil
	b, err := NewBuilder(rest, dir)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(b.Exchange(c.Exchanges[1]), b.Exchange(c.Exchanges[0]), b.Exchange(c.Exchanges[0]), b.Policy(c.Policies[0]), b.Disclosure(c.Disclosures[0]))
	for _, r := range c.Records {
		err = errors.Join(err, b.Record(r))
	}
	for _, r := range slices.Backward(c.Receipts) {
		err = errors.Join(err, b.Receipt(r), b.Receipt(r))
	}
	var out bytes.Buffer
	if err := errors.Join(err, b.Seal(&out), b.Close()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Error("one by one it has other bytes")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v stays, %v", left, err)
	}
}

// TestBuilderRefuses: what no bundle can hold is refused when it is given.
func TestBuilderRefuses(t *testing.T) {
	w := newWorld(t)
	for name, give := range map[string]func(b *Builder) error{
		"a record before the last": func(b *Builder) error { return b.Record(Record{1, w.leaves[1]}) },
		"no record":                func(b *Builder) error { return b.Record(Record{-1, w.leaves[1]}) },
		"no receipt":               func(b *Builder) error { return b.Receipt("x") },
		"no digest":                func(b *Builder) error { return b.Policy(PolicyBundle{"x", nil}) },
		"no disclosure":            func(b *Builder) error { return b.Disclosure("x") },
		"pruned twice":             func(b *Builder) error { return errors.Join(b.Gone(4, Hash{}), b.Gone(4, Hash{})) },
	} {
		b, err := NewBuilder(w.contents(), "")
		if err != nil {
			t.Fatal(err)
		}
		if give(b) == nil {
			t.Errorf("%s is taken", name)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	twice := w.contents()
	twice.Records = append(twice.Records, twice.Records[2])
	none := w.contents()
	none.Last = nil
	for name, c := range map[string]Contents{"a record twice": twice, "no checkpoint": none} {
		if Write(io.Discard, c) == nil {
			t.Errorf("%s is written", name)
		}
	}
}

// full is a disk on which so many bytes have room.
type full struct{ room int }

var errFull = errors.New("no room")

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestBuilderSaysThatTheDiskIsFull: wherever the room ends, Seal says so.
func TestBuilderSaysThatTheDiskIsFull(t *testing.T) {
	c := newWorld(t).contents()
	whole := len(bundle(t, c))
	for room := 0; room < whole; room += 997 {
		if err := Write(&full{room}, c); !errors.Is(err, errFull) {
			t.Errorf("room for %d of %d bytes: %v", room, whole, err)
		}
	}
	if err := Write(&full{whole}, c); err != nil {
		t.Errorf("room for all: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := NewBuilder(c, missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
}

// TestSorter: on disk and in memory, rows come by key, and of one key as they were
// added, twice over.
func TestSorter(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		type pair struct{ key, value string }
		var want []pair
		disk := rapid.Bool().Draw(t, "disk")
		where := ""
		if disk {
			where = dir
		}
		s, err := newSorter(where)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(0, 60).Draw(t, "rows") {
			key := rapid.StringMatching(`[a-c./]{0,3}`).Draw(t, "key")
			p := pair{key, fmt.Sprint(i)}
			want = append(want, p)
			if err := s.add(p.key, []byte(p.value)); err != nil {
				t.Fatal(err)
			}
			if disk && rapid.IntRange(0, 9).Draw(t, "spill") == 0 {
				if err := s.spill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		slices.SortStableFunc(want, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
		for range 2 {
			var got []pair
			for r, err := range s.rows() {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, pair{r.key, string(r.value)})
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v, want %v", got, want)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	})
}

var large = flag.Bool("large", false, "test a container of more than 4 GiB")

// zeros are so many of them, as fast as they can be had.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sparse writes a file of which long runs of zeros take no room.
type sparse struct {
	f     *os.File
	at    int64
	zeros [1 << 16]byte
}

func (s *sparse) Write(p []byte) (n int, err error) {
	if n = len(p); n > len(s.zeros) || !bytes.Equal(p, s.zeros[:n]) {
		n, err = s.f.WriteAt(p, s.at)
	}
	s.at += int64(n)
	return n, err
}

// TestContainerBeyond4GiB: places that 32 bits cannot say are where ZIP has them, and
// both the standard library and the verifier find the files.
func TestContainerBeyond4GiB(t *testing.T) {
	if !*large {
		t.Skip("reads gigabytes: -large")
	}
	const each, n = 1<<31 + 1<<20, 2
	f, err := os.Create(filepath.Join(t.TempDir(), "large.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	crc := crc32.NewIEEE()
	if _, err := io.Copy(crc, zeros(each)); err != nil {
		t.Fatal(err)
	}
	to := &sparse{f: f}
	c := newContainer(to, &scratch{})
	for i := range n {
		if err := c.add(fmt.Sprintf("records/%d", i), each, crc.Sum32(), zeros(each)); err != nil {
			t.Fatal(err)
		}
	}
	last := []byte("the last one")
	if err := errors.Join(c.add("report.json", int64(len(last)), crc32.ChecksumIEEE(last), bytes.NewReader(last)), c.finish()); err != nil {
		t.Fatal(err)
	}
	if err := c.add("too large", math.MaxUint32, 0, zeros(0)); err == nil {
		t.Error("a file of 4 GiB is written")
	}
	z, err := zip.NewReader(f, to.at)
	if err != nil || len(z.File) != n+1 {
		t.Fatalf("the standard library: %v", err)
	}
	r, err := z.File[n].Open()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, last) {
		t.Errorf("the standard library reads %q, %v", got, err)
	}
	src := &source{r: f, size: to.at}
	files, err := readContainer(src)
	if err != nil || len(files) != n+1 || !bytes.Equal(src.data(files[n]), last) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if err := checkContainer(src, files); err != nil {
		t.Error(err)
	}
}
