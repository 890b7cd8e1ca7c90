package admin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/token"
)

// revocation is one as it is told. Times are RFC 3339.
type revocation struct {
	Seq    int64      `json:"seq"`
	Kind   string     `json:"kind"`
	Value  string     `json:"value"`
	Before *time.Time `json:"before,omitempty"`
	Ends   *time.Time `json:"ends,omitempty"`
}

// revocationRequest is what an operator asks for.
type revocationRequest struct {
	Kind   string    `json:"kind"`
	Value  string    `json:"value"`
	Before time.Time `json:"before"`
	Ends   time.Time `json:"ends"`
	Cause  string    `json:"cause"`
}

// listRevocations is GET of the list, oldest first, after a number.
func (x *request) listRevocations(ctx context.Context) (answer, error) {
	q, err := x.parameters("limit", "after")
	if err != nil {
		return answer{}, err
	}
	most, err := limit(q)
	if err != nil {
		return answer{}, err
	}
	var after int64
	if q.Has("after") {
		if after, err = strconv.ParseInt(q.Get("after"), 10, 64); err != nil || after < 0 {
			return answer{}, refuse(CodeParameterInvalid, "after is no number")
		}
	}
	got, err := x.s.cfg.Revoked.RevokedSince(ctx, after, most)
	if err != nil {
		return answer{}, refuse(CodeRegistryUnavailable, "%w", err)
	}
	page := struct {
		Items   []revocation `json:"items"`
		Through int64        `json:"through"`
		Last    int64        `json:"last"`
	}{Items: []revocation{}, Through: got.Through, Last: got.Last}
	for _, e := range got.Entries {
		page.Items = append(page.Items, revocation{Seq: e.Seq, Kind: e.Kind, Value: e.Value, Before: instant(e.Before), Ends: instant(e.Ends)})
	}
	if err := x.tell(ctx, len(page.Items)); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: page}, nil
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// revoke is POST of a revocation. The token service records it, with the operator
// as `by`; what is refused here is recorded here.
func (x *request) revoke(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	document, err := x.body()
	if err != nil {
		return answer{}, err
	}
	var in revocationRequest
	if err := strictjson.Unmarshal(document, &in, strictjson.Limits{MaxBytes: maxBody}); err != nil {
		return answer{}, refuse(CodeBodyInvalid, "%w", err)
	}
	if in.Kind == "" || in.Value == "" || in.Cause == "" {
		return answer{}, refuse(CodeBodyInvalid, "kind, value and cause are required")
	}
	if len(in.Value) <= maxTarget {
		x.account.Target = in.Value
	}
	seq, err := x.s.cfg.Revoke(ctx, Revocation{
		Kind: token.RevocationKind(in.Kind), Value: in.Value, Before: in.Before, Ends: in.Ends, Cause: in.Cause, By: x.account.By,
	})
	switch {
	case errors.Is(err, ErrInvalid):
		return answer{}, refuse(CodeBodyInvalid, "%w", err)
	case err != nil:
		return answer{}, refuse(CodeRegistryUnavailable, "%w", err)
	}
	return answer{status: http.StatusCreated, body: map[string]int64{"seq": seq}}, nil
}

// status is GET of what is in force.
func (x *request) status(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	if err := x.tell(ctx, 1); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: x.s.cfg.Status(ctx)}, nil
}
