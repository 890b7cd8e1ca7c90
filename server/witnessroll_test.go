package server

import (
	"bytes"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
)

// cosignedBy is a deployment with litewitness, which knows the open period.
func cosignedBy(t *testing.T, w litewitness) *setBack {
	t.Helper()
	s := newSetBack(t, func(l *config.Ledger) { l.Witnesses = []config.Witness{w.Witness} })
	w.add(t, s.was.Origin(), keyOf(t, s.cfg.DataDir))
	s.cfg.Ledger.Witnesses = s.was.Witnesses
	return s
}

// introduce tells the witness of the period to come.
func (s *setBack) introduce(w litewitness) {
	s.t.Helper()
	key, err := PrepareRoll(s.cfg.DataDir, s.cfg.Ledger.Period)
	if err != nil {
		s.t.Fatal(err)
	}
	w.add(s.t, s.cfg.Ledger.Origin(), key)
}

// size is how many entries of a log the witness has seen.
func (w litewitness) size(t *testing.T, origin string) (n int64) {
	t.Helper()
	db, err := sql.Open("sqlite", w.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(t.Context(), `SELECT tree_size FROM log WHERE origin = ?`, origin).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// behind is the witness behind a proxy that answers no request which names a log.
func (w litewitness) behind(t *testing.T) (at config.Witness, deaf *atomic.Pointer[string]) {
	t.Helper()
	to, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	deaf = new(atomic.Pointer[string])
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if origin := deaf.Load(); err != nil || origin != nil && bytes.Contains(body, []byte(*origin+"\n")) {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(rw, req)
	}))
	t.Cleanup(srv.Close)
	at = w.Witness
	at.URL = srv.URL
	return at, deaf
}

// unsealed: the period is open as before.
func (s *setBack) unsealed() {
	s.t.Helper()
	if _, err := os.Lstat(filepath.Join(s.cfg.DataDir, rollingFile)); !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("a roll has begun: %v", err)
	}
	if got := kindsOf(s.t, s.cfg.DataDir, s.was.Period); strings.Contains(got, "period") {
		s.t.Errorf("the period is sealed: %s", got)
	}
}

// TestL3LitewitnessRoll rolls a log that litewitness cosigns: a week before, the
// next period becomes known to it; until it is, and while it is away, the open
// period is not closed; both are cosigned, the old end before the new begins.
func TestL3LitewitnessRoll(t *testing.T) {
	w := startLitewitness(t)
	s := cosignedBy(t, w)
	s.grow(3)
	if _, err := PrepareRoll(s.cfg.DataDir, s.cfg.Ledger.Period); err != nil {
		t.Fatal(err)
	}
	_, err := Roll(t.Context(), s.cfg, "", time.Now, nil)
	if !errors.Is(err, ledger.ErrNotPublished) || !strings.Contains(err.Error(), "witness w1: ") || !strings.Contains(err.Error(), "status 404") {
		t.Errorf("with a period that the witness does not know: %v", err)
	}
	s.unsealed()
	w.add(t, s.cfg.Ledger.Origin(), strangeKey(t, s.cfg.Ledger.Origin()))
	_, err = Roll(t.Context(), s.cfg, "", time.Now, nil)
	if !errors.Is(err, ledger.ErrNotPublished) || !strings.Contains(err.Error(), "status 403") {
		t.Errorf("with a key that the witness does not know: %v", err)
	}
	s.unsealed()
	w.forget(t, s.cfg.Ledger.Origin())
	s.introduce(w)

	// A witness that is away: the quorum decides.
	dead := config.Witness{Name: "w2", URL: "http://" + freeAddress(t), Key: otherWitness(t)}
	two := s.cfg
	two.Ledger.Witnesses = []config.Witness{w.Witness, dead}
	if _, err = Roll(t.Context(), two, "", time.Now, nil); !errors.Is(err, ledger.ErrNotPublished) || !strings.Contains(err.Error(), "witness w2: ") {
		t.Errorf("with a witness that is away: %v", err)
	}
	s.unsealed()

	// One that goes away in the middle: what was sealed is published when it is back.
	at, deaf := w.behind(t)
	away := s.cfg
	away.Ledger.Witnesses = []config.Witness{at}
	origin := s.was.Origin()
	deaf.Store(&origin)
	if _, err = Roll(t.Context(), away, "", time.Now, nil); !errors.Is(err, ledger.ErrNotPublished) {
		t.Errorf("with a witness that went away: %v", err)
	}
	if err := noteLedger(s.cfg.DataDir, s.was); err == nil {
		t.Error("a server starts on a period that is half closed")
	}
	if n := w.size(t, s.cfg.Ledger.Origin()); n != 0 {
		t.Errorf("the witness has seen %d entries of a period that is not open", n)
	}
	deaf.Store(nil)
	two.Ledger.Witnesses, two.Ledger.WitnessQuorum = []config.Witness{at, dead}, 1
	rep, err := Roll(t.Context(), two, "", time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := w.size(t, s.was.Origin()); n != rep.Size {
		t.Errorf("the witness has seen %d of %d entries", n, rep.Size)
	}
	if got := kindsOf(t, s.cfg.DataDir, s.was.Period); strings.Count(got, "period") != 1 {
		t.Errorf("the old period has %q", got)
	}
	s.was = two.Ledger
	s.grow(2)
	rs := s.verified(s.exported("2026-11"), s.exported(""))
	for _, r := range rs {
		wantSaid(t, r, evidence.Witnesses, evidence.Pass, "")
		if r.Result() == evidence.ResultInvalid {
			t.Errorf("%+v", r.Findings())
		}
	}
	wantSaid(t, rs[1], evidence.Sequence, evidence.Pass, "")
	t.Logf("witness: litewitness cosigned the end of one period at %d entries, and the next up to %d", rep.Size, w.size(t, s.was.Origin()))
}

// TestL3LitewitnessRollback: a whole data directory is set back, so that the witness
// alone has seen more. It says how much, and not what: the checkpoint has to come
// from who kept it. Who opens the next period behind less than was cosigned is found
// by everybody who has that.
func TestL3LitewitnessRollback(t *testing.T) {
	w := startLitewitness(t)
	s := cosignedBy(t, w)
	s.grow(3)
	old := filepath.Join(t.TempDir(), "old")
	copyData(t, s.cfg.DataDir, old)
	s.grow(20)
	cosigned := w.size(t, s.was.Origin())
	early := s.exported("")
	kept, err := os.ReadFile(filepath.Join(tilesPath(s.cfg.DataDir, s.was), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts   RollbackOptions
		period string
		says   string
		origin evidence.Status
	}{
		"with the checkpoint":    {RollbackOptions{Checkpoints: [][]byte{kept}, AcceptLoss: true}, "2026-12", "", evidence.Pass},
		"without the checkpoint": {RollbackOptions{AcceptLoss: true}, "2027-01", "witness w1", evidence.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			s := &setBack{t: t, cfg: s.cfg, was: s.was}
			s.cfg.DataDir = filepath.Join(t.TempDir(), "data")
			copyData(t, old, s.cfg.DataDir)
			s.cfg.Ledger.Period = c.period
			s.refused()
			if _, _, err := s.roll(false); !errors.Is(err, ErrLoss) {
				t.Fatalf("not accepted: %v", err)
			}
			if _, err := RollAfterRollback(t.Context(), s.cfg, c.opts, time.Now, nil); !errors.Is(err, ledger.ErrNotPublished) {
				t.Fatalf("with a period that the witness does not know: %v", err)
			}
			s.introduce(w)
			var told Loss
			c.opts.Tell = func(l Loss) error { told = l; return nil }
			if _, err := RollAfterRollback(t.Context(), s.cfg, c.opts, time.Now, nil); err != nil {
				t.Fatal(err)
			}
			if c.says == "" && (told.End.Size != cosigned || told.Missing == nil || len(told.Beyond) != 0) ||
				c.says != "" && (told.End.Size >= cosigned || len(told.Beyond) != 1 || told.Beyond[0] != (ledger.Seen{By: c.says, Size: cosigned})) {
				t.Errorf("%+v", told)
			}
			s.was = s.cfg.Ledger
			s.grow(2)
			next := s.exported("")
			wantSaid(t, s.verified(early, next)[1], evidence.Origin, c.origin, "")
			wantSaid(t, s.verified(next)[0], evidence.Witnesses, evidence.Pass, "")
		})
	}

	// The database alone: the tiles have it all, and the end is cosigned.
	s.cfg.Ledger.Period = "2027-02"
	data, err := os.ReadFile(filepath.Join(old, "ledger.db"))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.cfg.DataDir, "ledger.db"), data, 0o600)
	}
	if err == nil { // as if no cosigned note had been kept
		err = os.Remove(filepath.Join(tilesPath(s.cfg.DataDir, s.was), "checkpoint"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.introduce(w)
	if _, told, err := s.roll(false); err != nil || !told.Whole() {
		t.Fatalf("%+v, %v", told, err)
	}
	s.was = s.cfg.Ledger
	s.grow(2)
	s.wantPlaced(s.acked, 1)
	for _, r := range s.verified(s.exported("2026-11"), s.exported("")) {
		wantSaid(t, r, evidence.Witnesses, evidence.Pass, "")
	}
	t.Logf("witness: litewitness had seen %d entries of a log that was set back, and three periods began behind it", cosigned)
}

// forget makes the witness not know a log.
func (w litewitness) forget(t *testing.T, origin string) {
	t.Helper()
	db, err := sql.Open("sqlite", w.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, q := range []string{`DELETE FROM key WHERE origin = ?`, `DELETE FROM log WHERE origin = ?`} {
		if _, err := db.ExecContext(t.Context(), q, origin); err != nil {
			t.Fatal(err)
		}
	}
}

// strangeKey is a key of the log that this deployment has not.
func strangeKey(t *testing.T, origin string) string {
	t.Helper()
	key, err := evidence.NewKey(origin, newPublicKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return key.String()
}

func otherWitness(t *testing.T) string {
	t.Helper()
	key, err := evidence.NewWitnessKey("witness.test/w2", newPublicKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return key.String()
}

func newPublicKey(t *testing.T) ed25519.PublicKey {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}
