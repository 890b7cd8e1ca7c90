package feed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/record"
)

// Syslog sends each record as one message of RFC 5424, with octet counting
// (RFC 6587 §3.4.1) over TLS (RFC 5425) or TCP.
//
//	<110>1 2027-03-02T09:14:07.318Z agents.example lineal gw-eu-1 decision - {"index":7,…}
//
// MSGID is the kind of the record, PROCID its writer, MSG the encoded entry in
// ASCII: other characters of its JSON are escaped, so that a receiver needs no
// byte order mark to know its encoding.
//
// Syslog has no acknowledgement: a message that TCP took can be lost with the
// receiver. So each batch has a connection of its own, and counts only when the
// receiver closed its side after ours: it has read every byte off the connection by
// then. One that ends with anything unread resets it, and the batch comes again.
// What remains is what a receiver has read and not yet kept when it dies: at most
// the batches since its last write to disk. Config.Resend covers that too: the
// failure that follows sends as many records again.
//
// Anyone on the way can end a TCP connection, and so pretend that a batch was
// read. Over TLS CloseNotify keeps that from counting, for receivers that end TLS
// as RFC 5425 §4.4 says; rsyslog 8 with GnuTLS does not.
type Syslog struct {
	// Address is host:port of the receiver.
	Address string
	// TLS is the client's configuration; nil: plain TCP, which everyone on the way
	// can read and change.
	TLS *tls.Config
	// CloseNotify takes the end of the connection for an acknowledgement only with the
	// receiver's close_notify.
	CloseNotify bool
	// Hostname and AppName are those of the messages; AppName's default is "lineal".
	Hostname, AppName string
	// Facility is 0 to 23; 13 is "log audit".
	Facility int
	// MaxBytes bounds MSG: an entry that is longer is sent as its index, hash, kind
	// and record_id, with "oversize" its length. Receivers cut longer messages or
	// drop them: rsyslog at 8 KiB unless told otherwise. 0: 64 KiB, more than any
	// entry has.
	MaxBytes int
	Encode   Encode
	// Timeout bounds a batch; 0: 30 s.
	Timeout time.Duration
}

// The bounds of RFC 5424 §6 on the parts of a header.
const (
	maxHostname  = 255
	maxAppName   = 48
	maxProcID    = 128
	maxMsgID     = 32
	minSyslogMax = 480 // what every receiver takes (§6.1)

	defaultSyslogMax     = 64 << 10
	defaultSyslogTimeout = 30 * time.Second
)

// Check says what of the settings cannot be.
func (s *Syslog) Check() error {
	switch _, _, err := net.SplitHostPort(s.Address); {
	case err != nil:
		return errors.New("syslog: address is no host:port")
	case s.Facility < 0 || s.Facility > 23:
		return fmt.Errorf("syslog: facility %d is not 0 to 23", s.Facility)
	case s.MaxBytes != 0 && s.MaxBytes < minSyslogMax:
		return fmt.Errorf("syslog: messages of %d bytes: every receiver takes %d", s.MaxBytes, minSyslogMax)
	case s.Encode == nil:
		return errors.New("syslog: no encoding")
	}
	return nil
}

// Deliver implements Sink.
func (s *Syslog) Deliver(ctx context.Context, b Batch) error {
	frames, err := s.frames(b)
	if err != nil {
		return err
	}
	timeout := s.Timeout
	setDefault(&timeout, defaultSyslogTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.send(ctx, frames); err != nil {
		return fmt.Errorf("sending to syslog: %w", err)
	}
	return nil
}

// send returns nil once the receiver has closed its side after reading all.
func (s *Syslog) send(ctx context.Context, frames []byte) (err error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	ended := &watched{Conn: raw}
	var conn interface {
		net.Conn
		CloseWrite() error
	}
	if s.TLS != nil {
		c := tls.Client(ended, s.TLS)
		if err := c.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		conn = c
	} else {
		conn = raw.(*net.TCPConn) //nolint:forcetypeassert // dialled as tcp
	}
	if _, err := conn.Write(frames); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	var one [1]byte
	switch n, err := conn.Read(one[:]); {
	case n > 0:
		return &RefusedError{Reason: "it answers, which a syslog receiver does not"}
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("not acknowledged: %w", err)
	case s.TLS != nil && s.CloseNotify && ended.eof.Load():
		return &RefusedError{Reason: "the connection was cut without a close_notify"}
	}
	return nil
}

// watched notes the end of the TCP connection, which TLS does not tell from its
// own.
type watched struct {
	net.Conn
	eof atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.eof.Store(true)
	}
	return n, err
}

// Close implements Sink.
func (s *Syslog) Close() error { return nil }

func (s *Syslog) frames(b Batch) ([]byte, error) {
	var out []byte
	for _, e := range b.Entries {
		line, err := s.Encode(e)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		m := s.message(e, line)
		out = strconv.AppendInt(out, int64(len(m)), 10)
		out = append(append(out, ' '), m...)
	}
	return out, nil
}

// message is one SYSLOG-MSG.
func (s *Syslog) message(e export.Entry, line []byte) []byte {
	msg, most := ascii(line), s.MaxBytes
	setDefault(&most, defaultSyslogMax)
	if len(msg) > most {
		msg = fmt.Appendf(nil, `{"index":%d,"record_hash":%q,"kind":%q,"record_id":%q,"oversize":%d,"origin":%s}`,
			e.Index, e.Hash, e.Record.Kind, e.Record.ID, len(msg), strconv.QuoteToASCII(e.Origin))
	}
	app := s.AppName
	if app == "" {
		app = "lineal"
	}
	head := fmt.Sprintf("<%d>1 %s %s %s %s %s - ", s.Facility*8+level(e.Record), e.Record.Time,
		field(s.Hostname, maxHostname), field(app, maxAppName), field(e.Record.Writer.ID, maxProcID), field(string(e.Record.Kind), maxMsgID))
	return append([]byte(head), msg...)
}

// level is the severity of RFC 5424 §6.2.1: 4 warning, 5 notice, 6 informational.
func level(r record.Record) int {
	switch {
	case r.Decision != nil && r.Decision.Verdict.Effect == record.Deny, r.Issuance != nil && r.Issuance.Result == record.Refused,
		r.Registry != nil && r.Registry.Result == record.RegistryRefused, r.Gap != nil:
		return 4
	case r.Revocation != nil, r.Registry != nil, r.PolicyChange != nil, r.KeyChange != nil, r.Erasure != nil, r.Period != nil:
		return 5
	default:
		return 6
	}
}

// field is a part of the header: printable ASCII, "-" if there is nothing.
func field(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// ascii is JSON with every character beyond ASCII escaped: those stand inside of
// strings alone.
func ascii(json []byte) []byte {
	out := make([]byte, 0, len(json))
	for i := 0; i < len(json); {
		if json[i] < utf8.RuneSelf {
			out = append(out, json[i])
			i++
			continue
		}
		r, n := utf8.DecodeRune(json[i:])
		i += n
		if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		} else {
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
