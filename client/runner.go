package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// runner is an http.RoundTripper that has a handler of this process answer.
// It owns the goroutines in which the handler runs.
type runner struct {
	next http.Handler
	runs sync.WaitGroup
}

// RoundTrip returns when the handler has begun its answer, or r's context ends;
// the handler's own context is r's, so that it can end then too.
func (l *runner) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	in.Host = r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, to := io.Pipe()
	a := &answering{to: to, header: http.Header{}, begun: make(chan struct{})}
	l.runs.Add(1)
	go func() {
		defer l.runs.Done()
		a.serve(l.next, in)
	}()
	select {
	case <-a.begun:
	case <-r.Context().Done():
	}
	if left := context.Cause(r.Context()); left != nil { // first: the handler may have begun because of it
		_ = body.CloseWithError(left)
		return nil, left
	}
	if a.failed != nil {
		return nil, a.failed
	}
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: body, ContentLength: a.length, Request: r,
	}, nil
}

// wait returns when no handler runs any more, or ctx ends.
func (l *runner) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.runs.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answering is the handler's http.ResponseWriter. Its fields but to and begun
// are the handler's until begun is closed.
type answering struct {
	to     *io.PipeWriter
	header http.Header
	begun  chan struct{}

	wrote  bool
	status int
	sent   http.Header // header as it was when the answer began
	length int64       // -1: not known
	failed error       // the handler ended without an answer
}

var errHandlerPanicked = errors.New("the handler panicked")

func (a *answering) serve(next http.Handler, in *http.Request) {
	defer func() {
		p := recover()
		switch {
		case p != nil && !a.wrote:
			a.wrote, a.failed = true, errHandlerPanicked
			close(a.begun)
			_ = a.to.Close()
		case p != nil:
			_ = a.to.CloseWithError(errHandlerPanicked)
		default:
			if !a.wrote {
				a.begin(http.StatusOK, 0)
			}
			_ = a.to.Close()
		}
	}()
	next.ServeHTTP(a, in)
}

func (a *answering) Header() http.Header { return a.header }

func (a *answering) WriteHeader(status int) {
	if status >= 200 { // an informational answer has no meaning within a process
		a.begin(status, -1)
	}
}

func (a *answering) begin(status int, length int64) {
	if a.wrote {
		return
	}
	a.wrote, a.status, a.length = true, status, length
	a.sent = a.header.Clone()
	close(a.begun)
}

func (a *answering) Write(b []byte) (int, error) {
	if !a.wrote {
		if a.header.Get("Content-Type") == "" && !strings.Contains(strings.ToLower(a.header.Get("Content-Encoding")), "gzip") {
			a.header.Set("Content-Type", http.DetectContentType(b)) // as net/http does
		}
		a.begin(http.StatusOK, -1)
	}
	return a.to.Write(b)
}

// Flush does what a write does already.
func (a *answering) Flush() {
	if !a.wrote {
		a.begin(http.StatusOK, -1)
	}
}
