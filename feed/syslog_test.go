package feed_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/feed"
)

// message is RFC 5424 §6 with the lengths of its fields, and only NILVALUE for
// STRUCTURED-DATA, which is all that is sent.
var message = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) - (.+)$`)

// syslogServer receives frames strictly. behave decides, for each connection, what
// it does with it.
type syslogServer struct {
	net.Listener
	wg sync.WaitGroup

	mu   sync.Mutex // guards what follows
	got  []string
	errs []error
}

// behaviours of a receiver, per connection.
type behaviour func(s *syslogServer, c net.Conn)

// sound reads every frame and closes.
func sound(s *syslogServer, c net.Conn) {
	s.read(c, -1)
	_ = c.Close()
}

func syslogReceiver(t *testing.T, config *tls.Config, behave func(n int) behaviour) *syslogServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &syslogServer{Listener: l}
	s.wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if config != nil {
				c = tls.Server(c, config)
			}
			s.wg.Go(func() { behave(n)(s, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.wg.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, err := range s.errs {
			t.Errorf("receiver: %v", err)
		}
	})
	return s
}

// read takes n frames, all up to the end if n is negative.
func (s *syslogServer) read(c net.Conn, n int) {
	r := bufio.NewReader(c)
	for ; n != 0; n-- {
		m, err := frame(r)
		if errors.Is(err, io.EOF) {
			return
		}
		s.mu.Lock()
		if err != nil {
			s.errs = append(s.errs, err)
		} else {
			s.got = append(s.got, m)
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// frame is one SYSLOG-FRAME of RFC 6587 §3.4.1; io.EOF between frames alone.
func frame(r *bufio.Reader) (string, error) {
	head, err := r.ReadString(' ')
	if errors.Is(err, io.EOF) && head == "" {
		return "", io.EOF
	}
	n, perr := strconv.Atoi(strings.TrimSuffix(head, " "))
	if err != nil || perr != nil || head[0] == '0' || n <= 0 || n > 1<<20 {
		return "", fmt.Errorf("no MSG-LEN in %q: %w", head, err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("frame of %d bytes: %w", n, io.ErrUnexpectedEOF)
	}
	return string(b), nil
}

// indexes are those of the messages, each of which is checked.
func (s *syslogServer) indexes(t *testing.T) (out []int64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[int64]bool)
	for _, m := range s.got {
		parts := message.FindStringSubmatch(m)
		if parts == nil {
			t.Fatalf("not a message of RFC 5424: %.200q", m)
		}
		if _, err := time.Parse(time.RFC3339Nano, parts[2]); err != nil {
			t.Fatal(err)
		}
		if pri, _ := strconv.Atoi(parts[1]); pri>>3 != 13 || pri&7 < 4 || pri&7 > 6 {
			t.Fatalf("PRI %d", pri)
		}
		var line struct {
			Index  int64
			Record struct {
				Kind string
				GW   struct{ ID string }
			}
		}
		if err := json.Unmarshal([]byte(parts[7]), &line); err != nil {
			t.Fatal(err)
		}
		if parts[3] != "agents.example" || parts[4] != "lineal" || parts[5] != line.Record.GW.ID || parts[6] != line.Record.Kind {
			t.Fatalf("header %q", parts[:7])
		}
		if !seen[line.Index] {
			seen[line.Index] = true
			out = append(out, line.Index)
		}
	}
	return out
}

func toSyslog(addr net.Addr, config *tls.Config) *feed.Syslog {
	return &feed.Syslog{Address: addr.String(), TLS: config, Hostname: "agents.example", Facility: 13, Encode: export.Line}
}

// hostile receivers, each of which must not count as one that has the batch.
var hostile = map[string]behaviour{
	"reads nothing and closes": func(_ *syslogServer, c net.Conn) { _ = c.Close() },
	"reads some and closes": func(s *syslogServer, c net.Conn) {
		s.read(c, 1)
		_ = c.Close()
	},
	"reads some and resets": func(s *syslogServer, c net.Conn) {
		s.read(c, 1)
		reset(c)
	},
	"reads all and resets": func(_ *syslogServer, c net.Conn) {
		_, _ = io.Copy(io.Discard, c)
		reset(c)
	},
	"answers": func(_ *syslogServer, c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	},
}

func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// TestSyslog: a receiver that has not read all has not acknowledged, and each
// index comes again until it has.
func TestSyslog(t *testing.T) {
	server, client := certificates(t)
	for _, over := range []string{"TCP", "TLS"} {
		sc, cc := server, client
		if over == "TCP" {
			sc, cc = nil, nil
		}
		for name, bad := range hostile {
			if over == "TLS" && name == "reads some and closes" {
				continue // TLS has read a whole record by then, and says so: it lost what it had
			}
			t.Run(over+"/"+name, func(t *testing.T) {
				var mu sync.Mutex
				failed := 0
				s := syslogReceiver(t, sc, func(n int) behaviour {
					if n%3 == 1 {
						mu.Lock()
						defer mu.Unlock()
						failed++
						return bad
					}
					return sound
				})
				sink := toSyslog(s.Addr(), cc)
				sink.CloseNotify = cc != nil
				cfg := config(newLog(t, 100), sink, &feed.Forgotten{})
				cfg.Batch = 15
				if err := drain(t, cfg); err != nil {
					t.Fatal(err)
				}
				checkAll(t, s.indexes(t), 0, 100)
				mu.Lock()
				defer mu.Unlock()
				if failed == 0 {
					t.Error("the receiver never failed")
				}
			})
		}
	}
}

// TestSyslogNotAcknowledged: what does not close in time, or ends TCP without
// ending TLS, has acknowledged nothing. The twin is TestSyslog.
func TestSyslogNotAcknowledged(t *testing.T) {
	server, client := certificates(t)
	for name, tc := range map[string]struct {
		tls  *tls.Config
		does behaviour
	}{
		"never closes": {nil, nil}, // below: it needs the test's end
		"cut by somebody on the way": {server, func(_ *syslogServer, c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
			_ = c.(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c.(*tls.Conn).NetConn())
			_ = c.(*tls.Conn).NetConn().Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "never closes" {
				tc.does = func(_ *syslogServer, c net.Conn) {
					_, _ = io.Copy(io.Discard, c) // and then the sender waits in vain
					<-t.Context().Done()          // which ends before the receiver is waited for
					_ = c.Close()
				}
			}
			s := syslogReceiver(t, tc.tls, func(int) behaviour { return tc.does })
			sink := toSyslog(s.Addr(), nil)
			sink.Timeout = 300 * time.Millisecond
			if tc.tls != nil {
				sink.TLS, sink.Timeout, sink.CloseNotify = client, 0, true
			}
			if err := sink.Deliver(t.Context(), batch(t, 3)); err == nil {
				t.Error("it counts as acknowledged")
			}
		})
	}
}

func batch(t *testing.T, n int64) feed.Batch {
	t.Helper()
	l := newLog(t, n)
	b := feed.Batch{Origin: l.origin}
	for p, err := range l.Read(t.Context(), l.origin, 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := export.NewEntry(l.origin, p.Index, p.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		b.Entries = append(b.Entries, e)
	}
	return b
}

// TestSyslogTrust: a receiver whose certificate is not of the authority gets
// nothing.
func TestSyslogTrust(t *testing.T) {
	server, _ := certificates(t)
	_, other := certificates(t)
	s := syslogReceiver(t, server, func(int) behaviour {
		return func(_ *syslogServer, c net.Conn) {
			if n, _ := io.Copy(io.Discard, c); n > 0 {
				t.Errorf("%d bytes came", n)
			}
			_ = c.Close()
		}
	})
	if err := toSyslog(s.Addr(), other).Deliver(t.Context(), batch(t, 1)); err == nil {
		t.Error("it counts as acknowledged")
	}
}

// TestSyslogOversize: a record that is longer than the receiver takes is told of,
// and not cut.
func TestSyslogOversize(t *testing.T) {
	s := syslogReceiver(t, nil, func(int) behaviour { return sound })
	sink := toSyslog(s.Addr(), nil)
	sink.MaxBytes = 480
	if err := sink.Deliver(t.Context(), batch(t, 2)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.got {
		var line struct {
			Index, Oversize int64
			Origin, Kind    string
		}
		_, msg, _ := strings.Cut(m, " - ")
		if err := json.Unmarshal([]byte(msg), &line); err != nil {
			t.Fatal(err)
		}
		if line.Index != int64(i) || line.Oversize <= 480 || line.Origin != origin || line.Kind == "" || len(msg) > 480 {
			t.Errorf("message %q", m)
		}
	}
	if len(s.got) != 2 {
		t.Errorf("%d messages", len(s.got))
	}
}

// certificates are a receiver's and a sender's TLS configuration.
func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "receiver"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	client = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "127.0.0.1"}
	return server, client
}
