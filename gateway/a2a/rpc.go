package a2a

import (
	"net/http"
	"net/url"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// readRPC reads the JSON-RPC binding: one request, posted to the route itself.
func (c *call) readRPC(req *http.Request, _ string, query url.Values, body []byte) error {
	switch {
	case req.Method != http.MethodPost:
		return gateway.Refuse(gateway.CodeMethodNotAllowed, "method %s", req.Method)
	case len(query) > 0:
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a query on the endpoint")
	}
	if err := gateway.CheckJSON(req.Header); err != nil {
		return err
	}
	msg, err := gateway.ReadJSONRPC(body)
	if err != nil {
		return err
	}
	name := msg.Method
	if c.version == Version03 {
		name = methods03[msg.Method]
	}
	if err := c.begin(name); err != nil {
		return err
	}
	if msg.ID.IsZero() {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a message without an id")
	}
	params := msg.Params
	if params.IsZero() {
		params = strictjson.Object()
	}
	if err := c.op.read(c, params); err != nil {
		return err
	}
	c.out.Suffix, c.out.Body = c.r.cfg.RPCPath, msg.Body
	if !c.rewritten.IsZero() {
		c.out.Body = object(with("jsonrpc", str("2.0")), with("id", msg.ID), with("method", str(msg.Method)), with("params", c.rewritten)).AppendJSON(nil)
	}
	c.out.Header.Set("Content-Type", mediaJSON)
	c.out.Answer = func(x gateway.Exchange) gateway.AnswerReader { return &answer{c: c, x: x, id: msg.ID} }
	return nil
}
