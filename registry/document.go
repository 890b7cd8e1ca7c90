package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/scope"
)

// The documents of entries. A member that is left out has the zero value of its
// field, which permits less: an entry without "enabled" is disabled. Lives are
// whole seconds.
type (
	agentDocument struct {
		URI          identity.Agent   `json:"uri"`
		Name         string           `json:"name,omitempty"`
		Profile      string           `json:"profile"`
		Enabled      bool             `json:"enabled"`
		Authority    strictjson.Value `json:"authority,omitzero"`
		OIDCClients  []clientAt       `json:"oidc_clients,omitempty"`
		RootLifetime int64            `json:"root_lifetime_s,omitempty"`
	}
	clientAt struct {
		Issuer   string `json:"issuer"`
		ClientID string `json:"client_id"`
	}
	resourceDocument struct {
		URI          string            `json:"uri"`
		Enabled      bool              `json:"enabled"`
		Serves       *identity.Agent   `json:"serves,omitempty"`
		Verifiers    []identity.Agent  `json:"verifiers,omitempty"`
		Callers      *[]identity.Agent `json:"callers,omitempty"`
		MaxDepth     *int64            `json:"max_depth,omitempty"`
		Lifetime     int64             `json:"lifetime_s,omitempty"`
		AllowUnbound bool              `json:"allow_unbound,omitempty"`
		RequireDPoP  bool              `json:"require_dpop,omitempty"`
		Default      strictjson.Value  `json:"default,omitzero"`
		MaxStaleness int64             `json:"max_staleness_s,omitempty"`
	}
	issuerDocument struct {
		Issuer  string `json:"issuer"`
		Enabled bool   `json:"enabled"`
	}
	clientDocument struct {
		ID           identity.Agent   `json:"client_id"`
		RedirectURIs []string         `json:"redirect_uris,omitempty"`
		Auth         identity.Method  `json:"auth"`
		Keys         strictjson.Value `json:"keys,omitzero"`
		KeysURL      string           `json:"keys_url,omitempty"`
	}
)

// ParseEntry reads a document strictly (no member unknown, doubled or miscased)
// and gives it the one form in which entries are kept and compared. Whether the
// entry fits the others is not asked here.
func ParseEntry(kind EntryKind, document []byte) (Entry, error) {
	var p parts
	if err := p.parse(kind, document); err != nil {
		return Entry{}, fmt.Errorf("reading %s: %w", kind, err)
	}
	e, err := p.entry(kind)
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		return Entry{}, fmt.Errorf("reading %s: %w", kind, err)
	}
	return e, nil
}

// Authority is what the entry may hold as it stands: that of an agent which is
// enabled, else nothing.
func (e Entry) Authority() (scope.Grant, error) {
	if e.Kind != EntryAgent || e.Document == nil {
		return scope.Grant{}, nil
	}
	var p parts
	if err := p.parse(e.Kind, e.Document); err != nil || !p.agent.Enabled {
		return scope.Grant{}, err
	}
	return p.agent.Authority, nil
}

// parts is an entry as its value: the one of its kind.
type parts struct {
	agent    Agent
	resource Audience
	issuer   PersonIssuer
	client   Client
}

func (p *parts) parse(kind EntryKind, document []byte) error {
	lim := strictjson.Limits{MaxBytes: maxDocument}
	switch kind {
	case EntryAgent:
		var d agentDocument
		if err := strictjson.Unmarshal(document, &d, lim); err != nil {
			return err
		}
		return p.readAgent(d)
	case EntryResource:
		var d resourceDocument
		if err := strictjson.Unmarshal(document, &d, lim); err != nil {
			return err
		}
		return p.readResource(d)
	case EntryIssuer:
		var d issuerDocument
		if err := strictjson.Unmarshal(document, &d, lim); err != nil {
			return err
		}
		p.issuer = PersonIssuer(d)
		return nil
	case EntryClient:
		var d clientDocument
		if err := strictjson.Unmarshal(document, &d, lim); err != nil {
			return err
		}
		p.client = Client{ID: d.ID, RedirectURIs: d.RedirectURIs, Auth: d.Auth, KeysURL: d.KeysURL}
		if !d.Keys.IsZero() {
			p.client.Keys = d.Keys.AppendJSON(nil)
		}
		return nil
	default:
		return errors.New("no such kind")
	}
}

func (p *parts) readAgent(d agentDocument) (err error) {
	if len(d.Name) > 200 || !utf8.ValidString(d.Name) || strings.ContainsFunc(d.Name, unicode.IsControl) {
		return errors.New("name is longer than 200 bytes or not plain text")
	}
	p.agent = Agent{URI: d.URI, Name: d.Name, Profile: d.Profile, Enabled: d.Enabled}
	if p.agent.Authority, err = grantOf(d.Authority); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	for _, c := range d.OIDCClients {
		if len(c.ClientID) > 512 {
			return errors.New("client_id is longer than 512 bytes")
		}
		p.agent.OIDCClients = append(p.agent.OIDCClients, OIDCClient(c))
	}
	p.agent.RootLifetime, err = life(d.RootLifetime)
	return err
}

func (p *parts) readResource(d resourceDocument) (err error) {
	p.resource = Audience{
		URI: d.URI, Enabled: d.Enabled, Verifiers: d.Verifiers, AllowUnbound: d.AllowUnbound, RequireDPoP: d.RequireDPoP,
	}
	if d.Serves != nil {
		p.resource.Serves = *d.Serves
	}
	if d.Callers != nil {
		p.resource.Callers = append([]identity.Agent{}, *d.Callers...) // none is not each
	}
	if d.MaxDepth != nil {
		n := int(*d.MaxDepth)
		p.resource.MaxDepth = &n
	}
	if p.resource.Default, err = grantOf(d.Default); err != nil {
		return fmt.Errorf("default: %w", err)
	}
	if p.resource.Lifetime, err = life(d.Lifetime); err != nil {
		return err
	}
	p.resource.MaxStaleness, err = life(d.MaxStaleness)
	return err
}

// entry writes the document.
func (p *parts) entry(kind EntryKind) (Entry, error) {
	e := Entry{Kind: kind}
	var d any
	switch kind {
	case EntryAgent:
		a := p.agent
		doc := agentDocument{URI: a.URI, Name: a.Name, Profile: a.Profile, Enabled: a.Enabled, RootLifetime: seconds(a.RootLifetime)}
		for _, c := range a.OIDCClients {
			doc.OIDCClients = append(doc.OIDCClients, clientAt(c))
		}
		e.ID, doc.Authority, d = a.URI.String(), valueOf(a.Authority), &doc
	case EntryResource:
		r := p.resource
		doc := resourceDocument{
			URI: r.URI, Enabled: r.Enabled, Verifiers: r.Verifiers, Lifetime: seconds(r.Lifetime), AllowUnbound: r.AllowUnbound,
			RequireDPoP: r.RequireDPoP, Default: valueOf(r.Default), MaxStaleness: seconds(r.MaxStaleness),
		}
		if !r.Serves.IsZero() {
			doc.Serves = &r.Serves
		}
		if r.Callers != nil {
			doc.Callers = &r.Callers
		}
		if r.MaxDepth != nil {
			n := int64(*r.MaxDepth)
			doc.MaxDepth = &n
		}
		e.ID, d = r.URI, &doc
	case EntryIssuer:
		doc := issuerDocument(p.issuer)
		e.ID, d = p.issuer.Issuer, &doc
	case EntryClient:
		c := p.client
		doc := clientDocument{ID: c.ID, RedirectURIs: c.RedirectURIs, Auth: c.Auth, KeysURL: c.KeysURL}
		if len(c.Keys) > 0 {
			keys, err := strictjson.Parse(c.Keys, strictjson.Limits{MaxBytes: maxDocument})
			if err != nil {
				return Entry{}, fmt.Errorf("keys: %w", err)
			}
			doc.Keys = keys
		}
		e.ID, d = c.ID.String(), &doc
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		return Entry{}, err
	}
	e.Document = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return e, nil
}

// grantOf reads an authority; one that is left out is none.
func grantOf(v strictjson.Value) (scope.Grant, error) {
	if v.IsZero() {
		return scope.Grant{}, nil
	}
	return scope.ParseValue(v, true)
}

func valueOf(g scope.Grant) strictjson.Value {
	if g.IsZero() {
		return strictjson.Value{}
	}
	raw, err := g.MarshalJSON()
	if err != nil {
		return strictjson.Value{}
	}
	v, err := strictjson.Parse(raw, strictjson.Limits{})
	if err != nil {
		return strictjson.Value{}
	}
	return v
}

// life reads whole seconds, before they could overflow.
func life(s int64) (time.Duration, error) {
	if s < 0 || s > int64(24*time.Hour/time.Second) {
		return 0, fmt.Errorf("a life of %d seconds is outside of a day", s)
	}
	return time.Duration(s) * time.Second, nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
