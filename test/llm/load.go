package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/goleak"
)

// load is many streams at once, through the gateway, and some past it.
type load struct {
	streams int
	lasting time.Duration // of one stream
}

// perSecond is how often a stream says something.
const perSecond = 10

func (l load) provider() provider {
	if l.streams == 0 {
		return provider{}
	}
	return provider{pause: time.Second / perSecond, times: max(1, int(l.lasting.Seconds()*perSecond)-9)}
}

// cost is what is printed.
type cost struct {
	Streams    int     `json:"streams"`
	Seconds    float64 `json:"seconds"`
	Bytes      int64   `json:"bytes"`
	Cut        int     `json:"cut"`
	DirectMS   float64 `json:"first_byte_direct_ms"` // median
	GatewayMS  float64 `json:"first_byte_gateway_ms"`
	HeapEarly  uint64  `json:"heap_early_kib"` // a fifth into the run
	HeapLate   uint64  `json:"heap_late_kib"`  // a fifth before its end
	Goroutines int     `json:"goroutines_while_streaming"`
}

// one reads one stream to its end and returns the time to its first byte.
func one(ctx context.Context, c *http.Client, url, key string) (first time.Duration, n int64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"model":"small","stream":true,"messages":[{"role":"user","content":"Hello!"}]}`))
	if err != nil {
		return 0, 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", key)
	start := time.Now()
	resp, err := c.Do(r)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var head [1]byte
	if _, err = io.ReadFull(resp.Body, head[:]); err != nil {
		return 0, 0, err
	}
	first = time.Since(start)
	tail := &last{}
	n, err = io.Copy(tail, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.HasSuffix(tail.b, []byte("data: [DONE]\n\n"))) {
		err = fmt.Errorf("status %d, ends with %q", resp.StatusCode, tail.b)
	}
	return first, n + 1, err
}

// last keeps the end of what is written.
type last struct{ b []byte }

func (l *last) Write(p []byte) (int, error) {
	l.b = append(l.b, p...)
	if n := len(l.b); n > 64 {
		l.b = append(l.b[:0], l.b[n-64:]...)
	}
	return len(p), nil
}

func (l load) run(ctx context.Context, r *rig) error {
	direct := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	through := r.env.ToGateway()
	defer direct.CloseIdleConnections()
	defer through.CloseIdleConnections()
	want, err := r.says.expected("openai-chat")
	if err != nil {
		return err
	}
	out := cost{Streams: l.streams}
	at := r.env.Deployment.PublicURL + "/openai/v1/chat/completions"
	if out.DirectMS, out.GatewayMS, err = firstBytes(ctx, r, direct, through, at); err != nil {
		return err
	}
	var (
		wg sync.WaitGroup
		mu sync.Mutex // guards out and failed
	)
	var failed []error
	began := time.Now()
	for range l.streams {
		wg.Go(func() {
			_, n, err := one(ctx, through, at, "Bearer "+r.Tokens["openai"])
			mu.Lock()
			defer mu.Unlock()
			out.Bytes += n
			if err != nil || n != int64(want) {
				out.Cut++
				failed = append(failed, fmt.Errorf("%d of %d bytes: %w", n, want, err))
			}
		})
	}
	time.Sleep(l.lasting / 5)
	out.Goroutines = runtime.NumGoroutine()
	early := heap()
	time.Sleep(l.lasting * 3 / 5)
	late := heap()
	wg.Wait()
	out.HeapEarly, out.HeapLate, out.Seconds = early, late, time.Since(began).Seconds()
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return err
	}
	if out.Cut > 0 {
		return fmt.Errorf("%d streams were cut: %w", out.Cut, errors.Join(failed[:min(3, len(failed))]...))
	}
	if late > early*5/4 {
		return fmt.Errorf("the heap grew from %d to %d KiB", early, late)
	}
	return nil
}

// firstBytes are the medians of the time to the first byte, direct and through
// the gateway by turns.
func firstBytes(ctx context.Context, r *rig, direct, through *http.Client, at string) (d, g float64, err error) {
	const rounds = 21
	var took [2][]float64
	for i := range 2 * rounds {
		c, url, key := direct, r.provider+"/v1/chat/completions", providerKey
		if i%2 == 1 {
			c, url, key = through, at, "Bearer "+r.Tokens["openai"]
		}
		// The rest of the stream is not waited for.
		ctx, cancel := context.WithCancel(ctx)
		first, err := firstByte(ctx, c, url, key)
		cancel()
		if err != nil {
			return 0, 0, err
		}
		took[i%2] = append(took[i%2], float64(first.Microseconds())/1000)
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return took[0][rounds/2], took[1][rounds/2], nil
}

func firstByte(ctx context.Context, c *http.Client, url, key string) (time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"model":"small","stream":true,"messages":[]}`))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", key)
	start := time.Now()
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	var head [1]byte
	_, err = io.ReadFull(resp.Body, head[:])
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return time.Since(start), err
}

// heap is what is in use, in KiB.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 10
}

// nothingLeft fails if a goroutine outlives what started it.
func nothingLeft() error {
	if err := goleak.Find(); err != nil {
		return fmt.Errorf("after everything was closed: %w", err)
	}
	fmt.Println(`{"goroutines_left":0}`)
	return nil
}
