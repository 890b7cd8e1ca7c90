package sts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/token"
)

const (
	feedPage    = 64                     // entries of one message
	feedPoll    = 500 * time.Millisecond // how often the list of other processes is looked at
	feedWrite   = 10 * time.Second       // what a reader may take for one message
	maxFeeds    = 1024                   // streams at a time
	eventStream = "text/event-stream"
)

// serveFeed is GET {issuer}/revocations?after=<seq> (tokens.md §10): a stream
// of signed messages, the first at once, one at each revocation, and one every
// five seconds. Who neither serves nor verifies an audience is told that there
// is none.
func (s *Service) serveFeed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	workload, err := s.caller(r, "/revocations")
	if refused, ok := errors.AsType[*Refusal](err); ok {
		s.challenge(w, r, refused)
		return
	}
	if err != nil {
		http.NotFound(w, r)
		return
	}
	s.offerNonce(w.Header(), r)
	may, err := s.mayFollow(r.Context(), workload)
	after, sound := sequence(r.URL.Query()["after"])
	switch {
	case err != nil || s.hasEnded() || s.feeds.Load() >= maxFeeds:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "revocations cannot be read now", http.StatusServiceUnavailable)
	case !may:
		http.NotFound(w, r)
	case !sound:
		http.Error(w, "after must be one number", http.StatusBadRequest)
	default:
		s.feeds.Add(1)
		defer s.feeds.Add(-1)
		f := follower{s: s, w: w, workload: workload, at: after}
		if err := f.stream(r.Context()); err != nil {
			s.cfg.Logger.WarnContext(r.Context(), "revocation feed ended",
				slog.String("client", workload.Agent.String()), slog.String("cause", err.Error()))
		}
	}
}

// sequence reads `after`; absent is 0.
func sequence(values []string) (int64, bool) {
	if len(values) == 0 {
		return 0, true
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	return n, err == nil && len(values) == 1 && n >= 0 && strconv.FormatInt(n, 10) == values[0]
}

// mayFollow reports whether w is an auditor, or serves or verifies an audience
// today, under a credential that has not ended. A registered agent must be
// enabled.
func (s *Service) mayFollow(ctx context.Context, w identity.Workload) (bool, error) {
	if !w.NotAfter.IsZero() && !s.cfg.Now().Before(w.NotAfter.Add(token.Leeway)) {
		return false, nil
	}
	agent, registered, err := registry.Found(s.cfg.Directory.Agent(ctx, w.Agent))
	if err != nil || registered && !agent.Enabled {
		return false, err
	}
	if slices.Contains(s.cfg.Auditors, w.Agent) {
		return true, nil
	}
	return s.cfg.Directory.Receives(ctx, w.Agent)
}

// EndFeeds ends the streams of revocations that are open, and lets nobody open
// another. A server that shuts down calls it, because nothing else would end
// them.
func (s *Service) EndFeeds() { s.ending.Do(func() { close(s.ended) }) }

func (s *Service) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// follower is one reader of the feed.
type follower struct {
	s        *Service
	w        http.ResponseWriter
	workload identity.Workload
	at       int64 // the number it knows the list up to
}

// stream sends messages until the reader, the service or the reader's right to
// follow is gone. Only the last is an error, and what else should not happen.
func (f *follower) stream(ctx context.Context) error {
	h := f.w.Header()
	h.Set("Content-Type", eventStream)
	h.Set("X-Accel-Buffering", "no")
	beat := time.NewTicker(token.FeedHeartbeat)
	defer beat.Stop()
	poll := time.NewTicker(feedPoll)
	defer poll.Stop()
	due := true
	for {
		changed := f.s.revoked.waiting()
		more, err := f.send(ctx, due)
		if err != nil || ctx.Err() != nil {
			return ignoreGone(ctx, err)
		}
		if due = more; more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.s.ended:
			return nil
		case <-changed:
		case <-poll.C:
		case <-beat.C:
			due = true
			if may, err := f.s.mayFollow(ctx, f.workload); err != nil || !may {
				return fmt.Errorf("the reader may follow: %t: %w", may, err)
			}
		}
	}
}

// ignoreGone drops an error that only says that the reader hung up.
func ignoreGone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// send sends one message if there is something new, or if one is due. more says
// that the list goes on beyond it. The time in the message is from before the
// list was read, so that it never claims to know more than it does.
func (f *follower) send(ctx context.Context, due bool) (more bool, err error) {
	b := token.RevocationBatch{IssuedAt: f.s.cfg.Now(), After: f.at}
	if !due {
		last, err := f.s.cfg.Revocations.LastRevoked(ctx)
		if err != nil || last == f.at {
			return false, err
		}
	}
	page, err := f.s.cfg.Revocations.RevokedSince(ctx, f.at, feedPage)
	if err != nil {
		return false, err
	}
	if page.Last < f.at { // the reader shall see it: the list is shorter than it was
		b.After = page.Last
	}
	b.Through, b.Last, b.Entries = cut(page)
	if err := f.s.cfg.Keys.Refresh(ctx); err != nil { // no message says with a key that the key is revoked
		return false, err
	}
	raw, err := f.s.issuer.SignRevocations(b)
	if err != nil {
		return false, err
	}
	conn := http.NewResponseController(f.w)
	// The deadline is set when it has passed, so that no clock is read (N3).
	late := time.AfterFunc(feedWrite, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer late.Stop()
	if _, err := fmt.Fprintf(f.w, "id: %d\ndata: %s\n\n", b.Through, raw); err != nil {
		return false, err
	}
	if err := conn.Flush(); err != nil {
		return false, err
	}
	f.at = max(f.at, b.Through)
	return b.Through < b.Last, nil
}

// cut takes as much of a page as one message can hold.
func cut(page registry.Revoked) (through, last int64, entries []token.Revocation) {
	size := 0
	for _, e := range page.Entries {
		if size += len(e.Value); size > token.MaxRevocations && len(entries) > 0 {
			return entries[len(entries)-1].Seq, page.Last, entries
		}
		entries = append(entries, entryOf(e))
	}
	return page.Through, page.Last, entries
}
