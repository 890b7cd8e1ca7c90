package sqlscope

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/scope"
)

// pool stands for the library's: instances in FIFO order. One that hears BREAK
// refuses good texts from then on, and one that hears PANIC panics.
type pool struct {
	mu   sync.Mutex
	fifo []*instance
}

type instance struct{ broken bool }

func (p *pool) parse(t testing.TB) func(string) ([]byte, error) {
	tree := func(sql string) []byte {
		r := reader(t)
		b, err := r.engine.read(context.Background(), r.now, r.log, sql)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	trees := map[string][]byte{probeText: tree(probeText), probePrint: tree(probePrint), base: tree(base)}
	return func(sql string) ([]byte, error) {
		p.mu.Lock()
		in := new(instance)
		if len(p.fifo) > 0 {
			in, p.fifo = p.fifo[0], p.fifo[1:]
		}
		p.mu.Unlock()
		defer func() {
			p.mu.Lock()
			p.fifo = append(p.fifo, in)
			p.mu.Unlock()
		}()
		if strings.Contains(sql, "PANIC") {
			panic("wasm error: out of bounds memory access")
		}
		in.broken = in.broken || strings.Contains(sql, "BREAK")
		if in.broken || trees[sql] == nil {
			return nil, errors.New(`syntax error at or near "1"`)
		}
		return trees[sql], nil
	}
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func pooled(t testing.TB, k int) (*Reader, *clock, *bytes.Buffer) {
	t.Helper()
	p := new(pool)
	parse := p.parse(t)
	e, err := newEngine(k, parse)
	if err != nil {
		t.Fatal(err)
	}
	for range k - len(p.fifo) { // a fake call is too short to meet another
		p.fifo = append(p.fifo, new(instance))
	}
	log := new(bytes.Buffer)
	c := &clock{at: time.Unix(1_800_000_000, 0)}
	return newReader(Config{Now: c.now, Logger: slog.New(slog.NewTextHandler(log, nil))}, e), c, log
}

func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func ask(t *testing.T, r *Reader, sql string, want Code) {
	t.Helper()
	if _, err := r.Read(t.Context(), sql); codeOf(err) != want {
		t.Errorf("%q: %v, want code %q", sql, err, want)
	}
}

// TestN1PanicBreaks: after a panic nothing is read again; after a syntax error
// everything is.
func TestN1PanicBreaks(t *testing.T) {
	r, c, log := pooled(t, 2)
	ask(t, r, "SELEC", CodeSyntax)
	c.advance(time.Hour)
	ask(t, r, probeText, "")
	if r.Err() != nil || log.Len() > 0 {
		t.Fatalf("a syntax error broke it: %v, %s", r.Err(), log)
	}
	ask(t, r, "PANIC", CodeUnavailable)
	c.advance(time.Hour)
	ask(t, r, probeText, CodeUnavailable)
	if codeOf(r.Err()) != CodeUnavailable || !strings.Contains(log.String(), "until restart") {
		t.Errorf("error %v, log %q", r.Err(), log)
	}
}

// TestN1BrokenInstance: an instance that broke without a panic is found by a
// probe of all, at most once a second, and then nothing is read again.
func TestN1BrokenInstance(t *testing.T) {
	r, c, log := pooled(t, 3)
	ask(t, r, "SELEC", CodeSyntax)
	ask(t, r, base, CodeSyntax) // the fake knows no canonical form of it; this probed
	ask(t, r, "BREAK", CodeSyntax)
	if r.Err() != nil {
		t.Fatal("broken without a probe")
	}
	ask(t, r, probeText, "") // too early for the next probe, and another instance
	c.advance(probeEvery)
	ask(t, r, probeText, CodeUnavailable)
	if r.Err() == nil || !strings.Contains(log.String(), "probe") {
		t.Errorf("error %v, log %q", r.Err(), log)
	}
}

// TestN1ClockBack: a clock that is set back does not stop the probes.
func TestN1ClockBack(t *testing.T) {
	r, c, _ := pooled(t, 1)
	ask(t, r, "SELEC", CodeSyntax)
	ask(t, r, probeText, "")
	c.advance(-time.Hour)
	ask(t, r, "BREAK", CodeSyntax)
	ask(t, r, probeText, CodeUnavailable)
}

// TestContext: who no longer waits is refused, and takes no slot along.
func TestContext(t *testing.T) {
	r, _, _ := pooled(t, 2)
	if err := r.engine.take(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Read(ctx, probeText); codeOf(err) != CodeUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	r.engine.dirty.Store(true)
	r.engine.give(1)
	if _, err := r.Read(ctx, probeText); codeOf(err) != CodeUnavailable {
		t.Errorf("%v", err)
	}
	r.engine.give(1)
	ask(t, r, probeText, "")
	if len(r.engine.slots) != cap(r.engine.slots) {
		t.Errorf("%d slots of %d", len(r.engine.slots), cap(r.engine.slots))
	}
}

// TestNewEngine: a parser that answers wrongly is not used.
func TestNewEngine(t *testing.T) {
	good := new(pool).parse(t)
	n := 0
	for name, parse := range map[string]func(string) ([]byte, error){
		"error":          func(string) ([]byte, error) { return nil, errors.New("no") },
		"panic":          func(string) ([]byte, error) { panic("no") },
		"nothing":        func(string) ([]byte, error) { return nil, nil },
		"another answer": func(string) ([]byte, error) { return good(base) },
		"answers that differ": func(sql string) ([]byte, error) {
			b, err := good(sql)
			if n++; n == 2 { // a version that nobody reads
				b = append([]byte{0x08, 0x01}, b[bytes.IndexByte(b, 0x12):]...)
			}
			return b, err
		},
	} {
		k := 1
		if name == "answers that differ" {
			k = 2
			parse = serial(parse)
		}
		if _, err := newEngine(k, parse); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := newEngine(2, good); err != nil {
		t.Errorf("twin: %v", err)
	}
}

func serial(parse func(string) ([]byte, error)) func(string) ([]byte, error) {
	var mu sync.Mutex
	return func(sql string) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		return parse(sql)
	}
}

// TestConcurrent: many callers share the instances, with probes in between.
func TestConcurrent(t *testing.T) {
	r := newReader(Config{Now: new(clock).now}, reader(t).engine)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if (i+j)%5 == 0 {
					if _, err := r.Read(t.Context(), "SELEC"); codeOf(err) != CodeSyntax {
						t.Errorf("%v", err)
					}
					continue
				}
				if s, err := r.Read(t.Context(), base); err != nil || s.Canonical() == "" {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
}

// TestZero: what was never made refuses.
func TestZero(t *testing.T) {
	var r Reader
	if _, err := r.Read(t.Context(), base); codeOf(err) != CodeUnavailable {
		t.Errorf("zero Reader: %v", err)
	}
	var doc scope.Document
	Statement{}.AddTo(&doc)
	if doc.Err() == nil {
		t.Error("the zero Statement leaves a document that a grant can permit")
	}
}
