package sts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/record"
)

// serveToken is POST {issuer}/token.
func (s *Service) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache") // RFC 6749 §5.1
	if s.turnAway(w, r) {
		return
	}
	id, err := s.cfg.NewID()
	if err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "no record id", slog.String("cause", err.Error()))
		writeRefusal(w, r, table[CodeSigningUnavailable])
		return
	}
	w.Header().Set("Lineal-Request-Id", id) // the reference to the record (threat A9)
	x := &exchange{s: s, r: r, endpoint: "/token", id: id, now: s.cfg.Now(), form: readForm(w, r)}
	x.offerNonce(w.Header())
	if err := x.run(r.Context()); err != nil {
		x.refuse(r.Context(), w, err)
		return
	}
	x.answer(r.Context(), w)
}

// answer gives the token away (RFC 8693 §2.2.1).
func (x *exchange) answer(ctx context.Context, w http.ResponseWriter) {
	var details json.RawMessage // none of a service token
	if !x.granted.IsZero() {
		details = x.granted.Value().AppendJSON(nil)
	}
	body, err := marshal(struct {
		AccessToken     string          `json:"access_token"`
		IssuedTokenType string          `json:"issued_token_type,omitempty"`
		TokenType       string          `json:"token_type"`
		ExpiresIn       int64           `json:"expires_in"`
		Scope           string          `json:"scope,omitempty"`
		Details         json.RawMessage `json:"authorization_details,omitempty"`
		RefreshToken    string          `json:"refresh_token,omitempty"`
	}{
		string(x.issued.token.Raw), x.issuedType(), x.tokenType(), int64(x.expires.Sub(x.now) / time.Second),
		x.granted.Scope(), details, x.refreshToken(),
	})
	if err != nil {
		writeRefusal(w, x.r, table[CodeSigningUnavailable])
		return
	}
	x.s.cfg.Logger.InfoContext(ctx, "token issued", append(x.attrs(),
		slog.String("jti", x.hop.ID+x.service.ID), slog.Int("depth", x.hop.Depth), slog.Bool("inline", x.issued.token.Inline))...)
	writeJSON(w, http.StatusOK, body)
}

// refuse is the one end of a request that gets no token: record, then answer.
// A refusal whose record cannot be made durable still stands.
func (x *exchange) refuse(ctx context.Context, w http.ResponseWriter, err error) {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = &Refusal{Code: CodeSigningUnavailable, Err: err}
	}
	if err := x.recordRefusal(ctx, refusal); err != nil {
		x.s.cfg.Logger.ErrorContext(ctx, "refusal not recorded", slog.String("request_id", x.id), slog.String("cause", err.Error()))
	}
	x.s.cfg.Logger.WarnContext(ctx, "token refused", append(x.attrs(),
		slog.String("reason", string(refusal.Code)), slog.String("cause", refusal.Err.Error()))...)
	x.charge()
	writeRefusal(w, x.r, x.answerTo(refusal))
}

// recordRefusal records what was refused. If the ledger is what failed, there
// is nothing to record it in; counting is the recorder's business.
func (x *exchange) recordRefusal(ctx context.Context, refusal *Refusal) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.s.cfg.RecordTimeout)
	defer cancel()
	if refusal.Code == CodeLedgerUnavailable {
		return nil
	}
	draft, err := x.s.draft(x.accountRefused(refusal.Code), x.id, x.now)
	if err != nil {
		return err
	}
	return x.s.cfg.Recorder.Record(ctx, draft)
}

// account is what both kinds of record say.
func (x *exchange) account() record.Issuance {
	auth := x.workload.Method
	if auth == "" {
		auth = identity.MethodNone
	}
	i := record.Issuance{
		Txn: x.subject.txn, ParentHash: x.subject.hash, RequestHash: x.form.hash, ClientAuth: string(auth),
		Person: record.Person{Ref: x.subject.person.Ref(), Issuer: x.subject.login.Issuer, Presence: record.PresenceNone},
		Actor:  x.workload.Agent.String(), BundleDigest: x.s.cfg.PolicyVersion(),
	}
	if x.in != nil {
		i.Partner = x.in.record()
		i.Person.Issuer, i.Person.Presence = x.in.begun.Issuer, record.PresenceStandingGrant
	}
	if login := x.subject.login; !login.IsZero() {
		i.Person.Presence = record.PresenceInteractive
		if !login.AuthTime.IsZero() {
			i.Person.Auth = &record.Auth{AMR: login.AMR, ACR: login.ACR, Time: login.AuthTime.Unix()}
		}
	}
	// What was asked for, as far as it can be said. A stranger gets no text of
	// his own into the ledger: of his request the record has the hash.
	if x.client.URI.IsZero() {
		return i
	}
	if targets := x.form.targets(); len(targets) == 1 {
		i.Audience = targets[0]
	} else if x.out != nil || x.in != nil {
		i.Audience = x.target.URI
	}
	if x.asSent {
		i.Requested, _ = record.DetailsOf(x.granted) // what no record can hold is left out
	} else if details, err := record.DetailsFrom([]byte(x.form.get("authorization_details"))); err == nil {
		i.Requested = details
	}
	return i
}

func (x *exchange) accountIssued() record.Issuance {
	i := x.account()
	i.Result, i.Reason = record.Issued, record.ReasonAllowed
	i.JTI, i.Expires = x.hop.ID, x.hop.Expires.Unix()
	i.TokenHash, i.ReceiptHash = x.issued.token.Hash, x.issued.receipt.Hash
	if x.asSent && i.Requested.Len() > 0 {
		granted := i.Requested
		i.Granted = &granted
	} else if granted, err := record.DetailsOf(x.granted); err == nil { // else the draft is refused
		i.Granted = &granted
	}
	return i
}

// accountRefused says why. What the caller made up and no record holds is left
// out: a refusal must not be lost because its request was strange (L8).
func (x *exchange) accountRefused(code Code) record.Issuance {
	i := x.account()
	i.Result, i.Reason = record.Refused, string(code)
	if len(i.Audience) > record.MaxText || !utf8.ValidString(i.Audience) || strings.IndexByte(i.Audience, 0) >= 0 {
		i.Audience = ""
	}
	return i
}

// draft gives an issuance its header.
func (s *Service) draft(i record.Issuance, id string, now time.Time) (record.Draft, error) {
	r := record.Record{
		Header: record.Header{
			Version: record.Version, Kind: record.KindIssuance, ID: id, Log: s.cfg.Log, Writer: s.cfg.Writer,
			Time: record.At(now), DataClass: s.cfg.DataClass, Region: s.cfg.Region,
		},
		Issuance: &i,
	}
	d, err := record.NewDraft(r)
	var limit *record.LimitError
	if errors.As(err, &limit) && i.Result == record.Refused {
		reason := i.Reason
		r = r.Reduced()
		r.Issuance.Reason = reason // the refusal's own; the digests say that it was cut
		d, err = record.NewDraft(r)
	}
	if err != nil {
		return record.Draft{}, fmt.Errorf("drafting the record: %w", err)
	}
	return d, nil
}

func (x *exchange) attrs() []any {
	cut := func(names []string) string {
		s := strings.Join(names, " ")
		return s[:min(len(s), 200)]
	}
	return []any{
		slog.String("request_id", x.id), slog.String("client", x.workload.Agent.String()),
		slog.String("targets", cut(x.form.targets())), slog.String("ignored", cut(x.form.ignored())),
	}
}

// writeRefusal answers with the OAuth error (RFC 6749 §5.2).
func writeRefusal(w http.ResponseWriter, r *http.Request, a Answer) {
	switch a.Status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		// A client that tried the header is told the scheme it tried (§5.2).
		if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Basic") || strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", scheme)
		}
	}
	body, err := marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{a.OAuthError, a.Description})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	writeJSON(w, a.Status, body)
}

// marshal is json.Marshal without escapes for HTML, so that the details stand
// in the answer as they stand in the token.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}
