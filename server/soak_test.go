package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// TestSoak: four gateways on one PostgreSQL under a closed loop of callers, whose
// certificates rotate. Each answer has one permit, and one outcome after it, in
// the log, and no permit is without its outcome; the log is sound. How long it
// goes on is LINEAL_SOAK, and bench/soak prints what it measured; then, on a
// machine that does nothing else, hardly a call is refused for want of the ledger,
// and nothing waits longer for its index at the end than it did early on.
func TestSoak(t *testing.T) {
	length := 4 * time.Second
	if text := os.Getenv("LINEAL_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	c := newCluster(t)
	c.founder.cfg.Upstreams.LLM[0].RequireDPoP, c.proofKey = false, nil // bound by certificate
	center := c.start(c.node(""))
	gateways := []*process{center}
	for i := range 3 {
		gateways = append(gateways, c.start(c.node(fmt.Sprintf("edge%d", i+1), config.RoleGateway)))
	}

	s := &soak{t: t, center: center, measured: os.Getenv("LINEAL_SOAK") != "", answered: make(map[string]bool), refused: make(map[string]int)}
	s.renew()
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for i := range 64 {
		callers.Go(func() { s.calls(gateways[i%len(gateways)], stop) })
	}
	s.watch(length)
	close(stop)
	callers.Wait()
	s.account()
}

// soak is what callers and watcher share.
type soak struct {
	t      *testing.T
	center *process
	token  atomic.Pointer[client.Token]

	mu       sync.Mutex      // guards what follows
	answered map[string]bool // ids of calls that were answered
	refused  map[string]int  // codes of those that were not
	stale    bool            // a token is of the certificate before

	measured bool // somebody asked for the numbers, on a quiet machine
	report   soakReport
}

// soakReport is printed as one line of JSON. Rates are per second.
type soakReport struct {
	Seconds    float64 `json:"seconds"`
	Calls      int     `json:"calls"`
	Refused    int     `json:"refused"` // the ledger's deadline passed, or a certificate rotated under a token
	CallRate   float64 `json:"calls_per_s"`
	Intake     float64 `json:"intake_per_s"`
	Sequenced  float64 `json:"sequenced_per_s"`
	EarlyRows  float64 `json:"early_backlog_rows"` // in the mean of the first minute, or of a quarter of the time
	FinalRows  float64 `json:"final_backlog_rows"` // of the last
	EarlyAge   float64 `json:"early_lag_s"`        // the most in the first minute
	FinalAge   float64 `json:"final_lag_s"`        // in the last
	MaxAge     float64 `json:"max_lag_s"`
	Entries    int64   `json:"entries"`
	Lost       int     `json:"lost"`
	Duplicates int     `json:"duplicates"`
}

// renew gets a token; it lives five minutes.
func (s *soak) renew() {
	root := s.center.login(s.center.toTokens())
	s.token.Store(&root)
}

// calls asks the model until stop closes. A token is bound to the certificate of
// its time: with another token come other connections.
func (s *soak) calls(p *process, stop <-chan struct{}) {
	url := p.cfg.PublicURL + llmPrefix("openai") + "/chat/completions"
	rt := p.toGateway()
	for with := s.token.Load(); ; {
		select {
		case <-stop:
			return
		default:
		}
		if now := s.token.Load(); now != with {
			with = now
			rt.CloseIdleConnections()
		}
		id, code, err := s.call(rt, url, with)
		if err != nil {
			s.t.Errorf("a call failed: %v", err)
			return
		}
		s.mu.Lock()
		if code == "" {
			s.answered[id] = true
		} else {
			s.refused[code]++
			s.stale = s.stale || code == "proof_invalid"
		}
		s.mu.Unlock()
		if code != "" {
			pause(s.t.Context(), 250*time.Millisecond)
		}
	}
}

// call is one call: its id, and the code of a refusal.
func (s *soak) call(rt http.RoundTripper, url string, with *client.Token) (id, code string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"model":"small","messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		return "", "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+string(with.Raw))
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", "", err
	}
	if code = resp.Header.Get("Lineal-Code"); code == "" && resp.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("status %d without a code", resp.StatusCode)
	}
	return resp.Header.Get("Lineal-Request-Id"), code, nil
}

// watch samples the backlog until the time is over.
func (s *soak) watch(length time.Duration) {
	every := min(time.Second, length/20)
	began, renewed := time.Now(), time.Now()
	samples := []backlog{s.backlog()}
	for time.Since(began) < length {
		time.Sleep(every)
		samples = append(samples, s.backlog())
		if s.mustRenew() || time.Since(renewed) > time.Minute {
			s.renew()
			renewed = time.Now()
		}
	}
	first, last := samples[0], samples[len(samples)-1]
	seconds := last.at.Sub(first.at).Seconds()
	s.report.Seconds = seconds
	s.report.Intake = float64(last.size+last.rows-first.size-first.rows) / seconds
	s.report.Sequenced = float64(last.size-first.size) / seconds
	_, s.report.MaxAge = waited(samples, func(time.Time) bool { return true })
	end := min(time.Minute, length/4)
	s.report.EarlyRows, s.report.EarlyAge = waited(samples, func(at time.Time) bool { return at.Sub(first.at) <= end })
	s.report.FinalRows, s.report.FinalAge = waited(samples, func(at time.Time) bool { return last.at.Sub(at) <= end })
}

// waited gives the mean number of rows without an index at the times that are in,
// and the most seconds that one of them had waited.
func waited(samples []backlog, in func(time.Time) bool) (rows, oldest float64) {
	n := 0.0
	for _, b := range samples {
		if in(b.at) {
			rows, oldest, n = rows+float64(b.rows), max(oldest, b.age), n+1
		}
	}
	return rows / n, oldest
}

// mustRenew reports once that a caller met a certificate that its token is not of.
func (s *soak) mustRenew() (stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stale, s.stale = s.stale, false
	return stale
}

// backlog is what waits for an index.
type backlog struct {
	at         time.Time
	size, rows int64
	age        float64 // of the oldest, in seconds
}

func (s *soak) backlog() backlog {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	l := s.center.server.ledger
	stats, err := l.store.IntakeStats(ctx, l.cfg.Family)
	if err != nil {
		s.t.Fatal(err)
	}
	head, err := l.store.Head(ctx, l.cfg.Family)
	if err != nil {
		s.t.Fatal(err)
	}
	return backlog{at: time.Now(), size: head.Size, rows: stats.Rows, age: stats.Oldest.Seconds()}
}

// account reads the log to its end and compares.
func (s *soak) account() {
	t := s.t
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	r := &s.report
	for code, n := range s.refused {
		if code != "proof_invalid" && code != "ledger_unavailable" {
			t.Errorf("%d calls refused: %s", n, code)
		}
		r.Refused += n
	}
	if len(s.answered) == 0 || s.measured && r.Refused*100 > len(s.answered) {
		t.Errorf("%d calls answered, refused: %v", len(s.answered), s.refused)
	}
	for _, w := range s.center.server.ledger.recorders {
		if err := w.drain(ctx); err != nil {
			t.Fatal(err)
		}
	}
	permits, outcomes := s.read(ctx)
	r.Calls, r.CallRate = len(s.answered), float64(len(s.answered))/r.Seconds
	for id := range s.answered {
		if permits[id] == 0 || outcomes[id] == 0 {
			r.Lost++
		}
		if permits[id] > 1 || outcomes[id] > 1 {
			r.Duplicates++
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("soak %s", line)
	if r.Lost > 0 || r.Duplicates > 0 {
		t.Errorf("%d permits and %d outcomes for %d answers", len(permits), len(outcomes), len(s.answered))
	}
	// A second is a checkpoint's; more than that must not pile up.
	if s.measured && r.FinalAge > math.Max(r.EarlyAge, 1)*2 {
		t.Errorf("what waits for an index is %.1f s old at the end, and was %.1f s early on", r.FinalAge, r.EarlyAge)
	}
	a, err := OpenArchive(ctx, s.center.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := a.Fsck(ctx)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err != nil || rep.Err() != nil {
		t.Errorf("fsck: %v, %v", err, rep.Err())
	}
}

// read counts permits and outcomes by the call, when all outcomes have come.
func (s *soak) read(ctx context.Context) (permits, outcomes map[string]int) {
	t, l := s.t, s.center.server.ledger
	permits, outcomes = make(map[string]int), make(map[string]int)
	for from := int64(0); from == 0 || len(outcomes) < len(permits); {
		if err := s.center.server.Flush(ctx); err != nil { // outcomes of the others may still be on their way
			t.Fatal(err)
		}
		head, err := l.store.Head(ctx, l.cfg.Family)
		if err != nil {
			t.Fatal(err)
		}
		s.report.Entries = head.Size
		if head.Size == from { // heartbeats go on: the log grows until they have come
			time.Sleep(100 * time.Millisecond)
		}
		for e, err := range ledger.NewReader(l.store, l.order.tiles).Entries(ctx, head.Origin, from, head.Size) {
			if err != nil {
				t.Fatal(err)
			}
			tally(t, e.Envelope, permits, outcomes)
		}
		from = head.Size
	}
	return permits, outcomes
}

// tally adds one record. An outcome before its permit is of no call.
func tally(t *testing.T, raw []byte, permits, outcomes map[string]int) {
	t.Helper()
	envelope, err := record.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Parse(envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case rec.Decision != nil && rec.Decision.Verdict.Effect == record.Permit:
		permits[rec.Decision.CallID]++
	case rec.Outcome != nil && permits[rec.Outcome.CallID] > 0:
		outcomes[rec.Outcome.CallID]++
	}
}
