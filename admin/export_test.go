package admin

import "testing"

// CheckAnswer holds an answer to the schema that openapi.yaml gives it.
func CheckAnswer(t *testing.T, schema string, answer any) {
	t.Helper()
	described.Check(t, schema, answer)
}
