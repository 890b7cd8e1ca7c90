// Package scenario makes records of deployments that never ran, of which is known what is in them.
//
//	Bulk   any number of records, each made by itself from its index: a log of
//	       ten million that takes no room
//	Month  thirty days in which known things went wrong, and nothing else; its
//	       decisions can be made again
//	Pair   the logs of two organisations that differ in five known ways
//
// It is for tests and benchmarks of what reads records. Nothing in it is signed.
package scenario

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// PerTransaction is how many records of a Bulk are of one transaction:
//
//	0 the person's application gets a token   1 and calls the orchestrator
//	2 the orchestrator gets one               3 and calls a tool    4 outcome of 3
//	5 calls it again    6 outcome of 5        7 calls it again, refused in one of 20 transactions
//	8 outcome of 7, or a heartbeat            9 outcome of 1
const PerTransaction = 10

// Bulk is a log of Transactions × PerTransaction records.
type Bulk struct {
	Transactions int64
	// Persons, Agents and Resources take part at random, but always the same.
	Persons, Agents, Resources int64

	kinds [PerTransaction + 2]template
}

// The templates of records that are otherwise than those of most transactions.
const (
	refusedCall = PerTransaction
	heartbeat   = PerTransaction + 1
)

var bulkStart = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)

// NewBulk makes a log.
func NewBulk(transactions, persons, agents, resources int64) (*Bulk, error) {
	b := &Bulk{Transactions: transactions, Persons: persons, Agents: agents, Resources: resources}
	for k := range b.kinds {
		payload, err := shape(k).Canonical()
		if err != nil {
			return nil, fmt.Errorf("shape %d: %w", k, err)
		}
		b.kinds[k] = newTemplate(payload)
	}
	return b, nil
}

// Size is the number of records.
func (b *Bulk) Size() int64 { return b.Transactions * PerTransaction }

// Payload is the record at index.
func (b *Bulk) Payload(index int64) []byte {
	t, k := index/PerTransaction, int(index%PerTransaction)
	if b.Refused(t) && (k == 7 || k == 8) {
		k += refusedCall - 7
	}
	return b.kinds[k].fill(b.values(t, index))
}

// Read gives the payloads of [from, to).
func (b *Bulk) Read(ctx context.Context, from, to int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i := from; i < min(to, b.Size()); i++ {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if !yield(b.Payload(i), nil) {
				return
			}
		}
	}
}

// Refused says whether the last call of a transaction was refused.
func (b *Bulk) Refused(t int64) bool { return t%20 == 7 }

// Person is the reference of the person of a transaction.
func (b *Bulk) Person(t int64) string { return person(pick("person", t, b.Persons)) }

// Agent is the orchestrator of a transaction.
func (b *Bulk) Agent(t int64) string { return agent(pick("agent", t, b.Agents)) }

// Resource is what the orchestrator of a transaction calls.
func (b *Bulk) Resource(t int64) string { return resource(pick("resource", t, b.Resources)) }

// Txn is the id of a transaction.
func (b *Bulk) Txn(t int64) string { return uuid('a', t*PerTransaction) }

// CallOf is the id of the call that the decision at index is on.
func (b *Bulk) CallOf(index int64) string { return uuid('c', index) }

// RecordID is the id of the record at index.
func (b *Bulk) RecordID(index int64) string { return uuid('d', index) }

// pick chooses one of n.
func pick(what string, t, n int64) int64 {
	h := mix(uint64(t)*2654435761 + uint64(len(what))*0x9e3779b97f4a7c15) //nolint:gosec // any bits will do
	return int64(h % uint64(n))                                           //nolint:gosec // n is positive
}

// mix is the finaliser of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func person(n int64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], mix(uint64(n)+1)) //nolint:gosec // any bits will do
	binary.BigEndian.PutUint64(b[8:], mix(^uint64(n))) //nolint:gosec // any bits will do
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func agent(n int64) string    { return fmt.Sprintf("spiffe://example/agent-%06d", n) }
func resource(n int64) string { return fmt.Sprintf("https://r%06d.example/mcp", n) }

// uuid is a UUIDv7 of a kind and an index.
func uuid(kind byte, index int64) string {
	ms := bulkStart.UnixMilli() + index/4
	r := mix(uint64(index)<<8 | uint64(kind)) //nolint:gosec // any bits will do
	return fmt.Sprintf("%08x-%04x-7%03x-8%03x-%012x", ms>>16, ms&0xffff, r>>52, r>>40&0xfff, r&0xffffffffff|uint64(kind)<<40)
}

func digest(what string, index int64) string {
	sum := sha256.Sum256(strconv.AppendInt([]byte(what), index, 10))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// values are what the places of a template get.
func (b *Bulk) values(t, index int64) map[string]string {
	at := bulkStart.Add(time.Duration(index/4) * time.Millisecond)
	second := at.Unix() / 1000 * 1000 // one hop is issued before its calls
	return map[string]string{
		markID: b.RecordID(index), markCall: b.CallOf(index), markTxn: b.Txn(t), markJTI: uuid('b', index),
		markPerson: b.Person(t), markAgent: b.Agent(t), markResource: b.Resource(t), markTime: string(record.At(at)),
		markIssued: strconv.FormatInt(second, 10), markExpires: strconv.FormatInt(second+900, 10),
		markPrev: digest("record", index-1), markSeq: strconv.FormatInt(1e12+index, 10),
		markReceipt0: digest("receipt", t*10), markToken0: digest("token", t*10), markReceipt1: digest("receipt", t*10+2), markToken1: digest("token", t*10+2),
		markOf1: b.RecordID(t*10 + 1), markOf3: b.RecordID(t*10 + 3), markOf5: b.RecordID(t*10 + 5), markOf7: b.RecordID(t*10 + 7),
		markCall1: b.CallOf(t*10 + 1), markCall3: b.CallOf(t*10 + 3), markCall5: b.CallOf(t*10 + 5), markCall7: b.CallOf(t*10 + 7),
	}
}

// The marks of a template have the form and the length of what they stand for.
var (
	markID, markCall, markTxn, markJTI         = mark(1), mark(2), mark(3), mark(4)
	markOf1, markOf3, markOf5, markOf7         = mark(11), mark(13), mark(15), mark(17)
	markCall1, markCall3, markCall5, markCall7 = mark(21), mark(23), mark(25), mark(27)
	markPerson                                 = "MARKpersonMARKpersonMQ"
	markAgent                                  = "spiffe://example/agent-MARKED"
	markResource                               = "https://rmarked.example/mcp"
	markTime                                   = "2001-02-03T04:05:06.789Z"
	markIssued, markExpires, markSeq           = "1111111117", "1111111119", "1111111111113"
	markPrev                                   = digest("mark prev", 0)
	markReceipt0, markToken0                   = digest("mark receipt", 0), digest("mark token", 0)
	markReceipt1, markToken1                   = digest("mark receipt", 1), digest("mark token", 1)
)

func mark(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-0000000000%02x", n) }

// template is a canonical payload with places to fill.
type template struct {
	payload []byte
	places  []place
}

type place struct {
	at   int
	mark string
}

func newTemplate(payload []byte) template {
	t := template{payload: payload}
	for mark := range (&Bulk{Transactions: 1, Persons: 1, Agents: 1, Resources: 1}).values(0, 0) {
		for at := 0; ; at++ {
			n := bytes.Index(payload[at:], []byte(mark))
			if n < 0 {
				break
			}
			at += n
			t.places = append(t.places, place{at, mark})
		}
	}
	return t
}

func (t template) fill(values map[string]string) []byte {
	out := slices.Clone(t.payload)
	for _, p := range t.places {
		copy(out[p.at:p.at+len(p.mark)], values[p.mark])
	}
	return out
}
