package evidence

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// What is wrong with a log of which a receipt named a tree.
const (
	// LogForked: at the size that its gateway signed the log has another root. There
	// are two logs of one name.
	LogForked DifferenceKind = "log_forked"
	// LogCut: the log, or what is shown as the whole of it, ends before the size that
	// its gateway signed.
	LogCut DifferenceKind = "log_cut"
)

// named is a published checkpoint that the gateway of one side signed in a receipt,
// as the other side keeps it.
type named struct {
	origin string
	size   int64
	root   Hash
	id     string // of the exchange
	proof  string // hash of the receipt
	at     SideRecord
	by     time.Time // merge_by: the receipt was signed before
}

// treeHead is one size and root of a log.
type treeHead struct {
	origin string
	size   int64
	root   Hash
}

// parseHead reads a checkpoint body; ok is false for none.
func parseHead(body string) (t treeHead, ok bool) {
	origin, size, root, err := record.ParseCheckpointBody(body)
	return treeHead{origin, int64(size), root}, err == nil //nolint:gosec // below 2^63
}

// named are the checkpoints that a side keeps of another's, by log and size.
func (s *Side) named(of *Side) (out []named) {
	for _, e := range s.Records {
		o := e.Record.Outcome
		if o == nil || o.Peer == nil {
			continue
		}
		receipt, ok := s.word(o.Peer.ExchangeReceiptHash, of)
		if !ok || receipt.Role != record.RoleCallee {
			continue
		}
		t, ok := parseHead(receipt.Checkpoint)
		by, err := receipt.MergeBy.Time()
		if !ok || err != nil {
			continue // a receipt of before receipts named one
		}
		out = append(out, named{t.origin, t.size, t.root, receipt.ID, o.Peer.ExchangeReceiptHash, e, by})
	}
	slices.SortStableFunc(out, func(a, b named) int {
		return cmp.Or(strings.Compare(a.origin, b.origin), cmp.Compare(a.size, b.size))
	})
	return out
}

// trees holds what of's gateways signed of their log, for who keeps it, to the
// log that of shows now, and to each other. Of each kind one receipt is told: the
// smallest tree that is forked, the largest that is missing.
func (r *Reconciliation) trees(keeper, of *Side) {
	told := map[DifferenceKind]Difference{}
	shown := shownTrees{side: of}
	var before named
	for _, n := range keeper.named(of) {
		kind, text := shown.judge(n)
		if before.origin == n.origin && before.size == n.size && before.root != n.root {
			kind, text = LogForked, fmt.Sprintf("the callee's gateways signed two trees of %s at size %d: %s and %s", n.origin, n.size, b64(before.root), b64(n.root))
		}
		before = n
		r.Trees[kind]++
		if _, known := told[kind]; known && kind == LogForked {
			continue
		}
		told[kind] = Difference{
			Kind: kind, ID: n.id, Caller: &Place{keeper.Name, n.at.Index, n.at.Record.ID, n.at.Hash},
			Alarm: kind == LogForked || kind == LogCut, Proof: n.proof, Text: text,
		}
	}
	for _, kind := range []DifferenceKind{LogForked, LogCut, OutOfWindow} {
		if d, ok := told[kind]; ok {
			if !d.Alarm {
				d.Proof = ""
			}
			r.keep(d)
		}
	}
}

// shownTrees is the log that a side shows, asked for sizes in ascending order.
type shownTrees struct {
	side *Side
	f    frontier
}

func (s *shownTrees) judge(n named) (DifferenceKind, string) {
	former := s.side.former
	switch {
	case n.origin == s.side.Origin && s.side.Leaves != nil:
		return s.within(n)
	case former.origin == "" || n.origin != former.origin, n.size < former.size:
		return OutOfWindow, fmt.Sprintf("the callee's evidence does not show %s at size %d", n.origin, n.size)
	case n.size > former.size:
		return LogCut, fmt.Sprintf("the callee's gateway signed that %s has %d entries, and its next period says that it ended with %d", n.origin, n.size, former.size)
	case n.root != former.root:
		return LogForked, forked(n, former.root)
	}
	return Matched, ""
}

// within holds a checkpoint to the entries of its log.
func (s *shownTrees) within(n named) (DifferenceKind, string) {
	size := int64(len(s.side.Leaves))
	if n.size > size {
		if n.by.After(s.side.Until) {
			return OutOfWindow, fmt.Sprintf("the callee's evidence was made before %s had %d entries", n.origin, n.size)
		}
		return LogCut, fmt.Sprintf("the callee's gateway signed that %s has %d entries, and what is shown of it since has %d", n.origin, n.size, size)
	}
	for int64(s.f.size) < n.size { //nolint:gosec // both are lengths
		s.f.push(s.side.Leaves[s.f.size])
	}
	if root := s.f.root(); root != n.root {
		return LogForked, forked(n, root)
	}
	return Matched, ""
}

func forked(n named, root Hash) string {
	return fmt.Sprintf("the callee's gateway signed that %s has the root %s at size %d, and what is shown of it has %s", n.origin, b64(n.root), n.size, b64(root))
}

func b64(h Hash) string { return base64.StdEncoding.EncodeToString(h[:]) }

// begins reads from the first record where the side's log begins: at which end of
// the period before, and when. Both are zero where it is the first, or where the
// evidence does not begin there.
func (s *Side) begins() (former treeHead, since time.Time) {
	if len(s.Records) == 0 || s.Records[0].Index != 0 {
		return treeHead{}, time.Time{}
	}
	first := s.Records[0].Record
	if first.Period == nil || first.Period.Op != record.PeriodOpen || first.Period.Origin != s.Origin {
		return treeHead{}, time.Time{}
	}
	former, ok := parseHead(first.Period.Previous)
	when, err := first.Time.Time()
	if !ok || err != nil {
		return treeHead{}, time.Time{}
	}
	return former, when
}

// leaves are the hashes of all entries under the last checkpoint, nil if the bundle
// does not show each of them.
func (v *verifier) leaves() []Hash {
	if v.manifest.Mode != ModeRange || v.manifest.From != 0 || v.last.size < 0 {
		return nil
	}
	gone := map[int64]Hash{}
	if _, pruned := v.find(prunedLeaves); pruned {
		var err error
		if gone, err = v.goneLeaves(); err != nil {
			return nil
		}
	}
	out, next := []Hash{}, 0
	for i := range v.last.size {
		h, ok := gone[i]
		if !ok {
			if next >= len(v.records) || v.records[next].index != i {
				return nil
			}
			h = v.records[next].leaf
			next++
		}
		out = append(out, h)
	}
	return out
}
