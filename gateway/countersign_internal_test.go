package gateway

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// TestStatementsOfPartnersHold: a statement counts if a known partner signed it of
// exactly this request, and is kept before the call goes on; any other refuses the
// call. The untouched one is the twin that passes.
func TestStatementsOfPartnersHold(t *testing.T) {
	signer := func(n byte) (record.Signer, ed25519.PublicKey) {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
		s, err := record.NewSigner(key)
		if err != nil {
			t.Fatal(err)
		}
		return s, key.Public().(ed25519.PublicKey)
	}
	known, pub := signer(1)
	stranger, _ := signer(2)
	body, salt := []byte(`{"id":7}`), [32]byte{3}
	kept := map[string]bool{}
	var down error
	x := &ExchangeConfig{
		Peer: func(id string) (string, ed25519.PublicKey, bool) { return "b.test", pub, id == known.KeyID() },
		Keep: func(_ context.Context, envelope []byte) error {
			kept[record.Hash(envelope)] = true
			return down
		},
	}
	whole := record.Countersigned{
		Version: 1, Role: record.RoleCaller, ID: "AAAAAAAAAAAAAAAAAAAAAA", Salt: record.SaltText(salt), BodyCommit: record.Commit(salt, body),
		RecordHash: record.Hash([]byte("r")), Log: "ledger.b.test/std", MergeBy: "2027-03-02T09:16:07.318Z",
	}
	header := func(s record.Countersigned, by record.Signer) string {
		envelope, err := record.SignExchange(s, by)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(envelope)
	}
	receipt := whole
	receipt.Role, receipt.Salt, receipt.Effect = record.RoleCallee, "", record.Permit
	good := header(whole, known)
	open := func(body []byte, sent ...string) (*call, error) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Header[exchangeHeader] = sent
		c := &call{g: &Gateway{cfg: Config{Exchange: x, RecordTimeout: 1e9}}, r: r, body: body}
		return c, c.openStatement()
	}
	for name, tt := range map[string]struct {
		body []byte
		sent []string
	}{
		"another body":      {[]byte(`{"id":8}`), []string{good}},
		"two statements":    {body, []string{good, good}},
		"a stranger's key":  {body, []string{header(whole, stranger)}},
		"a receipt":         {body, []string{header(receipt, known)}},
		"no base64url":      {body, []string{good + "="}},
		"a byte changed":    {body, []string{good[:40] + "A" + good[41:]}},
		"empty":             {body, []string{""}},
		"something else":    {body, []string{"e30"}},
		"a cut one":         {body, []string{good[:len(good)-4]}},
		"spaces around it":  {body, []string{" " + good}},
		"nothing but a dot": {body, []string{"."}},
	} {
		c, err := open(tt.body, tt.sent...)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.RecordReason() != "exchange_invalid" || refusal.Answer().Status != http.StatusBadRequest || c.crossing != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(kept) != 0 {
		t.Errorf("kept what does not hold: %v", kept)
	}
	down = errors.New("the store is down")
	var refusal *Refusal
	if _, err := open(body, good); !errors.As(err, &refusal) || refusal.Code != CodeLedgerUnavailable {
		t.Errorf("not kept, and went on: %v", err)
	}
	down = nil
	c, err := open(body, good)
	if err != nil || c.crossing == nil || c.crossing.exchange.PeerOrg != "b.test" || c.crossing.exchange.ID != whole.ID ||
		c.crossing.exchange.Role != record.RoleCallee || !kept[c.crossing.exchange.StatementHash] {
		t.Fatalf("%+v, %v", c.crossing, err)
	}
	if c, err := open(body); err != nil || c.crossing != nil {
		t.Errorf("without one: %v", err)
	}
}

// TestReceiptNamesTheCheckpointThatIsKnown: a receipt names it, a statement does
// not, and what the gateway says stands in its word as it is.
func TestReceiptNamesTheCheckpointThatIsKnown(t *testing.T) {
	body := record.CheckpointBody("ledger.b.test/std/2027-03", 7, [32]byte{1})
	known := func() string { return body }
	for name, tt := range map[string]struct {
		role       record.ExchangeRole
		checkpoint func() string
		want       string
	}{
		"a receipt": {record.RoleCallee, known, body}, "a statement": {record.RoleCaller, known, ""},
		"nothing seen": {record.RoleCallee, func() string { return "" }, ""}, "nobody to ask": {record.RoleCallee, nil, ""},
	} {
		c := &call{
			g:        &Gateway{cfg: Config{Log: "ledger.b.test/std", Now: time.Now, Exchange: &ExchangeConfig{Checkpoint: tt.checkpoint}}},
			crossing: &crossing{exchange: record.Exchange{Role: tt.role}},
		}
		if got := c.word(record.Permit).Checkpoint; got != tt.want {
			t.Errorf("%s names %q", name, got)
		}
	}
}
