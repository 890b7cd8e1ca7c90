package postgres_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lineal-auth/lineal/internal/pgtest"
)

// proxy stands between a store and the server and can cut a connection at the
// COMMIT of the next append.
type proxy struct {
	t        *testing.T
	listener net.Listener
	backend  string
	all      sync.WaitGroup

	cut     atomic.Int32 // what to do at the next COMMIT: one of the cuts
	cancels atomic.Int32 // cancel requests seen
}

type cut = int32

const (
	never      cut = iota
	lostBefore     // the server never gets it
	lostAfter      // the server does it, and the answer is lost
)

const cancelRequest = 80877102

func newProxy(t *testing.T, s *pgtest.Server) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, backend: u.Host}
	p.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.all.Wait()
	})
	return p
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.backend)
	if err != nil {
		_ = client.Close()
		return
	}
	var mute atomic.Bool
	var both sync.WaitGroup
	end := func() {
		_ = client.Close()
		_ = server.Close()
	}
	both.Go(func() {
		defer end()
		if err := p.forward(client, server, &mute); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			p.t.Logf("proxy: %v", err)
		}
	})
	both.Go(func() {
		defer end()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || mute.Load() { // the answer to the COMMIT: lost, the connection with it
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	both.Wait()
}

// forward passes messages on, one by one. Statements arrive prepared, so
// COMMIT is known by the name it was prepared under.
func (p *proxy) forward(client, server net.Conn, mute *atomic.Bool) error {
	commit := ""
	for first := true; ; first = false {
		m, err := readMessage(client, first)
		if err != nil {
			return err
		}
		if first && len(m) == 16 && binary.BigEndian.Uint32(m[4:]) == cancelRequest {
			p.cancels.Add(1)
		}
		if !first && m[0] == 'P' { // Parse: name, statement
			name, rest := cString(m[5:])
			if text, _ := cString(rest); text == "COMMIT" {
				commit = name
			}
		}
		if !first && m[0] == 'B' { // Bind: portal, statement
			_, rest := cString(m[5:])
			if name, _ := cString(rest); name == commit && commit != "" {
				switch p.cut.Swap(never) {
				case lostBefore:
					return nil
				case lostAfter:
					mute.Store(true)
				}
			}
		}
		if _, err := server.Write(m); err != nil {
			return err
		}
	}
}

func cString(b []byte) (string, []byte) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:]
		}
	}
	return "", nil
}

// readMessage reads one message: a type, except at the start, and a length
// that counts itself.
func readMessage(r io.Reader, start bool) ([]byte, error) {
	n := 5
	if start {
		n = 4
	}
	head := make([]byte, n)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	m := make([]byte, n-4+int(binary.BigEndian.Uint32(head[n-4:])))
	copy(m, head)
	_, err := io.ReadFull(r, m[n:])
	return m, err
}
