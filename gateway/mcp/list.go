package mcp

import (
	"errors"
	"fmt"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// maxTTL is how long what was filtered for one principal may be cached.
const maxTTL = 60_000 // ms

// filter keeps the entries of a list that show holds for. A list that a lenient
// client could read otherwise, by a folded name, is an error: what is hidden must
// be hidden from every reader (threats P1, A3).
func (a *answer) filter(result strictjson.Value, list string, members []string, show func(entry strictjson.Value) bool) (strictjson.Value, error) {
	if err := strictjson.KnownOpen(result, list, "cacheScope", "ttlMs", "nextCursor"); err != nil {
		return strictjson.Value{}, err
	}
	entries, ok := result.Get(list)
	if !ok || entries.Kind() != strictjson.KindArray {
		return strictjson.Value{}, fmt.Errorf("the answer has no %s", list)
	}
	shown := make([]strictjson.Value, 0, entries.Len())
	for _, entry := range entries.Items() {
		if err := strictjson.KnownOpen(entry, members...); err != nil {
			return strictjson.Value{}, fmt.Errorf("%s: %w", list, err)
		}
		if show(entry) {
			shown = append(shown, a.r.withoutTasks(list, entry))
		}
	}
	return a.keepPrivate(result.With(list, strictjson.Array(shown...)))
}

// keepPrivate: what one principal was shown is cached for nobody else, and not
// for long. A server may send the members in any version.
func (a *answer) keepPrivate(result strictjson.Value) (strictjson.Value, error) {
	if result.Kind() != strictjson.KindObject {
		return strictjson.Value{}, errors.New("the result is not an object")
	}
	if err := strictjson.KnownOpen(result, "cacheScope", "ttlMs"); err != nil {
		return strictjson.Value{}, err
	}
	if a.m.modern() {
		result = result.With("cacheScope", strictjson.String("private"))
		if ttl, ok := result.Get("ttlMs"); !ok || longer(ttl, maxTTL) {
			result = result.With("ttlMs", strictjson.Int(maxTTL))
		}
	}
	return a.keepPrivateIf(result), nil
}

func longer(v strictjson.Value, limit int64) bool {
	n, ok := v.Int64()
	return !ok || n > limit || n < 0
}

func textOf(v strictjson.Value, member string) string {
	m, _ := v.Get(member)
	s, _ := m.Text()
	return s
}

// filterTools shows the tools that the caller could call, and only with the
// schema that was pinned (threats A3, D4).
func (a *answer) filterTools(result strictjson.Value) (strictjson.Value, error) {
	return a.filter(result, "tools", []string{"name", "inputSchema", "execution"}, func(tool strictjson.Value) bool {
		name := textOf(tool, "name")
		return a.r.isPinned(name, tool) && a.shows(scope.MCPToolsCall, policy.KindTool, name)
	})
}

// withoutTasks is a tool that says nothing of tasks, unless it may be called as
// one: a client that believed it would be refused.
func (r *Reader) withoutTasks(list string, entry strictjson.Value) strictjson.Value {
	if _, says := entry.Get("execution"); list != "tools" || !says || r.tools[textOf(entry, "name")].Tasks {
		return entry
	}
	return without(entry, "execution")
}

func (r *Reader) isPinned(name string, tool strictjson.Value) bool {
	p, ok := r.tools[name]
	if !ok {
		return false
	}
	schema, ok := tool.Get("inputSchema")
	return ok && string(schema.AppendJSON(nil)) == p.digest
}

func (a *answer) filterPrompts(result strictjson.Value) (strictjson.Value, error) {
	return a.filter(result, "prompts", []string{"name"}, func(prompt strictjson.Value) bool {
		name := textOf(prompt, "name")
		return name != "" && a.shows(scope.MCPPromptsGet, policy.KindPrompt, name)
	})
}

func (a *answer) filterResources(result strictjson.Value) (strictjson.Value, error) {
	return a.filter(result, "resources", []string{"uri"}, func(resource strictjson.Value) bool {
		uri := textOf(resource, "uri")
		return uri != "" && a.x.Shows(scope.MCPResourcesRead, a.r.document(uri))
	})
}

// filterTemplates shows the templates of the route's sets.
func (a *answer) filterTemplates(result strictjson.Value) (strictjson.Value, error) {
	return a.filter(result, "resourceTemplates", []string{"uriTemplate"}, func(template strictjson.Value) bool {
		set, ok := a.r.setOf(textOf(template, "uriTemplate"))
		return ok && a.shows(scope.MCPResourcesRead, policy.KindDocument, set.Name)
	})
}
