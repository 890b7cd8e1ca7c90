package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Writers are the writers of the log and their keys.
type Writers interface {
	// Keys lists the keys that the log knows, those that ended too, by writer, and
	// of one writer in the order in which they were added.
	Keys(ctx context.Context) ([]WriterKey, error)
	// Change does what c says, each step after its record, and gives the key
	// records that it made. What was interrupted is repeated. ErrNoWriter and
	// ErrWriterRefused say that nothing was done; after any other error part of it
	// may be.
	Change(ctx context.Context, c WriterChange) ([]KeyChanged, error)
}

// The errors of Writers that an operator caused.
var (
	ErrNoWriter      = errors.New("no such writer")
	ErrWriterRefused = errors.New("the writer's keys stay as they are")
)

// WriterKey is a key of a writer as the log has it.
type WriterKey struct {
	Writer string `json:"writer"` // gw.id of its records
	Role   string `json:"role,omitempty"`
	KeyID  string `json:"keyid"`
	// PublicKey is raw Ed25519, unpadded base64url.
	PublicKey string         `json:"public_key"`
	State     WriterKeyState `json:"state"`
	// Period and Index are of the record that added it: it holds after that.
	Period string `json:"period"`
	Index  int64  `json:"index"`
	// EndPeriod and EndIndex are of the record that ended it.
	EndPeriod string `json:"end_period,omitempty"`
	EndIndex  int64  `json:"end_index,omitempty"`
	// Stolen is from when a revoked key is suspect, RFC 3339; Cause is why.
	Stolen string `json:"stolen,omitempty"`
	Cause  string `json:"cause,omitempty"`
}

// WriterKeyState is how a key stands.
type WriterKeyState string

// The states.
const (
	// KeyCurrent signed the writer's last record.
	KeyCurrent WriterKeyState = "current"
	// KeyAdded may sign, and has not signed the last record: it is the next, or one
	// whose successor signs already.
	KeyAdded   WriterKeyState = "added"
	KeyRetired WriterKeyState = "retired"
	KeyRevoked WriterKeyState = "revoked"
)

// WriterOp is what is done to a writer's keys.
type WriterOp string

// The operations.
const (
	// WriterRotate gives a writer of this process a new key and retires the old.
	WriterRotate WriterOp = "rotate"
	// WriterAdd makes a key known that is elsewhere.
	WriterAdd WriterOp = "add"
	// WriterRetire ends a key; without one all of a writer that left.
	WriterRetire WriterOp = "retire"
	// WriterRevoke ends a key that others may have.
	WriterRevoke WriterOp = "revoke"
)

// WriterChange is what an operator asks for.
type WriterChange struct {
	Op     WriterOp
	Writer string
	KeyID  string // of WriterRetire and WriterRevoke; "" where it is clear
	// PublicKey is of WriterAdd, raw Ed25519 in unpadded base64url.
	PublicKey string
	// Since and Cause are of WriterRevoke: from when records under the key are
	// suspect, and a word for why.
	Since time.Time
	Cause string
	// Gone is of WriterRetire: the writer ended without saying so.
	Gone bool
	By   string // the operator, "" where no connection proved one
}

// KeyChanged is a key record that was made.
type KeyChanged struct {
	Op     string `json:"op"` // add, retire or revoke
	Writer string `json:"writer"`
	KeyID  string `json:"keyid"`
	Record string `json:"record"` // its id
}

// writerRequest is a WriterChange as it is sent.
type writerRequest struct {
	Op        string    `json:"op"`
	KeyID     string    `json:"keyid"`
	PublicKey string    `json:"public_key"`
	Since     time.Time `json:"since"`
	Cause     string    `json:"cause"`
	Gone      bool      `json:"gone"`
}

// listWriters is GET of all keys.
func (x *request) listWriters(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	if x.s.cfg.Writers == nil {
		return answer{}, refuse(CodeWriterRefused, "this process does not hold the manifest key")
	}
	keys, err := x.s.cfg.Writers.Keys(ctx)
	if err != nil {
		return answer{}, refuse(CodeLedgerUnavailable, "%w", err)
	}
	if err := x.tell(ctx, len(keys)); err != nil {
		return answer{}, err
	}
	page := struct {
		Items []WriterKey `json:"items"`
	}{append([]WriterKey{}, keys...)}
	return answer{status: http.StatusOK, body: page}, nil
}

// changeWriter is POST to a writer. What was done are key records, with the
// operator as `by`; what is refused is recorded here.
func (x *request) changeWriter(ctx context.Context) (answer, error) {
	if _, err := x.parameters(); err != nil {
		return answer{}, err
	}
	document, err := x.body()
	if err != nil {
		return answer{}, err
	}
	var in writerRequest
	if err := strictjson.Unmarshal(document, &in, strictjson.Limits{MaxBytes: maxBody}); err != nil {
		return answer{}, refuse(CodeBodyInvalid, "%w", err)
	}
	if x.s.cfg.Writers == nil {
		return answer{}, refuse(CodeWriterRefused, "this process does not hold the manifest key")
	}
	done, err := x.s.cfg.Writers.Change(context.WithoutCancel(ctx), WriterChange{
		Op: WriterOp(in.Op), Writer: x.id, KeyID: in.KeyID, PublicKey: in.PublicKey, Since: in.Since, Cause: in.Cause, Gone: in.Gone, By: x.account.By,
	})
	switch {
	case errors.Is(err, ErrNoWriter):
		return answer{}, refuse(CodeNotFound, "%w", err)
	case errors.Is(err, ErrWriterRefused):
		return answer{}, refuse(CodeWriterRefused, "%w", err)
	case err != nil:
		return answer{}, refuse(CodeLedgerUnavailable, "%w", err)
	}
	made := struct {
		Changes []KeyChanged `json:"changes"`
	}{append([]KeyChanged{}, done...)}
	return answer{status: http.StatusOK, body: made}, nil
}
