package registry

import "time"

// ToUnix is t as drivers and statements keep it: Unix seconds, 0 for the zero time.
func ToUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// FromUnix is the time, in UTC, that [ToUnix] gave.
func FromUnix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}
