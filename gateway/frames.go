package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/record"
)

// frameHead is what stands before each message of gRPC: whether it is compressed,
// and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const frameHead = 5

// ReadFrame reads one message that is not compressed and at most limit bytes
// long. The error is io.EOF where a message could begin and none does.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	switch {
	case head[0] != 0:
		return nil, errors.New("a compressed message")
	case int64(size) > int64(limit):
		return nil, fmt.Errorf("a message of %d bytes, more than %d", size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && len(data) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// AppendFrame appends a message as gRPC sends it.
func AppendFrame(b, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 0), uint32(len(data))) //nolint:gosec // bounded by maxEvent
	return append(b, data...)
}

// grpcUnauthenticated is the status by which an upstream refuses a credential.
const grpcUnauthenticated = "16"

// readFrames reads an answer over gRPC, message by message. How it ended is in
// its trailers, or in the headers if there is nothing else.
func (c *call) readFrames(ctx context.Context, resp *http.Response, a AnswerReader) error {
	if err := a.Head(resp.StatusCode, resp.Header, c.w.Header()); err != nil {
		return c.endFrames(ctx, err)
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return c.endFrames(ctx, fmt.Errorf("no answer over gRPC, but %d", resp.StatusCode))
	}
	conn := http.NewResponseController(c.w)
	for {
		data, err := ReadFrame(resp.Body, maxEvent)
		switch {
		case errors.Is(err, io.EOF):
			return c.endOfFrames(ctx, resp)
		case err != nil && c.r.Context().Err() != nil:
			return c.cut(record.StatusAborted, err)
		case err != nil:
			return c.endFrames(ctx, brokenOff(ctx, err))
		}
		if data, err = a.Message(data); err != nil {
			return c.endFrames(ctx, err)
		}
		if !c.released {
			c.released = true
			c.w.WriteHeader(resp.StatusCode)
		}
		c.outcome.bytes += int64(len(data))
		if _, err := c.w.Write(AppendFrame(nil, data)); err != nil {
			return c.cut(record.StatusAborted, err)
		}
		if err := conn.Flush(); err != nil {
			return c.cut(record.StatusAborted, err)
		}
	}
}

// endOfFrames is the end that the upstream gave: its status passes, but that it
// does not know us.
func (c *call) endOfFrames(ctx context.Context, resp *http.Response) error {
	status := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
	if status == grpcUnauthenticated { // rule d of gateway.md §2
		return c.endFrames(ctx, Refuse(CodeUpstreamCredential, "upstream answered gRPC status %s", status))
	}
	if status == "" {
		return c.endFrames(ctx, errors.New("an answer without a status"))
	}
	c.release(resp)
	return c.finish(resp)
}

// endFrames ends an answer that does not go on: with the refusal while nothing
// was released, else with its status in the trailers.
func (c *call) endFrames(ctx context.Context, err error) error {
	refused := c.unread(err)
	if !c.released {
		return refused
	}
	refusal := asRefusal(refused)
	if ended := c.endedBy(ctx, refused); ended != nil {
		refusal = asRefusal(ended)
	}
	a := refusal.Answer()
	last := &lastEvent{header: http.Header{}}
	c.route.Protocol.WriteRefusal(last, c.r, c.body, Refused{
		Answer: a, RequestID: c.id, Data: refusal.Data, DocURL: c.g.cfg.PublicURL + "/errors#" + string(a.Code),
	})
	for _, name := range c.request.Trailers {
		if v := last.header[name]; len(v) == 1 {
			c.w.Header()[http.TrailerPrefix+name] = v
		}
	}
	c.logRefusal(refusal)
	return nil // the handler ends as ever, or the trailers would not go out
}
