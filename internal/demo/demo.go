package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Options configure a demo. The zero value runs it once, in a temporary
// directory, with the stand-in for a model.
type Options struct {
	// DataDir keeps the data. It must be empty or not exist yet. Empty: a
	// temporary directory, removed at the end.
	DataDir string
	// Keep leaves everything running after the story until the context ends,
	// and tells the commands to explore it with.
	Keep bool
	// ModelURL is the base URL of a real OpenAI-shaped endpoint,
	// "https://api.openai.com/v1", ModelKey its key and Model the model to ask
	// for. Empty: a stand-in.
	ModelURL, ModelKey, Model string
	// Emit is told each event as it happens, one at a time; nil: nobody.
	Emit func(Event)
	// Done is told the summary when the story is over, before Keep waits; nil:
	// nobody.
	Done func(Summary)
	// Now is the clock; if nil, the system's. The demo waits for a token to
	// expire, so it must go on.
	Now func() time.Time
	// Logger is the operator's log; if nil, nothing is logged.
	Logger *slog.Logger
}

// defaultModel is what is asked of a real endpoint where nothing is said.
const defaultModel = "gpt-4o-mini"

func (o *Options) setDefaults() {
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Emit == nil {
		o.Emit = func(Event) {}
	}
	if o.Done == nil {
		o.Done = func(Summary) {}
	}
	switch {
	case o.Model != "":
	case o.ModelURL != "":
		o.Model = defaultModel
	default:
		o.Model = standInModel
	}
}

// Run runs the demo. The error says everything that differed from what was
// expected; the summary holds what there was all the same.
func Run(ctx context.Context, opts Options) (_ Summary, err error) {
	w := newWorld(opts)
	defer func() { //nolint:contextcheck // it closes after ctx has ended, too
		if cerr := w.close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing: %w", cerr))
		}
	}()
	return w.run(ctx)
}

func newWorld(opts Options) *world {
	opts.setDefaults()
	w := &world{
		opts: opts, agents: map[string]*agent{}, served: map[string]*upstream{}, people: map[string]string{},
		narrator: narrator{step: stepSetup, emit: opts.Emit},
		summary:  Summary{Type: "summary", Problems: []string{}, Attacks: []AttackResult{}},
	}
	return w
}

// run tells the whole story.
func (w *world) run(ctx context.Context) (Summary, error) {
	begun := w.opts.Now()
	err := w.conclude(begun, w.tellAll(ctx))
	w.opts.Done(w.summary)
	if w.opts.Keep && err == nil {
		err = w.wait(ctx)
	}
	return w.summary, err
}

// conclude completes the summary. Whatever differed is an error.
func (w *world) conclude(begun time.Time, err error) error {
	w.summary.Millis = w.opts.Now().Sub(begun).Milliseconds()
	w.summary.DataDir = w.kept(w.dir)
	if err != nil {
		w.summary.Problems = append(w.summary.Problems, err.Error())
	}
	w.summary.OK = len(w.summary.Problems) == 0
	if err == nil && !w.summary.OK {
		err = fmt.Errorf("%d things differed from what was expected; the first: %s", len(w.summary.Problems), w.summary.Problems[0])
	}
	return err
}

// wait leaves everything running until the context or the product ends.
func (w *world) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-w.server.Failed():
		return fmt.Errorf("while it was kept running: %w", err)
	}
}

// tellAll runs the chapters. What it cannot go on after is its error; what
// only differs is a problem in the summary.
func (w *world) tellAll(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	w.chapter(stepLogin)
	if err := w.question(ctx, alice, stepQuestion); err != nil {
		return fmt.Errorf("Alice's question: %w", err) //nolint:staticcheck // a name
	}
	mine, err := w.takeLoot(ctx)
	if err != nil {
		return fmt.Errorf("preparing attacks: %w", err)
	}
	w.chapter(stepSecond)
	if err := w.question(ctx, lee, stepSecond); err != nil {
		return fmt.Errorf("Lee's question: %w", err) //nolint:staticcheck // a name
	}
	other, err := w.takeLoot(ctx)
	if err != nil {
		return fmt.Errorf("preparing attacks: %w", err)
	}
	w.chapter(stepAttacks)
	attacks, err := w.attacks(mine, other)
	if err != nil {
		return fmt.Errorf("preparing attacks: %w", err)
	}
	if err := w.assault(ctx, attacks); err != nil {
		return err
	}
	if err := w.problemsSoFar(); err != nil {
		return err
	}
	w.chapter(stepTrace)
	if err := w.traceBack(ctx, mine.query.id); err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	w.chapter(stepEvidence)
	if err := w.prove(ctx); err != nil {
		return fmt.Errorf("proving: %w", err)
	}
	if err := w.writeDeployment(); err != nil {
		return err
	}
	if w.opts.Keep {
		w.chapter(stepExplore)
		w.tellCommands(mine.query.id)
	}
	return nil
}

// differs notes something that was not as expected.
func (w *world) differs(format string, args ...any) {
	w.summary.Problems = append(w.summary.Problems, fmt.Sprintf(format, args...))
}

// newPlainClient is an HTTP client without any identity.
func newPlainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
}
