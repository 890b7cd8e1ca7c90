package page

import (
	"fmt"
	"math"

	"github.com/lineal-auth/lineal/search"
)

// chainDrawing is the way of the authority from the person down to what was
// called: boxes, and between them a band that gets narrower with each thing
// that a hop gave up.
//
//	  person
//	▔▔▔▔▔▔▔▔▔▔
//	 \  hop 0 /
//	  ▔▔▔▔▔▔▔
type chainDrawing struct {
	Width, Height int
	Boxes         []box
	Bands         []band
}

// box is a party.
type box struct {
	X, Y, W, H     int
	Label, Sub     string
	Title, Link    string
	Kind           string // person, agent, callee
	Refuses        bool   // its authority does not permit the call
	LabelY, SubY   int
	Center, Bottom int
}

// band is the authority between two boxes.
type band struct {
	Points         string // of a polygon
	Note           string
	X, Y           int // of the note
	Refused        bool
	StopX1, StopX2 int
	StopY          int
}

const (
	chainWidth = 320
	boxWidth   = 236
	boxHeight  = 48
	bandHeight = 38
	widest     = 190.0
	narrowest  = 22.0
	maxLabel   = 27
)

// drawChain draws the chain of a call. A chain that was never verified has no
// hops, and the drawing is of the caller and what it called.
func drawChain(l search.Lineage) chainDrawing {
	d := chainDrawing{Width: chainWidth}
	person := box{Label: who(l.Person), Sub: "person", Title: l.Person.Ref, Kind: "person"}
	if l.Person.Ref == "" {
		person.Sub = "no person is known"
	} else {
		person.Link = Prefix + "persons/" + l.Person.Ref
	}
	boxes := []box{person}
	for _, h := range l.Hops {
		n := len(h.Authority)
		boxes = append(boxes, box{
			Label: short(h.Actor), Sub: fmt.Sprintf("hop %d · %d %s", h.Number, n, plural(n, "permission", "permissions")), Title: h.Actor, Kind: "agent", Refuses: h.Permits == "deny",
			Link: functions["agent"].(func(string) string)(h.Actor),
		})
	}
	if len(l.Hops) == 0 {
		caller := box{Label: "unknown caller", Kind: "agent", Sub: "no chain was verified"}
		if name := either(l.Caller.Proven, l.Caller.Claimed); name != "" {
			caller.Label, caller.Title = short(name), name
		}
		boxes = append(boxes, caller)
	}
	callee := box{Label: "no route", Kind: "callee", Sub: "nothing was called"}
	if c := l.Callee; c != nil {
		callee.Label, callee.Title, callee.Sub = short(c.ID), c.ID, c.Op
		if c.Tool != "" {
			callee.Label = c.Tool + " at " + short(c.ID)
		}
	}
	d.place(append(boxes, callee))
	d.band(l)
	return d
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (d *chainDrawing) place(boxes []box) {
	y := 1
	for i := range boxes {
		b := &boxes[i]
		b.X, b.Y, b.W, b.H = (chainWidth-boxWidth)/2, y, boxWidth, boxHeight
		b.LabelY, b.SubY, b.Center, b.Bottom = y+21, y+37, chainWidth/2, y+boxHeight
		b.Label, b.Sub = cut(b.Label, maxLabel), cut(b.Sub, maxLabel+5)
		y += boxHeight + bandHeight
	}
	d.Boxes, d.Height = boxes, y-bandHeight+1
}

// band draws the bands: above a hop what it was given, below the last what it
// used.
func (d *chainDrawing) band(l search.Lineage) {
	width := widest
	for i := 0; i+1 < len(d.Boxes); i++ {
		b := band{X: chainWidth/2 + boxWidth/2, Y: d.Boxes[i].Bottom + bandHeight/2 + 4}
		top := width
		if i < len(l.Hops) {
			if n := len(l.Hops[i].GaveUp); n > 0 {
				width = math.Max(narrowest, width*math.Pow(0.78, float64(min(n, 4))))
				b.Note = fmt.Sprintf("−%d", n)
			}
		} else {
			width = narrowest
			b.Refused = l.Verdict.Effect != "permit"
		}
		y, below := d.Boxes[i].Bottom, d.Boxes[i+1].Y
		c := float64(chainWidth) / 2
		if b.Refused { // it ends on the way
			below -= bandHeight / 2
			b.StopX1, b.StopX2, b.StopY = chainWidth/2-24, chainWidth/2+24, below
		}
		b.Points = fmt.Sprintf("%.1f,%d %.1f,%d %.1f,%d %.1f,%d", c-top/2, y, c+top/2, y, c+width/2, below, c-width/2, below)
		d.Bands = append(d.Bands, b)
	}
}

// cut shortens a text that does not fit; what it is in full is in the title.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
