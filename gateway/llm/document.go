package llm

import (
	"net/http"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// document is the part of a [gateway.AnswerReader] for an answer that is one
// JSON document, for the caller alone.
type document struct {
	status int
	read   bool
}

func (d *document) Head(status int, _, to http.Header) error {
	d.status = status
	to.Set("Cache-Control", "private, no-store")
	return nil
}

func (d *document) EventID(string) (string, error) { return "", nil }

func (d *document) Done() bool { return d.read }

// parse reads the document; good is false for what the provider says of an
// error, which goes on as it is.
func (d *document) parse(data []byte) (v strictjson.Value, good bool, err error) {
	d.read = true
	if d.status >= http.StatusMultipleChoices {
		return v, false, nil
	}
	v, err = strictjson.Parse(data, strictjson.Limits{MaxBytes: maxBody})
	return v, err == nil, err
}
