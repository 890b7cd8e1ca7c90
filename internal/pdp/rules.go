package pdp

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"slices"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// ruleID is what a rule's id looks like: the form of a Cedar policy's @id,
// because records and metrics hold both.
var ruleID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)

const maxRules = 256

// Rules reads an array of rule ids, sorted and each once. The error is an
// *Error.
func Rules(v strictjson.Value) ([]string, error) {
	if v.Kind() != strictjson.KindArray || v.Len() > maxRules {
		return nil, Malformed("rules is not an array of at most %d ids", maxRules)
	}
	ids := make([]string, v.Len())
	for i := range ids {
		id, ok := v.Index(i).Text()
		if !ok || !ruleID.MatchString(id) {
			return nil, Malformed("a rule's id is not of letters, digits and ._/-")
		}
		ids[i] = id
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Digest is the digest of what is known of the rules that answer, a JSON
// object: unpadded base64url SHA-256 of its bytes.
func Digest(statement strictjson.Value) string {
	sum := sha256.Sum256(statement.AppendJSON(nil))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
