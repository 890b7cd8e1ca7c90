package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/console/page"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/identity/oidc"
	"github.com/lineal-auth/lineal/internal/handle"
	"github.com/lineal-auth/lineal/record"
)

// page is the web page on the operators' listener.
func (s *Server) page(d *liveDesk, who func(*http.Request) console.Who) (http.Handler, error) {
	recorder := adminRecorder{s.ledger}
	login, err := s.pageLogin()
	if err != nil {
		return nil, fmt.Errorf("admin.page: %w", err)
	}
	at := ""
	if s.cfg.Admin.Page != nil {
		at = s.cfg.Admin.Page.URL
	}
	return page.New(page.Config{
		URL: at, Login: login,
		Who:     who,
		Desk:    func(ctx context.Context) (page.Desk, error) { return d.current(ctx) },
		Record:  func(ctx context.Context, rec record.Record) error { return recorder.Record(ctx, rec) },
		Explain: d.explain,
		Export: func(ctx context.Context, w io.Writer, sel page.Selection) error {
			return d.export(ctx, w, sel, s.now())
		},
		Trust: s.pageTrust, Health: s.health, Now: s.now, Logger: s.logger,
	})
}

// pageLogin lets persons log in to the page, nil if the configuration does not.
func (s *Server) pageLogin() (*page.Login, error) {
	cfg := s.cfg.Admin.Page
	if cfg == nil {
		return nil, nil //nolint:nilnil // absent is a choice
	}
	provider, err := oidc.NewClient(oidc.ClientConfig{
		Issuer: cfg.Issuer, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), RedirectURI: cfg.URL + page.Prefix + "login/callback",
		Self: s.tokensID.Agent(), MaxAge: cfg.MaxAge, Now: s.now, Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	secret := make([]byte, handle.KeySize)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	box, err := handle.New(secret, s.now)
	if err != nil {
		return nil, err
	}
	roles := make(map[page.Person]string, len(cfg.Roles))
	for _, r := range cfg.Roles {
		roles[page.Person{Issuer: cfg.Issuer, Subject: r.Subject}] = r.Role
	}
	const about = "page login"
	return &page.Login{
		Start: provider.Start,
		Finish: func(ctx context.Context, code, iss, nonce, verifier string) (page.Person, error) {
			got, err := provider.Finish(ctx, code, iss, nonce, verifier)
			if e, ok := errors.AsType[*oidc.Error](err); ok && e.Code == oidc.CodeUnavailable {
				err = fmt.Errorf("%w: %w", page.ErrProvider, err)
			}
			return page.Person{Issuer: got.Issuer, Subject: got.Subject}, err
		},
		Reference: func(ctx context.Context, p page.Person) (string, error) {
			return s.persons.Reference(ctx, p.Issuer, p.Subject)
		},
		Enabled: func(ctx context.Context, ref string) bool {
			p, err := s.persons.Lookup(ctx, ref)
			return err == nil && p.Enabled
		},
		Role: func(p page.Person) string { return roles[p] },
		Seal: func(plain []byte) (string, error) { return box.Seal(about, plain) },
		Open: func(sealed string) ([]byte, error) { return box.Open(about, sealed) },
	}, nil
}

// pageTrust is the policy file by which a selection of records is verified: of a
// selection nothing proves that it is complete, so that is not required.
func (s *Server) pageTrust() (string, error) {
	t, err := s.Trust()
	if err != nil {
		return "", err
	}
	t.Require = []evidence.Dimension{evidence.Signature, evidence.WriterKeys, evidence.Inclusion, evidence.Checkpoints, evidence.Chain}
	var b strings.Builder
	err = evidence.WritePolicy(&b, t)
	return b.String(), err
}

// explain says which rules decided, in their own words.
func (l *liveDesk) explain(ctx context.Context, id string) (page.Explanation, error) {
	desk, archive, err := l.open(ctx)
	if err != nil {
		return page.Explanation{}, err
	}
	found, err := decisionIn(ctx, &Desk{Desk: desk}, id)
	if err != nil {
		return page.Explanation{}, err
	}
	of, err := archive.account(ctx, found.Record)
	if err != nil {
		return page.Explanation{}, err
	}
	x, err := of.explain(ctx)
	if err != nil {
		return page.Explanation{}, err
	}
	out := page.Explanation{Again: x.Again, Missing: x.Missing}
	engine, err := of.recordedEngine(found.Record.Decision.Policy)
	if err != nil {
		return out, nil //nolint:nilerr // what is not at hand is among what is missing
	}
	for _, p := range x.Policies {
		if text, ok := engine.Rule(p.ID); ok && p.Decided {
			out.Rules = append(out.Rules, page.Rule{ID: p.ID, File: p.File, Line: p.Line, Text: text})
		}
	}
	return out, nil
}

// export writes the bundle of a selection.
func (l *liveDesk) export(ctx context.Context, w io.Writer, sel page.Selection, now time.Time) error {
	if len(sel.IDs) == 0 {
		return errors.New("exporting: nothing is selected")
	}
	desk, archive, err := l.open(ctx)
	if err != nil {
		return err
	}
	return archive.exportAt(ctx, w, desk, Selection{IDs: sel.IDs}, sel.Policies, now)
}

// health is the state of the process as the page shows it.
func (s *Server) health(ctx context.Context) (page.Health, error) {
	st := s.status(ctx)
	h := page.Health{Ready: st.Ready, Checks: st.Checks, Version: st.Version, Build: st.Build, Node: st.Node, Certificates: map[string]time.Time{}, RevocationAge: -1}
	h.Policy.Digest, h.Policy.Engine, h.Policy.Serial = st.Policy.Digest, st.Policy.Engine, st.Policy.Serial
	c, err := s.ledger.store.LastCheckpoint(ctx, s.cfg.Ledger.Origin(), true)
	if err != nil {
		return h, err
	}
	of := asOf(c)
	h.Checkpoint.Origin, h.Checkpoint.Root, h.Checkpoint.Size, h.Checkpoint.Published, h.Checkpoint.Note = of.Origin, of.Root, of.Size, c.Published, string(c.Note)
	for name, id := range st.Identities {
		h.Certificates[name] = id.Expires
	}
	if st.RevocationAge != nil && *st.RevocationAge >= 0 {
		h.RevocationAge = time.Duration(*st.RevocationAge) * time.Millisecond
	}
	return h, nil
}
