package storagetest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
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

// Sign implements [ledger.Sealer].
func (s edSealer) Sign(payload []byte) ([]byte, error) {
	type sig struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	return json.Marshal(struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []sig  `json:"signatures"`
	}{payload, "application/vnd.lineal.record.v1+json", []sig{{"k", ed25519.Sign(s.key, payload)}}})
}

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
			s := open(b, b.TempDir())
			if err := s.CreateLog(b.Context(), Log, Origin); err != nil {
				b.Fatal(err)
			}
			w, err := ledger.NewWriter(b.Context(), ledger.WriterConfig{
				Store: s, Log: Log, GWID: "g", Sealer: newEdSealer(), MaxIntakeRows: 1 << 40, MaxIntakeAge: 1 << 60, Deadline: time.Minute,
			})
			if err != nil {
				b.Fatal(err)
			}
			parallel(b, n, func(i int64) error {
				_, err := w.Append(b.Context(), ledger.Draft{Body: benchID(i), Size: 3700})
				return err
			})
			if err := w.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchCeiling is what an engine gives at best: group commit of ready bytes of
// the same size, with the same hand-over between goroutines. open prepares a
// bare table and gives a function that stores an envelope n times in one
// transaction; it cleans up by itself.
func BenchCeiling(b *testing.B, open func(b *testing.B, envelope []byte) (commit func(n int) error)) {
	sealer := newEdSealer()
	l, err := sealer.Link(benchID(1), ledger.Position{})
	if err != nil {
		b.Fatal(err)
	}
	env, err := sealer.Sign(l.Payload)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			commit := open(b, env)
			queue, stopped := make(chan chan error, 256), make(chan struct{})
			go func() {
				defer close(stopped)
				groupCommit(commit, queue)
			}()
			parallel(b, n, func(int64) error {
				done := make(chan error, 1)
				queue <- done
				return <-done
			})
			close(queue)
			<-stopped
		})
	}
}

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
