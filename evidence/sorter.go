package evidence

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
)

// sorter sorts rows of which there may be more than memory has room for:
//
//	add ──▶ 1 MiB of rows ──sort──▶ a run in the scratch file ──┐
//	                                a run ──────────────────────┼──merge──▶ rows
//	                                a run ──────────────────────┘
//
// Rows with one key keep the order in which they were added. With its scratch in
// memory it makes no runs.
type sorter struct {
	runs *scratch
	ends []int64 // of each run in it
	seq  uint64  // of the next row
	buf  []byte  // the rows that are in no run yet
	at   []int   // where each begins
}

// runBytes is how much of the rows a sorter holds.
const runBytes = 1 << 20

// row is a key and what belongs to it.
type row struct {
	key   string
	value []byte
}

// A row is stored as: length of the key in 2 bytes, key, a byte 0, its place
// among all in 8 bytes, length of the value in 2 bytes, value. Keys hold no byte 0,
// so that the stored keys, compared with what follows them up to the place, are in
// the order of the keys.
const rowOverhead = 2 + 1 + 8 + 2

func newSorter(dir string) (*sorter, error) {
	runs, err := newScratch(dir)
	return &sorter{runs: runs}, err
}

func (s *sorter) add(key string, value []byte) error {
	if len(key) > math.MaxUint16 || len(value) > math.MaxUint16 {
		return errors.New("sorting: a row is too long")
	}
	be := binary.BigEndian
	s.at = append(s.at, len(s.buf))
	s.buf = be.AppendUint16(s.buf, uint16(len(key))) //nolint:gosec // just compared
	s.buf = append(append(s.buf, key...), 0)
	s.buf = be.AppendUint64(s.buf, s.seq)
	s.buf = be.AppendUint16(s.buf, uint16(len(value))) //nolint:gosec // just compared
	s.buf = append(s.buf, value...)
	s.seq++
	if s.runs.f != nil && len(s.buf) >= runBytes {
		return s.spill()
	}
	return nil
}

// sortable is the part of a stored row that orders it.
func sortable(b []byte) []byte {
	n := int(binary.BigEndian.Uint16(b))
	return b[2 : 2+n+1+8]
}

func (s *sorter) sort() {
	slices.SortFunc(s.at, func(a, b int) int { return bytes.Compare(sortable(s.buf[a:]), sortable(s.buf[b:])) })
}

// spill makes a run of what is held.
func (s *sorter) spill() error {
	s.sort()
	for _, at := range s.at {
		if _, err := s.runs.Write(s.buf[at : at+storedLen(s.buf[at:])]); err != nil {
			return fmt.Errorf("sorting: %w", err)
		}
	}
	s.ends = append(s.ends, s.runs.size)
	s.buf, s.at = s.buf[:0], s.at[:0]
	return nil
}

func storedLen(b []byte) int {
	n := int(binary.BigEndian.Uint16(b))
	return rowOverhead + n + int(binary.BigEndian.Uint16(b[2+n+1+8:]))
}

func parseRow(b []byte) row {
	n := int(binary.BigEndian.Uint16(b))
	return row{key: string(b[2 : 2+n]), value: b[rowOverhead+n:]}
}

// rows gives all rows in their order. It may be asked again; nothing may be added
// any more. A value is good until the next row.
func (s *sorter) rows() iter.Seq2[row, error] {
	if len(s.ends) == 0 {
		return func(yield func(row, error) bool) {
			s.sort()
			for _, at := range s.at {
				if !yield(parseRow(s.buf[at:at+storedLen(s.buf[at:])]), nil) {
					return
				}
			}
		}
	}
	return s.merged
}

func (s *sorter) merged(yield func(row, error) bool) {
	fail := func(err error) { yield(row{}, fmt.Errorf("sorting: %w", err)) }
	if len(s.at) > 0 {
		if err := s.spill(); err != nil {
			yield(row{}, err)
			return
		}
		s.buf = nil
	}
	if err := s.runs.flush(); err != nil {
		fail(err)
		return
	}
	var runs runHeap
	start := int64(0)
	for _, end := range s.ends {
		r := &sortedRun{r: bufio.NewReaderSize(s.runs.section(start, end-start), 1<<13)}
		start = end
		if err := r.next(); err != nil {
			fail(err)
			return
		}
		runs = append(runs, r)
	}
	heap.Init(&runs)
	for len(runs) > 0 {
		r := runs[0]
		if !yield(parseRow(r.stored), nil) {
			return
		}
		switch err := r.next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&runs)
		case err != nil:
			fail(err)
			return
		default:
			heap.Fix(&runs, 0)
		}
	}
}

func (s *sorter) close() error { return s.runs.close() }

// sortedRun is one run under way.
type sortedRun struct {
	r      *bufio.Reader
	stored []byte // the row at hand
}

// next reads the next row; io.EOF after the last.
func (r *sortedRun) next() error {
	head, err := r.r.Peek(2)
	if err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(head))
	r.stored = slices.Grow(r.stored[:0], rowOverhead+n)[:rowOverhead+n]
	if _, err := io.ReadFull(r.r, r.stored); err != nil {
		return noEOF(err)
	}
	v := int(binary.BigEndian.Uint16(r.stored[2+n+1+8:]))
	r.stored = slices.Grow(r.stored, v)[:rowOverhead+n+v]
	_, err = io.ReadFull(r.r, r.stored[rowOverhead+n:])
	return noEOF(err)
}

// noEOF is an error for an end where there must be more.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// runHeap is a heap of runs by their rows at hand.
type runHeap []*sortedRun

func (h runHeap) Len() int { return len(h) }
func (h runHeap) Less(i, j int) bool {
	return bytes.Compare(sortable(h[i].stored), sortable(h[j].stored)) < 0
}
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)   { *h = append(*h, x.(*sortedRun)) } //nolint:forcetypeassert // nothing else is pushed
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
