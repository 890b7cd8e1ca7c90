package search

import (
	"context"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// Moment is when a record asserts to have been made, in milliseconds since
// 1970, and the verdict in it; "" where it holds none.
type Moment struct {
	At     int64
	Effect record.Effect
}

// Histogram counts records by the time that they assert.
type Histogram struct {
	// Bins are as wide as each other, without a hole, the earliest first; none if
	// no record matches.
	Bins  []Bin
	Width time.Duration
	// Counted is how many records are in the bins. Whole says that these are all
	// that match; else they are the newest.
	Counted int
	Whole   bool
}

// Bin is the time [From, From+Width).
type Bin struct {
	From                     time.Time
	Permitted, Refused, Rest int
}

// Most is the number of records in the fullest bin.
func (h Histogram) Most() int {
	most := 0
	for _, b := range h.Bins {
		most = max(most, b.Permitted+b.Refused+b.Rest)
	}
	return most
}

// Total gives the sums over all bins.
func (h Histogram) Total() (permitted, refused, rest int) {
	for _, b := range h.Bins {
		permitted, refused, rest = permitted+b.Permitted, refused+b.Refused, rest+b.Rest
	}
	return permitted, refused, rest
}

// leastBins keeps the width of a bin, over all times that a record can assert, a
// time.Duration.
const leastBins = 40

// maxCounted bounds the records that a histogram counts.
const maxCounted = 50_000

// widths are how wide a bin may be: such that its borders are round.
var widths = []time.Duration{
	time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour, 364 * 24 * time.Hour,
}

// Histogram counts the records that match f in at most bins bins (40 or more), the newest
// 50,000 where there are more. f.Limit and f.Newest are not looked at. It is the
// one answer that rests on the index alone: what it counts is not read again.
func (d *Desk) Histogram(ctx context.Context, f Filter, bins int) (Histogram, error) {
	to, _ := d.AsOf()
	if f.Before <= 0 || f.Before > to.Size {
		f.Before = to.Size
	}
	f.Newest, f.Limit = true, maxCounted+1
	if f.From >= f.Before {
		return Histogram{Whole: true}, nil
	}
	found, err := d.cfg.Store.Times(ctx, f)
	if err != nil {
		return Histogram{}, fmt.Errorf("counting records: %w", err)
	}
	h := Histogram{Whole: len(found) <= maxCounted}
	if !h.Whole {
		found = found[:maxCounted]
	}
	h.fill(found, max(bins, leastBins))
	return h, nil
}

// fill puts moments into bins of the smallest width with which they are enough.
func (h *Histogram) fill(found []Moment, bins int) {
	if h.Counted = len(found); h.Counted == 0 {
		return
	}
	first, last := found[0].At, found[0].At
	for _, m := range found {
		first, last = min(first, m.At), max(last, m.At)
	}
	var width, start int64
	for _, w := range widths {
		width = w.Milliseconds()
		start = first - modulo(first, width)
		if (last-start)/width < int64(bins) {
			break
		}
	}
	for (last-start)/width >= int64(bins) { // longer than any log: still no more bins than asked for
		width *= 2
		start = first - modulo(first, width)
	}
	h.Width = time.Duration(width) * time.Millisecond
	h.Bins = make([]Bin, (last-start)/width+1)
	for i := range h.Bins {
		h.Bins[i].From = time.UnixMilli(start + int64(i)*width).UTC()
	}
	for _, m := range found {
		switch b := &h.Bins[(m.At-start)/width]; m.Effect {
		case record.Permit:
			b.Permitted++
		case record.Deny:
			b.Refused++
		default:
			b.Rest++
		}
	}
}

// modulo is never negative.
func modulo(n, m int64) int64 { return (n%m + m) % m }
