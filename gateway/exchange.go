package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// replyTimeout bounds what the gateway itself says to an upstream.
const replyTimeout = 10 * time.Second

// Exchange is a call under way, for the protocol that reads its answer.
type Exchange interface {
	// CallID is the id of the call.
	CallID() string
	// Shows is the list question for one entry: some detail of every hop covers
	// it, and policy's list set permits it (scope-and-policy.md §4.5).
	Shows(action string, r policy.Resource) bool
	// Ask decides a request of the upstream to the caller and records the
	// decision, linked to the call that it came in. An error is the *Refusal. Once
	// permitted it is delivered; id names it. What the caller answers is a call of
	// its own.
	Ask(a Asked) (id string, err error)
	// Reply sends a message of the gateway's own to the upstream: the refusal of
	// its request.
	Reply(body []byte, header http.Header) error
	// Reveal binds an id that the answer is about to make known to the caller. It
	// must be called before the id is released; an error ends the answer: the id
	// is somebody else's, or cannot be bound. Without bindings it does nothing,
	// and the id is unknown later.
	Reveal(kind registry.IDKind, id string) error
	// Owns reports whether an id is the caller's, for lists.
	Owns(kind registry.IDKind, id string) (bool, error)
}

type exchange struct {
	c        *call
	revealed map[Handle]bool
}

func (x *exchange) CallID() string { return x.c.id }

func (x *exchange) Shows(action string, r policy.Resource) bool { return x.c.shows(action, r) }

// Asked is a request of an upstream to the caller, within a call.
type Asked struct {
	// Action is what policy decides, "mcp:elicitation/create". It needs some
	// detail at the location at every hop, as discovery does.
	Action string
	// Refused says that the route does not let it through, whatever policy says.
	Refused error
	// Body is the request as it came; its size is recorded.
	Body []byte
}

func (x *exchange) Ask(a Asked) (id string, err error) {
	c := &call{
		g: x.c.g, w: x.c.w, r: x.c.r, id: x.c.g.cfg.NewID(), now: x.c.g.cfg.Now(), parent: x.c.id,
		route: x.c.route, body: a.Body, workload: x.c.workload, claimed: x.c.claimed, proof: x.c.proof,
		verified: x.c.verified, bound: x.c.bound,
		request: Request{
			Operation: a.Action, Action: a.Action, Discovery: true, Doc: scope.NewDocument(),
			Resource: policy.Resource{Kind: policy.KindService, Service: x.c.route.Name},
			Tool:     x.c.request.Tool, Needed: []string{a.Action}, Body: a.Body,
		},
	}
	for _, step := range []func() error{c.permit, c.decide, func() error { return a.Refused }, c.record} {
		if err = step(); err != nil {
			break
		}
	}
	if err != nil {
		refusal := asRefusal(err)
		if !c.recorded {
			if err := c.recordRefusal(refusal); err != nil {
				c.g.log.ErrorContext(c.r.Context(), "refusal not recorded", slog.String("request_id", c.id), slog.String("cause", err.Error()))
			}
		}
		c.logRefusal(refusal)
		return c.id, refusal
	}
	c.outcome = &outcome{status: record.StatusCompleted, forwarded: true, bytes: int64(len(a.Body))}
	c.recordOutcome()
	return c.id, nil
}

func (x *exchange) Reply(body []byte, header http.Header) error {
	c := x.c
	ctx, cancel := context.WithTimeout(c.r.Context(), replyTimeout)
	defer cancel()
	reply := &call{g: c.g, w: c.w, r: c.r, id: c.id, route: c.route, verified: c.verified, raw: c.raw, decision: c.decision, request: Request{
		Action: c.request.Action, Name: c.request.Name, Method: http.MethodPost, Suffix: c.request.Suffix, Header: header, Body: body,
	}}
	out, err := reply.outgoing(ctx)
	if err != nil {
		return err
	}
	out.Header.Del("Lineal-Delegation") // it says nothing for the caller
	out.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := c.route.Transport.RoundTrip(out)
	if err != nil {
		return fmt.Errorf("replying to the upstream: %w", err)
	}
	return resp.Body.Close()
}
