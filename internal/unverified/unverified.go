// Package unverified reads a compact JWT without believing it: for its holder,
// who wants to know what it is called or until when it may be tried. Whether it
// is good is for those it is shown to, and nothing here may decide what anybody
// is allowed.
package unverified

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

var errNoJWT = errors.New("it is no JWT")

// Claims is the payload of a token in compact serialisation (RFC 7515 §7.1).
// Errors hold nothing of the token.
func Claims(raw string) (strictjson.Value, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return strictjson.Value{}, errNoJWT
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return strictjson.Value{}, errNoJWT
	}
	v, err := strictjson.Parse(payload, strictjson.Limits{})
	if err != nil {
		return strictjson.Value{}, errNoJWT
	}
	return v, nil
}

// Expiry is `exp`, to the second.
func Expiry(claims strictjson.Value) (time.Time, error) {
	v, _ := claims.Get("exp")
	seconds, ok := v.Int64()
	if !ok {
		return time.Time{}, errors.New("it has no exp")
	}
	return time.Unix(seconds, 0), nil
}
