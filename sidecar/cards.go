package sidecar

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// maxCard bounds an agent card, in bytes.
const maxCard = 1 << 20

// answered counts an answer, and makes the URLs of an agent card lead here.
func (s *Sidecar) answered(resp *http.Response) error {
	if err := s.leadHere(resp); err != nil {
		return err // failed counts it
	}
	o := Passed
	if resp.Header.Get("Lineal-Code") != "" {
		o = Refused
	}
	s.cfg.Counted(s.prefixOf(resp.Request.URL.Path), o)
	return nil
}

// leadHere makes the URLs of an agent card lead here: what a client takes from
// it would else go past the sidecar, without a token. A card that was changed
// is no longer what its signatures are over, so they go.
func (s *Sidecar) leadHere(resp *http.Response) error {
	path := resp.Request.URL.Path
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(path, "/a2a/") ||
		(!strings.HasSuffix(path, "/.well-known/agent-card.json") && !strings.HasSuffix(path, "/.well-known/agent.json")) {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCard+1))
	_ = resp.Body.Close()
	if err != nil || len(body) > maxCard {
		return fmt.Errorf("reading an agent card of %d bytes: %w", len(body), err)
	}
	card, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxCard})
	if err != nil {
		return fmt.Errorf("reading an agent card: %w", err)
	}
	local, _ := resp.Request.Context().Value(keyLocal).(string)
	card = led(card, s.gateway.String()+"/", local+"/")
	if card.Kind() == strictjson.KindObject {
		card = unsigned(card)
	}
	out := card.AppendJSON(nil)
	resp.Body = io.NopCloser(bytes.NewReader(out))
	resp.ContentLength = int64(len(out))
	resp.Header.Set("Content-Length", strconv.Itoa(len(out)))
	resp.Header.Del("Etag")
	return nil
}

// led is v with every URL below from made one below to.
func led(v strictjson.Value, from, to string) strictjson.Value {
	switch v.Kind() {
	case strictjson.KindString:
		text, _ := v.Text()
		if rest, ok := strings.CutPrefix(text, from); ok {
			return strictjson.String(to + rest)
		}
	case strictjson.KindArray:
		items := v.Items()
		out := make([]strictjson.Value, len(items))
		for i, item := range items {
			out[i] = led(item, from, to)
		}
		return strictjson.Array(out...)
	case strictjson.KindObject:
		var out []strictjson.Member
		for _, m := range v.Members() {
			m.Value = led(m.Value, from, to)
			out = append(out, m)
		}
		return strictjson.Object(out...)
	default:
	}
	return v
}

// unsigned is a card without its signatures.
func unsigned(card strictjson.Value) strictjson.Value {
	var out []strictjson.Member
	for _, m := range card.Members() {
		if m.Name != "signatures" {
			out = append(out, m)
		}
	}
	return strictjson.Object(out...)
}
