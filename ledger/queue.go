package ledger

import (
	"fmt"
	"sync"
)

// queue is a writer's drafts on their way:
//
//	items ──seal──▶ ready ──store──▶ (settled)
//	  ▲ linked at seq, prev │             │
//	  └──────── rewind ◀────┴─────────────┘ the store refused: the seqs are free
//
// The sealing goroutine takes from items and adds to ready; the storing one
// takes from ready. Linking runs ahead of storing, so a refused batch frees
// its seqs, and everything linked behind it is linked again: rewind.
type queue struct {
	mu      sync.Mutex // guards all fields
	toSeal  sync.Cond  // there may be something for the sealing goroutine
	toStore sync.Cond  // there may be something for the storing goroutine

	waiting, bytes int           // drafts that the store has not got: in items, ready or between
	space          chan struct{} // closed and replaced when they become fewer

	items        []*Pending
	ready        []sealedDraft
	readyBytes   int
	sealing      int  // drafts that are out of items and not in ready yet
	sealingBytes int  // of those
	storing      bool // a batch is with the store

	linked position // where the next draft is linked
	stored position // of the last record known to be durable
	epoch  int      // of linked: the count of rewinds
	solo   int      // so many drafts go alone, one of them is bad

	closed  bool // no admission
	stopped bool // the goroutines end, whatever is left
	fatal   error
}

// position is a place in the writer's chain.
type position struct {
	seq  int64
	prev string
}

// sealedDraft is a draft that is linked and signed.
type sealedDraft struct {
	p      *Pending
	record Record
	hash   string // record hash
	seq    int64
}

func (q *queue) init(prev string) {
	q.toSeal.L, q.toStore.L = &q.mu, &q.mu
	q.space = make(chan struct{})
	q.linked = position{prev: prev}
	q.stored = q.linked
}

// refusal says why nothing is admitted. The caller holds mu.
func (q *queue) refusal() error {
	switch {
	case q.fatal != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, q.fatal)
	case q.closed:
		return ErrClosed
	default:
		return nil
	}
}

// admit queues p if there is room. The caller waits on space if not.
func (q *queue) admit(p *Pending, c *WriterConfig) (ok bool, space <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.refusal(); err != nil {
		return false, nil, err
	}
	if q.waiting >= c.MaxQueued || q.bytes+p.size > c.MaxQueuedBytes {
		return false, q.space, nil
	}
	q.items = append(q.items, p)
	q.waiting++
	q.bytes += p.size
	q.toSeal.Signal()
	return true, nil, nil
}

// pushFront puts drafts before all others, past the bound. The caller holds mu.
func (q *queue) pushFront(ps []*Pending) {
	if len(ps) == 0 {
		return
	}
	q.items = append(append(make([]*Pending, 0, len(ps)+len(q.items)), ps...), q.items...)
	q.waiting += len(ps)
	for _, p := range ps {
		q.bytes += p.size
	}
	q.toSeal.Signal()
}

// gone counts drafts that wait no more. The caller holds mu.
func (q *queue) gone(n, bytes int) {
	if n == 0 {
		return
	}
	q.waiting -= n
	q.bytes -= bytes
	q.shrunk()
}

// idle reports that no draft is anywhere. The caller holds mu.
func (q *queue) idle() bool {
	return len(q.items) == 0 && len(q.ready) == 0 && q.sealing == 0 && !q.storing
}

// ended reports that the goroutines have nothing more to do. The caller holds
// mu.
func (q *queue) ended() bool { return q.stopped || q.closed && q.idle() }

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.shrunk()
	q.wakeBoth()
}

// wakeBoth lets both goroutines look again. The caller holds mu.
func (q *queue) wakeBoth() {
	q.toSeal.Signal()
	q.toStore.Signal()
}

// shrunk lets those who wait for space look again. The caller holds mu.
func (q *queue) shrunk() {
	close(q.space)
	q.space = make(chan struct{})
}

// take waits for drafts and room behind them, and moves up to one batch out of
// items. It returns none when the writer has ended.
func (q *queue) take(dst []*Pending, c *WriterConfig) []*Pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ended() && (len(q.items) == 0 || len(q.ready) >= c.BatchMax || q.readyBytes >= c.BatchMaxBytes) {
		q.toSeal.Wait()
	}
	if q.ended() {
		return nil
	}
	n, size := 0, 0
	for n < len(q.items) && n < c.BatchMax && (n == 0 || size+q.items[n].size <= c.BatchMaxBytes) {
		size += q.items[n].size
		n++
	}
	dst = append(dst, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.sealing, q.sealingBytes = n, size
	return dst
}

// base gives the place where the next draft is linked.
func (q *queue) base() (position, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.linked, q.epoch
}

// addReady hands sealed drafts over, linked from base up to next under epoch.
// It refuses them if there was a rewind meanwhile: they must be sealed again.
func (q *queue) addReady(ds []sealedDraft, next position, epoch int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if epoch != q.epoch {
		return false
	}
	size := 0
	for i := range ds {
		size += ds[i].p.size
	}
	q.gone(q.sealing-len(ds), q.sealingBytes-size) // refused, or their callers left
	q.sealing, q.sealingBytes = 0, 0
	q.ready = append(q.ready, ds...)
	q.readyBytes += size
	q.linked = next
	q.toStore.Signal()
	return true
}

// takeReady waits for sealed drafts and claims one batch of them, with the
// position it follows. It returns none when the writer has ended. A draft
// whose caller has gone is dropped, and those linked behind it are linked
// again: a seq belongs to what the store gets.
func (q *queue) takeReady(c *WriterConfig) ([]sealedDraft, position) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for !q.ended() && len(q.ready) == 0 {
			q.toStore.Wait()
		}
		if q.ended() {
			return nil, position{}
		}
		if batch := q.claim(c); len(batch) > 0 {
			q.storing = true
			q.toSeal.Signal() // there is room in ready
			return batch, q.stored
		}
		q.rewindLocked(nil)
	}
}

// claim takes the longest batch at the front of ready. The caller holds mu.
func (q *queue) claim(c *WriterConfig) []sealedDraft {
	most := c.BatchMax
	if q.solo > 0 {
		q.solo--
		most = 1
	}
	n, size, now := 0, 0, c.Now()
	for n < len(q.ready) && n < most && (n == 0 || size+q.ready[n].p.size <= c.BatchMaxBytes) {
		if p := q.ready[n].p; !p.live(now) || !p.take() {
			break
		}
		size += q.ready[n].p.size
		n++
	}
	batch := q.ready[:n:n]
	q.ready = q.ready[n:]
	q.readyBytes -= size
	q.gone(n, size)
	return batch
}

// confirm moves the stored position; what follows goes before all others.
func (q *queue) confirm(to position, follow []*Pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stored = to
	q.storing = false
	q.pushFront(follow)
	q.wakeBoth()
}

// rewind frees every seq that is not stored: again, and then what is ready,
// wait to be sealed once more. The first solo of them go alone.
func (q *queue) rewind(again []*Pending, solo int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.solo += solo
	q.storing = false
	q.rewindLocked(again)
}

func (q *queue) rewindLocked(again []*Pending) {
	for _, d := range q.ready {
		again = append(again, d.p)
	}
	q.gone(len(q.ready), q.readyBytes) // pushFront counts them again
	q.ready, q.readyBytes = nil, 0
	q.linked = q.stored
	q.epoch++
	q.pushFront(again)
	q.wakeBoth()
}

// fail ends the writer with its first fatal error, or with nil because its
// context has ended.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fatal == nil {
		q.fatal = err
	}
	q.closed, q.stopped = true, true
	q.shrunk()
	q.wakeBoth()
}

// rest takes everything that is left, after both goroutines have ended.
func (q *queue) rest() (unsealed []*Pending, ready []sealedDraft) {
	q.mu.Lock()
	defer q.mu.Unlock()
	unsealed, ready = q.items, q.ready
	q.items, q.ready = nil, nil
	return unsealed, ready
}
