package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
)

// Told is what the world heard from processes of one log.
type Told struct {
	Acked       []string
	Checkpoints map[int64]string // root by size
	Refused     map[string]int   // by "code cause"
	Stopped     []string         // codes
	Rejected    []string
	Sequencing  bool // it got the lease
	Done        bool
}

// Hear reads the lines of a process to their end. A last line without an end is
// none: who read it could not know.
func (t *Told) Hear(r io.Reader) error {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.line(strings.TrimSuffix(line, "\n")); err != nil {
			return err
		}
	}
}

func (t *Told) line(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "ack":
		t.Acked = append(t.Acked, rest)
	case "checkpoint":
		n, root, _ := strings.Cut(rest, " ")
		size, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return err
		}
		if t.Checkpoints == nil {
			t.Checkpoints = make(map[int64]string)
		}
		if old, ok := t.Checkpoints[size]; ok && old != root {
			return fmt.Errorf("two roots of size %d were told", size)
		}
		t.Checkpoints[size] = root
	case "refused":
		if t.Refused == nil {
			t.Refused = make(map[string]int)
		}
		t.Refused[rest]++
	case "stopped":
		t.Stopped = append(t.Stopped, rest)
	case "rejected":
		t.Rejected = append(t.Rejected, rest)
	case "done":
		t.Done = true
	case "sequencing":
		t.Sequencing = true
	default:
		return fmt.Errorf("line %q", line)
	}
	return nil
}

// ErrLost says that an acknowledged record, or a checkpoint that left, is not
// what the log has.
var ErrLost = errors.New("what was told does not hold")

// Recover starts the log anew, as its next process does, appends a little, and
// adds what that process told.
func Recover(ctx context.Context, p Place, t *Told) error {
	var out bytes.Buffer
	err := Run(ctx, Work{Place: p, Writer: "gw", Sequence: true, Records: 3}, &out)
	if err := errors.Join(err, t.Hear(&out)); err != nil {
		return fmt.Errorf("starting again: %w", err)
	}
	if !t.Done {
		return errors.New("starting again: not all was closed")
	}
	return nil
}

// Check compares the log, which no process has open, with what was told of it.
func Check(ctx context.Context, p Place, t *Told) error {
	s, tiles, err := p.Open(ctx)
	if err != nil {
		return err
	}
	c := checker{store: s, tiles: tiles, told: t}
	return errors.Join(c.all(ctx), s.Close())
}

type checker struct {
	store  ledger.Store
	tiles  *disk.Store
	told   *Told
	hashes []tlog.Hash // of the tree, as golang.org/x/mod stores them
}

func (c *checker) all(ctx context.Context) error {
	_, verifier, err := logKey()
	if err != nil {
		return err
	}
	rep, err := ledger.Fsck(ctx, ledger.FsckConfig{Source: c.store, Tiles: c.tiles, Log: Family, Verifier: verifier})
	if err = errors.Join(err, rep.Err()); err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	if len(c.told.Rejected) != 0 {
		err = fmt.Errorf("the sequencer refused %q", c.told.Rejected)
	}
	return errors.Join(err, newChains().catchUp(ctx, c.store, rep.Size), c.records(ctx, rep.Size), c.checkpoints(), c.offline(ctx))
}

// records: each acknowledged one is in the log once, and nothing waits.
func (c *checker) records(ctx context.Context, size int64) error {
	times := make(map[string]int)
	for e, err := range c.store.ReadRange(ctx, Origin, 0, size) {
		if err != nil {
			return err
		}
		times[e.RecordID]++
		hs, err := tlog.StoredHashes(e.Index, e.Envelope, tlog.HashReaderFunc(c.read))
		if err != nil {
			return err
		}
		c.hashes = append(c.hashes, hs...)
	}
	var errs []error
	for _, id := range c.told.Acked {
		if times[id] != 1 {
			errs = append(errs, fmt.Errorf("%w: record %s was acknowledged and is in the log %d times", ErrLost, id, times[id]))
		}
	}
	for id, n := range times {
		if n != 1 {
			errs = append(errs, fmt.Errorf("record %s is in the log %d times", id, n))
		}
	}
	if st, err := c.store.IntakeStats(ctx, Family); err != nil || st.Rows != 0 {
		errs = append(errs, fmt.Errorf("%d rows wait in intake: %w", st.Rows, err))
	}
	return errors.Join(errs...)
}

func (c *checker) read(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(c.hashes)) {
			return nil, fmt.Errorf("hash %d is not known yet", x)
		}
		out[i] = c.hashes[x]
	}
	return out, nil
}

// checkpoints: whatever left has the root that the entries have at its size, so
// all of them are consistent with each other and with the newest.
func (c *checker) checkpoints() error {
	var errs []error
	for size, root := range c.told.Checkpoints {
		h, err := tlog.TreeHash(size, tlog.HashReaderFunc(c.read))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%w: checkpoint of size %d: %w", ErrLost, size, err))
		case base64.StdEncoding.EncodeToString(h[:]) != root:
			errs = append(errs, fmt.Errorf("%w: checkpoint of size %d is contradicted", ErrLost, size))
		}
	}
	return errors.Join(errs...)
}

// offline exports the log and verifies that with what shares no code with it.
func (c *checker) offline(ctx context.Context) error {
	contents, err := c.contents(ctx)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	var bundle, text, report bytes.Buffer
	if err := evidence.Write(&bundle, contents); err != nil {
		return err
	}
	logs, err := evidence.NewKey(Origin, public(key("log")))
	if err != nil {
		return err
	}
	manifest, err := evidence.NewKey(Family, public(key(Admin)))
	if err != nil {
		return err
	}
	if err := evidence.WritePolicy(&text, evidence.Trust{Logs: []evidence.Key{logs}, Manifests: []evidence.Key{manifest}, Require: []evidence.Dimension{
		evidence.Signature, evidence.WriterKeys, evidence.Inclusion, evidence.Checkpoints, evidence.Sequence,
	}}); err != nil {
		return err
	}
	policy, err := evidence.ParsePolicy(text.Bytes())
	if err != nil {
		return err
	}
	if r := evidence.Verify(bundle.Bytes(), policy); r.ExitCode() != 0 {
		_ = r.WriteText(&report)
		return fmt.Errorf("the log does not verify offline:\n%s", report.String())
	}
	return nil
}

func (c *checker) contents(ctx context.Context) (evidence.Contents, error) {
	reader := ledger.NewReader(c.store, c.tiles)
	last, err := reader.Published(ctx, Origin)
	if err != nil {
		return evidence.Contents{}, err
	}
	out := evidence.Contents{Mode: evidence.ModeRange, Origin: Origin, To: last.Size, Query: "all", Created: time.Now().UTC(), Last: last.Note}
	if out.Signer, err = evidence.NewSigner(Family, key(Admin)); err != nil {
		return out, err
	}
	first, err := c.store.Checkpoints(ctx, Origin, 1, 1)
	if err != nil {
		return out, err
	}
	if len(first) == 1 && first[0].Size < last.Size {
		out.First = first[0].Note
		if out.Consistency, err = reader.ConsistencyProof(ctx, Origin, first[0].Size, last.Size); err != nil {
			return out, err
		}
	}
	for e, err := range c.store.ReadRange(ctx, Origin, 0, last.Size) {
		if err != nil {
			return out, err
		}
		out.Records = append(out.Records, evidence.Record{Index: e.Index, Envelope: e.Envelope})
	}
	return out, nil
}
