package a2a

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// The documents that a route publishes, below its path.
const (
	cardPath = "/.well-known/agent-card.json"
	keysPath = "/.well-known/agent-card-keys.json"
)

// CardConfig says where an agent's card is and how it is known to be the
// agent's own. Without a key and without a digest no card is served (threat D4).
type CardConfig struct {
	// URL is where the agent has its card. The operator names it; nothing of a
	// card or a request does (threat D1).
	URL string
	// Transport fetches it; the same that calls go over. It must not follow
	// redirects.
	Transport http.RoundTripper
	// Keys is a JWK set: who may sign the card. Keys that the card or its
	// signature names are not looked at.
	Keys []byte
	// Digest is H of the card's canonical form (RFC 8785) without its signatures,
	// for a card that is not signed, as base64url(SHA-256).
	Digest string
	// ExtendedDigest is the same for the card that the agent shows to who has a
	// token, where that is not signed.
	ExtendedDigest string
	// Unchanged serves what was verified as it is, under the agent's own signatures
	// and with its own URLs, which lead past the gateway.
	Unchanged bool
	// Signer signs what is served; it is required unless Unchanged.
	Signer *CardSigner
	// Now is the clock; if nil, the system's. Logger takes each card that was
	// fetched, with digest and verdict; if nil, nobody does.
	Now    func() time.Time
	Logger *slog.Logger
}

const (
	cardLife     = 5 * time.Minute  // how long a card is served without looking again
	cardRetry    = 10 * time.Second // how long one that failed is not asked for again
	cardTimeout  = 5 * time.Second
	maxCardBytes = 256 << 10
)

// cards keeps the one card of a route. Whoever asks, the agent is asked once in
// cardLife at most, and once in cardRetry if that failed.
type cards struct {
	cfg     CardConfig
	trusted cardKeys
	reader  *Reader
	last    atomic.Pointer[record.Card] // of the public card; nil before it was first asked for

	mu   sync.Mutex // guards what follows, and is held while fetching
	body []byte
	etag string
	err  error
	next time.Time // when it is fetched again
}

func newCards(cfg CardConfig, r *Reader) (*cards, error) {
	if cfg.URL == "" || cfg.Transport == nil || cfg.Signer == nil && !cfg.Unchanged {
		return nil, errors.New("a card needs a URL, a transport and a signer")
	}
	trusted, err := parseCardKeys(cfg.Keys)
	if err != nil {
		return nil, err
	}
	if len(trusted.keys) == 0 && cfg.Digest == "" {
		return nil, errors.New("a card needs a key or a digest that it is known by")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &cards{cfg: cfg, trusted: trusted, reader: r}, nil
}

// Publish implements gateway.Publisher: the card, and the key that it is signed
// with. Both are public; a client that has no token yet reads them.
func (r *Reader) Publish(w http.ResponseWriter, req *http.Request, suffix string) bool {
	if r.cards == nil || suffix != cardPath && (suffix != keysPath || r.cards.cfg.Signer == nil) {
		return false
	}
	w.Header().Set("Cache-Control", "public, max-age=60")
	if suffix == keysPath {
		gateway.WriteJSON(w, http.StatusOK, "application/jwk-set+json", r.cards.cfg.Signer.set)
		return true
	}
	body, etag, err := r.cards.get(req.Context())
	if err != nil {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Lineal-Code", string(gateway.CodeUpstreamInvalid))
		gateway.WriteJSON(w, http.StatusBadGateway, "application/problem+json", map[string]any{
			"title": "The agent's card cannot be verified.", "status": http.StatusBadGateway, "code": gateway.CodeUpstreamInvalid, "retryable": true,
		})
		return true
	}
	w.Header().Set("Etag", etag)
	if slices.Contains(req.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
	return true
}

// get is the card as it is served.
func (c *cards) get(ctx context.Context) (body []byte, etag string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if now.Before(c.next) {
		return c.body, c.etag, c.err
	}
	// A caller who goes away ends nothing for the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cardTimeout)
	defer cancel()
	c.body, c.err = c.make(ctx)
	c.next = now.Add(cardLife)
	if c.err != nil {
		c.body, c.next = nil, now.Add(cardRetry)
		c.cfg.Logger.ErrorContext(ctx, "agent card refused", slog.String("agent", c.reader.cfg.Agent), slog.String("cause", c.err.Error()))
		return nil, "", c.err
	}
	c.etag = `"` + hashOf(c.body) + `"`
	return c.body, c.etag, nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// make fetches, verifies, rewrites and signs.
func (c *cards) make(ctx context.Context) ([]byte, error) {
	card, err := c.fetch(ctx)
	if err != nil {
		c.last.Store(&record.Card{Verdict: record.CardRefused})
		return nil, fmt.Errorf("fetching the card: %w", err)
	}
	body, found, err := c.serve(card, c.cfg.Digest)
	c.last.Store(found)
	c.cfg.Logger.InfoContext(ctx, "agent card", slog.String("agent", c.reader.cfg.Agent),
		slog.String("digest", found.Digest), slog.String("verdict", string(found.Verdict)), slog.String("key", found.Key))
	return body, err
}

// serve is a card as clients get it, and what was found of it. pinned is the
// digest by which it is known if it is not signed.
func (c *cards) serve(card strictjson.Value, pinned string) (body []byte, found *record.Card, err error) {
	verified, found, err := c.verify(card, pinned)
	if err != nil {
		return nil, found, fmt.Errorf("verifying the card: %w", err)
	}
	if c.cfg.Unchanged {
		return card.AppendJSON(nil), found, nil
	}
	refused := &record.Card{Digest: found.Digest, Verdict: record.CardRefused}
	verified, err = c.reader.rewrite(verified)
	if err != nil {
		return nil, refused, fmt.Errorf("rewriting the card: %w", err)
	}
	if body, err = c.cfg.Signer.sign(verified); err != nil {
		return nil, refused, err
	}
	return body, found, nil
}

func (c *cards) fetch(ctx context.Context) (strictjson.Value, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.URL, http.NoBody)
	if err != nil {
		return strictjson.Value{}, err
	}
	req.Header.Set("Accept", mediaJSON)
	req.Header.Set("User-Agent", "lineal-gateway")
	resp, err := c.cfg.Transport.RoundTrip(req)
	if err != nil {
		return strictjson.Value{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Encoding") != "" {
		return strictjson.Value{}, fmt.Errorf("the agent answered %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCardBytes+1))
	if err != nil {
		return strictjson.Value{}, err
	}
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxCardBytes})
	if err == nil && v.Kind() != strictjson.KindObject {
		err = errors.New("a card that is no object")
	}
	return v, err
}

// verify says what vouches for the card, a configured key or the pinned digest,
// and gives back what of it that vouches for.
func (c *cards) verify(card strictjson.Value, pinned string) (verified strictjson.Value, found *record.Card, err error) {
	bare := without(card, "signatures")
	found = &record.Card{Verdict: record.CardRefused}
	canonical, err := canonicalOf(bare)
	if err != nil {
		return bare, found, err
	}
	found.Digest = hashOf(canonical)
	if pinned != "" && found.Digest == pinned {
		found.Verdict = record.CardPinned
		return bare, found, nil
	}
	kid, signed, err := c.trusted.verify(card, bare)
	if err != nil {
		return bare, found, fmt.Errorf("digest %s: %w", found.Digest, err)
	}
	found.Verdict, found.Key = record.CardSigned, kid
	return signed, found, nil
}

// extended reports whether a card for who has a token can be known to be the
// agent's own.
func (c *cards) extended() bool { return len(c.trusted.keys) > 0 || c.cfg.ExtendedDigest != "" }

// readCard reads the call for the card that the agent shows to who has a token.
func (c *call) readCard(params strictjson.Value) error {
	names := []string{}
	if c.version == Version10 {
		names = append(names, "tenant")
	}
	if params.IsZero() { // a GET
		return nil
	}
	if err := known(params, names...); err != nil {
		return err
	}
	tenant, _ := params.Get("tenant")
	if said := text(tenant); said != "" && c.tenant != "" && said != c.tenant {
		return unreadable(errors.New("two tenants"))
	}
	return nil
}

// card reads that card: like the public one it is verified, made that of the
// route, and signed (threat D4). It is one caller's, and not kept.
func (a *answer) card(v strictjson.Value) (strictjson.Value, error) {
	if v.Kind() != strictjson.KindObject {
		return v, errors.New("a card that is no object")
	}
	body, found, err := a.c.r.cards.serve(v, a.c.r.cards.cfg.ExtendedDigest)
	a.found = found
	if err != nil {
		return v, err
	}
	return strictjson.Parse(body, strictjson.Limits{MaxBytes: maxMessage})
}
