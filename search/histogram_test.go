package search

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/record"
)

// TestHistogramCountsEachOnce: whatever the times are, each record is in the bin
// of its time, and there are no more bins than asked for.
func TestHistogramCountsEachOnce(t *testing.T) {
	effects := rapid.SampledFrom([]record.Effect{record.Permit, record.Deny, ""})
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(0, 4e12).Draw(t, "base")
		spread := rapid.SampledFrom([]int64{1, 1000, 3_600_000, 90 * 86_400_000, 2.5e14}).Draw(t, "spread")
		found := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Moment {
			return Moment{base + rapid.Int64Range(0, spread).Draw(t, "at"), effects.Draw(t, "effect")}
		}), 1, 50).Draw(t, "found")
		bins := rapid.IntRange(leastBins, 80).Draw(t, "bins")
		var h Histogram
		h.fill(found, bins)
		if len(h.Bins) > bins || len(h.Bins) == 0 {
			t.Fatalf("%d bins, asked for %d", len(h.Bins), bins)
		}
		want := make([]Bin, len(h.Bins))
		for i := range want {
			want[i].From = time.UnixMilli(h.Bins[0].From.UnixMilli() + int64(i)*h.Width.Milliseconds()).UTC()
		}
		for _, m := range found {
			n := 0
			for i := range want {
				at := time.UnixMilli(m.At)
				if at.Before(want[i].From) || !at.Before(want[i].From.Add(h.Width)) {
					continue
				}
				n++
				switch m.Effect {
				case record.Permit:
					want[i].Permitted++
				case record.Deny:
					want[i].Refused++
				default:
					want[i].Rest++
				}
			}
			if n != 1 {
				t.Fatalf("%d is in %d bins", m.At, n)
			}
		}
		for i := range want {
			if h.Bins[i] != want[i] {
				t.Fatalf("bin %d is %+v, want %+v", i, h.Bins[i], want[i])
			}
		}
		if p, r, o := h.Total(); p+r+o != len(found) || h.Counted != len(found) {
			t.Fatalf("%d + %d + %d of %d", p, r, o, len(found))
		}
	})
}
