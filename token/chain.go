package token

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// receiptKey names a receipt in the cache. The hash alone would do, because it
// covers `iss`; the issuer keeps two issuers' receipts apart by construction.
type receiptKey struct{ issuer, hash string }

// receipt is one receipt as it was read. It never changes; in the cache stand
// only those whose signature was verified.
type receipt struct {
	delegation.Receipt
	fields     ReceiptFields
	raw        string
	header     header
	compact    compact // without meaning once the signature is verified
	generation uint64
	verified   bool
}

// verifyChain is step 5: it finds the receipts, verifies them and the rules V1
// to V10, and completes found.
func (v *Verifier) verifyChain(ctx context.Context, found *verdict, inline []string) error {
	leaf := found.Leaf
	var rs []*receipt
	var err error
	switch {
	case leaf.Hop.Depth == 0:
	case inline != nil:
		rs, err = v.readReceipts(leaf.Issuer, found.generation, inline)
	default:
		if rs = v.cachedReceipts(leaf, found.generation); rs == nil {
			rs, err = v.fetchReceipts(ctx, found)
		}
	}
	if err != nil {
		return err
	}
	chain, err := delegation.Verify(values(rs), leaf, v.signer(ctx, leaf.Issuer, rs))
	if err != nil {
		return refuseChain(err)
	}
	found.Chain = chain
	kids := make([]string, 0, len(rs)+1)
	for _, r := range rs {
		found.Receipts = append(found.Receipts, r.raw)
		found.Fields = append(found.Fields, r.fields)
		kids = append(kids, r.header.kid)
	}
	found.KeyIDs = append(kids, found.KeyIDs...)
	return nil
}

// readReceipts reads compact receipts that are said to be of issuer. One that
// cannot be read breaks V2, as one with a bad signature does.
func (v *Verifier) readReceipts(issuer string, generation uint64, raws []string) ([]*receipt, error) {
	if len(raws) > delegation.MaxHops {
		return nil, refuse(CodeChainDepth, "%d receipts", len(raws))
	}
	rs := make([]*receipt, len(raws))
	for k, raw := range raws {
		r, err := v.readReceipt(issuer, generation, raw)
		if err != nil {
			return nil, refuse(CodeChainSigner, "receipt %d: %w", k, err)
		}
		rs[k] = r
	}
	return rs, nil
}

func (v *Verifier) readReceipt(issuer string, generation uint64, raw string) (*receipt, error) {
	if r, ok := v.seenReceipt(issuer, generation, raw); ok {
		return r, nil
	}
	c, err := split(raw)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(c.header, typeReceipt)
	if err != nil {
		return nil, err
	}
	payload, err := strictjson.Parse(c.payload, strictjson.Limits{MaxBytes: MaxBytes})
	if err != nil {
		return nil, fmt.Errorf("reading payload: %w", err)
	}
	rc, fields, err := readReceipt(payload, c.hash())
	if err != nil {
		return nil, err
	}
	return &receipt{Receipt: rc, fields: fields, raw: raw, header: h, compact: c, generation: generation}, nil
}

// Adopt takes over a receipt that an [Issuer] of this process has just signed:
// the next hop's exchange need not read and verify it again. What is no receipt,
// or not signed with a key that the verifier accepts today, it leaves alone.
func (v *Verifier) Adopt(ctx context.Context, s Signed) {
	if s.receipt == nil {
		return
	}
	source, ok := v.issuers[s.receipt.Issuer]
	if !ok {
		return
	}
	generation := source.Generation()
	key, err := source.Key(ctx, s.receipt.header.kid)
	if err != nil || !key.signedAt(s.receipt.Hop.IssuedAt) {
		return
	}
	own, err := PublicKeyOf(s.signer)
	if own.NotBefore, own.NotAfter = key.NotBefore, key.NotAfter; err != nil || !own.equal(key) {
		return
	}
	r := *s.receipt
	r.generation, r.verified = generation, true
	v.receipts.put(receiptKey{r.Issuer, r.Hash}, &r)
}

// seenReceipt finds a receipt that was verified before, in exactly this spelling.
func (v *Verifier) seenReceipt(issuer string, generation uint64, raw string) (*receipt, bool) {
	end := strings.LastIndexByte(raw, '.')
	if end < 0 || len(raw) > MaxBytes {
		return nil, false
	}
	r, ok := v.receipts.get(receiptKey{issuer, hashOf(raw[:end])})
	return r, ok && r.generation == generation && r.raw == raw
}

// cachedReceipts follows `rcpt_hash` from the leaf to the root through the
// cache. It returns nil if one is missing.
func (v *Verifier) cachedReceipts(leaf delegation.Leaf, generation uint64) []*receipt {
	rs := make([]*receipt, leaf.Hop.Depth)
	next := leaf.ReceiptHash
	for k := len(rs) - 1; k >= 0; k-- {
		r, ok := v.receipts.get(receiptKey{leaf.Issuer, next})
		if !ok || r.generation != generation {
			return nil
		}
		rs[k], next = r, r.ReceiptHash
	}
	return rs
}

// fetchReceipts asks the chain source and accepts its answer only if it is the
// closed chain of exactly this leaf (V11).
func (v *Verifier) fetchReceipts(ctx context.Context, found *verdict) ([]*receipt, error) {
	leaf := found.Leaf
	if v.chains == nil {
		return nil, refuse(CodeChainUnavailable, "the token names its receipts by hash, and there is no chain source")
	}
	raws, err := v.chains.Chain(ctx, leaf.Issuer, leaf.Hop.ID)
	if err != nil {
		v.log.WarnContext(ctx, "chain not fetched", slog.String("issuer", leaf.Issuer), slog.String("jti", leaf.Hop.ID), slog.Any("error", err))
		return nil, refuse(CodeChainUnavailable, "fetching chain of %q: %w", leaf.Hop.ID, err)
	}
	rs, err := v.readReceipts(leaf.Issuer, found.generation, raws)
	if err == nil {
		if _, err = delegation.VerifyClosed(values(rs), leaf, v.signer(ctx, leaf.Issuer, rs)); err != nil {
			err = refuseChain(err)
		}
	}
	if err != nil {
		v.log.ErrorContext(ctx, "issuer answered with a chain that is not the token's",
			slog.String("issuer", leaf.Issuer), slog.String("jti", leaf.Hop.ID), slog.Any("error", err))
		return nil, err
	}
	return rs[:leaf.Hop.Depth], nil
}

// signer is rule V2 for these receipts. What it verified it caches, and does
// not verify again.
func (v *Verifier) signer(ctx context.Context, issuer string, rs []*receipt) func(int) error {
	return func(k int) error {
		r := rs[k]
		if r.verified {
			return nil
		}
		if r.Issuer != issuer {
			return fmt.Errorf("issuer %q is not the token's", r.Issuer) // threat C5: the same kid elsewhere
		}
		key, err := checkSigned(ctx, v.issuers[issuer], r.header, r.compact)
		if err != nil {
			return err
		}
		if !key.signedAt(r.Hop.IssuedAt) {
			return fmt.Errorf("key %q was not in use at iat", key.KeyID)
		}
		done := *r
		done.verified, done.compact = true, compact{}
		rs[k] = &done
		v.receipts.put(receiptKey{r.Issuer, r.Hash}, &done)
		return nil
	}
}

func values(rs []*receipt) []delegation.Receipt {
	out := make([]delegation.Receipt, len(rs))
	for i, r := range rs {
		out[i] = r.Receipt
	}
	return out
}

// Closed is a verified closed chain, as `/chains` serves it and an audit reads
// it.
type Closed struct {
	Chain    delegation.Chain
	Receipts []string        // R0 … Rn, compact
	Fields   []ReceiptFields // of R0 … Rn
	KeyIDs   []string        // `kid` of R0 … Rn
}

// VerifyClosed verifies the receipts R0 … Rn, root first, over the token of
// which leafHash is H: the rules V1 to V11. It looks at no clock, no connection
// and no revocation: receipts verify for years. Every error is an [*Error].
func (v *Verifier) VerifyClosed(ctx context.Context, receipts []string, leafHash string) (Closed, error) {
	if len(receipts) == 0 {
		return Closed{}, refuse(CodeChainDepth, "no receipt")
	}
	last, err := v.lastReceipt(receipts)
	if err != nil {
		return Closed{}, err
	}
	source, ok := v.issuers[last.Issuer]
	if !ok {
		return Closed{}, refuse(CodeIssuerUnknown, "issuer %q is not configured", last.Issuer)
	}
	if !last.verified {
		last.generation = source.Generation()
	}
	rs, err := v.readReceipts(last.Issuer, last.generation, receipts[:len(receipts)-1])
	if err != nil {
		return Closed{}, err
	}
	rs = append(rs, last)
	leaf := delegation.Leaf{
		Issuer: last.Issuer, Txn: last.Txn, Hop: last.Hop, ParentHash: last.ParentHash, ReceiptHash: last.ReceiptHash,
		Hash: leafHash,
	}
	for _, r := range rs[:len(rs)-1] {
		leaf.Ancestors = append(leaf.Ancestors, r.Hop.ID)
	}
	chain, err := delegation.VerifyClosed(values(rs), leaf, v.signer(ctx, last.Issuer, rs))
	if err != nil {
		return Closed{}, refuseChain(err)
	}
	out := Closed{Chain: chain}
	for _, r := range rs {
		out.Receipts = append(out.Receipts, r.raw)
		out.Fields = append(out.Fields, r.fields)
		out.KeyIDs = append(out.KeyIDs, r.header.kid)
	}
	return out, nil
}

// lastReceipt reads the last receipt, to learn which issuer to ask. One that is
// not verified yet belongs to no generation of keys.
func (v *Verifier) lastReceipt(receipts []string) (*receipt, error) {
	n := len(receipts) - 1
	if n >= delegation.MaxHops {
		return nil, refuse(CodeChainDepth, "%d receipts", len(receipts))
	}
	for issuer, source := range v.issuers {
		if r, ok := v.seenReceipt(issuer, source.Generation(), receipts[n]); ok {
			return r, nil
		}
	}
	r, err := v.readReceipt("", 0, receipts[n])
	if err != nil {
		return nil, refuse(CodeChainSigner, "receipt %d: %w", n, err)
	}
	return r, nil
}
