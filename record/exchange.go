package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// ExchangeType is the DSSE payload type of what two organisations sign of one
// call between them (ledger.md §9).
const ExchangeType = "application/vnd.lineal.exchange.v1+json"

// Countersigned is one side's signed word on a call between organisations: the
// caller's statement, which goes with the call, or the callee's receipt, which
// comes with the answer. It says which record that side made durable, and until
// when that record will be in its log: one that is missing after that was left
// out.
type Countersigned struct {
	Version int64        `json:"v"`
	Role    ExchangeRole `json:"role"`
	// ID is of the exchange, 128 random bits chosen by the caller.
	ID string `json:"id"`
	// Salt is what BodyCommit is made under, in a statement; BodyCommit commits to
	// the bytes of the request as they were sent.
	Salt       string `json:"salt,omitempty"`
	BodyCommit string `json:"body_commit"`
	// Effect is the callee's verdict, in a receipt.
	Effect Effect `json:"effect,omitempty"`
	// RecordHash is of the decision in the family Log, which merges by MergeBy.
	RecordHash string    `json:"record_hash"`
	Log        string    `json:"log"`
	MergeBy    Timestamp `json:"merge_by"`
	// Checkpoint is the newest published checkpoint of that family which the callee's
	// gateway had seen, as [CheckpointBody] writes it, in a receipt; "" if it had
	// seen none, or the receipt is of a time before receipts named one. It binds the
	// callee to this tree: a later one that is smaller, or has another root at this
	// size, is not the log that it was.
	Checkpoint string `json:"checkpoint,omitempty"`
}

func (s Countersigned) check() error {
	c := &checker{}
	c.require(s.Version == Version, "v", "is not %d", Version)
	oneOf(c, "role", s.Role, RoleCaller, RoleCallee)
	c.random("id", s.ID, 16)
	c.hash("body_commit", s.BodyCommit)
	c.hash("record_hash", s.RecordHash)
	c.name("log", s.Log)
	c.time("merge_by", s.MergeBy)
	if s.Role == RoleCaller {
		c.random("salt", s.Salt, 32)
		c.require(s.Effect == "", "effect", "stands in a statement")
		c.require(s.Checkpoint == "", "checkpoint", "stands in a statement")
	} else {
		oneOf(c, "effect", s.Effect, Permit, Deny)
		c.require(s.Salt == "", "salt", "stands in a receipt")
		c.checkpoint("checkpoint", s.Checkpoint)
		c.require(s.Checkpoint == "" || ofFamily(s.Log, s.Checkpoint), "checkpoint", "is of another log")
	}
	return c.err
}

// ofFamily reports whether a checkpoint body is of a log of the family.
func ofFamily(family, body string) bool {
	origin, _, _ := strings.Cut(body, "\n")
	return origin == family || strings.HasPrefix(origin, family+"/")
}

// Commits reports whether a statement's commitment is to these bytes.
func (s Countersigned) Commits(body []byte) bool {
	salt, err := decode64(s.Salt, 32)
	return err == nil && Commit([32]byte(salt), body) == s.BodyCommit
}

// SignExchange puts a statement or receipt under a writer's key. Its hash is that
// of the envelope's bytes ([Hash]).
func SignExchange(s Countersigned, signer Signer) (envelope []byte, err error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("signing exchange: %w", err)
	}
	payload := appendValue(nil, reflect.ValueOf(s))
	sig, err := signer.Sign(dsse.PAE(ExchangeType, payload))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, errors.Join(errors.New("signing exchange: no signature"), err)
	}
	return exchangeEnvelope(payload, signer.KeyID(), sig), nil
}

// exchangeEnvelope is the one form of the envelope, RFC 8785.
func exchangeEnvelope(payload []byte, keyID string, sig []byte) []byte {
	m := func(name string, v strictjson.Value) strictjson.Member {
		return strictjson.Member{Name: name, Value: v}
	}
	return strictjson.Object(
		m("payload", strictjson.String(base64.StdEncoding.EncodeToString(payload))),
		m("payloadType", strictjson.String(ExchangeType)),
		m("signatures", strictjson.Array(strictjson.Object(
			m("keyid", strictjson.String(keyID)), m("sig", strictjson.String(base64.StdEncoding.EncodeToString(sig)))))),
	).AppendJSON(nil)
}

// maxExchange bounds an envelope, in bytes.
const maxExchange = 8192

// OpenExchange reads an envelope in its one form and verifies it under the key
// that key gives for its id; ok is false for a key that is nobody's.
func OpenExchange(envelope []byte, key func(keyID string) (pub ed25519.PublicKey, ok bool)) (Countersigned, error) {
	s, err := openExchange(envelope, key)
	if err != nil {
		return Countersigned{}, fmt.Errorf("opening exchange: %w", err)
	}
	return s, nil
}

func openExchange(envelope []byte, key func(string) (ed25519.PublicKey, bool)) (s Countersigned, err error) {
	var e struct {
		Payload    string `json:"payload"`
		Type       string `json:"payloadType"`
		Signatures []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := strictjson.Unmarshal(envelope, &e, strictjson.Limits{MaxBytes: maxExchange}); err != nil {
		return s, err
	}
	if e.Type != ExchangeType || len(e.Signatures) != 1 {
		return s, errors.New("of another type, or not of one signature")
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		return s, errors.New("payload is not base64")
	}
	sig, err := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return s, errors.New("signature is not 64 bytes of base64")
	}
	if !bytes.Equal(exchangeEnvelope(payload, e.Signatures[0].KeyID, sig), envelope) {
		return s, errors.New("not in canonical form")
	}
	pub, ok := key(e.Signatures[0].KeyID)
	if !ok || KeyID(pub) != e.Signatures[0].KeyID {
		return s, fmt.Errorf("%w: key %.64q is nobody's", ErrSignature, e.Signatures[0].KeyID)
	}
	if err := verify(pub, dsse.PAE(ExchangeType, payload), sig); err != nil {
		return s, err
	}
	if err := strictjson.Unmarshal(payload, &s, strictjson.Limits{MaxBytes: maxExchange}); err != nil {
		return Countersigned{}, err
	}
	if !bytes.Equal(appendValue(nil, reflect.ValueOf(s)), payload) {
		return Countersigned{}, errors.New("payload is not in canonical form")
	}
	return s, s.check()
}
