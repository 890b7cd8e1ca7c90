package admin

import "testing"

// CheckAnswer holds an answer to the schema that openapi.yaml gives it.
func CheckAnswer(t *testing.T, schema string, answer any) {
	t.Helper()
	if err := schemaOf(t, schema).Validate(answer); err != nil {
		t.Errorf("%s is not as described: %v", schema, err)
	}
}
