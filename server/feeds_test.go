package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/feed"
	"github.com/lineal-auth/lineal/record"
)

// sent are the lines of a feed's file.
func sent(t *testing.T, path string) (out []struct {
	Index  int64
	Origin string
	Record json.RawMessage
},
) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		out = append(out, struct {
			Index  int64
			Origin string
			Record json.RawMessage
		}{})
		if err := json.Unmarshal([]byte(line), &out[len(out)-1]); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
	}
	return out
}

// TestFeedOfAServer follows two runs of a deployment: a feed goes on where the
// run before left it, that it was started is in the log, and so in the feed.
func TestFeedOfAServer(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	path := filepath.Join(t.TempDir(), "sent.jsonl")
	d.cfg.Feeds = []config.Feed{{Name: "siem", File: path}}
	var size int64
	for range 2 {
		s := d.start(t)
		x, err := s.Records(t.Context()) // which flushes
		if err != nil {
			t.Fatal(err)
		}
		asOf, _ := x.AsOf()
		size = asOf.Size
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		for fed(t, d) < size {
			if !pause(ctx, 5*time.Millisecond) {
				t.Fatalf("the feed stands at %d of %d", fed(t, d), size)
			}
		}
		cancel()
		scraped := httptest.NewRecorder()
		s.metrics.handler().ServeHTTP(scraped, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{`lineal_feed_stopped{feed="siem"} 0`, `lineal_feed_delivered_records_total{feed="siem"} `, `lineal_feed_failures_total{feed="siem"} 0`} {
			if !strings.Contains(scraped.Body.String(), want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		d.stop(t, s)
		d.listen(t)
	}
	_ = d.gateway.Close()
	_ = d.tokens.Close()
	starts := 0
	for i, line := range sent(t, path) {
		if line.Index != int64(i) || line.Origin != d.cfg.Ledger.Origin() {
			t.Fatalf("line %d is entry %d of %s", i, line.Index, line.Origin)
		}
		r, err := record.Parse(line.Record)
		if err != nil {
			t.Fatal(err)
		}
		if q := r.Query; q != nil && q.By == "feed:siem" && q.Role == "feed" && strings.Contains(q.Question, "to file "+path) {
			starts++
		}
	}
	if starts != 2 {
		t.Errorf("%d starts of the feed are recorded", starts)
	}
}

// fed is where the feed of a deployment stands.
func fed(t *testing.T, d *deployment) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.cfg.DataDir, feedsDir, "siem.json"))
	if err != nil {
		return 0
	}
	var at struct{ Position feed.Position }
	if err := json.Unmarshal(b, &at); err != nil {
		t.Fatal(err)
	}
	return at.Position.Next
}

// TestFeedThatCannotStart: what is wrong with a feed ends the start, and a secret
// is in no message. The twin is TestFeedOfAServer.
func TestFeedThatCannotStart(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	dir := t.TempDir()
	bad := filepath.Join(dir, "secret")
	if err := os.WriteFile(bad, []byte("whsec_c2hvcnQ="), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]config.Feed{
		"whsec_ and 24": {Name: "a", Webhook: &config.Webhook{URL: "https://hooks.example/a", SecretFiles: []string{bad}}},
		"no such file":  {Name: "a", Webhook: &config.Webhook{URL: "https://hooks.example/a", SecretFiles: []string{bad + "2"}}},
		"syslog.ca":     {Name: "a", Syslog: &config.Syslog{Address: "siem.example:6514", CA: bad}},
		"syslog.cert":   {Name: "a", Syslog: &config.Syslog{Address: "siem.example:6514", Cert: bad, Key: bad}},
	} {
		d.cfg.Feeds = []config.Feed{f}
		s, err := Start(t.Context(), d.cfg, Options{GatewayListener: d.gateway, TokensListener: d.tokens})
		if err == nil {
			d.stop(t, s)
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("%s: %v", want, err)
		}
		d.listen(t)
	}
	_ = d.gateway.Close()
	_ = d.tokens.Close()
}

// TestFollowReportsItsEnd: a cursor of another log says so, and nothing is sent.
func TestFollowReportsItsEnd(t *testing.T) {
	d := newDeployment(t)
	d.init(t)
	s := d.start(t)
	d.stop(t, s)
	a, err := OpenArchive(t.Context(), d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	var out bytes.Buffer
	at := filepath.Join(t.TempDir(), "at")
	opts := FollowOptions{Cursor: at, Once: true, Stream: &out, Now: time.Now}
	if err := a.Follow(t.Context(), config.Feed{}, opts); err != nil || out.Len() == 0 {
		t.Fatalf("%v, %d bytes", err, out.Len())
	}
	b, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Replace(b, []byte("/2026-11"), []byte("/2026-10"), 1)
	if err := os.WriteFile(at, other, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Follow(t.Context(), config.Feed{}, opts); err == nil || !strings.Contains(err.Error(), "does not fit this log") {
		t.Errorf("a cursor of a period that never was: %v", err)
	}
}
