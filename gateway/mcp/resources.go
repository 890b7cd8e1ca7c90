package mcp

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// ResourceSet names all resources of one template. Scope and policy know each
// of them by the set's name, and every other resource by its URI.
type ResourceSet struct {
	// Name is no URI: letters, digits, "-", "_" and ".".
	Name string
	// Template is the URI template exactly as the server lists it (RFC 6570
	// level 1): an expression stands for one or more unreserved characters, so
	// that it never reaches over a "/".
	Template string
}

type resourceSet struct {
	ResourceSet
	literals []string // around the expressions: one more than there are
}

var errTemplate = errors.New("want a URI template with simple expressions, such as file:///logs/{day}, apart from each other")

func newSet(s ResourceSet) (resourceSet, error) {
	if s.Name == "" || strings.ContainsFunc(s.Name, func(c rune) bool { return !isUnreserved(c) || c == '~' }) {
		return resourceSet{}, errors.New("a name has letters, digits and -_. alone")
	}
	out := resourceSet{ResourceSet: s}
	rest := s.Template
	for {
		literal, after, ok := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") || literal == "" && ok {
			return resourceSet{}, errTemplate
		}
		out.literals = append(out.literals, literal)
		if !ok {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed || name == "" || strings.ContainsFunc(name, func(c rune) bool { return !isUnreserved(c) || c == '-' || c == '~' }) {
			return resourceSet{}, errTemplate
		}
		rest = tail
	}
	if len(out.literals) < 2 || !strings.Contains(out.literals[0], ":") {
		return resourceSet{}, errTemplate
	}
	return out, nil
}

func isUnreserved(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// has reports whether the template gives the URI. Literals between expressions
// are met as early as can be; since an expression holds unreserved characters
// alone, the last literal is the end of the URI.
func (s resourceSet) has(uri string) bool {
	rest, ok := strings.CutPrefix(uri, s.literals[0])
	if !ok {
		return false
	}
	last := len(s.literals) - 1
	for i, literal := range s.literals[1:] {
		n := strings.IndexFunc(rest, func(c rune) bool { return !isUnreserved(c) })
		if n < 0 {
			n = len(rest)
		}
		if i+1 == last {
			value, ok := strings.CutSuffix(rest, literal)
			return ok && value != "" && value != "." && value != ".." && !strings.ContainsFunc(value, func(c rune) bool { return !isUnreserved(c) })
		}
		at := strings.Index(rest[:min(len(rest), n+len(literal))], literal)
		if at < 1 || rest[:at] == "." || rest[:at] == ".." {
			return false
		}
		rest = rest[at+len(literal):]
	}
	return false
}

func (r *Reader) setOf(template string) (resourceSet, bool) {
	for _, s := range r.sets {
		if s.Template == template {
			return s, true
		}
	}
	return resourceSet{}, false
}

// document is a resource as scope and policy know it.
func (r *Reader) document(uri string) policy.Resource {
	for _, s := range r.sets {
		if s.has(uri) {
			return policy.Resource{Kind: policy.KindDocument, Name: s.Name}
		}
	}
	return policy.Resource{Kind: policy.KindDocument, Name: uri}
}

// readResource reads the URI of resources/read and of the subscriptions to one.
func readResource(_ context.Context, r *Reader, m *message, out *gateway.Request) error {
	known := []string{"uri", "_meta"}
	if m.Method == "resources/read" {
		known = append(known, "inputResponses", "requestState")
	}
	if err := strictjson.Known(m.Params, known...); err != nil {
		return badParams("%w", err)
	}
	v, _ := m.Params.Get("uri")
	uri, _ := v.Text()
	if err := setURI(&out.Doc, uri); err != nil {
		return err
	}
	return r.readNamed(m, out, r.document(uri))
}

// setURI puts the parts of a URI into the call document, those that have one
// spelling. Two readers could take another for two.
func setURI(doc *scope.Document, uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" || u.User != nil || u.Fragment != "" || strings.Contains(uri, "#") || strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '\\' }) {
		return badParams("no absolute URI")
	}
	doc.Set("/uri/scheme", strictjson.String(u.Scheme))
	if host := u.Hostname(); host != "" && host == strings.ToLower(host) {
		doc.Set("/uri/host", strictjson.String(host))
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		doc.Set("/uri/port", strictjson.Int(int64(port))) //nolint:gosec // 16 bits
	}
	if u.Path != "" && u.EscapedPath() == u.Path {
		doc.Set("/uri/path", strictjson.String(u.Path))
	}
	return nil
}

// readListen reads what a client wants to hear of. Each resource is judged as
// if it were read.
func readListen(_ context.Context, r *Reader, m *message, out *gateway.Request) error {
	if err := strictjson.Known(m.Params, "notifications", "_meta"); err != nil {
		return badParams("%w", err)
	}
	wanted, _ := m.Params.Get("notifications")
	if err := strictjson.Known(wanted, "toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"); err != nil {
		return badParams("notifications: %w", err)
	}
	uris, ok := wanted.Get("resourceSubscriptions")
	if !ok {
		return nil
	}
	if uris.Kind() != strictjson.KindArray || uris.Len() > maxSubscriptions {
		return badParams("resourceSubscriptions is no list of at most %d", maxSubscriptions)
	}
	for _, v := range uris.Items() {
		uri, _ := v.Text()
		part := gateway.Part{Action: scope.MCPResourcesRead, Doc: scope.NewDocument()}
		part.Doc.Set("/mcp/version", strictjson.String(m.version))
		if err := setURI(&part.Doc, uri); err != nil {
			return err
		}
		part.Resource = r.document(uri)
		part.Name = part.Resource.Name
		out.Parts = append(out.Parts, part)
		out.Needed = append(out.Needed, part.Action+" "+part.Name)
	}
	return nil
}

// maxSubscriptions bounds the decisions of one call.
const maxSubscriptions = 64
