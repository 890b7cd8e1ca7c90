package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/sts"
)

// openedLedger opens the ledger of a data directory as a server does.
func openedLedger(t *testing.T, dir string) *ledgerService {
	t.Helper()
	return openedLedgerWith(t, dir, func(*ledgerConfig) {}, func(e engine) engine { return e })
}

func openedLedgerWith(t *testing.T, dir string, change func(*ledgerConfig), wrap func(engine) engine) *ledgerService {
	t.Helper()
	cfg, err := readLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := loadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := ledgerConfig{Ledger: cfg, dataDir: dir, keys: keys, sequences: true, now: time.Now}
	change(&c)
	l, err := newLedgerService(t.Context(), wrap(newEngine(dir, cfg, engineOptions{now: time.Now})), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.openRecorders(t.Context(), func(config.Role) bool { return true }, buildDigest()); err != nil {
		t.Fatal(err)
	}
	return l
}

// gate is an engine whose ledger can be out: appends wait.
type gate struct {
	engine
	out sync.RWMutex // held for writing while the ledger is out
}

type gatedStore struct {
	ledger.Store
	gate *gate
}

func (g *gate) ledger(ctx context.Context) (ledger.Store, error) {
	s, err := g.engine.ledger(ctx)
	return gatedStore{s, g}, err
}

func (s gatedStore) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	s.gate.out.RLock()
	defer s.gate.out.RUnlock()
	return s.Store.Append(ctx, b)
}

// denied is a refusal with a reason.
func denied(t *testing.T, l *ledgerService, reason string) record.Record {
	t.Helper()
	payload, err := os.ReadFile("../record/testdata/decision-deny.json")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := record.Parse(payload)
	if err != nil {
		t.Fatal(err)
	}
	own := l.gateway.own(record.KindDecision)
	rec.ID, rec.Time, rec.Decision.CallID, rec.Decision.Verdict.Reason = own.ID, own.Time, newID(), reason
	return rec
}

// records are those of a kind that the log has from a run of the gateway's.
func records(t *testing.T, l *ledgerService, kind record.Kind) (out []record.Record) {
	t.Helper()
	for _, rec := range logged(t, l) {
		if rec.Kind == kind && rec.Writer.Run == l.gateway.writer.Run() {
			out = append(out, rec)
		}
	}
	return out
}

// logged is every record of the log.
func logged(t *testing.T, l *ledgerService) (out []record.Record) {
	t.Helper()
	if err := l.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	head, err := l.store.Head(t.Context(), l.cfg.Family)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range l.store.ReadRange(t.Context(), head.Origin, 0, head.Size) {
		if err != nil {
			t.Fatal(err)
		}
		env, err := record.Open(e.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := record.Parse(env.Payload)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
	return out
}

// TestFloodOfRefusals: while the ledger is out, 1,024 refusals of a writer wait,
// the next gap counts the others by their reason, and the queue has room for
// what matters. Nothing is counted twice.
func TestFloodOfRefusals(t *testing.T) {
	dir := smallLog(t, 1)
	g := &gate{}
	m := newMetrics(&Server{})
	l := openedLedgerWith(t, dir, func(c *ledgerConfig) { c.metrics = m }, func(e engine) engine { g.engine = e; return g })
	g.out.Lock()
	const flood = denialsWaiting + 500
	dropped := 0
	for range flood {
		if err := l.gateway.RecordLater(t.Context(), denied(t, l, "token_invalid")); err != nil {
			dropped++
			if !errors.Is(err, ledger.ErrUnavailable) {
				t.Fatal(err)
			}
		}
	}
	if err := l.gateway.RecordLater(t.Context(), denied(t, l, "scope_exceeded")); err == nil {
		t.Fatal("one more was admitted")
	}
	if err := l.gateway.Record(t.Context(), denied(t, l, "scope_exceeded")); !errors.Is(err, errDenials) {
		t.Fatalf("one whose caller waits: %v", err) // it is not counted: its caller asks RecordLater next
	}
	if dropped != flood-denialsWaiting {
		t.Fatalf("%d were dropped", dropped)
	}
	if drafts, _ := l.gateway.writer.Queued(); drafts > 2000 {
		t.Errorf("%d drafts in the queue", drafts)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.gateway.Record(short, permitted(t, l)); ledger.CauseOf(err) == "" {
		t.Fatalf("a permit while the ledger is out: %v", err)
	}
	scraped := httptest.NewRecorder()
	m.handler().ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	if want := `lineal_ledger_refusals_total{cause="late"} 1`; !strings.Contains(scraped.Body.String(), want) {
		t.Errorf("metrics lack %s", want)
	}
	l.gateway.reportLosses(t.Context())
	l.gateway.reportLosses(t.Context()) // the first waits still
	g.out.Unlock()
	if err := l.gateway.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.gateway.reportLosses(t.Context()) // nothing new
	gaps := records(t, l, record.KindGap)
	if len(gaps) != 1 {
		t.Fatalf("%d gaps", len(gaps))
	}
	got := gaps[0].Gap
	if got.DenialsDropped["token_invalid"] != int64(dropped) || got.DenialsDropped["scope_exceeded"] != 1 || len(got.DenialsDropped) != 2 || got.RefusedUnavailable != 1 {
		t.Errorf("gap: %+v", got)
	}
	denials := 0
	for _, rec := range records(t, l, record.KindDecision) {
		if rec.Decision.Verdict.Effect == record.Deny {
			denials++
		}
	}
	if denials != denialsWaiting {
		t.Errorf("%d denials in the log", denials)
	}
	if err := l.gateway.Record(t.Context(), denied(t, l, "token_invalid")); err != nil { // the twin
		t.Errorf("after the flood: %v", err)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestN5TurnedAwayIsCounted: what the token service turns away unread is a number
// in its writer's next gap record.
func TestN5TurnedAwayIsCounted(t *testing.T) {
	l := openedLedger(t, smallLog(t, 1))
	for range 3 {
		draftRecorder{l.gateway}.Dropped(sts.CodeTooManyRefusals)
	}
	l.gateway.reportLosses(t.Context())
	if err := l.gateway.drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	gaps := records(t, l, record.KindGap)
	if len(gaps) != 1 || gaps[0].Gap.Cause != "overload" || gaps[0].Gap.DenialsDropped[string(sts.CodeTooManyRefusals)] != 3 {
		t.Errorf("%+v", gaps)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
