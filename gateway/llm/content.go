package llm

import (
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// contentMembers are what the content of a message decides by. A name that is
// like one of them is refused (threat P1).
var contentMembers = []string{
	"type", "role", "content", "name", "text", "id", "input", "output", "source", "url", "image_url", "file_url", "file_id", "file",
	"detail", "tool", "tools", "tool_calls", "tool_call_id", "function_call",
}

// mediaTypes are the types of parts that are no text. They are facts without
// what each API adds: image, audio, file, document.
var mediaTypes = []string{"image_url", "input_image", "input_audio", "input_file", "file", "image", "document"}

// content looks through messages or items, at any depth, for what the provider
// would fetch and what it has stored.
func (b *body) content(v strictjson.Value) error {
	if v.Kind() == strictjson.KindObject {
		return b.part(v)
	}
	for _, item := range v.Items() { // none, if it is no array
		if err := b.content(item); err != nil {
			return err
		}
	}
	return nil
}

// part is one object of a content.
func (b *body) part(v strictjson.Value) error {
	if err := strictjson.KnownOpen(v, contentMembers...); err != nil {
		return unreadable(err)
	}
	kind := text(v, "type")
	if slices.Contains(mediaTypes, kind) {
		b.media = append(b.media, strings.TrimPrefix(strings.TrimSuffix(kind, "_url"), "input_"))
	}
	if kind == "url" {
		if err := b.fetch(v, "url"); err != nil {
			return err
		}
	}
	for i := range v.Len() {
		m := v.Member(i)
		switch {
		case m.Value.IsNull():
			continue
		case m.Name == "file_id" && !b.allowed("file_id"):
			return gateway.Refuse(gateway.CodeRequestUnreadable, "file_id names a file that is anybody's behind this key")
		case m.Name == "image_url", m.Name == "file_url":
			if err := b.fetchIn(v, m); err != nil {
				return err
			}
		case m.Name == "input" && strings.HasSuffix(kind, "tool_use"): // what the model made up, of any form
			continue
		}
		if err := b.content(m.Value); err != nil {
			return err
		}
	}
	return nil
}

// fetchIn reads a member that holds a URL, or an object with one.
func (b *body) fetchIn(v strictjson.Value, m strictjson.Member) error {
	if m.Value.Kind() != strictjson.KindObject {
		return b.fetch(v, m.Name)
	}
	if err := strictjson.KnownOpen(m.Value, "url", "detail"); err != nil {
		return unreadable(err)
	}
	return b.fetch(m.Value, "url")
}

// fetch takes the host of one URL that the provider would fetch; a data URL
// carries its content.
func (b *body) fetch(v strictjson.Value, name string) error {
	raw := text(v, name)
	if strings.HasPrefix(raw, "data:") {
		return nil
	}
	host, err := gateway.FetchHost(raw)
	if err != nil {
		return err
	}
	b.fetches = append(b.fetches, host)
	return nil
}
