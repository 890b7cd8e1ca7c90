package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// maxEvent bounds one event of a stream that is read, in bytes.
const maxEvent = 4 << 20

// readAnswer hands what comes back to the protocol, message by message, and
// releases what that leaves of it.
func (c *call) readAnswer(ctx context.Context, resp *http.Response) error {
	a := c.request.Answer(&exchange{c: c})
	if v, ok := a.(Voucher); ok {
		defer func() { c.outcome.card = v.Vouched() }()
	}
	if c.request.Framed {
		return c.readFrames(ctx, resp, a)
	}
	if err := a.Head(resp.StatusCode, resp.Header, c.w.Header()); err != nil {
		return c.unread(err)
	}
	if isEventStream(resp.Header) && resp.StatusCode < 300 {
		return c.readEvents(resp, a)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, c.route.MaxAnswer+1))
	switch {
	case err != nil && c.r.Context().Err() != nil:
		return c.cut(record.StatusAborted, err)
	case err != nil:
		return c.unread(err)
	case int64(len(answer)) > c.route.MaxAnswer:
		return c.unread(fmt.Errorf("an answer longer than %d bytes", c.route.MaxAnswer))
	}
	if len(answer) > 0 || resp.StatusCode >= 400 {
		if answer, err = a.Message(answer); err != nil {
			return c.unread(err)
		}
	}
	c.released = true
	c.outcome.bytes = int64(len(answer))
	c.w.WriteHeader(resp.StatusCode)
	if len(answer) > 0 { // some statuses have no body
		if _, err := c.w.Write(answer); err != nil {
			return c.cut(record.StatusAborted, err)
		}
	}
	return c.done(resp.StatusCode)
}

// unread ends an answer that is not released: with the protocol's refusal, or
// because nobody can read it.
func (c *call) unread(err error) error {
	c.forgetHeaders()
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Code: CodeUpstreamInvalid, Err: err}
	}
	return c.failed(record.StatusCalleeError, refusal)
}

// readEvents reads an event stream. Its head is released at once, because a
// caller does not wait for it for as long as for its events.
func (c *call) readEvents(resp *http.Response, a AnswerReader) error {
	release := func() error {
		if c.released {
			return nil
		}
		c.released = true
		c.w.WriteHeader(resp.StatusCode)
		return http.NewResponseController(c.w).Flush()
	}
	if !c.request.Whole {
		if err := release(); err != nil {
			return c.cut(record.StatusAborted, err)
		}
	}
	events := newEventReader(resp.Body)
	var held []byte // while the answer is held back
	for {
		e, err := events.next()
		switch {
		case errors.Is(err, io.EOF):
			if err := errors.Join(release(), c.write(held)); err != nil {
				return c.cut(record.StatusAborted, err)
			}
			return c.done(resp.StatusCode)
		case err != nil && c.r.Context().Err() != nil:
			return c.cut(record.StatusAborted, err)
		case err != nil && c.released:
			return c.cut(record.StatusCalleeError, err)
		case err != nil:
			return c.unread(err)
		}
		out, err := e.judged(a)
		if err != nil && c.released {
			return c.endStream(err)
		}
		if err != nil {
			return c.unread(err)
		}
		if held = append(held, out...); c.request.Whole && !a.Done() {
			if int64(len(held)) > c.route.MaxAnswer {
				return c.unread(fmt.Errorf("more than %d bytes before the response", c.route.MaxAnswer))
			}
			continue
		}
		if len(held) == 0 {
			continue
		}
		if err := errors.Join(release(), c.write(held)); err != nil {
			return c.cut(record.StatusAborted, err)
		}
		held = held[:0]
	}
}

func (c *call) write(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	c.outcome.bytes += int64(len(out))
	if _, err := c.w.Write(out); err != nil {
		return err
	}
	return http.NewResponseController(c.w).Flush()
}

// endStream ends a stream that has begun with the refusal as its last event:
// in the protocol's words, for the request's own id.
func (c *call) endStream(err error) error {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Code: CodeUpstreamInvalid, Err: err}
	}
	a := refusal.Answer()
	f := Refused{Answer: a, RequestID: c.id, Data: refusal.Data, DocURL: c.g.cfg.PublicURL + "/errors#" + string(a.Code)}
	last := &lastEvent{header: http.Header{}}
	c.route.Protocol.WriteRefusal(last, c.r, c.body, f)
	if text := bytes.TrimSpace(last.body.Bytes()); len(text) > 0 {
		_ = c.write([]byte("data: " + string(text) + "\n\n"))
	}
	return c.failed(record.StatusCalleeError, refusal)
}

// lastEvent takes the body of a refusal.
type lastEvent struct {
	header http.Header
	body   bytes.Buffer
}

func (l *lastEvent) Header() http.Header         { return l.header }
func (l *lastEvent) Write(b []byte) (int, error) { return l.body.Write(b) }
func (l *lastEvent) WriteHeader(int)             {}

// event is one server-sent event, in the parts that are sent on. What else a
// lenient reader could take for data is dropped.
type event struct {
	other   []string // comments, event and retry lines, as they are
	id      string
	hasID   bool
	data    []string
	hasData bool
}

// judged is the event with its data and id as they are released; nothing of an
// event whose data is withheld.
func (e event) judged(a AnswerReader) ([]byte, error) {
	var out strings.Builder
	for _, line := range e.other {
		out.WriteString(line + "\n")
	}
	data := strings.Join(e.data, "\n")
	if data != "" {
		released, err := a.Message([]byte(data))
		if err != nil {
			return nil, err
		}
		if released == nil {
			return nil, nil
		}
		data = string(released)
	}
	if e.hasID {
		id, err := a.EventID(e.id)
		if err != nil {
			return nil, err
		}
		if id != "" {
			out.WriteString("id: " + id + "\n")
		}
	}
	if e.hasData {
		out.WriteString("data: " + data + "\n")
	}
	if out.Len() == 0 {
		return nil, nil
	}
	return []byte(out.String() + "\n"), nil
}

// eventReader cuts a stream into events. Lines end as the standard says, so that
// each reader sees the lines that were judged.
type eventReader struct {
	r     *bufio.Reader
	begun bool
	cr    bool // the last line ended with \r: a \n that follows belongs to it
}

func newEventReader(r io.Reader) *eventReader { return &eventReader{r: bufio.NewReader(r)} }

var errLongEvent = fmt.Errorf("an event longer than %d bytes", maxEvent)

// next is the next event. What comes after the last blank line is no event and
// is not sent on.
func (r *eventReader) next() (e event, err error) {
	size := 0
	for {
		line, err := r.line(maxEvent - size)
		if err != nil {
			return event{}, err
		}
		if size += len(line) + 1; size > maxEvent {
			return event{}, errLongEvent
		}
		if !r.begun {
			line, r.begun = strings.TrimPrefix(line, "\ufeff"), true
		}
		if line == "" {
			if size > 1 {
				return e, nil
			}
			size = 0
			continue
		}
		e.add(line)
	}
}

func (e *event) add(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "data":
		e.data, e.hasData = append(e.data, value), true
	case "id":
		if !strings.ContainsRune(value, 0) {
			e.id, e.hasID = value, true
		}
	case "", "event", "retry":
		e.other = append(e.other, line)
	}
}

// line reads to the next line end: \n, \r\n or \r.
func (r *eventReader) line(limit int) (string, error) {
	var line []byte
	for {
		b, err := r.r.ReadByte()
		switch {
		case err != nil:
			return "", err
		case b == '\n' && r.cr:
			r.cr = false
			continue
		case b == '\n', b == '\r':
			r.cr = b == '\r'
			return string(line), nil
		case len(line) >= limit:
			return "", errLongEvent
		}
		r.cr = false
		line = append(line, b)
	}
}
