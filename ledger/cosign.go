package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// WitnessConfig says who must have seen a checkpoint before it is published.
type WitnessConfig struct {
	Witnesses []Witness // none: checkpoints are published without
	// Quorum is how many cosignatures a checkpoint needs; 0 means those of all.
	Quorum int
	// Now is the clock of alarms. Required with witnesses.
	Now  func() time.Time
	HTTP *http.Client // nil means one that follows no redirect
}

func (c *WitnessConfig) setDefaults() error {
	if len(c.Witnesses) == 0 {
		return nil
	}
	names := make(map[string]bool)
	for _, w := range c.Witnesses {
		if w.Name == "" || w.URL == "" || w.Verifier == nil || names[w.Name] {
			return fmt.Errorf("configuring witnesses: %q has no URL or key, or stands there twice", w.Name)
		}
		names[w.Name] = true
	}
	if c.Quorum == 0 {
		c.Quorum = len(c.Witnesses)
	}
	if c.Now == nil || c.Quorum < 0 || c.Quorum > len(c.Witnesses) {
		return fmt.Errorf("configuring witnesses: no clock, or a quorum of %d of %d", c.Quorum, len(c.Witnesses))
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return nil
}

// Witnessing is how the log stands with its witnesses.
type Witnessing struct {
	// Unwitnessed is how long the newest checkpoint has waited for its quorum; 0 if
	// it has it.
	Unwitnessed time.Duration
	// Stopped is set once a witness said that it has seen another or a larger log:
	// nothing is published any more until an operator has looked.
	Stopped error
}

// cosigners are the witnesses of one log, as the sequencer knows them.
type cosigners struct {
	cfg    WitnessConfig
	prove  func(ctx context.Context, old int64, c Checkpoint) ([]Hash, error)
	logger *slog.Logger

	mu      sync.Mutex // guards what follows
	seen    map[string]int64
	since   time.Time // the oldest checkpoint that waits, zero if none does
	stopped error
}

// cosign asks all witnesses at once for their signatures on c (5.4 step 4), and
// returns c with those that came. quorum says whether they are enough. It
// returns ErrWitnessDisagrees once a witness contradicts the log.
func (k *cosigners) cosign(ctx context.Context, c Checkpoint) (_ Checkpoint, quorum bool, err error) {
	k.mu.Lock()
	stopped := k.stopped
	if k.since.IsZero() {
		k.since = k.cfg.Now()
	}
	k.mu.Unlock()
	if stopped != nil {
		return c, false, stopped
	}
	lines := make([][]byte, len(k.cfg.Witnesses))
	errs := make([]error, len(lines))
	k.all(ctx, func(ctx context.Context, i int, w Witness) { lines[i], errs[i] = k.ask(ctx, w, c) })
	n := 0
	for i, line := range lines {
		if errs[i] != nil {
			k.report(ctx, k.cfg.Witnesses[i], c, errs[i])
			continue
		}
		c.Note = append(c.Note[:len(c.Note):len(c.Note)], line...)
		n++
	}
	return c, n >= k.cfg.Quorum, k.settle(ctx, c, n)
}

// all runs f for each witness at once, in bounded time, and waits for them.
func (k *cosigners) all(ctx context.Context, f func(ctx context.Context, i int, w Witness)) {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, w := range k.cfg.Witnesses {
		wg.Go(func() { f(ctx, i, w) })
	}
	wg.Wait()
}

// ask brings one witness from what it has seen to c.
func (k *cosigners) ask(ctx context.Context, w Witness, c Checkpoint) ([]byte, error) {
	const attempts = 3 // what we know is old, what it says is new, and one more writer at it
	old := k.known(w)
	for range attempts {
		proof, err := k.prove(ctx, old, c)
		if err != nil {
			return nil, err
		}
		line, err := addCheckpoint(ctx, k.cfg.HTTP, w, old, proof, c.Note)
		var has *conflict
		switch {
		case err == nil:
			k.saw(w, c.Size)
			return line, nil
		case !errors.As(err, &has):
			return nil, err
		case has.size > c.Size:
			return nil, fmt.Errorf("%w: it has seen %d entries, this log has %d", ErrWitnessDisagrees, has.size, c.Size)
		case has.size == old:
			return nil, fmt.Errorf("%w: it has seen another tree of %d entries", ErrWitnessDisagrees, old)
		}
		old = has.size
		k.saw(w, old)
	}
	return nil, errors.New("its size changes with every answer")
}

func (k *cosigners) known(w Witness) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[w.Name]
}

func (k *cosigners) saw(w Witness, size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen[w.Name] = size
}

// report tells of a witness that did not sign. One that contradicts the log
// stops publication.
func (k *cosigners) report(ctx context.Context, w Witness, c Checkpoint, err error) {
	attrs := []any{slog.String("witness", w.Name), slog.String("origin", c.Origin), slog.Int64("size", c.Size), slog.Any("error", err)}
	switch {
	case errors.Is(err, ErrWitnessDisagrees):
		k.mu.Lock()
		k.stopped = fmt.Errorf("witness %s: %w", w.Name, err)
		k.mu.Unlock()
		k.logger.ErrorContext(ctx, "ALARM: a witness contradicts the log; nothing is published any more", attrs...)
	case errors.Is(err, errRefused):
		k.logger.ErrorContext(ctx, "ALARM: a witness refuses the log", attrs...)
	default:
		k.logger.WarnContext(ctx, "a witness did not cosign", attrs...)
	}
}

// settle keeps how long the log has been without its quorum.
func (k *cosigners) settle(ctx context.Context, c Checkpoint, n int) error {
	k.mu.Lock()
	if n >= k.cfg.Quorum && k.stopped == nil {
		k.since = time.Time{}
	}
	since, stopped := k.since, k.stopped
	k.mu.Unlock()
	if since.IsZero() || stopped != nil {
		return stopped
	}
	if age := k.cfg.Now().Sub(since); age >= unwitnessedAlarm {
		k.logger.ErrorContext(ctx, "ALARM: the log is unwitnessed", slog.String("origin", c.Origin), slog.Int64("size", c.Size),
			slog.Duration("age", age), slog.Int("cosignatures", n), slog.Int("quorum", k.cfg.Quorum))
	}
	return nil
}

// sizes asks each witness how large a tree it has seen of the log that c is of. One
// that has seen nothing yet takes c, which may leave the process by now.
func (k *cosigners) sizes(ctx context.Context, c Checkpoint) ([]int64, []error) {
	sizes, errs := make([]int64, len(k.cfg.Witnesses)), make([]error, len(k.cfg.Witnesses))
	k.all(ctx, func(ctx context.Context, i int, w Witness) {
		_, err := addCheckpoint(ctx, k.cfg.HTTP, w, 0, nil, c.Note)
		var has *conflict
		switch {
		case err == nil:
			sizes[i] = c.Size
		case errors.As(err, &has):
			sizes[i] = has.size
		default:
			errs[i] = fmt.Errorf("asking for its size: %w", err)
		}
	})
	return sizes, errs
}

// compare asks each witness how large a tree it has seen (5.5 step 2), before
// the log is extended. One that cannot be asked is no reason not to start.
func (k *cosigners) compare(ctx context.Context, c Checkpoint) error {
	var errs []error
	sizes, unasked := k.sizes(ctx, c)
	for i, w := range k.cfg.Witnesses {
		switch {
		case unasked[i] != nil:
			k.report(ctx, w, c, unasked[i])
		case sizes[i] > c.Size:
			errs = append(errs, fmt.Errorf("comparing witness %s: %w: %d entries, the database has %d", w.Name, ErrRollbackDetected, sizes[i], c.Size))
		default:
			k.saw(w, sizes[i])
		}
	}
	return errors.Join(errs...)
}

// CheckWitnesses asks the witnesses whether they know a log that has not begun, by
// its key: each is shown the empty tree, which every tree extends. It returns an
// error unless those that do make the quorum, so that a period is not closed
// before the next can be published: ErrNotPublished says who does not know it, or
// cannot be asked; ErrFork that one has seen entries of it.
func CheckWitnesses(ctx context.Context, cfg WitnessConfig, signer note.Signer, logger *slog.Logger) error {
	if err := cfg.setDefaults(); err != nil || len(cfg.Witnesses) == 0 {
		return err
	}
	root, err := tlog.TreeHash(0, nil)
	if err != nil {
		return fmt.Errorf("asking witnesses of %s: %w", signer.Name(), err)
	}
	c, err := signCheckpoint(signer.Name(), 0, Hash(root), signer)
	if err != nil {
		return fmt.Errorf("asking witnesses: %w", err)
	}
	k := &cosigners{cfg: cfg, logger: orDiscard(logger), seen: map[string]int64{}}
	sizes, errs := k.sizes(ctx, c)
	know := 0
	for i, w := range cfg.Witnesses {
		switch {
		case errs[i] != nil:
			errs[i] = fmt.Errorf("witness %s: %w", w.Name, errs[i])
			k.logger.WarnContext(ctx, "a witness would not cosign the log", slog.String("origin", c.Origin), slog.Any("error", errs[i]))
		case sizes[i] > 0:
			return fmt.Errorf("asking witnesses of %s: %w: witness %s has seen %d entries of it", c.Origin, ErrFork, w.Name, sizes[i])
		default:
			know++
		}
	}
	if know < cfg.Quorum {
		return fmt.Errorf("asking witnesses of %s: %w: %d of %d know it: %w", c.Origin, ErrNotPublished, know, cfg.Quorum, errors.Join(errs...))
	}
	return nil
}

func (k *cosigners) standing() Witnessing {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := Witnessing{Stopped: k.stopped}
	if !k.since.IsZero() {
		w.Unwitnessed = k.cfg.Now().Sub(k.since)
	}
	return w
}
