package gateway

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// exchangeHeader carries the caller's statement with a call and the callee's
// receipt with its answer, DSSE in base64url (ledger.md §9).
const exchangeHeader = "Lineal-Exchange"

// HashRecorder is a Recorder that says which record it made durable.
type HashRecorder interface {
	Recorder
	// RecordHash is Record, and gives the record's hash.
	RecordHash(ctx context.Context, r record.Record, disclosed ...record.Disclosure) (hash string, err error)
}

// ExchangeConfig lets calls between organisations be countersigned. What has no
// "if nil" or "zero" is required, and Config.Recorder must be a HashRecorder.
//
//	ours   record ─ack─▶ statement ──────▶ verified, kept, named in the record ─ack─┐
//	       outcome ◀── verified, kept ◀────────────────────────────── receipt ◀────┘ theirs
type ExchangeConfig struct {
	// Sign signs with the key of this gateway's writer.
	Sign func(s record.Countersigned) (envelope []byte, err error)
	// Peer is the organisation whose gateway's key has an id, ok false if it is
	// nobody's.
	Peer func(keyID string) (org string, key ed25519.PublicKey, ok bool)
	// Keep returns after an envelope is durable beside the log, under its hash.
	Keep func(ctx context.Context, envelope []byte) error
	// Checkpoint is the newest published checkpoint of our log that is known here, as
	// record.CheckpointBody writes it, or "": receipts name it. It answers from
	// memory. If nil, they name none.
	Checkpoint func() string
	// MergeBy is how long after its ack a record may take to be in the log; zero:
	// 120 s.
	MergeBy time.Duration
}

const defaultMergeBy = 120 * time.Second

func (c Config) checkExchange() error {
	x := c.Exchange
	if x == nil {
		return nil
	}
	if _, ok := c.Recorder.(HashRecorder); !ok || x.Sign == nil || x.Peer == nil || x.Keep == nil {
		return errors.New("gateway: an exchange needs a recorder of hashes, a signer, peers and a store")
	}
	return nil
}

// crossing is a call between organisations.
type crossing struct {
	exchange record.Exchange
	salt     [32]byte
	hash     string       // of our decision, once it is durable
	peer     *record.Peer // the peer's receipt, nil if none came
}

// openStatement reads the statement of a partner's gateway, if one came. A
// statement that does not hold refuses the call: it was meant to be proof.
func (c *call) openStatement() error {
	x, sent := c.g.cfg.Exchange, c.r.Header.Values(exchangeHeader)
	if x == nil || len(sent) == 0 {
		return nil
	}
	refuse := func(err error) error {
		return &Refusal{Code: CodeRequestUnreadable, Reason: "exchange_invalid", Err: err}
	}
	if len(sent) > 1 {
		return refuse(errors.New("two statements"))
	}
	envelope, err := base64.RawURLEncoding.Strict().DecodeString(sent[0])
	if err != nil {
		return refuse(err)
	}
	s, org, err := x.open(envelope)
	switch {
	case err != nil:
		return refuse(err)
	case s.Role != record.RoleCaller || !s.Commits(c.body):
		return refuse(errors.New("the statement is of another call"))
	}
	ctx, cancel := c.detached()
	defer cancel()
	if err := x.Keep(ctx, envelope); err != nil {
		return &Refusal{Code: CodeLedgerUnavailable, Err: err}
	}
	c.crossing = &crossing{exchange: record.Exchange{
		ID: s.ID, Role: record.RoleCallee, PeerOrg: org, BodyCommit: s.BodyCommit, StatementHash: record.Hash(envelope),
	}}
	return nil
}

func (x *ExchangeConfig) open(envelope []byte) (s record.Countersigned, org string, err error) {
	s, err = record.OpenExchange(envelope, func(id string) (ed25519.PublicKey, bool) {
		o, key, ok := x.Peer(id)
		org = o
		return key, ok
	})
	return s, org, err
}

// cross begins an exchange where the route leads to a partner.
func (c *call) cross() {
	if c.g.cfg.Exchange == nil || c.route.PartnerOrg == "" || c.route.Partner == nil {
		return
	}
	var id [32]byte
	c.g.cfg.Salt(id[:])
	c.crossing = &crossing{}
	c.g.cfg.Salt(c.crossing.salt[:])
	c.crossing.exchange = record.Exchange{
		ID: base64.RawURLEncoding.EncodeToString(id[:16]), Role: record.RoleCaller, PeerOrg: c.route.PartnerOrg,
		BodyCommit: record.Commit(c.crossing.salt, c.request.Body),
	}
}

// durable makes a decision durable, and remembers its hash where a peer is told.
func (c *call) durable(ctx context.Context, rec record.Record, disclosed []record.Disclosure) (err error) {
	if c.crossing == nil {
		return c.g.cfg.Recorder.Record(ctx, rec, disclosed...)
	}
	if c.crossing.hash, err = c.g.cfg.Recorder.(HashRecorder).RecordHash(ctx, rec, disclosed...); err != nil {
		return err
	}
	if c.crossing.exchange.Role == record.RoleCallee {
		c.countersign(rec.Decision.Verdict.Effect)
	}
	return nil
}

// countersign puts our receipt on the answer. Without one the answer goes all the
// same: the peer's side shows that it is missing.
func (c *call) countersign(effect record.Effect) {
	envelope, err := c.g.cfg.Exchange.Sign(c.word(effect))
	if err != nil {
		c.g.log.ErrorContext(c.r.Context(), "exchange receipt not signed", slog.String("request_id", c.id), slog.String("cause", err.Error()))
		return
	}
	c.w.Header().Set(exchangeHeader, base64.RawURLEncoding.EncodeToString(envelope))
}

// word is what we say of this call.
func (c *call) word(effect record.Effect) record.Countersigned {
	x, within := c.crossing, c.g.cfg.Exchange.MergeBy
	if within <= 0 {
		within = defaultMergeBy
	}
	s := record.Countersigned{
		Version: record.Version, Role: x.exchange.Role, ID: x.exchange.ID, BodyCommit: x.exchange.BodyCommit, Effect: effect,
		RecordHash: x.hash, Log: c.g.cfg.Log, MergeBy: record.At(c.g.cfg.Now().Add(within)),
	}
	if x.exchange.Role == record.RoleCaller {
		s.Salt = record.SaltText(x.salt)
	} else if seen := c.g.cfg.Exchange.Checkpoint; seen != nil {
		s.Checkpoint = seen()
	}
	return s
}

// state puts our statement on an outgoing request.
func (c *call) state(ctx context.Context, h http.Header) error {
	if c.crossing == nil || c.crossing.exchange.Role != record.RoleCaller || c.crossing.hash == "" {
		return nil
	}
	envelope, err := c.g.cfg.Exchange.Sign(c.word(""))
	if err != nil {
		return err
	}
	if err := c.g.cfg.Exchange.Keep(context.WithoutCancel(ctx), envelope); err != nil {
		return err
	}
	h.Set(exchangeHeader, base64.RawURLEncoding.EncodeToString(envelope))
	return nil
}

// takeReceipt reads the callee's receipt, keeps it, and names it in the outcome. A
// receipt that is missing, or that does not hold, is none.
func (c *call) takeReceipt(ctx context.Context, h http.Header) {
	if c.crossing == nil || c.crossing.exchange.Role != record.RoleCaller {
		return
	}
	if err := c.readReceipt(ctx, h.Values(exchangeHeader)); err != nil {
		c.g.log.WarnContext(ctx, "no exchange receipt", slog.String("request_id", c.id),
			slog.String("peer", c.crossing.exchange.PeerOrg), slog.String("cause", err.Error()))
	}
}

func (c *call) readReceipt(ctx context.Context, sent []string) error {
	if len(sent) != 1 {
		return errors.New("not exactly one was sent")
	}
	envelope, err := base64.RawURLEncoding.Strict().DecodeString(sent[0])
	if err != nil {
		return err
	}
	s, org, err := c.g.cfg.Exchange.open(envelope)
	x := c.crossing.exchange
	switch {
	case err != nil:
		return err
	case s.Role != record.RoleCallee || s.ID != x.ID || s.BodyCommit != x.BodyCommit || org != x.PeerOrg:
		return errors.New("it is of another call, or organisation")
	}
	if err := c.g.cfg.Exchange.Keep(context.WithoutCancel(ctx), envelope); err != nil {
		return err
	}
	c.crossing.peer = &record.Peer{ExchangeReceiptHash: record.Hash(envelope), RecordHash: s.RecordHash, Log: s.Log}
	return nil
}
