package token

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FeedHeartbeat is how often the issuer sends a message when nothing happens
// (tokens.md §10).
const FeedHeartbeat = 5 * time.Second

const (
	feedSilence  = 8 * time.Second // without a message the connection is given up
	feedRetryMin = 100 * time.Millisecond
	feedRetryMax = 2 * time.Second
	maxFeedLine  = MaxBytes + 64
)

// FeedConfig configures a Feed. Issuer and Keys are required.
type FeedConfig struct {
	// Issuer whose revocations these are, byte for byte.
	Issuer string
	// URL of the feed; if empty, Issuer + "/revocations".
	URL string
	// Keys are the issuer's keys.
	Keys KeySource
	// HTTP carries the identity of this process; if nil, a plain client. Its
	// total timeout is not used, redirects are never followed.
	HTTP *http.Client
	// StateFile is where the feed keeps what it knows, in a directory that
	// exists, so that a restart forgets no revocation and notices a list that is
	// shorter than before. If empty, nothing is kept.
	StateFile string
	// Now is the clock; if nil, time.Now.
	Now func() time.Time
	// Logger gets what an operator must look at; if nil, none.
	Logger *slog.Logger
}

// Feed follows the revocations of one issuer, as its token service pushes them
// at `GET {issuer}/revocations`, and answers from memory what is revoked. It is
// the [RevocationSource] of whoever is not the token service itself.
//
//	event ──▶ signature, issuer, number ──▶ set ──▶ state file
//	              │              └─ gap, rolled back ──▶ no answer but revocation_stale
//	              └─ not acceptable ──▶ connection dropped, knowledge grows old
//
// It answers "not revoked" only while it knows the whole list as of a time that
// is at most max_staleness ago. What it once learnt to be revoked stays so,
// however old the rest of its knowledge is. A list that became shorter means
// that the issuer forgot revocations; the Feed then answers nothing more, also
// after a restart, until an operator has looked and removed the state file.
//
// It promises nothing about the time before an entry reaches it; the age that
// each answer carries bounds that. All methods are safe for concurrent use.
type Feed struct {
	cfg     FeedConfig
	client  *http.Client
	running atomic.Bool
	heard   chan struct{} // closed when the list was first known whole in this run

	mu    sync.RWMutex // guards what follows; only Run changes it
	set   *RevocationSet
	known feedState
	dirty bool // known is not as on disk
}

// feedState is what is known beside the entries.
type feedState struct {
	through int64     // number of the last entry
	asOf    time.Time // when this was the whole list; zero: not known to be
	newest  time.Time // greatest `iat` heard
	fault   string    // why nothing may be answered, "" if nothing is wrong
}

// The faults. A gap heals with the missing entries, a rollback does not.
const (
	faultGap      = "gap"
	faultRollback = "rollback"
)

// NewFeed builds a Feed and reads its state file, if there is one. Nothing is
// fetched before Run.
func NewFeed(cfg FeedConfig) (*Feed, error) {
	if cfg.URL == "" {
		cfg.URL = cfg.Issuer + "/revocations"
	}
	if cfg.Issuer == "" || cfg.Keys == nil {
		return nil, errors.New("making revocation feed: issuer and keys are required")
	}
	if err := checkFetchURL(cfg.URL); err != nil {
		return nil, fmt.Errorf("making revocation feed: %w", err)
	}
	remote := RemoteConfig{HTTP: cfg.HTTP, Now: cfg.Now, Logger: cfg.Logger}.withDefaults()
	cfg.Now, cfg.Logger = remote.Now, remote.Logger
	remote.HTTP.Timeout = 0 // the stream has no end; silence ends it
	f := &Feed{cfg: cfg, client: remote.HTTP, heard: make(chan struct{}), set: NewRevocationSet()}
	if err := f.load(); err != nil {
		return nil, fmt.Errorf("making revocation feed: state file %s: %w", cfg.StateFile, err)
	}
	return f, nil
}

// Check implements [RevocationSource].
func (f *Feed) Check(_ context.Context, p Presented) (Standing, error) {
	if p.Chain.Issuer() != f.cfg.Issuer {
		return Standing{}, fmt.Errorf("a chain of %q, the revocations are of %q", p.Chain.Issuer(), f.cfg.Issuer)
	}
	now := f.cfg.Now()
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := Standing{Revoked: f.set.Match(p)}
	if !f.known.asOf.IsZero() {
		s.Age = max(0, now.Sub(f.known.asOf))
	}
	switch {
	case s.Revoked != "":
		return s, nil // that stays so, whatever else is not known
	case f.known.fault != "":
		return s, fmt.Errorf("the revocation feed has a fault: %s", f.known.fault)
	case f.known.asOf.IsZero():
		return s, errors.New("the revocation feed has not been heard yet")
	case s.Age > p.MaxStaleness:
		return s, fmt.Errorf("the revocation feed is %s old, at most %s is allowed", s.Age, p.MaxStaleness)
	}
	return s, nil
}

// Age is how old the knowledge of the list is; an error if there is none, or none
// to rely upon.
func (f *Feed) Age() (time.Duration, error) {
	now := f.cfg.Now()
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.known.fault != "":
		return 0, fmt.Errorf("the revocation feed has a fault: %s", f.known.fault)
	case f.known.asOf.IsZero():
		return 0, errors.New("the revocation feed has not been heard yet")
	}
	return max(0, now.Sub(f.known.asOf)), nil
}

// Wait returns when the Feed has heard the whole list in this run, or ctx ends.
func (f *Feed) Wait(ctx context.Context) error {
	select {
	case <-f.heard:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for revocations of %s: %w", f.cfg.Issuer, ctx.Err())
	}
}

// Run follows the feed until ctx ends, and reconnects whenever it must. It may
// run once.
func (f *Feed) Run(ctx context.Context) error {
	if !f.running.CompareAndSwap(false, true) {
		return errors.New("following revocations: the feed runs already")
	}
	retry := feedRetryMin
	for {
		took, err := f.follow(ctx)
		if ctx.Err() != nil {
			f.save(context.WithoutCancel(ctx), true) // with the age, for a restart
			return nil
		}
		if took {
			retry = feedRetryMin
		}
		f.cfg.Logger.WarnContext(ctx, "revocation feed interrupted", slog.String("issuer", f.cfg.Issuer), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, feedRetryMax)
	}
}

var errSilent = fmt.Errorf("no message for %s", feedSilence)

// follow is one connection. took says that at least one message was accepted.
func (f *Feed) follow(ctx context.Context) (took bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(feedSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	res, err := f.connect(ctx)
	if err != nil {
		return false, errors.Join(err, context.Cause(ctx))
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 4096), maxFeedLine)
	var data string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case field == "data" && data == "":
			data = strings.TrimPrefix(value, " ")
		case field == "data":
			return took, errors.New("an event of two lines")
		case lines.Text() == "" && data != "":
			if err := f.take(ctx, data); err != nil {
				return took, err
			}
			took, data = true, ""
			silence.Reset(feedSilence)
		}
	}
	return took, errors.Join(errors.New("the stream ended"), lines.Err(), context.Cause(ctx))
}

func (f *Feed) connect(ctx context.Context) (*http.Response, error) {
	u, err := url.Parse(f.cfg.URL)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set("after", strconv.FormatInt(f.state().through, 10))
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-cache")
	res, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || err != nil || media != "text/event-stream" {
		_ = res.Body.Close()
		return nil, fmt.Errorf("status %d, content type %.100q", res.StatusCode, res.Header.Get("Content-Type"))
	}
	return res, nil
}

// take verifies one message and takes it in. An error drops the connection.
func (f *Feed) take(ctx context.Context, raw string) error {
	issuer, b, err := openRevocations(raw, func(h header, c compact) (PublicKey, error) {
		if f.keyRevoked(h.kid) {
			return PublicKey{}, fmt.Errorf("message signed with the revoked key %q", h.kid)
		}
		return checkSigned(ctx, f.cfg.Keys, h, c)
	})
	now := f.cfg.Now()
	switch {
	case err != nil:
		return fmt.Errorf("message not acceptable: %w", err)
	case issuer != f.cfg.Issuer:
		return fmt.Errorf("message of issuer %q", issuer)
	case b.IssuedAt.After(now.Add(Leeway)):
		return fmt.Errorf("message of the future, %s", b.IssuedAt)
	}
	err = f.apply(b, now)
	if fault := f.state().fault; fault != "" {
		f.cfg.Logger.ErrorContext(ctx, "revocation feed has a fault, nothing is accepted",
			slog.String("issuer", f.cfg.Issuer), slog.String("fault", fault), slog.Any("error", err))
	}
	f.save(ctx, false)
	return err
}

// apply takes a batch in. The numbers decide: it must go on exactly where the
// known list ends.
func (f *Feed) apply(b RevocationBatch, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := &f.known
	newer := b.IssuedAt.After(k.newest)
	switch {
	case b.Last < k.through && newer: // a later statement of a shorter list
		k.fault, k.newest, f.dirty = faultRollback, b.IssuedAt, true
		return fmt.Errorf("the list ends at %d, it was %d long", b.Last, k.through)
	case b.After < k.through: // a message of before, sent again
		return fmt.Errorf("message after %d, the list is known to %d", b.After, k.through)
	case b.After > k.through:
		f.dirty = f.dirty || k.fault == ""
		if k.fault == "" {
			k.fault = faultGap
		}
		return fmt.Errorf("message after %d, the list is known only to %d", b.After, k.through)
	}
	for _, e := range b.Entries {
		if err := f.set.Add(e); err != nil { // Check of the batch has let it pass
			return err
		}
	}
	if k.fault == faultGap {
		k.fault, f.dirty = "", true
	}
	f.dirty = f.dirty || b.Through > k.through
	k.through = b.Through
	if newer {
		k.newest = b.IssuedAt
	}
	f.set.Prune(now)
	if b.Last == b.Through {
		f.current(b.IssuedAt, now)
	}
	return nil
}

// current notes that the list is known whole as of a time. It is reckoned from
// this clock's reading, so that a clock that is set does not make it younger.
func (f *Feed) current(issuedAt, now time.Time) {
	asOf := now.Add(-max(0, now.Sub(issuedAt)))
	if f.known.asOf.IsZero() || asOf.After(f.known.asOf) {
		f.known.asOf = asOf
	}
	select {
	case <-f.heard:
	default:
		f.dirty = true // say early if the file cannot be written
		close(f.heard)
	}
}

func (f *Feed) state() feedState {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.known
}

func (f *Feed) keyRevoked(kid string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return has(f.set.key, kid)
}
