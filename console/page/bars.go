package page

import (
	"fmt"
	"net/url"
	"time"

	"github.com/lineal-auth/lineal/search"
)

// bars is a histogram as it is drawn: one unit of width for each bar, and a
// hundred of height.
type bars struct {
	search.Histogram

	Drawn []bar
	// First and Last are the ends of the axis.
	First, Last string
	// Permits, Refusals and Others are the sums.
	Permits, Refusals, Others int
	PermitsLink, RefusalsLink string
}

// bar is one bin. X and the heights are of the drawing, from the bottom up:
// permitted, refused, other.
type bar struct {
	X                        int
	Permitted, Refused, Rest part
	Title, Link              string
}

// part is a rectangle of a bar.
type part struct{ Y, Height float64 }

// barHeight is how high the fullest bin is.
const barHeight = 100.0

func barsOf(h search.Histogram, a asked) bars {
	b := bars{Histogram: h, PermitsLink: a.With("decision", "permit"), RefusalsLink: a.With("decision", "deny")}
	b.Permits, b.Refusals, b.Others = h.Total()
	if len(h.Bins) == 0 {
		return b
	}
	layout := axis(h.Width)
	b.First = h.Bins[0].From.Format(layout)
	b.Last = h.Bins[len(h.Bins)-1].From.Add(h.Width).Format(layout)
	most := float64(h.Most())
	for i, bin := range h.Bins {
		y := barHeight
		take := func(n int) part {
			height := 0.0
			if n > 0 { // what there is can be seen
				height = max(barHeight*float64(n)/most, 2)
			}
			y -= height
			return part{y, height}
		}
		d := bar{X: i, Permitted: take(bin.Permitted), Refused: take(bin.Refused), Rest: take(bin.Rest)}
		end := bin.From.Add(h.Width)
		d.Title = fmt.Sprintf("%s to %s UTC: %d permitted, %d refused", bin.From.Format(layout), end.Format(layout), bin.Permitted, bin.Refused)
		if bin.Rest > 0 {
			d.Title += fmt.Sprintf(", %d other", bin.Rest)
		}
		if bin.Permitted+bin.Refused+bin.Rest > 0 {
			d.Link = a.between(bin.From, end)
		}
		b.Drawn = append(b.Drawn, d)
	}
	return b
}

// axis is how finely the borders of bins are written.
func axis(width time.Duration) string {
	switch {
	case width < time.Second:
		return "2006-01-02 15:04:05.000"
	case width < time.Minute:
		return "2006-01-02 15:04:05"
	case width < 24*time.Hour:
		return "2006-01-02 15:04"
	default:
		return "2006-01-02"
	}
}

// between is the permalink narrowed to a time.
func (a asked) between(since, until time.Time) string {
	q := url.Values{}
	for k := range a.Values {
		q.Set(k, a.Get(k))
	}
	q.Del("before")
	q.Del("live")
	q.Set("since", since.UTC().Format(time.RFC3339Nano))
	q.Set("until", until.UTC().Format(time.RFC3339Nano))
	return a.path + "?" + q.Encode()
}

// Columns is the width of the drawing.
func (b bars) Columns() int { return max(len(b.Drawn), 1) }
