package gateway

import (
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
)

// exceeds is a call that a hop's grant does not permit: where, by the detail
// that came furthest. It holds no value of the call.
type exceeds struct{ scope.Failure }

func (e *exceeds) Error() string {
	switch {
	case e.Detail < 0 && e.Op == opIn:
		return "no detail has this " + e.Path
	case e.Detail < 0:
		return fmt.Sprintf("no detail can permit it, for %s (%s)", e.Path, e.Op)
	}
	return fmt.Sprintf("detail %d refuses at %s (%s), which is %s", e.Detail, e.Path, e.Op, e.Got)
}

// opIn is what scope calls the membership of location, action and name.
const opIn = "in"

// record is the failure as it is recorded.
func (e *exceeds) record(hop int) *record.Exceeded {
	x := &record.Exceeded{Hop: int64(hop), Path: e.Path, Op: e.Op, Got: record.Got(e.Got)}
	if e.Detail >= 0 {
		detail := int64(e.Detail)
		x.Detail = &detail
	}
	return x
}

// furthest is the failure that tells most: that of the detail which matches
// longest in the order location, action, name, content; of several the first.
func furthest(v scope.Verdict) *exceeds {
	best := scope.Failure{Detail: noDetail, Path: "location", Op: opIn, Got: scope.Present.String()}
	reached := -1
	for _, f := range v.Failures {
		if at := reach(f); at > reached {
			best, reached = f, at
		}
	}
	return &exceeds{best}
}

func reach(f scope.Failure) int {
	switch {
	case f.Path == "location":
		return 0
	case f.Path == "action":
		return 1
	case f.Path == "name":
		return 2
	case strings.HasPrefix(f.Path, "/"):
		return 3
	default:
		return 0
	}
}
