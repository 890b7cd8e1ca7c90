package llm

import (
	"errors"
	"net/http"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// actionModels is discovery: it needs some detail at the route at every hop.
const actionModels = "llm:models"

// listModels asks for all models at once, so that no page is empty because none
// of its models is the caller's to use.
func (a api) listModels(op operation, data []byte, query string, header http.Header) (gateway.Request, error) {
	if len(data) > 0 {
		return gateway.Request{}, gateway.Refuse(gateway.CodeRequestUnreadable, "a body on a list")
	}
	if len(op.query) > 0 {
		beta := strings.Contains(query, "beta=true")
		if query = "limit=1000"; beta {
			query += "&beta=true"
		}
	}
	return gateway.Request{
		Operation: "models", Action: actionModels, Discovery: true, Doc: scope.NewDocument(),
		Resource: policy.Resource{Kind: policy.KindService}, Needed: []string{actionModels},
		Method: op.method, Suffix: op.path, Query: query, Header: header,
		Answer: func(x gateway.Exchange) gateway.AnswerReader { return &models{x: x} },
	}, nil
}

// models leaves of a list what the caller could ask for: nothing is shown that
// every call would be refused for (threat A3).
type models struct {
	document
	x gateway.Exchange
}

func (m *models) Message(data []byte) ([]byte, error) {
	v, good, err := m.parse(data)
	switch {
	case err != nil:
		return nil, err
	case !good:
		return data, nil
	}
	all, ok := v.Get("data")
	if !ok || all.Kind() != strictjson.KindArray {
		return nil, errors.New("a list of models without data")
	}
	shown := []strictjson.Value{}
	for _, item := range all.Items() {
		id := text(item, "id")
		if id == "" {
			return nil, errors.New("a model without an id")
		}
		if r := (policy.Resource{Kind: policy.KindModel, Name: id}); m.x.Shows(scope.LLMChat, r) || m.x.Shows(scope.LLMEmbed, r) {
			shown = append(shown, item)
		}
	}
	v = v.With("data", strictjson.Array(shown...))
	if has(v, "has_more") {
		first, last := strictjson.NullValue(), strictjson.NullValue()
		if n := len(shown); n > 0 {
			first, _ = shown[0].Get("id")
			last, _ = shown[n-1].Get("id")
		}
		v = v.With("has_more", strictjson.Bool(false)).With("first_id", first).With("last_id", last)
	}
	return v.AppendJSON(nil), nil
}
