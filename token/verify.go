package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// TrustedIssuer is an issuer whose tokens are accepted.
type TrustedIssuer struct {
	Name string // `iss`, byte for byte
	Keys KeySource
}

// Config configures a Verifier.
type Config struct {
	// Issuers are the issuers accepted; at least one.
	Issuers []TrustedIssuer
	// Chains fetches the receipts that a token does not carry. If nil, such a
	// token is refused as `chain_unavailable` unless its receipts are cached.
	Chains ChainSource
	// Revocations is required; [NoRevocations] is the explicit choice of none.
	Revocations RevocationSource
	// CacheSize bounds the verified tokens kept, and four times it the receipts;
	// default 10,000.
	CacheSize int
	// Leeway is the clock difference allowed for `iat`, `exp` and the end of a
	// certificate; default [Leeway], and never more. Only where all parties share
	// one clock may it be smaller.
	Leeway time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger gets what an operator must look at; default none.
	Logger *slog.Logger
}

const (
	defaultCacheSize = 10_000
	maxVerdictAge    = 60 * time.Second
)

// Verifier verifies tokens with their chains. It is safe for concurrent use.
type Verifier struct {
	issuers     map[string]KeySource
	chains      ChainSource
	revocations RevocationSource
	leeway      time.Duration
	now         func() time.Time
	log         *slog.Logger
	tokens      *lru[verdictKey, *verdict]
	receipts    *lru[receiptKey, *receipt]

	hits, misses atomic.Uint64 // look-ups in tokens
}

// CacheStats counts the tokens that a Verifier was shown, since it was made.
type CacheStats struct {
	// Hits are those that it had verified before, and whose verdict still stood;
	// Misses all others, also those that it refused.
	Hits, Misses uint64
}

// CacheStats counts the tokens that v was shown.
func (v *Verifier) CacheStats() CacheStats {
	return CacheStats{Hits: v.hits.Load(), Misses: v.misses.Load()}
}

// NewVerifier builds a Verifier.
func NewVerifier(cfg Config) (*Verifier, error) {
	v := &Verifier{issuers: map[string]KeySource{}, chains: cfg.Chains, revocations: cfg.Revocations, now: cfg.Now, log: cfg.Logger}
	for _, i := range cfg.Issuers {
		if _, twice := v.issuers[i.Name]; twice || i.Name == "" || i.Keys == nil {
			return nil, fmt.Errorf("making verifier: issuer %q is without name or keys, or occurs twice", i.Name)
		}
		v.issuers[i.Name] = i.Keys
	}
	if len(v.issuers) == 0 {
		return nil, errors.New("making verifier: no issuer is trusted")
	}
	if v.revocations == nil {
		return nil, errors.New("making verifier: no revocation source; say NoRevocations if none is meant")
	}
	if v.now == nil {
		v.now = time.Now //nolint:forbidigo // the one default clock
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.leeway = cfg.Leeway; v.leeway == 0 {
		v.leeway = Leeway
	}
	if v.leeway < 0 || v.leeway > Leeway {
		return nil, fmt.Errorf("making verifier: leeway of %s is not within 0 to %s", v.leeway, Leeway)
	}
	size := cfg.CacheSize
	if size <= 0 {
		size = defaultCacheSize
	}
	v.tokens = newLRU[verdictKey, *verdict](size)
	v.receipts = newLRU[receiptKey, *receipt](4 * size)
	return v, nil
}

// Binding is how strictly a token is tied to the connection it came on.
type Binding int

// The zero value is the strict one.
const (
	// BindingRequired refuses an unbound token.
	BindingRequired Binding = iota
	// BindingOptional lets an unbound token pass, marked; a bound one must match.
	BindingOptional
	// BindingUnchecked is for the token service, which gets a subject token as a
	// parameter, and for the agent that receives a verified token from a gateway.
	BindingUnchecked
)

// AnyAudience as Want.Audience accepts a token for every audience. It is for
// the token service, which checks by another rule who may exchange.
const AnyAudience = "*"

// Want is what a caller of Verify expects of this call.
type Want struct {
	// Audience is the URI of the receiver, byte for byte, or AnyAudience. The
	// empty string accepts nothing.
	Audience string
	// Workload is who is on the connection, nil if nobody proved that.
	Workload *identity.Workload
	// Proof is the DPoP proof that came with the token under the scheme DPoP, nil
	// if it came as a bearer token. Only a token bound to its key passes with
	// one, and no such token without; whoever passes has used the proof up.
	Proof   *Proof
	Binding Binding
	// MaxStaleness is handed to the RevocationSource; see [Presented].
	MaxStaleness time.Duration
}

// Verified is a token that passed every step. Its slices are shared: do not
// change them.
type Verified struct {
	Chain    delegation.Chain
	Leaf     delegation.Leaf
	Receipts []string        // R0 … Rn−1, compact
	Fields   []ReceiptFields // of R0 … Rn−1
	KeyIDs   []string        // `kid` of R0 … Rn−1 and of the leaf
	// Unbound marks a token without `cnf`: whoever holds it could have sent it.
	Unbound bool
	// RevocationAge is how old the knowledge was that nothing is revoked.
	RevocationAge time.Duration

	cleared *Cleared
}

// verdict is what steps 1 to 3 and 5 found of one string; it never changes, but
// for Verified.cleared.
//
// It is found by the SHA-256 of the signature alone and is of this token only if
// input is equal too, so that finding it costs no hash over a chain's actors and
// ancestors. What is kept is no credential: a signature cannot be had back.
type verdict struct {
	Verified
	input      string // header.payload, as sent
	source     KeySource
	generation uint64    // of source, from before the first key was asked for
	until      time.Time // when the verdict is forgotten
}

// Verify verifies a compact token for one call, by the steps of tokens.md §6 in
// their order. Every error is an [*Error] and refuses the call; with one of step
// 6 comes the RevocationAge, and nothing else of the Verified.
func (v *Verifier) Verify(ctx context.Context, raw string, want Want) (Verified, error) {
	if len(raw) > MaxBytes {
		return Verified{}, refuse(CodeTokenMalformed, "longer than %d bytes", MaxBytes)
	}
	now := v.now()
	key, input := keyOf(raw)
	found, cached := v.lookUp(key, input, now)
	var inline []string
	if cached {
		v.hits.Add(1)
	} else {
		v.misses.Add(1)
		var err error
		if found, inline, err = v.readLeaf(ctx, raw, now); err != nil {
			return Verified{}, err
		}
	}
	if err := v.checkCall(&found.Leaf.Hop, want, now); err != nil {
		return Verified{}, err
	}
	if err := v.checkBinding(&found.Leaf.Hop, want, raw, now); err != nil {
		return Verified{}, claimedBy(err, &found.Leaf.Hop)
	}
	if !cached {
		if err := v.verifyChain(ctx, found, inline); err != nil {
			return Verified{}, err
		}
		v.tokens.put(key, found)
	}
	age, err := v.checkRevocation(ctx, found, want.MaxStaleness)
	if err != nil {
		return Verified{RevocationAge: age}, err
	}
	if want.Proof != nil && want.Binding != BindingUnchecked { // the dearest check of step 4, when nothing else can refuse
		if err := want.Proof.Use(ctx); err != nil {
			return Verified{}, claimedBy(err, &found.Leaf.Hop)
		}
	}
	out := found.Verified
	out.RevocationAge = age
	return out, nil
}

// verdictKey is the SHA-256 of a token's third part.
type verdictKey [sha256.Size]byte

// keyOf names a token in the cache, and gives the first two parts of it.
func keyOf(raw string) (key verdictKey, input string) {
	end := max(0, strings.LastIndexByte(raw, '.'))
	return verdictKey(sumOf(raw[end:])), raw[:end]
}

// sumOf is the SHA-256 of a string.
func sumOf(raw string) [sha256.Size]byte {
	b, _ := sumBuffers.Get().(*[]byte)
	*b = append((*b)[:0], raw...)
	sum := sha256.Sum256(*b)
	sumBuffers.Put(b)
	return sum
}

// sumBuffers spares a copy of the token per call.
var sumBuffers = sync.Pool{New: func() any { return new([]byte) }}

// lookUp is step 1: a verdict that is young enough and rests on keys that did
// not change since.
func (v *Verifier) lookUp(key verdictKey, input string, now time.Time) (*verdict, bool) {
	found, ok := v.tokens.get(key)
	if !ok || found.input != input {
		return nil, false
	}
	if !now.Before(found.until) || found.source.Generation() != found.generation {
		v.tokens.drop(key)
		return nil, false
	}
	return found, true
}

// readLeaf is steps 1 and 2, and of step 3 what does not depend on the call.
// The signature is checked before anything but `iss` is read as a claim.
func (v *Verifier) readLeaf(ctx context.Context, raw string, now time.Time) (*verdict, []string, error) {
	c, err := split(raw)
	if err != nil {
		return nil, nil, err
	}
	h, err := readHeader(c.header, typeToken)
	if err != nil {
		return nil, nil, err
	}
	claims, err := strictjson.Parse(c.payload, strictjson.Limits{MaxBytes: MaxBytes})
	if err != nil {
		return nil, nil, refuse(CodeTokenMalformed, "reading payload: %w", err)
	}
	iss, _ := claims.Get("iss")
	issuer, _ := iss.Text()
	source, ok := v.issuers[issuer]
	if !ok {
		return nil, nil, refuse(CodeIssuerUnknown, "issuer %q is not configured", issuer)
	}
	generation := source.Generation()
	key, err := checkSigned(ctx, source, h, c)
	if err != nil {
		return nil, nil, err
	}
	leaf, inline, err := readToken(claims, c.hash())
	if err != nil {
		return nil, nil, refuse(CodeTokenMalformed, "%w", err)
	}
	if !key.signedAt(leaf.Hop.IssuedAt) {
		return nil, nil, refuse(CodeKeyUnknown, "key %q was not in use at iat", key.KeyID)
	}
	until := now.Add(maxVerdictAge)
	if leaf.Hop.Expires.Before(until) {
		until = leaf.Hop.Expires
	}
	return &verdict{
		Verified: Verified{Leaf: leaf, KeyIDs: []string{h.kid}, Unbound: leaf.Hop.Bound.IsZero(), cleared: new(Cleared)},
		input:    strings.Clone(c.input), source: source, generation: generation, until: until,
	}, inline, nil
}

// checkSigned finds the key and checks the signature. The algorithm is the
// key's: a header that names another is refused before any mathematics.
func checkSigned(ctx context.Context, source KeySource, h header, c compact) (PublicKey, error) {
	key, err := source.Key(ctx, h.kid)
	if err != nil {
		return PublicKey{}, refuse(CodeKeyUnknown, "key %q: %w", h.kid, err)
	}
	if key.Algorithm != h.alg || key.KeyID != h.kid {
		return PublicKey{}, refuse(CodeSignatureInvalid, "alg %q with a key for %q", h.alg, key.Algorithm)
	}
	if err := checkSignature(key, c.input, c.signature); err != nil {
		return PublicKey{}, refuse(CodeSignatureInvalid, "key %q: %w", h.kid, err)
	}
	return key, nil
}

// checkCall is what is left of step 3: the audience and the times, which are
// never cached.
func (v *Verifier) checkCall(h *delegation.Hop, want Want, now time.Time) error {
	switch {
	case want.Audience == "" || want.Audience != AnyAudience && want.Audience != h.Audience:
		return refuse(CodeAudienceMismatch, "token is for %q, not for %q", h.Audience, want.Audience)
	case h.IssuedAt.After(now.Add(v.leeway)):
		return refuse(CodeTokenExpired, "issued in the future, at %s", h.IssuedAt)
	}
	return v.checkEnd(h, now)
}

func (v *Verifier) checkEnd(h *delegation.Hop, now time.Time) error {
	if !now.Before(h.Expires.Add(v.leeway)) {
		return refuse(CodeTokenExpired, "ended at %s", h.Expires)
	}
	return nil
}

// checkBinding is step 4: the token's key is the connection's or the proof's,
// and who acts is who is on the connection. It is never cached (threats C7, X9).
func (v *Verifier) checkBinding(h *delegation.Hop, want Want, raw string, now time.Time) error {
	w := want.Workload
	switch {
	case want.Binding == BindingUnchecked:
		return nil
	case want.Binding != BindingRequired && want.Binding != BindingOptional:
		return refuse(CodeBindingMissing, "unknown binding rule %d", want.Binding)
	case h.Bound.KeyThumbprint != "" || want.Proof != nil:
		if err := checkProofOf(h, want.Proof, raw); err != nil || w == nil {
			return err
		}
	case h.Bound.IsZero() && want.Binding == BindingRequired:
		return refuse(CodeBindingMissing, "the audience takes no unbound token")
	case h.Bound.IsZero() && w == nil:
		return nil
	case w == nil || !h.Bound.IsZero() && w.Thumbprint == "":
		return refuse(CodeBindingMissing, "bound to a certificate, and the connection has none")
	case !h.Bound.IsZero() && w.Thumbprint != h.Bound.CertThumbprint:
		return refuse(CodeBindingMismatch, "bound to another certificate than the connection's")
	}
	return v.checkActor(h, w, now)
}

// checkActor is the part of step 4 that holds for every token where somebody
// proved who he is.
func (v *Verifier) checkActor(h *delegation.Hop, w *identity.Workload, now time.Time) error {
	switch {
	case w.Agent.IsZero() || w.Agent.String() != h.Actor().Subject:
		return refuse(CodeBindingMismatch, "token is for %q, the connection is of %q", h.Actor().Subject, w.Agent)
	case !w.NotAfter.IsZero() && !now.Before(w.NotAfter.Add(v.leeway)):
		return refuse(CodeBindingMismatch, "the workload's credential ended at %s", w.NotAfter)
	}
	return nil
}

// checkProofOf checks that a token and a proof belong together: the key that
// the token is bound to signed the proof, over this token's hash (RFC 9449
// §4.3 point 12, §7.1). A token that is not bound by DPoP does not pass with a
// proof, nor one that is without (§7.2).
func checkProofOf(h *delegation.Hop, p *Proof, raw string) error {
	switch bound := h.Bound.KeyThumbprint; {
	case p == nil:
		return refuse(CodeBindingMissing, "bound by DPoP, and it came without a proof")
	case bound == "":
		return refuse(CodeBindingMismatch, "not bound by DPoP, and it came with a proof")
	case h.Bound.CertThumbprint != "" || p.thumbprint != bound:
		return refuse(CodeBindingMismatch, "bound to another key than the proof's")
	case p.tokenHash != ath(sumOf(raw)):
		return refuse(CodeBindingMismatch, "the proof is not for this token")
	}
	return nil
}

// Recheck is step 6, and of step 3 the token's end, for what goes on under a
// token after its call was permitted, a stream for example: an error, an
// [*Error], says that the token has ended, that its chain is revoked by now, or
// that this is not known. got is what Verify returned.
func (v *Verifier) Recheck(ctx context.Context, got Verified, maxStaleness time.Duration) error {
	if got.Chain.IsZero() {
		return refuse(CodeTokenMissing, "nothing was verified")
	}
	if err := v.checkEnd(&got.Leaf.Hop, v.now()); err != nil {
		return err
	}
	_, err := v.checkRevocation(ctx, &verdict{Verified: got}, maxStaleness)
	return err
}

// checkRevocation is step 6, never cached. The age is there for a refusal too,
// as far as it is known.
func (v *Verifier) checkRevocation(ctx context.Context, found *verdict, maxStaleness time.Duration) (time.Duration, error) {
	if maxStaleness <= 0 {
		maxStaleness = DefaultMaxStaleness
	}
	s, err := v.revocations.Check(ctx, Presented{
		Chain: found.Chain, KeyIDs: found.KeyIDs, MaxStaleness: maxStaleness, Cleared: found.cleared,
	})
	if err != nil {
		return s.Age, refuse(CodeRevocationStale, "asking for revocations: %w", err)
	}
	if s.Revoked != "" {
		return s.Age, refuse(Code("revoked_"+s.Revoked), "the chain of %q holds a revoked %s", found.Leaf.Hop.ID, s.Revoked)
	}
	return s.Age, nil
}
