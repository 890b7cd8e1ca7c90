package faults

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// Work is what one process does.
type Work struct {
	Place    Place
	Writer   string        // "": this process writes nothing
	Sequence bool          // take part in the sequencing
	Lease    time.Duration // 0: a second
	Records  int           // to append; 0: until ctx ends
	Callers  int           // that append at once; 0: 4
	Rate     int           // records offered in a second, whatever is answered; 0: each caller waits
	Deadline time.Duration // of a record; 0: 2 s
	Intake   int64         // rows in intake that refuse more; 0: as the ledger has it
	Queued   int           // drafts that may wait; 0: as the ledger has it
}

// Run does the work and tells each fact as a line, once it holds:
//
//	ack ID                 the record is durable; its call may be forwarded
//	checkpoint SIZE ROOT   signed, and about to leave the process
//	refused CODE CAUSE     a record was refused
//	sequencing             this process has the lease
//	stopped CODE           a part ended: the process must
//	done
//
// It returns nil if everything was closed in order.
func Run(ctx context.Context, w Work, out io.Writer) error {
	s, tiles, err := w.Place.Open(ctx)
	if err != nil {
		return err
	}
	p := &process{Work: w, store: s, tiles: tiles, told: told{w: out}}
	err = p.run(ctx)
	if err = errors.Join(err, s.Close()); err != nil {
		p.tell("stopped %s", ledger.Code(err))
		return err
	}
	p.tell("done")
	return nil
}

// told writes whole lines, one after the other.
type told struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *told) tell(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.w, format+"\n", args...) // who does not listen does not rely on it
}

type process struct {
	Work
	told
	store ledger.Store
	tiles *disk.Store
}

func (p *process) run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx) // ends with the first part that does
	defer stop()
	if !p.Sequence {
		return p.write(work)
	}
	q, err := p.lead(ctx)
	if q == nil {
		return err
	}
	p.tell("sequencing")
	inner, rest := context.WithCancel(context.WithoutCancel(ctx))
	defer rest()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- p.sequence(inner, q)
	}()
	err = p.write(work)
	if p.Writer == "" {
		<-work.Done()
	}
	rest()
	return errors.Join(err, <-ended)
}

// sequence runs the sequencer to its end, and then publishes what is left.
func (p *process) sequence(ctx context.Context, q *ledger.Sequencer) error {
	if err := q.Run(ctx); err != nil {
		p.tell("stopped %s", ledger.Code(err))
		return err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_, err := q.Flush(end)
	return errors.Join(err, q.Close(end))
}

// lead waits for the lease. Nil without an error: ctx ended first.
func (p *process) lead(ctx context.Context) (*ledger.Sequencer, error) {
	signer, verifier, err := logKey()
	if err != nil {
		return nil, err
	}
	ttl := p.Lease
	if ttl == 0 {
		ttl = time.Second
	}
	for {
		// Where another process sequences, this one follows: as the server does.
		if err := ledger.Mirror(ctx, ledger.MirrorConfig{Source: p.store, Tiles: p.tiles, Verifier: verifier}); err != nil {
			return nil, err
		}
		c := newChains() // of what the log has when the lease is taken
		q, err := ledger.OpenSequencer(ctx, ledger.SequencerConfig{
			Store: witnessed{p.store, &p.told}, Tiles: p.tiles, Log: Family, Signer: signer, Verifier: verifier, Check: c.check(p.store),
			OnRejected: func(_ context.Context, r ledger.Rejected) { p.tell("rejected %s %v", r.RecordID, r.Err) },
			LeaseTTL:   ttl, LeaseRenew: ttl / 3, SequenceEvery: 5 * time.Millisecond, CheckpointEvery: 20 * time.Millisecond, ClockWait: 200 * time.Millisecond,
		})
		if !errors.Is(err, ledger.ErrLeaseHeld) {
			return q, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// witnessed tells of each checkpoint before readers can see it.
type witnessed struct {
	ledger.Store
	told *told
}

func (s witnessed) InsertCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	return s.Store.InsertCheckpoint(ctx, log, epoch, c)
}

func (s witnessed) PublishCheckpoint(ctx context.Context, log string, epoch int64, c ledger.Checkpoint) error {
	s.told.tell("checkpoint %d %s", c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
	return s.Store.PublishCheckpoint(ctx, log, epoch, c)
}

// write introduces the writer if the log does not know it, and appends.
func (p *process) write(ctx context.Context) error {
	if p.Writer == "" {
		return nil
	}
	if err := p.introduce(ctx); err != nil {
		return err
	}
	w, err := p.open(ctx, p.Writer, record.RoleGateway)
	if err != nil {
		return err
	}
	if p.Rate > 0 {
		p.offer(ctx, w)
	} else {
		p.append(ctx, w)
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return w.Close(end)
}

func (p *process) open(ctx context.Context, id string, role record.Role) (*ledger.Writer, error) {
	s, err := newSealer(id, role)
	if err != nil {
		return nil, err
	}
	return ledger.NewWriter(ctx, ledger.WriterConfig{
		Store: p.store, Log: Family, GWID: id, Sealer: s, Deadline: p.Deadline, MaxIntakeRows: p.Intake, MaxQueued: p.Queued,
	})
}

// introduce returns when the writer's key is in the log.
func (p *process) introduce(ctx context.Context) error {
	// An earlier process may have been ended right after it introduced this one.
	if err := p.until(ctx, func() (bool, error) {
		st, err := p.store.IntakeStats(ctx, Family)
		return st.Rows == 0, err
	}); err != nil {
		return err
	}
	if ok, err := p.introduced(ctx); ok || err != nil {
		return err
	}
	admin, err := p.open(ctx, Admin, record.RoleAdmin)
	if err != nil {
		return err
	}
	_, err = admin.Append(ctx, ledger.Draft{Body: draft{newID(), introduction(p.Writer)}})
	if err = errors.Join(err, admin.Close(ctx)); err != nil {
		return err
	}
	return p.until(ctx, func() (bool, error) { return p.introduced(ctx) })
}

func (p *process) introduced(ctx context.Context) (bool, error) {
	head, err := p.store.Head(ctx, Family)
	if err != nil {
		return false, err
	}
	c := newChains()
	err = c.catchUp(ctx, p.store, head.Size)
	return c.knows(p.Writer), err
}

// until waits for what the sequencer does.
func (p *process) until(ctx context.Context, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the sequencer: %w: %w", ledger.ErrUnavailable, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// append has callers that each wait for their answer.
func (p *process) append(ctx context.Context, w *ledger.Writer) {
	callers := p.Callers
	if callers == 0 {
		callers = 4
	}
	todo := make(chan int)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for n := range todo {
				if err := p.one(ctx, w, n); err != nil {
					time.Sleep(5 * time.Millisecond) // a caller tries again later
				}
			}
		})
	}
	for n := 0; p.Records == 0 || n < p.Records; n++ {
		select {
		case todo <- n:
			continue
		case <-ctx.Done():
		case <-w.Done():
		}
		break
	}
	close(todo)
	all.Wait()
}

// offer is an open loop: a record is due at its time, however the others fare.
func (p *process) offer(ctx context.Context, w *ledger.Writer) {
	every := time.Second / time.Duration(p.Rate)
	next := time.Now()
	var all sync.WaitGroup
	defer all.Wait()
	for n := 0; (p.Records == 0 || n < p.Records) && ctx.Err() == nil; n++ {
		all.Go(func() { _ = p.one(ctx, w, n) }) // it is told
		next = next.Add(every)
		if d := time.Until(next); d > time.Millisecond {
			time.Sleep(d)
		}
	}
}

func (p *process) one(ctx context.Context, w *ledger.Writer, n int) error {
	id := newID()
	_, err := w.Append(ctx, ledger.Draft{Body: draft{id, beat(n)}, Size: 1024})
	if err != nil {
		p.tell("refused %s %s", ledger.Code(err), ledger.CauseOf(err))
		return err
	}
	p.tell("ack %s", id)
	return nil
}
