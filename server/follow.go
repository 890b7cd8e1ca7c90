package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/feed"
)

// FollowOptions say how an archive is followed.
type FollowOptions struct {
	// Cursor is the file in which is kept where the feed stands; "": it begins anew
	// each time.
	Cursor string
	// From is where in the open period a feed without a cursor begins.
	From int64
	// Once ends it when everything published is acknowledged.
	Once bool
	// Stream is where lines go if the feed names no receiver.
	Stream io.Writer
	Now    func() time.Time
	Logger *slog.Logger
}

// Follow sends what is published of the log, until ctx ends. It writes nothing to
// the log: that somebody looks is recorded only by the feeds of a server.
func (a *Archive) Follow(ctx context.Context, to config.Feed, opts FollowOptions) (err error) {
	var cursor feed.Cursor = &feed.Forgotten{}
	if opts.Cursor != "" {
		file, err := feed.OpenCursor(opts.Cursor)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		cursor = file
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("following: %w", err)
	}
	f, _, err := newFeed(to, feedParts{
		source: logSource{a.store, a.cfg.Family}, cursor: cursor, host: host, from: opts.From, stream: opts.Stream, now: opts.Now, logger: opts.Logger,
	})
	if err != nil {
		return fmt.Errorf("following: %w", err)
	}
	if opts.Once {
		return f.Drain(ctx)
	}
	return f.Run(ctx)
}
