package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// floodWait bounds each flood.
const floodWait = 60 * time.Second

// flooded is one of the server's listeners, whose calls go on until they are
// released, whatever their caller does.
type flooded struct {
	at      string
	release chan struct{}
	now     atomic.Int64 // calls that run
	most    atomic.Int64
}

func newFlooded(t *testing.T) *flooded {
	t.Helper()
	f := &flooded{release: make(chan struct{})}
	s := &Server{logger: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.at = l.Addr().String()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	own := certificates.TLS.Certificates
	certificates.Close()
	s.serve(narrow{l}, http.HandlerFunc(f.call), &tls.Config{Certificates: own, MinVersion: tls.VersionTLS13})
	t.Cleanup(func() {
		select {
		case <-f.release:
		default:
			close(f.release)
		}
		for _, srv := range s.listeners {
			_ = srv.Close()
		}
		s.serving.Wait()
	})
	return f
}

// narrow gives each connection room for little that its peer does not read.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(4 << 10)
	}
	return conn, err
}

func (f *flooded) call(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/quick" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	<-f.release
}

// served is the twin: whoever behaves is served.
func (f *flooded) served(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), floodWait)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // its own certificate
	defer c.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+f.at+"/quick", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("another caller is not served: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent || resp.ProtoMajor != 2 {
		t.Errorf("another caller got %d over %s", resp.StatusCode, resp.Proto)
	}
}

// peer speaks raw frames.
type peer struct {
	net.Conn
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (f *flooded) dial(t *testing.T) *peer {
	t.Helper()
	conn, err := tls.Dial("tcp", f.at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // its own certificate
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &peer{Conn: conn}
	p.enc = hpack.NewEncoder(&p.block)
	if err := errors.Join(conn.SetDeadline(time.Now().Add(floodWait)), send(conn, []byte(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	p.fr = http2.NewFramer(conn, conn)
	if err := p.fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return p
}

func send(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

// open opens a stream of a call that does not end.
func (p *peer) open(stream uint32) error {
	p.block.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/slow"}} {
		if err := p.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: true})
}

// next reads frames until one that ends something, or SETTINGS.
func (p *peer) next(t *testing.T, want func(http2.Frame) bool) http2.Frame {
	t.Helper()
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ended without a word: %v", err)
		}
		if want(f) {
			return f
		}
	}
}

// ended reads until the connection ends, and gives the reason it was given.
func (p *peer) ended(t *testing.T) (code http2.ErrCode) {
	t.Helper()
	for {
		f, err := p.fr.ReadFrame()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal("the connection goes on")
		case err != nil:
			return code
		}
		if away, ok := f.(*http2.GoAwayFrame); ok && code == 0 {
			code = away.ErrCode
		}
	}
}

// gone reports whether an error of writing says that the other side ended the
// connection.
func gone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// TestN4Streams: a connection has no more calls open than it was told; what is
// beyond is refused and the rest goes on.
func TestN4Streams(t *testing.T) {
	f := newFlooded(t)
	p := f.dial(t)
	settings, _ := p.next(t, func(f http2.Frame) bool { _, ok := f.(*http2.SettingsFrame); return ok }).(*http2.SettingsFrame)
	if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != maxStreams {
		t.Errorf("announced %d streams, want %d", n, maxStreams)
	}
	if err := p.fr.WriteSettingsAck(); err != nil {
		t.Fatal(err)
	}
	last := uint32(2*maxStreams + 1)
	for id := uint32(1); id <= last; id += 2 {
		if err := p.open(id); err != nil {
			t.Fatal(err)
		}
	}
	reset, _ := p.next(t, func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok }).(*http2.RSTStreamFrame)
	if reset.StreamID != last { // the code is REFUSED_STREAM, or PROTOCOL_ERROR for who knew better
		t.Errorf("stream %d ended with %s, want %d", reset.StreamID, reset.ErrCode, last)
	}
	f.served(t)
	close(f.release)
	answers := 0
	for answers < maxStreams {
		p.next(t, func(f http2.Frame) bool { _, ok := f.(*http2.HeadersFrame); return ok })
		answers++
	}
	if most := f.most.Load(); most > maxStreams {
		t.Errorf("%d calls at once", most)
	}
}

// TestN4RapidReset: a caller that opens streams and resets them at once gets no
// more calls running than one that does not, and then its connection is ended.
func TestN4RapidReset(t *testing.T) {
	f := newFlooded(t)
	p := f.dial(t)
	flood := make(chan error, 1)
	go func() {
		for id := uint32(1); id < 1<<30; id += 2 {
			if err := errors.Join(p.open(id), p.fr.WriteRSTStream(id, http2.ErrCodeCancel)); err != nil {
				flood <- err
				return
			}
		}
		flood <- errors.New("every stream was taken")
	}()
	code := p.ended(t)
	if err := <-flood; !gone(err) {
		t.Errorf("the flood ended by itself: %v", err)
	}
	if code != http2.ErrCodeEnhanceYourCalm && code != 0 { // a reset connection may lose its last word
		t.Errorf("ended with %s", code)
	}
	if most := f.most.Load(); most > maxStreams {
		t.Errorf("%d calls at once", most)
	}
	f.served(t)
}

// TestN4Frames: frames that cost the server and serve nobody end the connection.
func TestN4Frames(t *testing.T) {
	fields := bytes.Repeat([]byte{0}, 16<<10) // of literal fields with empty names
	for name, flood := range map[string]func(p *peer, n uint32) error{
		"continuations": func(p *peer, n uint32) error {
			if n == 0 {
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields[:1], EndStream: true})
			}
			return p.fr.WriteContinuation(1, false, fields)
		},
		"a header that never ends": func(p *peer, n uint32) error {
			p.block.Reset()
			if err := p.enc.WriteField(hpack.HeaderField{Name: "x-long", Value: string(bytes.Repeat([]byte{'a'}, 12<<10))}); err != nil {
				return err
			}
			if n == 0 {
				return p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block.Bytes(), EndStream: true})
			}
			return p.fr.WriteContinuation(1, false, p.block.Bytes())
		},
		"a frame beyond the size announced": func(p *peer, _ uint32) error {
			return p.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 2<<20))
		},
		"data of no stream": func(p *peer, n uint32) error { return p.fr.WriteData(n*2+1, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlooded(t)
			p := f.dial(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for n := uint32(0); n < 1<<14 && flood(p, n) == nil; n++ {
				}
			}()
			p.ended(t)
			_ = p.Close()
			<-done
			if f.most.Load() > 0 {
				t.Error("it was a call")
			}
			f.served(t)
		})
	}
}

// TestN4Unread: answers that nobody reads do not pile up: whoever asks for more
// and more of them without reading is left.
func TestN4Unread(t *testing.T) {
	f := newFlooded(t)
	p := f.dial(t)
	pings := bytes.Repeat([]byte{0, 0, 8, byte(http2.FramePing), 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 1000)
	err := send(p, pings)
	for err == nil { // until the connection is ended: nobody reads, and the deadline bounds it
		err = send(p, pings)
	}
	if !gone(err) {
		t.Errorf("the flood ended by itself: %v", err)
	}
	f.served(t)
}
