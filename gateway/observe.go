package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// The bounds of gateway.md §10: how long an upstream may send nothing in a
// stream, and how long a caller may leave what was sent.
const (
	silentFor = 15 * time.Minute
	unreadFor = time.Minute
)

var errSilence = errors.New("the upstream sent nothing for too long")

// observe copies the body untouched, as its observer releases it. Each write of
// a body whose length is not known beforehand is flushed: what a stream has is
// for now.
func (c *call) observe(ctx context.Context, resp *http.Response, o Observer) error {
	defer func() { c.outcome.model = o.Report() }()
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	s := &observed{c: c, o: o, resp: resp, conn: http.NewResponseController(c.w)}
	// Deadlines are set when they have passed, so that no clock is read (N3).
	s.unread = time.AfterFunc(unreadFor, func() { _ = s.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer s.unread.Stop()
	silent := time.AfterFunc(silentFor, func() { _ = resp.Body.Close() })
	defer silent.Stop()
	if isEventStream(resp.Header) && resp.StatusCode < 300 {
		s.release()
		if err := s.conn.Flush(); err != nil {
			return c.cut(record.StatusAborted, err)
		}
	}
	for {
		silent.Reset(silentFor)
		s.unread.Stop()
		n, err := resp.Body.Read(*buf)
		if !silent.Stop() {
			return s.refused(&Refusal{Code: CodeUpstreamTimeout, Err: errSilence})
		}
		if n > 0 {
			out, refused := o.Next((*buf)[:n])
			if refused != nil {
				return s.refused(refused)
			}
			if err := s.write(out); err != nil {
				return c.cut(record.StatusAborted, err)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return s.end()
		case c.r.Context().Err() != nil:
			return c.cut(record.StatusAborted, err)
		default:
			return s.refused(brokenOff(ctx, err))
		}
	}
}

// brokenOff is why the upstream's answer ended: watch ended it, or it did itself.
func brokenOff(ctx context.Context, err error) error {
	var ended *Refusal
	if errors.As(context.Cause(ctx), &ended) {
		return ended
	}
	return &Refusal{Code: CodeUpstreamInvalid, Err: err}
}

// observed is one answer on its way through an observer.
type observed struct {
	c      *call
	o      Observer
	resp   *http.Response
	conn   *http.ResponseController
	unread *time.Timer // runs while the caller is written to
}

func (s *observed) end() error {
	out, err := s.o.End()
	if err != nil {
		return s.refused(err)
	}
	if err := s.write(out); err != nil {
		return s.c.cut(record.StatusAborted, err)
	}
	s.release()
	return s.c.done(s.resp.StatusCode)
}

func (s *observed) release() {
	if !s.c.released {
		s.c.released = true
		s.c.w.WriteHeader(s.resp.StatusCode)
	}
}

// write releases the head with the first bytes: until then an answer can still
// be refused.
func (s *observed) write(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	s.release()
	s.unread.Reset(unreadFor)
	s.c.outcome.bytes += int64(len(out))
	if _, err := s.c.w.Write(out); err != nil {
		return err
	}
	if s.resp.ContentLength >= 0 {
		return nil
	}
	return s.conn.Flush()
}

// refused ends the answer: as any refusal while nothing was released, else with
// a last event in the protocol's words.
func (s *observed) refused(err error) error {
	if !s.c.released {
		return s.c.unread(err)
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Code: CodeUpstreamInvalid, Err: err}
	}
	last := s.o.LastWords(Refused{
		Answer: refusal.Answer(), RequestID: s.c.id, Data: refusal.Data, DocURL: s.c.g.cfg.PublicURL + "/errors#" + string(refusal.Code),
	})
	_ = s.write(last)
	return s.c.failed(record.StatusCalleeError, refusal)
}
