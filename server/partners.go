package server

import (
	"container/list"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/identity/spiffe"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/sts"
)

// partners are other organisations as the token service deals with them, nil if
// there are none.
func (s *Server) partners(ctx context.Context) (*sts.PartnerConfig, error) {
	if len(s.cfg.Tokens.Partners) == 0 {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	out := &sts.PartnerConfig{}
	var err error
	if out.Subjects, err = s.secret(ctx, "subjects of partners"); err != nil {
		return nil, err
	}
	out.Used = s.proofs
	for _, p := range s.cfg.Tokens.Partners {
		one := sts.Partner{
			Issuer: p.Issuer, Resources: p.Resources, Clients: map[identity.Agent]string{}, HideActors: p.HideActors,
			ShareReceipt: p.ShareReceipt, Accepts: p.AcceptGrants, JWKSURL: p.JWKSURL,
		}
		if one.JWKSURL == "" {
			one.JWKSURL = p.Issuer + "/jwks"
		}
		for _, c := range p.Clients {
			agent, err := identity.ParseAgent(c.Agent)
			if err != nil {
				return nil, fmt.Errorf("partner %s: %w", p.Issuer, err)
			}
			if one.Clients[agent] = c.ID; c.ID == "" {
				one.Clients[agent] = agent.String()
			}
		}
		if one.HTTP, err = s.toPartner(s.tokensID, p); err != nil {
			return nil, err
		}
		out.Partners = append(out.Partners, one)
	}
	return out, nil
}

// toPartner is the way to a partner's token service, with the certificate of one
// of ours; nil where that has none of SPIFFE.
func (s *Server) toPartner(from *spiffe.Source, p config.Partner) (*http.Client, error) {
	if p.Peer == "" {
		return nil, nil //nolint:nilnil // its keys are fetched by a plain client
	}
	peer, err := identity.ParseAgent(p.Peer)
	if err != nil {
		return nil, fmt.Errorf("partner %s: %w", p.Issuer, err)
	}
	c := from.HTTPClient(peer)
	s.idle = append(s.idle, c)
	return c, nil
}

// exchanges countersigns calls with the partners whose gateways' keys are known,
// nil if there are none.
func (s *Server) exchanges(ctx context.Context) (*gateway.ExchangeConfig, error) {
	type peer struct {
		org string
		key ed25519.PublicKey
	}
	peers := map[string]peer{}
	for _, p := range s.cfg.Tokens.Partners {
		for _, text := range p.ExchangeKeys {
			raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
			if err != nil || len(raw) != ed25519.PublicKeySize {
				return nil, fmt.Errorf("partner %s: exchange key %.60q is no Ed25519 key in base64url", p.Issuer, text)
			}
			if _, twice := peers[record.KeyID(raw)]; twice {
				return nil, fmt.Errorf("partner %s: exchange key %.60q stands twice", p.Issuer, text)
			}
			peers[record.KeyID(raw)] = peer{p.Name(), raw}
		}
	}
	if len(peers) == 0 {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	rec, seen := s.ledger.gateway, &seenCheckpoint{}
	seen.look(ctx, s.ledger)
	s.ledger.untilClose(func(ctx context.Context) { seen.follow(ctx, s.ledger) })
	return &gateway.ExchangeConfig{
		Sign: func(c record.Countersigned) ([]byte, error) { return record.SignExchange(c, rec.keys.now()) },
		Peer: func(id string) (string, ed25519.PublicKey, bool) {
			p, ok := peers[id]
			return p.org, p.key, ok
		},
		Keep: func(ctx context.Context, envelope []byte) error {
			return s.ledger.store.PutBlob(ctx, ledger.Blob{Digest: record.Hash(envelope), Class: blobExchange, Bytes: envelope})
		},
		Checkpoint: seen.body,
	}, nil
}

// egress gets a partner's tokens for the calls of a route. org is its name where
// such calls are countersigned.
func (s *Server) egress(u config.Upstream) (_ gateway.PartnerTokens, org string, _ error) {
	tokens, err := s.agentOf(s.tokensID, s.cfg.Tokens.ID)
	if err != nil {
		return nil, "", err
	}
	var partner config.Partner
	for _, p := range s.cfg.Tokens.Partners {
		if p.Issuer == u.Partner {
			partner = p
		}
	}
	own := s.gatewayID.HTTPClient(tokens)
	s.idle = append(s.idle, own)
	theirs, err := s.toPartner(s.gatewayID, partner)
	if err != nil {
		return nil, "", err
	}
	if len(partner.ExchangeKeys) > 0 {
		org = partner.Name()
	}
	at := partner.TokenURL
	if at == "" {
		at = partner.Issuer + "/token"
	}
	e := &egress{issuer: partner.Issuer, resource: u.Resource, now: s.now, cert: func() string { return s.gatewayID.Current().Thumbprint }, kept: map[egressKey]*list.Element{}}
	if e.own, err = client.New(client.Config{TokenURL: s.cfg.Tokens.Issuer + "/token", HTTP: own, Now: s.now, Logger: s.logger}); err != nil {
		return nil, "", err
	}
	e.theirs, err = client.New(client.Config{TokenURL: at, HTTP: theirs, Now: s.now, Logger: s.logger})
	return e, org, err
}

// egress keeps a partner's tokens by what they were got for. A token that ends
// soon, or whose delegation has ended, is got anew; the gateway has verified the
// delegation for each call before it asks here.
type egress struct {
	own, theirs      *client.Client
	issuer, resource string
	now              func() time.Time
	cert             func() string

	mu    sync.Mutex // guards what follows
	kept  map[egressKey]*list.Element
	order list.List // of *egressEntry, the newest first
}

type egressKey struct {
	leaf         string // H(leaf), which fixes person, chain and key (threat X14)
	cert         string // thumbprint of the gateway's certificate, which the token is bound to
	action, name string
}

type egressEntry struct {
	key  egressKey
	got  gateway.PartnerToken
	ends time.Time
}

const (
	egressKept  = 1024
	egressSpare = 5 * time.Second // what a kept token must have left
)

// Token implements gateway.PartnerTokens.
func (e *egress) Token(ctx context.Context, c gateway.PartnerCall) (gateway.PartnerToken, error) {
	key := egressKey{leaf: c.Verified.Chain.LeafHash(), cert: e.cert(), action: c.Action, name: c.Name}
	if c.Discovery {
		key.action, key.name = "", ""
	}
	if got, ok := e.find(key); ok {
		return got, nil
	}
	details, err := minimised(c, e.resource)
	if err != nil {
		return gateway.PartnerToken{}, err
	}
	leaf := c.Verified.Chain.Leaf()
	g, err := e.own.Grant(ctx, c.Token, leaf.Details, e.issuer, e.resource, details)
	if err != nil {
		return gateway.PartnerToken{}, err
	}
	t, err := e.theirs.Redeem(ctx, g, e.resource)
	if err != nil {
		return gateway.PartnerToken{}, err
	}
	if t.DPoP {
		return gateway.PartnerToken{}, errors.New("the partner bound its token to no certificate")
	}
	sum := sha256.Sum256([]byte(t.Raw))
	got := gateway.PartnerToken{Raw: t.Raw, Redeemed: record.Redeemed{
		Issuer: e.issuer, ID: g.ID, Hash: g.Hash, TokenHash: base64.RawURLEncoding.EncodeToString(sum[:]), Scope: t.Scope, Expires: t.Expires.Unix(),
	}}
	e.keep(key, got, t.Expires)
	return got, nil
}

func (e *egress) find(key egressKey) (gateway.PartnerToken, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := e.kept[key]
	if at == nil {
		return gateway.PartnerToken{}, false
	}
	entry := at.Value.(*egressEntry)
	if !e.now().Add(egressSpare).Before(entry.ends) {
		e.order.Remove(at)
		delete(e.kept, key)
		return gateway.PartnerToken{}, false
	}
	return entry.got, true
}

func (e *egress) keep(key egressKey, got gateway.PartnerToken, ends time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.kept[key]; old != nil {
		e.order.Remove(old)
	}
	e.kept[key] = e.order.PushFront(&egressEntry{key, got, ends})
	if e.order.Len() > egressKept {
		last := e.order.Back()
		e.order.Remove(last)
		delete(e.kept, last.Value.(*egressEntry).key)
	}
}

// minimised is what the partner is asked for: of the caller's authority what is of
// the partner's API, and of that this action and name alone.
func minimised(c gateway.PartnerCall, resource string) ([]byte, error) {
	var out []strictjson.Value
	for i, d := range c.Verified.Chain.Leaf().Details.Details() {
		if !slices.Contains(d.Locations(), resource) || !c.Discovery && (!slices.Contains(d.Actions(), c.Action) || !slices.Contains(d.Names(), c.Name)) {
			continue
		}
		item := c.Verified.Chain.Leaf().Details.Value().Index(i).With("locations", strictjson.Strings(resource)).With("from", strictjson.Int(int64(i)))
		if !c.Discovery {
			item = item.With("actions", strictjson.Strings(c.Action)).With("names", strictjson.Strings(c.Name))
		}
		out = append(out, item)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the delegation holds nothing of %s for this call", resource)
	}
	return strictjson.Array(out...).AppendJSON(nil), nil
}
