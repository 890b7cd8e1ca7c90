package sqlscope

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasilibs/go-pgquery/parser"
)

// engine guards the parser's instances.
//
// The library keeps them in a FIFO pool of its own, one taken per call, and
// cannot discard one. An instance whose stack has overflowed stays broken and
// goes back to the pool: it answers later, good texts wrongly. So there are as
// many slots as instances; a panic, or an instance that gives a wrong answer to
// a probe, ends the reading of SQL until the process is restarted; and what
// could overflow is refused before (see MaxTokens).
type engine struct {
	slots  chan struct{} // one token per instance that is free
	parse  func(string) ([]byte, error)
	good   []byte // the tree of probeText
	broken atomic.Bool

	// dirty says that a text was refused since the last probe. An instance that
	// is broken without a panic shows as a syntax error.
	dirty atomic.Bool

	mu     sync.Mutex // held by the one that probes
	probed time.Time
}

const (
	probeText  = "SELECT id FROM s.t WHERE id = 1"
	probePrint = `SELECT "id" FROM "s"."t" WHERE "id" OPERATOR(pg_catalog.=) 1`
	probeEvery = time.Second
	maxEngines = 4
)

// processEngine is the engine of the process: the pool it guards is the
// library's, and there is one.
var processEngine = sync.OnceValues(func() (*engine, error) {
	return newEngine(min(maxEngines, runtime.GOMAXPROCS(0)), parser.ParseToProtobuf)
})

// newEngine makes k instances by k calls at the same time, and checks what they
// answer.
func newEngine(k int, parse func(string) ([]byte, error)) (*engine, error) {
	e := &engine{slots: make(chan struct{}, k), parse: parse}
	trees := make([][]byte, k)
	errs := make([]error, k)
	var wg sync.WaitGroup
	for i := range k {
		wg.Go(func() { trees[i], errs[i] = e.call(probeText) })
	}
	wg.Wait()
	for i := range k {
		if errs[i] != nil {
			return nil, fmt.Errorf("starting the SQL parser: %w", errs[i])
		}
		q, err := decode(trees[i])
		if err != nil {
			return nil, fmt.Errorf("starting the SQL parser: probe: %w", err)
		}
		if got := q.print(); got != probePrint || !bytes.Equal(trees[i], trees[0]) {
			return nil, fmt.Errorf("starting the SQL parser: probe answered %q", got)
		}
		e.slots <- struct{}{}
	}
	e.good = trees[0]
	return e, nil
}

// read parses one text. The error is an *Error.
func (e *engine) read(ctx context.Context, now func() time.Time, log *slog.Logger, sql string) ([]byte, error) {
	if err := e.probe(ctx, now, log); err != nil {
		return nil, err
	}
	if err := e.take(ctx, 1); err != nil {
		return nil, err
	}
	defer e.give(1)
	if e.broken.Load() { // while this call waited
		return nil, refuse(CodeUnavailable, "the parser")
	}
	tree, err := e.call(sql)
	if e.broken.Load() {
		log.ErrorContext(ctx, "SQL is refused until restart: the parser failed", slog.Any("error", err))
		return nil, &Error{Code: CodeUnavailable, What: "the parser", Err: err}
	}
	if err != nil {
		e.dirty.Store(true)
		return nil, &Error{Code: CodeSyntax, What: "the text", Err: err}
	}
	return tree, nil
}

// call runs the parser; a panic of it breaks the engine.
func (e *engine) call(sql string) (tree []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.broken.Store(true)
			tree, err = nil, fmt.Errorf("parser panicked: %v", p)
		}
	}()
	return e.parse(sql)
}

// probe asks every instance for a known answer, if a text was refused since the
// last time and that is long enough ago. All slots are held meanwhile: the pool
// is FIFO, so k calls reach k instances.
func (e *engine) probe(ctx context.Context, now func() time.Time, log *slog.Logger) error {
	if !e.dirty.Load() || !e.mu.TryLock() {
		return nil
	}
	defer e.mu.Unlock()
	if since := now().Sub(e.probed); since >= 0 && since < probeEvery {
		return nil
	}
	k := cap(e.slots)
	if err := e.take(ctx, k); err != nil {
		return err
	}
	defer e.give(k)
	e.probed = now()
	e.dirty.Store(false)
	for range k {
		tree, err := e.call(probeText)
		if err != nil || !bytes.Equal(tree, e.good) {
			e.broken.Store(true)
			log.ErrorContext(ctx, "SQL is refused until restart: the parser failed a probe", slog.Any("error", err))
			return &Error{Code: CodeUnavailable, What: "the parser", Err: err}
		}
	}
	return nil
}

// take takes n slots, or none.
func (e *engine) take(ctx context.Context, n int) error {
	for i := range n {
		select {
		case <-e.slots:
		case <-ctx.Done():
			e.give(i)
			return &Error{Code: CodeUnavailable, What: "the parser", Err: context.Cause(ctx)}
		}
	}
	return nil
}

func (e *engine) give(n int) {
	for range n {
		e.slots <- struct{}{}
	}
}
