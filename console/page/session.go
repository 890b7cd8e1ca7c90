package page

import (
	"net/http"
	"time"
)

// sessions are the persons who are logged in.
type sessions struct{ now func() time.Time }

func newSessions(now func() time.Time) *sessions { return &sessions{now: now} }

func (*sessions) of(*http.Request) (viewer, bool) { return viewer{}, false }

// Login lets persons log in.
type Login struct{}
