package llm

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
)

// maxMessage bounds what is kept of an answer to read it, in bytes: an event of
// a stream, or a whole body. A longer one passes unread, and is refused where
// its id must be known first.
const maxMessage = 8 << 20

var (
	errLong = fmt.Errorf("more than %d bytes without an id", maxMessage)
	errNoID = errors.New("a response without an id")
)

// answered is one message of an answer: the body, or the data of an event.
type answered struct {
	strictjson.Value
	stream bool
}

// observe returns the observer of one answer. One that is no success passes
// unread.
func observe(op operation, x gateway.Exchange, status int, h http.Header) gateway.Observer {
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	ok := status < 300
	return &observer{
		op: op, x: x, ok: ok, holding: ok && op.binds,
		stream: strings.EqualFold(strings.TrimSpace(media), "text/event-stream"),
	}
}

// observer reads an answer on its way. What it holds back is only what stands
// before the first id.
type observer struct {
	op      operation
	x       gateway.Exchange
	ok      bool // a success
	stream  bool
	holding bool
	report  report

	held []byte // what came and was not released yet
	over bool   // too long to be read
	body []byte // of an answer that is no stream

	// The event that is being read.
	line    []byte
	data    []byte
	hasData bool
	cr      bool // the last line ended with \r: a \n that follows belongs to it
	inside  bool // of an event: something of it came
}

// Next reads what came.
func (o *observer) Next(p []byte) ([]byte, error) {
	if !o.ok {
		return p, nil
	}
	if !o.stream {
		return o.nextOfBody(p)
	}
	if !o.holding {
		_, err := o.events(p)
		return p, err
	}
	before := len(o.held)
	o.held = append(o.held, p...)
	end, err := o.events(p)
	if err != nil {
		return nil, err
	}
	switch {
	case !o.holding:
		out := o.held
		o.held = nil
		return out, nil
	case end > 0: // whole events without an id
		out := bytes.Clone(o.held[:before+end])
		o.held = append(o.held[:0], o.held[before+end:]...)
		return out, nil
	case len(o.held) > maxMessage:
		return nil, errLong
	}
	return nil, nil
}

func (o *observer) nextOfBody(p []byte) ([]byte, error) {
	switch {
	case o.over:
	case len(o.body)+len(p) > maxMessage && o.holding:
		return nil, errLong
	case len(o.body)+len(p) > maxMessage:
		o.over, o.body = true, nil
	default:
		o.body = append(o.body, p...)
	}
	if o.holding {
		return nil, nil
	}
	return p, nil
}

// End reads an answer that is no stream.
func (o *observer) End() ([]byte, error) {
	if !o.ok || o.stream || o.over {
		return nil, nil // what is held still is of an event that never ended
	}
	if err := o.message(o.body); err != nil {
		return nil, err
	}
	if o.holding {
		return nil, errNoID
	}
	if o.op.binds { // it was held back whole
		return o.body, nil
	}
	return nil, nil
}

// events reads a part of a stream. end is where in p the last whole event ends.
func (o *observer) events(p []byte) (end int, err error) {
	for i, b := range p {
		if b == '\n' && o.cr {
			o.cr = false
			if end == i { // it belongs to the end of the event
				end = i + 1
			}
			continue
		}
		o.cr = b == '\r'
		if b != '\n' && b != '\r' {
			o.inside = true
			if len(o.line)+len(o.data) > maxMessage {
				if o.holding {
					return end, errLong
				}
				o.over, o.line, o.data = true, nil, nil
			}
			if !o.over {
				o.line = append(o.line, b)
			}
			continue
		}
		if len(o.line) > 0 {
			o.field()
			continue
		}
		if o.inside || o.over {
			if err := o.dispatch(); err != nil {
				return end, err
			}
		}
		end = i + 1
	}
	return end, nil
}

// field is one line of an event.
func (o *observer) field() {
	if value, ok := bytes.CutPrefix(o.line, []byte("data:")); ok {
		if o.hasData {
			o.data = append(o.data, '\n')
		}
		o.data, o.hasData = append(o.data, bytes.TrimPrefix(value, []byte(" "))...), true
	}
	o.line = o.line[:0]
}

// dispatch is the end of one event.
func (o *observer) dispatch() error {
	defer func() { o.data, o.hasData, o.inside, o.over = o.data[:0], false, false, false }()
	if !o.hasData || o.over || (!o.holding && !tells(o.data)) {
		return nil
	}
	return o.message(o.data)
}

// tells reports whether the data of an event may hold what is reported. Most
// events hold a word of text, and are not read.
func tells(data []byte) bool {
	for _, word := range []string{`usage`, `tool_`, `_call`} {
		if bytes.Contains(data, []byte(word)) {
			return true
		}
	}
	return false
}

// message reads one message. What cannot be read is not reported, and is an
// error while an id is waited for.
func (o *observer) message(data []byte) error {
	if o.stream && string(data) == "[DONE]" {
		return nil
	}
	v, err := strictjson.Parse(data, strictjson.Limits{MaxBytes: maxMessage})
	if err != nil {
		if o.holding {
			return err
		}
		return nil
	}
	if o.holding {
		if err := o.bindID(v); err != nil {
			return err
		}
	}
	if o.op.report != nil {
		o.op.report(&o.report, answered{v, o.stream})
	}
	return nil
}

// bindID binds the id of a response before it is revealed.
func (o *observer) bindID(v strictjson.Value) error {
	if o.stream {
		response, ok := v.Get("response")
		if !ok {
			return nil
		}
		v = response
	}
	id := text(v, "id")
	if id == "" {
		return errNoID
	}
	if err := o.x.Reveal(registry.KindResponse, id); err != nil {
		return err
	}
	o.holding = false
	return nil
}

// LastWords are an error in the API's own shape, unless the stream broke off
// within an event.
func (o *observer) LastWords(f gateway.Refused) []byte {
	if !o.stream || !o.ok || (o.inside && len(o.held) == 0) {
		return nil
	}
	return o.op.words(f)
}

// Report is what was read.
func (o *observer) Report() *record.ModelReport {
	if !o.ok {
		return nil
	}
	return o.report.made()
}
