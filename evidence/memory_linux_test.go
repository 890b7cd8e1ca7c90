//go:build linux && !race

package evidence

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// How many records TestBoundedMemory has, and beside them a quarter of that.
var memoryRecords = flag.Int("records", 0, "records of the log whose bundle is written and verified in a bounded memory")

// What a record may cost in memory, measured over enough of them that no cache still
// fills. Writing keeps nothing of it: what is allowed is for the noise of the collector
// of garbage. Verifying keeps name and place of its file, its leaf hash, and the ids by
// which records name each other; the collector takes up to as much again. A record of
// these takes 2,800 bytes in the bundle, and four times that in memory once it is read.
const (
	writtenBytes  = 250
	verifiedBytes = 1200
)

// The stream of a log in a file: a kind, a length in four bytes, and the bytes.
const (
	aRecord  = 'r'
	aReceipt = 'j'
)

// memoryChild names what a child of this test is to do, memoryDir where.
const (
	memoryChild = "LINEAL_TEST_MEMORY"
	memoryDir   = "LINEAL_TEST_MEMORY_DIR"
)

// longLog writes the stream of a log: five calls with their outcomes under each
// chain of two hops, which is issued for them. It notes the root after a tenth too.
func longLog(t *testing.T, w *world, records int, out io.Writer) (roots map[int]Hash) {
	t.Helper()
	var f frontier
	put := func(kind byte, b []byte) {
		head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b)))
		if _, err := out.Write(append(head, b...)); err != nil {
			t.Fatal(err)
		}
	}
	roots = map[int]Hash{}
	w.sink = func(leaf []byte) {
		if int(f.size) < records {
			put(aRecord, leaf)
			f.push(LeafHash(leaf))
			roots[int(f.size)] = f.root()
			if int(f.size) != records/4 && int(f.size) != records {
				delete(roots, int(f.size))
			}
		}
	}
	for _, leaf := range w.leaves {
		w.sink(leaf)
	}
	for _, r := range w.receipts {
		put(aReceipt, []byte(r))
	}
	for int(f.size) < records {
		w.issued++
		w.clock, w.chain, w.receipts, w.tokens, w.decided = start+10, nil, nil, nil, nil
		w.issueChain()
		for _, r := range w.receipts {
			put(aReceipt, []byte(r))
		}
		for range 5 {
			w.clock = start + 20
			w.permit()
		}
	}
	return roots
}

// TestBoundedMemory: a bundle of four times as many records takes no more memory to
// write, and to verify no more than some hundred bytes of each record. Each is done
// in a process of its own, whose highest resident size the kernel kept.
func TestBoundedMemory(t *testing.T) {
	if what := os.Getenv(memoryChild); what != "" {
		childOf(t, what, os.Getenv(memoryDir))
		return
	}
	if *memoryRecords == 0 {
		t.Skip("asked for by .ci/bundles: -records")
	}
	if *memoryRecords < 20_000 {
		t.Fatal("so few records say nothing: -records")
	}
	dir := t.TempDir()
	w := newWorld(t)
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	n := *memoryRecords
	for size, root := range longLog(t, w, n, out) {
		w.tree.roots = append(w.tree.roots[:0], make([]Hash, size+1)...)
		w.tree.roots[size] = root
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("note-%d", size)), w.checkpoint(size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		most int64
	}{{"write", writtenBytes}, {"verify", verifiedBytes}} {
		small, _ := peak(t, dir, c.what, n/4)
		large, took := peak(t, dir, c.what, n)
		each := float64(large-small) / float64(n-n/4)
		t.Logf("%s: %d records in %.1f MB, %d in %.1f MB and %s: %.0f bytes a record", c.what, n/4, float64(small)/1e6, n, float64(large)/1e6, took.Round(time.Second/10), each)
		if each > float64(c.most) {
			t.Errorf("%s: %.0f bytes of memory for each record, %d are allowed", c.what, each, c.most)
		}
	}
	st, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%d.zip", n)))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("bundle: %d records, %.1f MB", n, float64(st.Size())/1e6)
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peak runs a child, and gives the most memory that it ever had, in bytes.
func peak(t *testing.T, dir, what string, n int) (int64, time.Duration) {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBoundedMemory$", fmt.Sprintf("-records=%d", n))
	c.Env = append(os.Environ(), memoryChild+"="+what, memoryDir+"="+dir)
	began := time.Now()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
	m := highWater.FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s: no number in\n%s", what, out)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb * 1024, time.Since(began)
}

func childOf(t *testing.T, what, dir string) {
	t.Helper()
	n := *memoryRecords
	w := newWorld(t)
	path := filepath.Join(dir, fmt.Sprintf("%d.zip", n))
	if what == "write" {
		writeLong(t, w, dir, path, n)
	} else {
		r, err := VerifyFile(path, w.policy())
		if err != nil || r.ExitCode() != 0 || r.Finding(Chain).Status != Pass || r.records != n {
			t.Fatalf("%v\n%s", err, text(t, r))
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s\n", highWater.Find(status))
}

// writeLong makes the bundle of the first n records of the stream.
func writeLong(t *testing.T, w *world, dir, path string, n int) {
	t.Helper()
	c := w.contents()
	c.Records, c.Receipts, c.First, c.Consistency, c.To = nil, nil, nil, nil, int64(n)
	note, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("note-%d", n)))
	if err != nil {
		t.Fatal(err)
	}
	c.Last = note
	in, err := os.Open(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBuilder(c, dir)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReaderSize(in, 1<<16)
	for at := int64(0); at < int64(n); {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err = io.ReadFull(r, data); err == nil && head[0] == aReceipt {
			err = b.Receipt(string(data))
		} else if err == nil {
			err = b.Record(Record{at, data})
			at++
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Seal(out), b.Close(), out.Close(), in.Close()); err != nil {
		t.Fatal(err)
	}
}
