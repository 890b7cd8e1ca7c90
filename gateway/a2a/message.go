package a2a

import (
	"errors"
	"fmt"
	"slices"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/registry"
	"github.com/lineal-auth/lineal/scope"
)

// maxReferences bounds the tasks that one message refers to.
const maxReferences = 64

// setFacts sets what is known before the parameters are read.
func (c *call) setFacts(name string) {
	doc := &c.out.Doc
	doc.Set("/a2a/version", strictjson.String(c.version))
	doc.Set("/a2a/method", strictjson.String(name))
	if c.op.action == scope.A2ASend {
		doc.Set("/a2a/streaming", strictjson.Bool(c.op.streams)) // its extensions: setExtensions
	} else if len(c.extensions) > 0 {
		doc.Set("/a2a/extensions", strictjson.Strings(c.extensions...))
	}
}

// readSend reads a message to the agent.
func (c *call) readSend(params strictjson.Value) error {
	names := []string{"message", "configuration", "metadata"}
	if c.version == Version10 {
		names = append(names, "tenant")
	}
	if err := known(params, names...); err != nil {
		return err
	}
	message, _ := params.Get("message")
	if err := c.knownMessage(message); err != nil {
		return err
	}
	if err := errors.Join(c.setTenant(params), c.setRole(message), c.setHandles(message)); err != nil {
		return err
	}
	if err := errors.Join(setMetadata(&c.out.Doc, params, message), c.setExtensions(message)); err != nil {
		return err
	}
	parts, ok := message.Get("parts")
	if content, other := message.Get("content"); other && c.version == Version03 {
		if ok {
			return unreadable(errors.New("parts and content"))
		}
		parts = content
	}
	if err := c.setParts(parts); err != nil {
		return err
	}
	return c.readConfiguration(params)
}

func (c *call) knownMessage(message strictjson.Value) error {
	names := []string{"messageId", "contextId", "taskId", "role", "parts", "metadata", "extensions", "referenceTaskIds"}
	if c.version == Version03 {
		names = append(names, "kind")
		if c.rest { // as its protocol buffers name it
			names = append(names, "content")
		}
	}
	if err := known(message, names...); err != nil {
		return err
	}
	if kind, ok := message.Get("kind"); ok && text(kind) != "message" {
		return unreadable(errors.New("a message of another kind"))
	}
	return nil
}

// text is the string that v is, "" if it is none.
func text(v strictjson.Value) string {
	if v.IsZero() {
		return ""
	}
	s, _ := v.Text()
	return s
}

// setTenant takes the tenant from where it is said, path or parameters.
func (c *call) setTenant(params strictjson.Value) error {
	tenant := c.tenant
	if v, ok := params.Get("tenant"); ok && !v.IsNull() {
		said, isText := v.Text()
		switch {
		case !isText:
			return unreadable(errors.New("tenant is not a string"))
		case said != "" && tenant != "" && said != tenant:
			return unreadable(errors.New("two tenants"))
		case said != "":
			tenant = said
		}
	}
	if tenant != "" {
		c.out.Doc.Set("/a2a/tenant", strictjson.String(tenant))
	}
	return nil
}

// roles are the names of version 0.3 in those of 1.0.
var roles = map[string]string{"user": "ROLE_USER", "agent": "ROLE_AGENT"}

func (c *call) setRole(message strictjson.Value) error {
	v, ok := message.Get("role")
	if !ok || v.IsNull() {
		return nil
	}
	role, isText := v.Text()
	if !isText {
		return unreadable(errors.New("role is not a string"))
	}
	if name, ok := roles[role]; ok && c.version == Version03 {
		role = name
	}
	if role != "" {
		c.out.Doc.Set("/a2a/role", strictjson.String(role))
	}
	return nil
}

// setHandles: the ids that a message names are checked against whose they are.
func (c *call) setHandles(message strictjson.Value) error {
	if err := c.setTask(message, "taskId"); err != nil {
		return err
	}
	if err := c.setContext(message, true); err != nil {
		return err
	}
	references, ok := message.Get("referenceTaskIds")
	if !ok || references.IsNull() || references.Kind() == strictjson.KindArray && references.Len() == 0 {
		return nil
	}
	if references.Kind() != strictjson.KindArray || references.Len() > maxReferences {
		return unreadable(fmt.Errorf("referenceTaskIds is no list of at most %d", maxReferences))
	}
	ids := make([]string, 0, references.Len())
	for _, v := range references.Items() {
		id, err := handleOf(v)
		if err != nil || id == "" {
			return unreadable(errors.New("referenceTaskIds holds what is no id"))
		}
		ids = append(ids, id)
		c.out.Handles = append(c.out.Handles, gateway.Handle{Kind: registry.KindTask, ID: id})
	}
	c.out.Doc.Set("/a2a/reference_task_ids", strictjson.Strings(ids...))
	return nil
}

func (c *call) setTask(v strictjson.Value, name string) error {
	member, _ := v.Get(name)
	id, err := handleOf(member)
	switch {
	case err != nil:
		return err
	case c.task != "" && id != "" && id != c.task:
		return unreadable(errors.New("two tasks"))
	case c.task != "":
		id = c.task
	}
	if id == "" {
		return nil
	}
	c.out.Doc.Set("/a2a/task_id", strictjson.String(id))
	c.out.Handles = append(c.out.Handles, gateway.Handle{Kind: registry.KindTask, ID: id})
	return nil
}

func (c *call) setContext(v strictjson.Value, chosen bool) error {
	member, _ := v.Get("contextId")
	id, err := handleOf(member)
	if err != nil || id == "" {
		return err
	}
	c.out.Doc.Set("/a2a/context_id", strictjson.String(id))
	c.out.Handles = append(c.out.Handles, gateway.Handle{Kind: registry.KindContext, ID: id, Chosen: chosen})
	return nil
}

// maxHandle bounds an id, in bytes.
const maxHandle = 512

// handleOf is an id, "" if there is none.
func handleOf(v strictjson.Value) (string, error) {
	if v.IsZero() || v.IsNull() {
		return "", nil
	}
	id, ok := v.Text()
	if !ok || len(id) > maxHandle {
		return "", unreadable(fmt.Errorf("an id that is no string of at most %d bytes", maxHandle))
	}
	return id, nil
}

// setMetadata puts the metadata of the request and of the message together:
// the same constraint holds for both.
func setMetadata(doc *scope.Document, from ...strictjson.Value) error {
	var all []strictjson.Member
	seen := make(map[string]strictjson.Value)
	for _, v := range from {
		m, ok := v.Get("metadata")
		if !ok || m.IsNull() {
			continue
		}
		if m.Kind() != strictjson.KindObject {
			return unreadable(errors.New("metadata is not an object"))
		}
		for _, member := range m.Members() {
			before, twice := seen[member.Name]
			if twice && !before.Equal(member.Value) {
				return unreadable(fmt.Errorf("metadata %q is said twice", member.Name))
			}
			if !twice {
				seen[member.Name] = member.Value
				all = append(all, member)
			}
		}
	}
	if len(all) > 0 {
		doc.Set("/a2a/metadata", strictjson.Object(all...))
	}
	return nil
}

// setExtensions: those of the header and those that the message names.
func (c *call) setExtensions(message strictjson.Value) error {
	all := slices.Clone(c.extensions)
	if named, ok := message.Get("extensions"); ok && !named.IsNull() {
		if named.Kind() != strictjson.KindArray {
			return unreadable(errors.New("extensions is not an array"))
		}
		for _, v := range named.Items() {
			s, ok := v.Text()
			if !ok {
				return unreadable(errors.New("extensions holds what is no string"))
			}
			all = append(all, s)
		}
	}
	if len(all) > 0 {
		c.out.Doc.Set("/a2a/extensions", strictjson.Strings(all...))
	}
	return nil
}

// readConfiguration reads how the answer is to come.
func (c *call) readConfiguration(params strictjson.Value) error {
	configuration, ok := params.Get("configuration")
	if !ok || configuration.IsNull() {
		return nil
	}
	names := []string{"acceptedOutputModes", "historyLength", "pushNotificationConfig"}
	if c.version == Version03 {
		names = append(names, "blocking", "pushNotification")
	} else {
		names = append(names, "returnImmediately", "taskPushNotificationConfig")
	}
	if err := known(configuration, names...); err != nil {
		return err
	}
	push := ""
	for _, name := range []string{"pushNotificationConfig", "taskPushNotificationConfig", "pushNotification"} {
		v, ok := configuration.Get(name)
		switch {
		case !ok || v.IsNull():
		case push != "":
			return unreadable(errors.New("two callbacks"))
		default:
			push = name
		}
	}
	if push == "" {
		return nil
	}
	return c.readPushOfMessage(params, configuration, push)
}

// readTask reads a call to one task.
func (c *call) readTask(params strictjson.Value) error {
	names := []string{"id", "metadata"}
	if c.out.Operation == opGet {
		names = append(names, "historyLength")
	}
	if c.version == Version10 {
		names = append(names, "tenant")
	}
	if err := known(params, names...); err != nil {
		return err
	}
	if err := errors.Join(c.setTenant(params), c.setTask(params, "id"), setMetadata(&c.out.Doc, params)); err != nil {
		return err
	}
	if len(c.out.Handles) == 0 {
		return unreadable(errors.New("no task"))
	}
	return nil
}

// readList reads what tasks are asked for. Of those only the caller's are shown.
func (c *call) readList(params strictjson.Value) error {
	if err := known(params, "tenant", "contextId", "status", "pageSize", "pageToken", "historyLength",
		"statusTimestampAfter", "lastUpdatedAfter", "includeArtifacts", "includeMetadata"); err != nil {
		return err
	}
	return errors.Join(c.setTenant(params), c.setContext(params, false))
}

func known(v strictjson.Value, names ...string) error {
	if v.Kind() != strictjson.KindObject {
		return unreadable(fmt.Errorf("not an object where one with %q belongs", names))
	}
	if err := strictjson.Known(v, names...); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	return &gateway.Refusal{Code: gateway.CodeRequestUnreadable, JSONRPC: -32602, Err: err}
}
