package storagetest

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/ledger"
)

// payloadBytes is about the size of a decision with three hops.
const payloadBytes = 2600

// edSealer signs with Ed25519 over payloads of the real size.
type edSealer struct {
	key  ed25519.PrivateKey
	text []byte
}

func newEdSealer() edSealer {
	seed := sha256.Sum256([]byte("bench"))
	text := make([]byte, payloadBytes-250)
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	return edSealer{key: ed25519.NewKeyFromSeed(seed[:]), text: text}
}

// Link implements [ledger.Sealer].
func (s edSealer) Link(draft any, at ledger.Position) (ledger.Linked, error) {
	id := draft.(string)
	p := make([]byte, 0, payloadBytes)
	p = append(p, `{"id":"`+id+`","gw":{"run":"`+at.Run+`","seq":`...)
	p = strconv.AppendInt(p, at.Seq, 10)
	p = append(p, `,"prev":"`+at.Prev+`"},"text":"`...)
	p = append(append(p, s.text...), `"}`...)
	h := sha256.Sum256(p)
	return ledger.Linked{RecordID: id, RecordHash: base64.RawURLEncoding.EncodeToString(h[:]), Payload: p}, nil
}

// Sign implements [ledger.Sealer]: DSSE, written as package record writes it.
func (s edSealer) Sign(l ledger.Linked) ([]byte, error) {
	payload := l.Payload
	sig := ed25519.Sign(s.key, payload)
	env := append(make([]byte, 0, 2*payloadBytes), `{"payload":"`...)
	env = base64.StdEncoding.AppendEncode(env, payload)
	env = append(env, `","payloadType":"application/vnd.lineal.record.v1+json","signatures":[{"keyid":"`...)
	env = append(append(env, benchKeyID...), `","sig":"`...)
	return append(base64.StdEncoding.AppendEncode(env, sig), `"}]}`...), nil
}

// Place implements [ledger.Sealer]. A benchmark opens each writer once, on an
// empty log.
func (edSealer) Place([]byte) (ledger.Position, string, error) {
	return ledger.Position{}, "", errors.New("nothing was written before")
}

// benchKeyID has the length of a key's digest.
const benchKeyID = "CXpZFbMNLV_khwJj-qa793ieD_4RqQ6xN7plBr2UzN4"

// presigned gives an envelope of the same size that was signed before: what
// remains is the ledger's own part.
type presigned struct {
	edSealer
	envelope []byte
}

// Sign implements [ledger.Sealer].
func (s presigned) Sign(ledger.Linked) ([]byte, error) { return s.envelope, nil }

// benchID is shaped as a UUIDv7: rising, with a tail that looks random.
func benchID(n int64) string {
	h := sha256.Sum256(strconv.AppendInt(nil, n, 10))
	return fmt.Sprintf("01a40584-%04x-7%03x-%x-%x", (n>>12)&0xffff, n&0xfff, h[:2], h[2:8])
}

// parallel runs b.N operations from n goroutines.
func parallel(b *testing.B, n int, op func(i int64) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				start := time.Now()
				if err := op(i); err != nil {
					b.Error(err)
					return
				}
				took[i-1] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}

var benchWriters = []int{1, 64}

// BenchAppend is the whole path of a record: queue, link, sign, store, sync,
// wake. The sequencer is off.
func BenchAppend(b *testing.B, open Opener) {
	for _, n := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			a := startAppend(b, open, newEdSealer())
			parallel(b, n, a.append)
			a.stop()
		})
	}
}

// OpenCeiling prepares a bare table of two columns, an identity and the bytes
// of a row, and gives a function that stores row n times in one transaction.
// It cleans up by itself.
type OpenCeiling func(b *testing.B, row []byte) (commit func(n int) error)

// BenchCeiling is what an engine gives at best: group commit of ready bytes of
// the same size, with the same hand-over between goroutines.
func BenchCeiling(b *testing.B, open OpenCeiling) {
	row := ceilingRow(b)
	for _, n := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			c := startCeiling(b, open, row)
			parallel(b, n, c.append)
			c.stop()
		})
	}
}

// BenchShare gives the append throughput as a share of the ceiling (ledger.md
// section 12). Four take turns in short rounds, so that whatever else the machine
// does meets all alike:
//
//	append     the whole path of a record, with its signature
//	presigned  the same with an envelope that was signed before
//	ceiling    the bare table
//	signing    the bare table, of callers that each link and sign before they hand over
//
// share-% and presigned-share-% are of the ceiling, share-of-signing-% is of the
// last: what the ledger leaves of what the machine can sign and store. All are
// medians over the rounds.
func BenchShare(b *testing.B, open Opener, ceiling OpenCeiling) {
	const round = 4096 // records of one turn
	row := ceilingRow(b)
	for _, n := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			signed, ready := startAppend(b, open, newEdSealer()), startAppend(b, open, presigned{newEdSealer(), row[:len(row)-rowExtra]})
			c := startCeiling(b, ceiling, row)
			ops := [4]func(int64) error{signed.append, ready.append, c.append, c.signAndAppend}
			var took [4]time.Duration
			shares := make(map[string][]float64)
			b.ResetTimer()
			for range b.N {
				var x [4]float64
				for i, op := range ops {
					d := turn(b, n, round, op)
					took[i], x[i] = took[i]+d, d.Seconds()
				}
				shares["share-%"] = append(shares["share-%"], 100*x[2]/x[0])
				shares["presigned-share-%"] = append(shares["presigned-share-%"], 100*x[2]/x[1])
				shares["share-of-signing-%"] = append(shares["share-of-signing-%"], 100*x[3]/x[0])
			}
			b.StopTimer()
			total := float64(b.N) * round
			for i, name := range []string{"append/s", "presigned/s", "ceiling/s", "signing/s"} {
				b.ReportMetric(total/took[i].Seconds(), name)
			}
			for name, of := range shares {
				slices.Sort(of)
				b.ReportMetric(of[b.N/2], name)
			}
			b.ReportMetric(total/float64(signed.commits.Load()), "append-batch")
			b.ReportMetric(2*total/float64(c.commits.Load()), "ceiling-batch")
			signed.stop()
			ready.stop()
			c.stop()
		})
	}
}

// turn runs k operations from n goroutines and gives the time they took.
func turn(b *testing.B, n int, k int64, op func(i int64) error) time.Duration {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= k; i = next.Add(1) {
				if err := op(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// counted counts the batches that a store is given.
type counted struct {
	ledger.Store
	commits *atomic.Int64
}

func (c counted) Append(ctx context.Context, b ledger.Batch) (time.Time, error) {
	c.commits.Add(1)
	return c.Store.Append(ctx, b)
}

// appending is a writer over a fresh store.
type appending struct {
	b       *testing.B
	store   ledger.Store
	w       *ledger.Writer
	ids     atomic.Int64
	commits atomic.Int64
}

func startAppend(b *testing.B, open Opener, sealer ledger.Sealer) *appending {
	b.Helper()
	a := &appending{b: b, store: open(b, b.TempDir())}
	if err := a.store.CreateLog(b.Context(), Log, Origin); err != nil {
		b.Fatal(err)
	}
	var err error
	a.w, err = ledger.NewWriter(b.Context(), ledger.WriterConfig{
		Store: counted{a.store, &a.commits}, Log: Log, GWID: "g", Sealer: sealer, MaxIntakeRows: 1 << 40, MaxIntakeAge: 1 << 60, Deadline: time.Minute,
	})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func (a *appending) append(int64) error {
	_, err := a.w.Append(a.b.Context(), ledger.Draft{Body: benchID(a.ids.Add(1)), Size: 3700})
	return err
}

func (a *appending) stop() {
	a.b.Helper()
	if err := a.w.Close(a.b.Context()); err != nil {
		a.b.Fatal(err)
	}
	if err := a.store.Close(); err != nil {
		a.b.Fatal(err)
	}
}

// committing is the ceiling: one goroutine commits what the others hand over.
type committing struct {
	sealer  edSealer
	ids     atomic.Int64
	queue   chan chan error
	stopped chan struct{}
	commits atomic.Int64
}

func startCeiling(b *testing.B, open OpenCeiling, row []byte) *committing {
	b.Helper()
	store := open(b, row)
	c := &committing{sealer: newEdSealer(), queue: make(chan chan error, 256), stopped: make(chan struct{})}
	go func() {
		defer close(c.stopped)
		groupCommit(func(n int) error { c.commits.Add(1); return store(n) }, c.queue)
	}()
	return c
}

func (c *committing) append(int64) error {
	done := make(chan error, 1)
	c.queue <- done
	return <-done
}

// signAndAppend does what a caller of a bare table would have to do itself for a
// signed record.
func (c *committing) signAndAppend(i int64) error {
	l, err := c.sealer.Link(benchID(c.ids.Add(1)), ledger.Position{Seq: i})
	if err != nil {
		return err
	}
	if _, err := c.sealer.Sign(l); err != nil {
		return err
	}
	return c.append(i)
}

func (c *committing) stop() {
	close(c.queue)
	<-c.stopped
}

// ceilingRow is as many bytes as the ledger stores for one record while the
// sequencer is off: the envelope, and twice its id, the log and a time.
func ceilingRow(b *testing.B) []byte {
	b.Helper()
	sealer := newEdSealer()
	l, err := sealer.Link(benchID(1), ledger.Position{})
	if err != nil {
		b.Fatal(err)
	}
	row, err := sealer.Sign(l)
	if err != nil {
		b.Fatal(err)
	}
	return append(row, make([]byte, rowExtra)...)
}

// rowExtra is the size of two record ids, the log and a time.
const rowExtra = 36 + 36 + len(Log) + 8

// groupCommit stores whatever has queued in one transaction, over and over.
func groupCommit(commit func(n int) error, queue chan chan error) {
	for first := range queue {
		waiting := []chan error{first}
		for more := true; more && len(waiting) < 256; {
			select {
			case w, ok := <-queue:
				if more = ok; ok {
					waiting = append(waiting, w)
				}
			default:
				more = false
			}
		}
		err := commit(len(waiting))
		for _, w := range waiting {
			w <- err
		}
	}
}
