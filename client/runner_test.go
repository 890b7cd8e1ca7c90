package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func answered(t *testing.T, h http.HandlerFunc) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://agent.test/a2a/x?q=1", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	l := &runner{next: h}
	t.Cleanup(func() {
		if err := l.wait(ctx); err != nil {
			t.Errorf("a handler runs on: %v", err)
		}
	})
	return l.RoundTrip(r)
}

// TestRunnerStreams: an answer is there as it is written, head first.
func TestRunnerStreams(t *testing.T) {
	more := make(chan struct{})
	resp, err := answered(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Saw", r.Method+" "+r.RequestURI+" "+r.Host+" "+string(body))
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusAccepted)
		w.Header().Set("X-Late", "no")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "one\n")
		<-more
		_, _ = io.WriteString(w, "two\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Saw") != "POST /a2a/x?q=1 agent.test body" || resp.Header.Get("X-Late") != "" {
		t.Errorf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); line != "one\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	close(more)
	if rest, err := io.ReadAll(lines); string(rest) != "two\n" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestRunnerEnds: what ends an answer too early is an error, never a shorter
// answer, and a caller that leaves ends the handler's writing.
func TestRunnerEnds(t *testing.T) {
	if _, err := answered(t, func(http.ResponseWriter, *http.Request) { panic("x") }); !errors.Is(err, errHandlerPanicked) {
		t.Errorf("before: %v", err)
	}
	resp, err := answered(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html>")
		panic("x")
	})
	if err != nil || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%v, %v", resp, err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "<html>" || !errors.Is(err, errHandlerPanicked) {
		t.Errorf("in the middle: %q, %v", body, err)
	}
	wrote := make(chan error, 1)
	resp, err = answered(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, err := io.WriteString(w, "nobody reads this")
		wrote <- err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := <-wrote; err == nil {
		t.Error("a handler writes to nobody")
	}
	if resp, err = answered(t, func(http.ResponseWriter, *http.Request) {}); err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != 0 {
		t.Errorf("without an answer: %v, %v", resp, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://agent.test/", nil)
	l := &runner{next: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	if _, err := l.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	l.runs.Wait()
}
