package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// feedWait bounds how long a start waits for the revocations.
const feedWait = 10 * time.Second

// revocations is the gateway's feed. It comes from the token service over mTLS,
// like that of any other gateway, and its state is kept per issuer.
func (s *Server) revocations(issuer string, keys token.KeySource, client *http.Client) (*token.Feed, error) {
	sum := sha256.Sum256([]byte(issuer))
	return token.NewFeed(token.FeedConfig{
		Issuer: issuer, Keys: keys, HTTP: client, Now: s.now, Logger: s.logger,
		StateFile: filepath.Join(s.cfg.DataDir, "revocations-"+hex.EncodeToString(sum[:8])+".json"),
	})
}

// followRevocations starts the feed and waits until it has been heard. If that
// takes too long the gateway starts all the same: it answers 503 until then.
func (s *Server) followRevocations(ctx context.Context) error {
	if u := s.cfg.Upstreams; len(u.MCP)+len(u.A2A)+len(u.LLM)+len(u.HTTP)+len(u.GRPC) == 0 {
		return nil // no token is verified here, and the feed is for who does
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stopFeed = cancel
	s.following.Go(func() {
		if err := s.feed.Run(run); err != nil {
			s.ledgerFailed(err)
		}
	})
	wait, stop := context.WithTimeout(ctx, feedWait)
	defer stop()
	if err := s.feed.Wait(wait); err != nil {
		if ctx.Err() != nil {
			return err
		}
		s.logger.WarnContext(ctx, "starting without revocations; calls are refused until they are heard", slog.Any("error", err))
	}
	return nil
}

// endRevocations stops the feed, and those of others, which would keep a
// listener from closing.
func (s *Server) endRevocations() {
	if s.stopFeed != nil {
		s.stopFeed()
		s.following.Wait()
	}
	if s.tokens != nil {
		s.tokens.EndFeeds()
	}
}

// Revoke ends authority, see [sts.Service.Revoke]. It is for whoever runs the
// server in its own process; operators use the admin API.
func (s *Server) Revoke(ctx context.Context, r sts.Revocation) (seq int64, err error) {
	if s.tokens == nil {
		return 0, errors.New("revoking: this process runs no token service")
	}
	return s.tokens.Revoke(ctx, r)
}
