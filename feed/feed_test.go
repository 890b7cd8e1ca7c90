package feed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/feed"
	"github.com/lineal-auth/lineal/internal/scenario"
	"github.com/lineal-auth/lineal/record"
)

const origin = "ledger.example/std/2026-10"

// log is a log of generated records.
type log struct {
	origin string
	bulk   *scenario.Bulk
	size   int64 // published
	kept   int64 // entries before it are gone
	other  bool  // its records are others than the index says
}

func newLog(t testing.TB, size int64) *log {
	t.Helper()
	b, err := scenario.NewBulk((size+9)/10+1, 3, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	return &log{origin: origin, bulk: b, size: size}
}

func (l *log) State(_ context.Context, origin string) (feed.State, error) {
	if origin != "" && origin != l.origin {
		return feed.State{}, feed.ErrOtherLog
	}
	return feed.State{Origin: l.origin, Size: l.size}, nil
}

func (l *log) Read(ctx context.Context, _ string, from, to int64) iter.Seq2[feed.Payload, error] {
	return func(yield func(feed.Payload, error) bool) {
		for i := from; i < min(to, l.size); i++ {
			if i < l.kept {
				yield(feed.Payload{}, feed.ErrNotKept)
				return
			}
			at := i
			if l.other {
				at++
			}
			if !yield(feed.Payload{Index: i, Bytes: l.bulk.Payload(at)}, ctx.Err()) {
				return
			}
		}
	}
}

// receiver keeps what it was sent, and fails as fail says.
type receiver struct {
	got     []export.Entry
	batches []int
	fail    func(b feed.Batch) error // nil error: keep and acknowledge
	lie     func() bool              // keep, and do not acknowledge
}

func (r *receiver) Deliver(_ context.Context, b feed.Batch) error {
	r.batches = append(r.batches, len(b.Entries))
	if r.fail != nil {
		if err := r.fail(b); err != nil {
			return err
		}
	}
	r.got = append(r.got, b.Entries...)
	if r.lie != nil && r.lie() {
		return errors.New("the answer was lost")
	}
	return nil
}

func (r *receiver) Close() error { return nil }

// firsts are the indexes in the order in which each came first.
func (r *receiver) firsts() (out []int64) {
	seen := make(map[int64]bool)
	for _, e := range r.got {
		if !seen[e.Index] {
			seen[e.Index] = true
			out = append(out, e.Index)
		}
	}
	return out
}

func checkAll(t testing.TB, got []int64, from, to int64) {
	t.Helper()
	if int64(len(got)) != to-from {
		t.Fatalf("%d records came, want %d", len(got), to-from)
	}
	for i, index := range got {
		if index != from+int64(i) {
			t.Fatalf("record %d came where %d was due", index, from+int64(i))
		}
	}
}

func config(src feed.Source, sink feed.Sink, c feed.Cursor) feed.Config {
	return feed.Config{
		Name: "test", Source: src, Sink: sink, Cursor: c, Now: func() time.Time { return time.Unix(1800000000, 0) },
		Poll: time.Microsecond, Backoff: time.Nanosecond, MaxBackoff: time.Microsecond,
	}
}

func drain(t testing.TB, cfg feed.Config) error {
	t.Helper()
	f, err := feed.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return f.Drain(ctx)
}

func cursor(t testing.TB, path string) *feed.FileCursor {
	t.Helper()
	c, err := feed.OpenCursor(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryIndexArrivesInOrder: whatever is refused, lost on the way back or
// stopped in between, each index arrives, and first in order.
func TestEveryIndexArrivesInOrder(t *testing.T) {
	l := newLog(t, 20)
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		rnd := rand.New(rand.NewPCG(seed, 1))
		resend := rapid.Int64Range(0, 8).Draw(t, "resend")
		batch := rapid.IntRange(1, 8).Draw(t, "batch")
		r, c := &receiver{}, &feed.Forgotten{} // what one process saved the next one loads
		for rounds := 0; ; rounds++ {
			ctx, stop := context.WithCancel(context.Background())
			left := rnd.IntN(6)
			r.fail = func(feed.Batch) error {
				if left--; left < 0 && rounds < 8 {
					stop() // the process ends, here before the receiver has it …
					return ctx.Err()
				}
				if rnd.IntN(4) == 0 {
					return &feed.RefusedError{Reason: "no", TooMuch: rnd.IntN(2) == 0}
				}
				return nil
			}
			r.lie = func() bool {
				if rnd.IntN(10) == 0 && rounds < 8 {
					stop() // … and here after it
					return true
				}
				return rnd.IntN(4) == 0
			}
			cfg := config(l, r, c)
			cfg.Resend, cfg.Batch = resend, batch
			f, err := feed.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Drain(ctx)
			stop()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		got := r.firsts()
		if len(got) != 20 {
			t.Fatalf("%d of 20 came", len(got))
		}
		for i, index := range got {
			if index != int64(i) {
				t.Fatalf("record %d came where %d was due", index, i)
			}
		}
		for _, n := range r.batches {
			if n > batch {
				t.Fatalf("a batch of %d, %d at most", n, batch)
			}
		}
	})
}

// TestResendCoversWhatAReceiverLost: a receiver that acknowledged, died with what
// it had and then refuses, gets the window again.
func TestResendCoversWhatAReceiverLost(t *testing.T) {
	for _, resend := range []int64{0, 30} {
		failed := false
		r := &receiver{}
		r.fail = func(b feed.Batch) error {
			if b.First() == 50 && !failed {
				failed = true
				r.got = r.got[:30] // what it had not written yet
				return errors.New("connection refused")
			}
			return nil
		}
		cfg := config(newLog(t, 100), r, &feed.Forgotten{})
		cfg.Resend, cfg.Batch = resend, 10
		if err := drain(t, cfg); err != nil {
			t.Fatal(err)
		}
		if all := len(r.firsts()) == 100; all != (resend == 30) {
			t.Errorf("resend %d: %d records came", resend, len(r.firsts()))
		}
	}
}

// TestCursorOfAnotherLog: a feed does not go on where what it sent is not what
// the log has.
func TestCursorOfAnotherLog(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*log)
		want   error
	}{
		"the same, longer": {func(l *log) { l.size = 80 }, nil},
		"another origin":   {func(l *log) { l.origin += "-02" }, feed.ErrOtherLog},
		"shorter":          {func(l *log) { l.size = 40 }, feed.ErrOtherLog},
		"another entry":    {func(l *log) { l.other = true }, feed.ErrOtherLog},
		"not kept":         {func(l *log) { l.size, l.kept = 80, 60 }, feed.ErrNotKept},
		"kept from here":   {func(l *log) { l.size, l.kept = 80, 50 }, nil},
	} {
		path := filepath.Join(t.TempDir(), "cursor")
		c, l, r := cursor(t, path), newLog(t, 50), &receiver{}
		if err := drain(t, config(l, r, c)); err != nil {
			t.Fatal(err)
		}
		tc.change(l)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = cursor(t, path)
		if err := drain(t, config(l, r, c)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if tc.want == nil {
			checkAll(t, r.firsts(), 0, 80)
		} else if len(r.got) != 50 {
			t.Errorf("%s: %d records came", name, len(r.got))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCursorIsOfOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cursor")
	c := cursor(t, path)
	if _, err := feed.OpenCursor(path); !errors.Is(err, feed.ErrInUse) {
		t.Fatalf("a second one: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cursor(t, path).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedCursor: what cannot be read is not taken for a new feed, which
// would send everything again, or from the wrong place.
func TestDamagedCursor(t *testing.T) {
	for _, text := range []string{"", "{}", `{"v":2,"position":{"origin":"a","next":1,"tail":"","first":0}}`, `{"v":1,"position":{"origin":"","next":1,"tail":"","first":0}}`} {
		path := filepath.Join(t.TempDir(), "cursor")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := drain(t, config(newLog(t, 10), &receiver{}, cursor(t, path))); !errors.Is(err, feed.ErrCursor) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestKinds: records of other kinds are passed over, and not looked at again.
func TestKinds(t *testing.T) {
	r, c := &receiver{}, &feed.Forgotten{}
	cfg := config(newLog(t, 200), r, c)
	cfg.Kinds = []record.Kind{record.KindIssuance}
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	if len(r.got) != 40 { // two of ten
		t.Errorf("%d records came", len(r.got))
	}
	for _, e := range r.got {
		if e.Record.Kind != record.KindIssuance {
			t.Errorf("a record of kind %s came", e.Record.Kind)
		}
	}
	if at, _ := c.Load(); at.Next != 200 {
		t.Errorf("the cursor stands at %d", at.Next)
	}
}

func TestFromTheEnd(t *testing.T) {
	r, c, l := &receiver{}, &feed.Forgotten{}, newLog(t, 100)
	cfg := config(l, r, c)
	cfg.FromEnd = true
	if err := drain(t, cfg); err != nil || len(r.got) != 0 {
		t.Fatalf("%d records came: %v", len(r.got), err)
	}
	l.size = 120
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	checkAll(t, r.firsts(), 100, 120)
}

// TestBatchIsBounded by bytes as well as by records.
func TestBatchIsBounded(t *testing.T) {
	r := &receiver{}
	cfg := config(newLog(t, 100), r, &feed.Forgotten{})
	cfg.BatchBytes = 1
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	for _, n := range r.batches {
		if n != 1 {
			t.Fatalf("a batch of %d", n)
		}
	}
	checkAll(t, r.firsts(), 0, 100)
}

// TestRunEndsWithItsContext, and follows what is published meanwhile.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := &growing{log: newLog(t, 100)}
	r := &receiver{}
	r.fail = func(b feed.Batch) error {
		if b.Last() == 99 {
			cancel()
		}
		return nil
	}
	f, err := feed.New(config(l, r, &feed.Forgotten{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	checkAll(t, r.firsts(), 0, 100)
}

// growing is a log of which each look sees more.
type growing struct {
	*log
	seen int64
}

func (g *growing) State(context.Context, string) (feed.State, error) {
	g.seen = min(g.seen+7, g.size)
	return feed.State{Origin: g.origin, Size: g.seen}, nil
}

// periods is a log in several periods, which the last of origins is open of.
type periods struct {
	*log
	origins []string
	sizes   []int64
	lost    bool // all but the open one lost their ends
}

func (p *periods) State(_ context.Context, origin string) (feed.State, error) {
	at := slices.Index(p.origins, origin)
	if origin == "" {
		at = len(p.origins) - 1
	}
	if at < 0 {
		return feed.State{}, feed.ErrOtherLog
	}
	s := feed.State{Origin: p.origins[at], Size: p.sizes[at]}
	if at+1 < len(p.origins) {
		s.Next, s.Lost = p.origins[at+1], p.lost
	}
	return s, nil
}

// TestFeedGoesOnInTheNextPeriod, over one that it has never seen open.
func TestFeedGoesOnInTheNextPeriod(t *testing.T) {
	r, c := &receiver{}, &feed.Forgotten{}
	p := &periods{log: newLog(t, 100), origins: []string{"l/2026-10"}, sizes: []int64{30}}
	cfg := config(p, r, c)
	cfg.Batch = 8
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	p.origins, p.sizes = []string{"l/2026-10", "l/2026-11", "l/2026-12"}, []int64{33, 1, 20}
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range r.got {
		got = append(got, fmt.Sprintf("%s %d", e.Origin, e.Index))
	}
	var want []string
	for i, o := range p.origins {
		for n := range p.sizes[i] {
			want = append(want, fmt.Sprintf("%s %d", o, n))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	p.origins, p.sizes = p.origins[:2], p.sizes[:2]
	if err := drain(t, cfg); !errors.Is(err, feed.ErrOtherLog) {
		t.Errorf("a period that is gone: %v", err)
	}
}

// TestFeedBehindALostEnd: a feed that has sent more of a period than there is, since
// the database was set back, goes on in the next one, and sends nothing twice.
func TestFeedBehindALostEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cursor")
	for _, lost := range []bool{false, true} {
		r, c := &receiver{}, cursor(t, path)
		p := &periods{log: newLog(t, 100), origins: []string{"l/2026-11"}, sizes: []int64{30}}
		err := drain(t, config(p, r, c))
		p.origins, p.sizes, p.lost = []string{"l/2026-11", "l/2026-12"}, []int64{20, 5}, lost
		if err := errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		c = cursor(t, path)
		if err := drain(t, config(p, r, c)); errors.Is(err, feed.ErrOtherLog) == lost {
			t.Errorf("lost %v: %v", lost, err)
		}
		if want := map[bool]int{false: 30, true: 35}[lost]; len(r.got) != want {
			t.Errorf("lost %v: %d records came, want %d", lost, len(r.got), want)
		}
		if err := errors.Join(c.Close(), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func fileLines(t *testing.T, path string) (indexes []int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var got struct {
			Index int64 `json:"index"`
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		indexes = append(indexes, got.Index)
	}
	return indexes
}

// TestFileHasNoHalfLine: what a crash left is cut off, and comes again.
func TestFileHasNoHalfLine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "records.jsonl")
	l := newLog(t, 20)
	c := &feed.Forgotten{}
	cfg := config(l, &feed.File{Path: path, Encode: export.Line}, c)
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, append(bytes.Clone(whole), whole[:cut]...), 0o600); err != nil {
			t.Fatal(err)
		}
		before := 20 + bytes.Count(whole[:cut], []byte("\n"))
		l.size++
		if err := drain(t, cfg); err != nil {
			t.Fatal(err)
		}
		got := fileLines(t, path)
		if len(got) != before+1 || got[len(got)-1] != l.size-1 {
			t.Errorf("cut at %d: %d lines, the last is %d", cut, len(got), got[len(got)-1])
		}
	}
	if err := os.Rename(path, path+".1"); err != nil { // rotated
		t.Fatal(err)
	}
	l.size++
	if err := drain(t, cfg); err != nil {
		t.Fatal(err)
	}
	if got := fileLines(t, path); len(got) != 1 || got[0] != l.size-1 {
		t.Errorf("after the rotation: %v", got)
	}
}

func ExampleFollower() {
	b, err := scenario.NewBulk(1, 1, 1, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := feed.New(feed.Config{
		Name: "siem", Source: &log{origin: origin, bulk: b, size: b.Size()}, Cursor: &feed.Forgotten{},
		Sink: &receiver{}, Now: time.Now,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Drain(context.Background()), f.Next())
	// Output: <nil> 10
}

// contextUntil ends when done says so, or after half a minute.
func contextUntil(t *testing.T, done func() bool) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		for ctx.Err() == nil && !done() {
			time.Sleep(time.Millisecond)
		}
	})
	t.Cleanup(wg.Wait)
	return ctx, cancel
}
