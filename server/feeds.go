package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/export/ocsf"
	"github.com/lineal-auth/lineal/feed"
	"github.com/lineal-auth/lineal/internal/durable"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

const (
	feedsDir       = "feeds"
	webhookTimeout = 30 * time.Second
)

// startFeeds begins every feed where its cursor stands. A feed that stops stops
// nothing else: calls go on, and the log has what it did not send.
func (s *Server) startFeeds(ctx context.Context) error {
	if len(s.cfg.Feeds) == 0 {
		return nil
	}
	dir := filepath.Join(s.cfg.DataDir, feedsDir)
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("starting feeds: %w", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopFeeds = cancel
	for _, cfg := range s.cfg.Feeds {
		cursor, err := feed.OpenCursor(filepath.Join(dir, cfg.Name+".json"))
		if err != nil {
			return fmt.Errorf("starting feed %s: %w", cfg.Name, err)
		}
		s.opened = append(s.opened, cursor)
		f, to, err := newFeed(cfg, feedParts{
			source: logSource{s.ledger.store, s.cfg.Ledger.Family}, cursor: cursor, host: hostOf(s.cfg.PublicURL), now: s.now, logger: s.logger,
			observer: s.metrics.feed(cfg.Name),
		})
		if err != nil {
			return fmt.Errorf("starting feed %s: %w", cfg.Name, err)
		}
		if err := s.recordFeed(ctx, cfg, cursor, to); err != nil {
			return fmt.Errorf("starting feed %s: %w", cfg.Name, err)
		}
		s.feeding.Go(func() {
			if err := f.Run(run); err != nil { // which it has logged
				s.metrics.feedStopped(cfg.Name)
			}
		})
	}
	return nil
}

func (s *Server) endFeeds() {
	if s.stopFeeds != nil {
		s.stopFeeds()
		s.feeding.Wait()
	}
}

// recordFeed records who is sent the records from here on: once for each start,
// because a record of each batch would be one more to send.
func (s *Server) recordFeed(ctx context.Context, cfg config.Feed, cursor feed.Cursor, to string) error {
	at, err := cursor.Load()
	if err != nil {
		return err
	}
	from := "the start"
	switch {
	case at.Origin != "":
		from = fmt.Sprintf("entry %d of %s", at.Next, at.Origin)
	case cfg.FromEnd:
		from = "now"
	}
	what := cmp.Or(strings.Join(cfg.Kinds, ", "), "all")
	return adminRecorder{s.ledger}.Record(ctx, record.Record{Header: record.Header{Kind: record.KindQuery}, Query: &record.Query{
		By: "feed:" + cfg.Name, Role: "feed", Question: fmt.Sprintf("records (%s) from %s on, to %s", what, from, to),
	}})
}

// feedParts are what a feed needs beside its configuration.
type feedParts struct {
	source   feed.Source
	cursor   feed.Cursor
	host     string // of syslog messages
	from     int64
	stream   io.Writer // where lines go if the configuration names no receiver
	now      func() time.Time
	logger   *slog.Logger
	observer feed.Observer
}

// newFeed builds a feed, and says where it goes in words without a secret.
func newFeed(cfg config.Feed, p feedParts) (f *feed.Follower, to string, err error) {
	fc := feed.Config{
		Name: cfg.Name, Source: p.source, Cursor: p.cursor, From: p.from, FromEnd: cfg.FromEnd, Now: p.now, Logger: p.logger, Observer: p.observer,
	}
	for _, k := range cfg.Kinds {
		fc.Kinds = append(fc.Kinds, record.Kind(k))
	}
	encode := feed.Encode(export.Line)
	if cfg.Format == config.FormatOCSF {
		encode = ocsf.Event
	}
	switch {
	case cfg.Syslog != nil:
		fc.Resend = config.DefaultResend
		if cfg.Syslog.Resend != nil {
			fc.Resend = *cfg.Syslog.Resend
		}
		fc.Sink, err = syslogSink(*cfg.Syslog, p.host, encode)
		to = "syslog " + cfg.Syslog.Address
	case cfg.Webhook != nil:
		fc.Sink, err = webhookSink(*cfg.Webhook, cfg.Format, encode, p.now)
		to = "webhook " + cfg.Webhook.URL
	case cfg.File != "":
		fc.Sink, to = &feed.File{Path: cfg.File, Encode: encode}, "file "+cfg.File
	default:
		fc.Sink, to = &feed.Stream{To: p.stream, Encode: encode}, "stdout"
	}
	if err == nil {
		f, err = feed.New(fc)
	}
	return f, to, err
}

func syslogSink(cfg config.Syslog, host string, encode feed.Encode) (*feed.Syslog, error) {
	facility := 13
	if cfg.Facility != nil {
		facility = *cfg.Facility
	}
	sink := &feed.Syslog{
		Address: cfg.Address, Hostname: cmp.Or(cfg.Hostname, host), Facility: facility, MaxBytes: cfg.MaxBytes, CloseNotify: cfg.CloseNotify, Encode: encode,
	}
	if !cfg.Plain {
		name, _, err := net.SplitHostPort(cfg.Address)
		if err != nil {
			return nil, err
		}
		roots, err := authorities(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("syslog.ca: %w", err)
		}
		sink.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: name}
		if cfg.Cert != "" {
			own := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
				return &c, err
			}
			if _, err := own(nil); err != nil {
				return nil, fmt.Errorf("syslog.cert: %w", err)
			}
			sink.TLS.GetClientCertificate = own
		}
	}
	return sink, sink.Check()
}

func webhookSink(cfg config.Webhook, format string, encode feed.Encode, now func() time.Time) (*feed.Webhook, error) {
	roots, err := authorities(cfg.CA)
	if err != nil {
		return nil, fmt.Errorf("webhook.ca: %w", err)
	}
	reach := ssrf.Config{Roots: roots, Now: now}
	for _, n := range cfg.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, fmt.Errorf("webhook.networks: %w", err)
		}
		reach.Also = append(reach.Also, p)
	}
	sink := &feed.Webhook{
		URL: cfg.URL, Encode: encode, Now: now,
		HTTP: &http.Client{
			Transport: ssrf.New(reach).Transport(), Timeout: webhookTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if format == config.FormatOCSF {
		sink.Type = "lineal.events"
	}
	for _, path := range cfg.SecretFiles {
		text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("webhook.secret_files: %w", err)
		}
		secret, err := feed.ParseSecret(string(text))
		if err != nil {
			return nil, fmt.Errorf("webhook.secret_files: %s: %w", path, err)
		}
		sink.Secrets = append(sink.Secrets, secret)
	}
	if path := cfg.AuthorizationFile; path != "" {
		sink.Authorization = func() (string, error) {
			text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
			return strings.TrimSpace(string(text)), err
		}
		if _, err := sink.Authorization(); err != nil {
			return nil, fmt.Errorf("webhook.authorization_file: %w", err)
		}
	}
	return sink, sink.Check()
}

// authorities reads a PEM file; nil, the system's, if there is none.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return roots, nil
}

func hostOf(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// logSource is the log as feeds read it: what published checkpoints cover, period
// after period.
type logSource struct {
	store  ledger.Store
	family string
}

// State implements feed.Source.
func (l logSource) State(ctx context.Context, origin string) (feed.State, error) {
	head, err := l.store.Head(ctx, l.family)
	if err != nil {
		return feed.State{}, err
	}
	s := feed.State{Origin: head.Origin}
	for origin != "" && s.Origin != origin { // back from the open period
		before, lost, err := l.before(ctx, s.Origin)
		if err != nil {
			return feed.State{}, err
		}
		if before == "" {
			return feed.State{}, fmt.Errorf("%w: no period of %s is %s", feed.ErrOtherLog, l.family, origin)
		}
		s.Origin, s.Next, s.Lost = before, s.Origin, lost
	}
	c, err := l.store.LastCheckpoint(ctx, s.Origin, true)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return feed.State{}, err
	}
	s.Size = c.Size
	return s, nil
}

// before is the origin of the period before: it is in the checkpoint that the
// first record of a period names. "" if there is none. lost: it lost its end.
func (l logSource) before(ctx context.Context, origin string) (before string, lost bool, err error) {
	first, err := periodRecord(ctx, l.store, origin, 0)
	if err != nil || first == nil || first.Op != record.PeriodOpen {
		return "", false, err
	}
	before, _, _ = strings.Cut(first.Previous, "\n")
	return before, first.Cause == record.PeriodRollback, nil
}

// Read implements feed.Source.
func (l logSource) Read(ctx context.Context, origin string, from, to int64) iter.Seq2[feed.Payload, error] {
	return func(yield func(feed.Payload, error) bool) {
		for e, err := range l.store.ReadRange(ctx, origin, from, to) {
			if err == nil && e.Pruned() {
				err = feed.ErrNotKept
			}
			if err != nil {
				yield(feed.Payload{}, err)
				return
			}
			envelope, err := record.Open(e.Envelope)
			if err != nil {
				yield(feed.Payload{}, fmt.Errorf("%w: entry %d: %w", feed.ErrUnreadable, e.Index, err))
				return
			}
			if !yield(feed.Payload{Index: e.Index, Bytes: envelope.Payload}, nil) {
				return
			}
		}
	}
}
