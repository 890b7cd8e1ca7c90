package a2a

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/ssrf"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// pushPath is where agents deliver, below the route; a seal follows.
const (
	pushPath = "/push/"
	sealed   = "ln1."
)

// target is where a client wants to be called, and all that the seal in the
// callback's path holds of that. The agent sees none of it.
type target struct {
	Person  string `json:"p"`
	Agent   string `json:"a"`
	Version string `json:"v"`
	Task    string `json:"t,omitempty"` // "" where the message only begins one
	URL     string `json:"u"`
	// Token and Authentication are the client's own, as it sent them.
	Token          string          `json:"k,omitempty"`
	Authentication json.RawMessage `json:"s,omitempty"`
	// Secret is the SHA-256 of the credential that the agent got.
	Secret []byte `json:"c"`

	authorization string // what Authentication says to send, "" for nothing
}

func (t *target) String() string { return "[redacted]" }

func (r *Reader) about() string { return "push callback\x00" + r.cfg.URL }

// seal gives the callback's URL: the target and the authority under which it was
// named, readable for us alone.
func (r *Reader) seal(t *target, from gateway.Caller) (string, error) {
	head, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("sealing a callback: %w", err)
	}
	plain, err := from.Standing.AppendSealed(append(binary.BigEndian.AppendUint16(nil, uint16(len(head))), head...)) //nolint:gosec // bounded by the members
	if err != nil {
		return "", fmt.Errorf("sealing a callback: %w", err)
	}
	s, err := r.cfg.Push.Seal(r.about(), plain)
	if err != nil {
		return "", fmt.Errorf("sealing a callback: %w", err)
	}
	return r.cfg.URL + pushPath + s, nil
}

var errSeal = errors.New("no callback of this route")

// open reads what seal sealed. path is that of the callback below the route.
func (r *Reader) open(path string) (*target, gateway.Standing, error) {
	s, ok := strings.CutPrefix(path, pushPath)
	if !ok || r.cfg.Push == nil {
		return nil, gateway.Standing{}, errSeal
	}
	plain, err := r.cfg.Push.Open(r.about(), s)
	if err != nil {
		return nil, gateway.Standing{}, err
	}
	if len(plain) < 2 || len(plain) < 2+int(binary.BigEndian.Uint16(plain)) {
		return nil, gateway.Standing{}, errSeal
	}
	head, rest := plain[2:2+int(binary.BigEndian.Uint16(plain))], plain[2+int(binary.BigEndian.Uint16(plain)):]
	t := new(target)
	if err := json.Unmarshal(head, t); err != nil {
		return nil, gateway.Standing{}, fmt.Errorf("opening a callback: %w", err)
	}
	standing, err := gateway.ParseSealed(rest)
	return t, standing, err
}

// Receives implements gateway.Receiver.
func (r *Reader) Receives(suffix string) bool {
	return r.cfg.Push != nil && strings.HasPrefix(suffix, pushPath+sealed) && strings.Count(suffix, "/") == 2
}

// tokenHeaders carry a callback's token: the specification's, and a2a-go's.
var tokenHeaders = []string{"X-A2a-Notification-Token", "A2a-Notification-Token"}

// Open implements gateway.Receiver.
func (r *Reader) Open(req *http.Request, suffix string) (s gateway.Standing, presented bool, err error) {
	t, s, err := r.open(suffix)
	if err != nil {
		return s, false, &gateway.Refusal{Code: gateway.CodeHandleUnknown, Err: err}
	}
	said := slices.Concat(req.Header.Values(tokenHeaders[0]), req.Header.Values(tokenHeaders[1]))
	if auth := req.Header.Get("Authorization"); auth != "" {
		_, credential, _ := strings.Cut(auth, " ")
		said = append(said, credential)
	}
	for _, credential := range said {
		sum := sha256.Sum256([]byte(credential))
		if subtle.ConstantTimeCompare(sum[:], t.Secret) != 1 {
			return s, false, gateway.Refuse(gateway.CodeTokenInvalid, "another credential than the callback's")
		}
		presented = true
	}
	return s, presented, nil
}

// Bounds of what a client may have sealed, in bytes.
const (
	maxToken          = 1024
	maxAuthentication = 4096
)

// rewriteConfig puts a callback of ours in the place of the client's: URL and
// secrets are what the agent would call, and what it gets opens nothing but that
// (threats D1, F1). doc takes the facts of the client's URL. more are members
// that may stand beside those of the configuration.
func (c *call) rewriteConfig(config strictjson.Value, doc *scope.Document, task string, more ...string) (strictjson.Value, error) {
	if err := known(config, append([]string{"id", "url", "token", "authentication"}, more...)...); err != nil {
		return config, err
	}
	t := &target{Person: c.from.Person, Agent: c.from.Agent, Version: c.version, Task: task}
	if err := errors.Join(t.readURL(config, doc), t.readSecrets(config, c.version)); err != nil {
		return config, err
	}
	credential := rand.Text()
	sum := sha256.Sum256([]byte(credential))
	t.Secret = sum[:]
	callback, err := c.r.seal(t, c.from)
	if err != nil {
		return config, err
	}
	scheme := with("scheme", str("Bearer"))
	if c.version == Version03 {
		scheme = with("schemes", strictjson.Strings("Bearer"))
	}
	return config.With("url", str(callback)).With("token", str(credential)).
		With("authentication", object(scheme, with("credentials", str(credential)))), nil
}

func (t *target) readURL(config strictjson.Value, doc *scope.Document) error {
	v, _ := config.Get("url")
	t.URL = text(v)
	if err := ssrf.CheckURL(t.URL); err != nil {
		return unreadable(fmt.Errorf("the callback's URL: %w", err))
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return unreadable(err)
	}
	host, err := gateway.FetchHost(t.URL)
	if err != nil {
		return err
	}
	doc.Set("/a2a/push/scheme", str(u.Scheme))
	doc.Set("/a2a/push/host", str(host))
	doc.Set("/a2a/push/path", str(u.Path))
	return nil
}

// readSecrets reads what the client wants to be sent along, and refuses what
// could not be sent as it is asked for.
func (t *target) readSecrets(config strictjson.Value, version string) error {
	if v, ok := config.Get("token"); ok && !v.IsNull() {
		var isText bool
		if t.Token, isText = v.Text(); !isText || len(t.Token) > maxToken || !isFieldValue(t.Token) {
			return unreadable(errors.New("a token that cannot be sent"))
		}
	}
	v, ok := config.Get("authentication")
	if !ok || v.IsNull() {
		return nil
	}
	if t.Authentication = v.AppendJSON(nil); len(t.Authentication) > maxAuthentication {
		return unreadable(errors.New("an authentication that is too long"))
	}
	return t.readAuthentication(v, version)
}

// readAuthentication finds what to send: 1.0 has one scheme, 0.3 a list of which
// one is enough.
func (t *target) readAuthentication(v strictjson.Value, version string) error {
	name := "scheme"
	if version == Version03 {
		name = "schemes"
	}
	if err := known(v, name, "credentials"); err != nil {
		return err
	}
	said, _ := v.Get(name)
	schemes := []strictjson.Value{said}
	if version == Version03 {
		schemes = said.Items()
	}
	credentials, _ := v.Get("credentials")
	secret := text(credentials)
	if secret == "" {
		return nil
	}
	for _, s := range schemes {
		for _, scheme := range []string{"Bearer", "Basic"} {
			if strings.EqualFold(text(s), scheme) && isFieldValue(secret) {
				t.authorization = scheme + " " + secret
				return nil
			}
		}
	}
	return unreadable(errors.New("an authentication that is neither Bearer nor Basic"))
}

// isFieldValue: visible ASCII alone, so that a secret is one word in a header (F8).
func isFieldValue(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// readPushCreate reads a callback that is to be set for a task. Configurations
// stand in a member of their own, or with the task's id.
func (c *call) readPushCreate(params strictjson.Value) error {
	wrapper, others := "config", []string{"tenant", "taskId"}
	if c.version == Version03 {
		wrapper, others = "pushNotificationConfig", []string{"taskId", "name"}
	}
	if err := errors.Join(c.setTenant(params), c.setTask(params, "taskId")); err != nil {
		return err
	}
	if len(c.out.Handles) == 0 {
		return unreadable(errors.New("no task"))
	}
	if name, ok := params.Get("name"); ok && c.version == Version03 && !strings.HasPrefix(text(name), "tasks/"+c.out.Handles[0].ID+"/"+pushConfigs) {
		return unreadable(errors.New("two tasks"))
	}
	config, ok := params.Get(wrapper)
	if !ok && c.version == Version10 {
		var err error
		c.rewritten, err = c.rewriteConfig(params, &c.out.Doc, c.out.Handles[0].ID, others...)
		return err
	}
	if err := known(params, append(others, wrapper)...); err != nil {
		return err
	}
	config, err := c.rewriteConfig(config, &c.out.Doc, c.out.Handles[0].ID)
	c.rewritten = params.With(wrapper, config)
	return err
}

// readPushConfig reads a call to the callbacks of a task: one, or all.
func (c *call) readPushConfig(params strictjson.Value) error {
	task, names := "taskId", []string{"taskId", "tenant"}
	if c.version == Version03 {
		task, names = "id", []string{"id", "metadata"}
	}
	switch {
	case c.out.Operation == opPushList && c.version == Version10:
		names = append(names, "pageSize", "pageToken")
	case c.out.Operation == opPushList && c.rest:
		names = append(names, "pageSize", "pageToken")
	case c.out.Operation == opPushList:
	case c.version == Version10:
		names = append(names, "id")
	default:
		names = append(names, "pushNotificationConfigId")
	}
	if err := known(params, names...); err != nil {
		return err
	}
	if err := errors.Join(c.setTenant(params), c.setTask(params, task), setMetadata(&c.out.Doc, params)); err != nil {
		return err
	}
	if len(c.out.Handles) == 0 {
		return unreadable(errors.New("no task"))
	}
	return nil
}

// readPushOfMessage reads a callback that a message sets. It is asked for beside
// the message, and scope and policy must permit both.
func (c *call) readPushOfMessage(params, configuration strictjson.Value, name string) error {
	if c.r.cfg.Push == nil {
		return &gateway.Refusal{Code: gateway.CodePolicyDenied, JSONRPC: codePush, Err: errPush}
	}
	config, _ := configuration.Get(name)
	task := c.fact("task_id")
	var more []string
	if c.version == Version10 {
		more = []string{"taskId", "tenant"}
		for i, said := range []string{task, c.fact("tenant")} {
			v, _ := config.Get(more[i])
			if s := text(v); s != "" && s != said {
				return unreadable(fmt.Errorf("a callback with a %s of its own", more[i]))
			}
		}
	}
	part := gateway.Part{
		Action: scope.A2APush, Name: c.r.cfg.Agent, Doc: c.pushDoc(c.out.Operation),
		Resource: policy.Resource{Kind: policy.KindPeer, Name: c.r.cfg.Agent},
	}
	for _, at := range []string{"/a2a/tenant", "/a2a/task_id", "/a2a/context_id"} {
		if v, is := c.out.Doc.Lookup(at); is == scope.Present {
			part.Doc.Set(at, v)
		}
	}
	config, err := c.rewriteConfig(config, &part.Doc, task, more...)
	if err != nil {
		return err
	}
	c.out.Parts = append(c.out.Parts, part)
	c.out.Needed = append(c.out.Needed, scope.A2APush+" "+c.r.cfg.Agent)
	c.rewritten = params.With("configuration", configuration.With(name, config))
	return nil
}

// fact is a fact of the call, "" if there is none.
func (c *call) fact(name string) string {
	v, _ := c.out.Doc.Lookup("/a2a/" + name)
	return text(v)
}

// pushDoc is the document of a call about callbacks.
func (c *call) pushDoc(method string) scope.Document {
	doc := scope.NewDocument()
	doc.Set("/a2a/version", str(c.version))
	doc.Set("/a2a/method", str(method))
	return doc
}

// pushConfig reads a callback that the agent gives back: its owner gets the
// original. One that is not the caller's is none that there is.
func (a *answer) pushConfig(v strictjson.Value) (strictjson.Value, error) {
	v, mine, err := a.restore(v)
	if err == nil && !mine {
		err = gateway.Refuse(gateway.CodeHandleUnknown, "a callback that was not set here by this caller")
	}
	return v, err
}

// pushConfigList reads all of a task: a list, or as protocol buffers have it an
// object that holds one. Those that are not the caller's are left out.
func (a *answer) pushConfigList(v strictjson.Value) (strictjson.Value, error) {
	list := v
	if v.Kind() == strictjson.KindObject {
		if err := strictjson.KnownOpen(v, "configs", "nextPageToken"); err != nil {
			return v, err
		}
		list, _ = v.Get("configs")
	}
	if !list.IsZero() && !list.IsNull() && list.Kind() != strictjson.KindArray {
		return v, errors.New("callbacks that are no list")
	}
	kept := []strictjson.Value{}
	if list.Kind() == strictjson.KindArray {
		for _, item := range list.Items() {
			item, mine, err := a.restore(item)
			if err != nil {
				return v, err
			}
			if mine {
				kept = append(kept, item)
			}
		}
	}
	if v.Kind() == strictjson.KindObject {
		return v.With("configs", strictjson.Array(kept...)), nil
	}
	return strictjson.Array(kept...), nil
}

// nothing reads the answer to a deletion.
func (a *answer) nothing(v strictjson.Value) (strictjson.Value, error) {
	if !v.IsNull() && (v.Kind() != strictjson.KindObject || v.Len() > 0) {
		return v, errors.New("a deletion that answers with something")
	}
	return v, nil
}

// restore puts the client's callback back in the place of ours.
func (a *answer) restore(v strictjson.Value) (_ strictjson.Value, mine bool, err error) {
	if err := strictjson.KnownOpen(v, "name", "taskId", "config", "pushNotificationConfig", "url", "token", "authentication"); err != nil {
		return v, false, err
	}
	task, err := idOf(v, "taskId")
	if err != nil {
		return v, false, err
	}
	if task != "" && task != a.only() {
		return v, false, errors.New("another task than was asked for") // threat S2
	}
	for _, wrapper := range []string{"config", "pushNotificationConfig"} {
		if inner, ok := v.Get(wrapper); ok {
			inner, mine, err = a.restoreConfig(inner)
			return v.With(wrapper, inner), mine, err
		}
	}
	return a.restoreConfig(v)
}

func (a *answer) restoreConfig(v strictjson.Value) (_ strictjson.Value, mine bool, err error) {
	if err := strictjson.KnownOpen(v, "id", "url", "token", "authentication"); err != nil {
		return v, false, err
	}
	at, _ := v.Get("url")
	path, ok := strings.CutPrefix(text(at), a.c.r.cfg.URL)
	if !ok {
		return v, false, nil
	}
	t, _, err := a.c.r.open(path)
	if err != nil || t.Person != a.c.from.Person || t.Agent != a.c.from.Agent || t.Task != "" && t.Task != a.only() {
		return v, false, nil //nolint:nilerr // why a seal does not open is told to nobody
	}
	v = without(v, "url", "token", "authentication").With("url", str(t.URL))
	if t.Token != "" {
		v = v.With("token", str(t.Token))
	}
	if len(t.Authentication) > 0 {
		authentication, err := strictjson.Parse(t.Authentication, strictjson.Limits{})
		if err != nil {
			return v, false, fmt.Errorf("opening a callback: %w", err)
		}
		v = v.With("authentication", authentication)
	}
	return v, true, nil
}

func credentialOf(t *target) (string, error) {
	if len(t.Authentication) == 0 {
		return "", nil
	}
	v, err := strictjson.Parse(t.Authentication, strictjson.Limits{})
	if err != nil {
		return "", fmt.Errorf("opening a callback: %w", err)
	}
	err = t.readAuthentication(v, t.Version)
	return t.authorization, err
}

var _ gateway.Receiver = (*Reader)(nil)
