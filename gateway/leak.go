package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

var errLeak = errors.New("the upstream's answer holds the gateway's own credential")

// secrets is what was added to a request as the gateway's own credential. An
// answer that holds it does not go on (threat F1).
type secrets [][]byte

// minSecret is the length in bytes from which a value is looked for: a shorter
// one would be found everywhere.
const minSecret = 8

// credentialOf are the values that out has more than the call asked for. Of
// "Bearer x" it is x.
func credentialOf(out, asked http.Header) (s secrets) {
	for name, values := range out {
		if strings.HasPrefix(name, "Lineal-") || name == "User-Agent" || name == "Traceparent" || slices.Equal(values, asked[name]) {
			continue
		}
		for _, v := range values {
			if v = v[strings.LastIndexByte(v, ' ')+1:]; len(v) >= minSecret {
				s = append(s, []byte(v))
			}
		}
	}
	return s
}

func (s secrets) in(data []byte) bool {
	return slices.ContainsFunc(s, func(secret []byte) bool { return bytes.Contains(data, secret) })
}

func (s secrets) inHeader(h http.Header) bool {
	if len(s) == 0 {
		return false
	}
	for _, values := range h {
		for _, v := range values {
			if s.in([]byte(v)) {
				return true
			}
		}
	}
	return false
}

// begun is how many bytes at the end of data may be the beginning of a secret.
func (s secrets) begun(data []byte) (n int) {
	for _, secret := range s {
		for tail := data[max(0, len(data)-len(secret)+1):]; len(tail) > n; tail = tail[1:] {
			at := bytes.IndexByte(tail, secret[0])
			if at < 0 || len(tail)-at <= n {
				break
			}
			if tail = tail[at:]; bytes.HasPrefix(secret, tail) {
				n = len(tail)
				break
			}
		}
	}
	return n
}

// scan reads what body does, up to where a secret stands in it: of that no byte
// goes on, and the error is a *Refusal.
func (s secrets) scan(body io.ReadCloser) io.ReadCloser {
	if len(s) == 0 {
		return body
	}
	return &scanner{secrets: s, Closer: body, r: body}
}

type scanner struct {
	io.Closer
	secrets secrets
	r       io.Reader
	held    []byte // read, and not released: a secret may begin with it
	ready   []byte // released, and not handed over
	err     error  // once ready is handed over
}

func (s *scanner) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.ready) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if n := s.fill(p); n > 0 {
			return n, nil
		}
	}
	n := copy(p, s.ready)
	s.ready = s.ready[n:]
	return n, nil
}

// fill reads once, into p if it is large enough: the returned bytes are released.
func (s *scanner) fill(p []byte) int {
	direct := len(p) > len(s.held)
	if !direct {
		p = make([]byte, 2*len(s.held)+1)
	}
	n := copy(p, s.held)
	m, err := s.r.Read(p[n:])
	data := p[:n+m]
	if s.secrets.in(data) {
		s.err = &Refusal{Code: CodeInternal, Err: errLeak}
		return 0
	}
	s.err = err
	keep := 0
	if err == nil {
		keep = s.secrets.begun(data)
	}
	s.held = append(s.held[:0], data[len(data)-keep:]...)
	data = data[:len(data)-keep]
	if direct {
		return len(data)
	}
	s.ready = data
	return 0
}

// isTraceparent is the one form of W3C Trace Context, version 00: lower case,
// neither id zero. Any other is no hint.
func isTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	hex := s[3:35] + s[36:52] + s[53:]
	return strings.Trim(hex, "0123456789abcdef") == "" && strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}
