package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// far is the upstream: it keeps what it saw and answers as it is told.
type far struct {
	url string

	mu     sync.Mutex // guards what follows
	seen   []seen
	answer http.HandlerFunc
}

type seen struct {
	method, path, query string
	header              http.Header
	body                []byte
}

func newFar(t testing.TB) *far {
	t.Helper()
	f := &far{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f.url = "https://localhost:" + port
	serve(t, l, shared.sources[upstream], http.HandlerFunc(f.serve))
	return f
}

func (f *far) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.seen = append(f.seen, seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), body})
	answer := f.answer
	f.mu.Unlock()
	if answer == nil {
		answer = echoResult
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer(w, r)
}

// echoResult answers any JSON-RPC request with an empty result.
func echoResult(w http.ResponseWriter, r *http.Request) {
	var m struct {
		ID json.RawMessage `json:"id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&m)
	if m.ID == nil {
		m.ID = json.RawMessage("null")
	}
	result := `{}`
	agent := strings.HasPrefix(r.URL.Path, "/a2a") // with the route's prefix at the middleware
	switch {
	case agent && r.Header.Get("A2a-Version") == "1.0":
		result = `{"message":{"messageId":"a1","role":"ROLE_AGENT","parts":[{"text":"hi"}]}}`
	case agent:
		result = `{"kind":"message","messageId":"a1","role":"agent","parts":[{"kind":"text","text":"hi"}]}`
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, m.ID, result)
}

func (f *far) answers(h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = h
}

func (f *far) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}
