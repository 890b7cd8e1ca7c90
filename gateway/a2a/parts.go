package a2a

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// part is one part of a message, in the words of version 1.0.
type part struct {
	kind    string // text, raw, url, data
	content strictjson.Value
	media   strictjson.Value
}

// setParts reads what the message carries: kinds, media types, hosts of URLs.
func (c *call) setParts(parts strictjson.Value) error {
	if parts.Kind() != strictjson.KindArray || parts.Len() == 0 {
		return gateway.Refuse(gateway.CodeRequestUnreadable, "a message without parts")
	}
	var kinds, media, hosts []string
	var textBytes int64
	for _, v := range parts.Items() {
		p, err := c.readPart(v)
		if err != nil {
			return err
		}
		kinds = append(kinds, p.kind)
		content, isText := p.content.Text()
		switch {
		case !isText && p.kind != "data":
			return unreadable(fmt.Errorf("%s is not a string", p.kind))
		case p.kind == "text":
			textBytes += int64(len(content))
		case p.kind == "url":
			host, err := gateway.FetchHost(content)
			if err != nil {
				return err
			}
			hosts = append(hosts, host)
		}
		if !p.media.IsZero() && !p.media.IsNull() {
			s, isText := p.media.Text()
			if !isText {
				return unreadable(errors.New("a media type that is not a string"))
			}
			media = append(media, s)
		}
	}
	doc := &c.out.Doc
	doc.Set("/a2a/kinds", strictjson.Strings(kinds...))
	doc.Set("/a2a/text_bytes", strictjson.Int(textBytes))
	if len(media) > 0 {
		doc.Set("/a2a/media_types", strictjson.Strings(media...))
	}
	if len(hosts) > 0 {
		doc.Set("/a2a/fetch_hosts", strictjson.Strings(hosts...))
	}
	return nil
}

func (c *call) readPart(v strictjson.Value) (part, error) {
	if c.version == Version03 {
		return c.readPart03(v)
	}
	if err := known(v, "text", "raw", "url", "data", "filename", "mediaType", "metadata"); err != nil {
		return part{}, err
	}
	p := part{}
	p.media, _ = v.Get("mediaType")
	var err error
	p.kind, p.content, err = oneOf(v, "text", "raw", "url", "data")
	return p, err
}

// readPart03 reads a part of version 0.3: by its kind, or in the HTTP binding as
// protocol buffers have it.
func (c *call) readPart03(v strictjson.Value) (part, error) {
	names := []string{"text", "file", "data", "metadata"}
	if !c.rest {
		names = append(names, "kind")
	} else if _, ok := v.Get("kind"); ok {
		names = append(names, "kind")
	}
	if err := known(v, names...); err != nil {
		return part{}, err
	}
	kind, content, err := oneOf(v, "text", "file", "data")
	if err != nil {
		return part{}, err
	}
	said, ok := v.Get("kind")
	if ok && text(said) != kind || !ok && !c.rest {
		return part{}, unreadable(errors.New("a part of another kind"))
	}
	if kind != "file" {
		return part{kind: kind, content: content}, nil
	}
	files := map[string]string{"bytes": "raw", "uri": "url"}
	if c.rest && !ok {
		files = map[string]string{"fileWithBytes": "raw", "fileWithUri": "url"}
	}
	names = []string{"mimeType", "name"}
	for name := range files {
		names = append(names, name)
	}
	if err := known(content, names...); err != nil {
		return part{}, err
	}
	p := part{}
	p.media, _ = content.Get("mimeType")
	for name, as := range files {
		member, ok := content.Get(name)
		if !ok {
			continue
		}
		if p.kind != "" {
			return part{}, unreadable(errors.New("a file with two contents"))
		}
		p.kind, p.content = as, member
	}
	if p.kind == "" {
		return part{}, unreadable(errors.New("a file without content"))
	}
	return p, nil
}

// oneOf is the one content of a part.
func oneOf(v strictjson.Value, names ...string) (kind string, content strictjson.Value, err error) {
	for _, name := range names {
		member, ok := v.Get(name)
		if !ok {
			continue
		}
		if kind != "" {
			return "", strictjson.Value{}, unreadable(errors.New("a part with two contents"))
		}
		kind, content = name, member
	}
	if kind == "" {
		return "", strictjson.Value{}, unreadable(errors.New("a part without content"))
	}
	return kind, content, nil
}
