package cedar

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

// The files of a policy set that a bundle does not have as such.
const (
	pathSet   = "policy.json"
	pathTools = "tools.json"
)

// Source is a policy set as its author keeps it, in a folder:
//
//	policy.json          {"name": "acme", "serial": 7, "zone": "Europe/Berlin"}
//	tools.json           the tools with their pinned input schemas; or instead
//	schema.cedarschema   the schema itself
//	entities.json        services with their environment, groups of persons and agents
//	policies/*.cedar     the policies
//	tests/*.txtar        their cases, see [Case]
type Source struct {
	Name   string
	Serial int64
	Zone   string

	tools    []Tool
	toolText []byte            // tools.json
	files    map[string][]byte // as a bundle has them
	findings []Finding         // of reading it
}

// setJSON is policy.json.
type setJSON struct {
	Name   string `json:"name"`
	Serial int64  `json:"serial"`
	Zone   string `json:"zone"`
}

// toolsJSON is tools.json. Effect is "read" or "write".
type toolsJSON struct {
	Tools []toolJSON `json:"tools"`
}

type toolJSON struct {
	Service     string           `json:"service"`
	Name        string           `json:"name"`
	Effect      string           `json:"effect"`
	SQL         bool             `json:"sql"`
	InputSchema strictjson.Value `json:"inputSchema"`
}

// NewSource reads the files of a folder, by their paths within it. What is
// wrong with them is a finding of Check.
func NewSource(files map[string][]byte) *Source {
	s := &Source{Serial: 1, Zone: "UTC", files: map[string][]byte{}}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		dir, name := path.Split(p)
		switch ext := path.Ext(name); {
		case p == pathSet, p == pathTools:
		case p == pathSchema, p == pathEntities, dir == dirPolicies && ext == ".cedar", dir == dirTests && ext == ".txtar":
			s.files[p] = files[p]
		case ext == ".cedar" || ext == ".txtar":
			s.found(p, 0, "the file is at no place that is read", "policies are policies/*.cedar, cases tests/*.txtar")
		}
	}
	s.readSet(files[pathSet])
	s.readTools(files)
	if _, ok := s.files[pathEntities]; !ok {
		s.found(pathEntities, 0, "the file is missing", "it declares at least the services: lineal policy new writes one")
	}
	return s
}

func (s *Source) found(file string, line int, message, hint string) {
	s.findings = append(s.findings, Finding{File: file, Line: line, Code: CodeSource, Message: message, Hint: hint})
}

func (s *Source) readSet(text []byte) {
	const hint = `it is {"name": "acme", "serial": 1, "zone": "Europe/Berlin"}`
	if text == nil {
		s.found(pathSet, 0, "the file is missing", hint)
		return
	}
	set := setJSON{Zone: "UTC"}
	if err := strictjson.Unmarshal(text, &set, strictjson.Limits{}); err != nil {
		s.found(pathSet, errorLine(string(text), err), err.Error(), hint)
		return
	}
	if set.Name == "" || set.Serial < 1 {
		s.found(pathSet, 0, "a set has a name and a serial of at least 1", hint)
	}
	s.Name, s.Serial, s.Zone = set.Name, set.Serial, set.Zone
}

// readTools makes the schema of tools.json, if that is there.
func (s *Source) readTools(files map[string][]byte) {
	text, ok := files[pathTools]
	switch _, written := files[pathSchema]; {
	case ok && written:
		s.found(pathSchema, 0, "tools.json and schema.cedarschema are both there", "keep tools.json: the schema is made of it")
		return
	case !ok && !written:
		s.found(pathTools, 0, "the file is missing", "lineal policy new --from writes it; without a tool it is {\"tools\": []}")
		return
	case !ok:
		return
	}
	var in toolsJSON
	if err := strictjson.Unmarshal(text, &in, strictjson.Limits{MaxBytes: maxBundle}); err != nil {
		s.found(pathTools, errorLine(string(text), err), err.Error(), "")
		return
	}
	s.toolText = text
	for _, t := range in.Tools {
		tool := Tool{Service: t.Service, Name: t.Name, SQL: t.SQL, InputSchema: t.InputSchema.AppendJSON(nil)}
		switch t.Effect {
		case "read":
			tool.Effect = Read
		case "write", "":
		default:
			s.found(pathTools, lineOf(text, t.Name), fmt.Sprintf("tool %s/%s: effect is read or write", t.Service, t.Name), "")
			return
		}
		s.tools = append(s.tools, tool)
	}
	schema, err := GenerateSchema(s.tools)
	if err != nil {
		s.found(pathTools, 0, err.Error(), "")
		return
	}
	s.files[pathSchema] = []byte(schema)
}

// lineOf is the line of the first string with this value.
func lineOf(text []byte, value string) int {
	at := strings.Index(string(text), `"`+value+`"`)
	if at < 0 {
		return 0
	}
	return strings.Count(string(text[:at]), "\n") + 1
}

// schemaFile is where an author changes the schema.
func (s *Source) schemaFile() string {
	if s.toolText != nil {
		return pathTools
	}
	return pathSchema
}

// OpenSource reads a bundle as a Source. Without a key its signature is not
// checked, so that an author can look at any bundle; nothing that decides calls
// may do so.
func OpenSource(archive []byte, key ed25519.PublicKey) (*Source, error) {
	if key != nil {
		b, err := open(archive, key)
		if err != nil {
			return nil, err
		}
		return &Source{Name: b.manifest.Name, Serial: b.manifest.Serial, Zone: b.manifest.Zone, files: b.files}, nil
	}
	files, err := unpack(archive)
	if err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	var m manifest
	if err := strictjson.Unmarshal(files[pathManifest], &m, strictjson.Limits{MaxNames: 4 * maxFiles}); err != nil {
		return nil, refuse(CodeMalformed, "", err)
	}
	delete(files, pathManifest)
	delete(files, pathSignature)
	if !slices.Equal(describe(files), m.Files) {
		return nil, refuse(CodeFiles, "", errors.New("the files are not those of the manifest"))
	}
	return &Source{Name: m.Name, Serial: m.Serial, Zone: m.Zone, files: files}, checkPaths(files)
}

// ManifestDigest is the version of a bundle: the digest of its manifest. It
// checks nothing.
func ManifestDigest(archive []byte) (string, error) {
	files, err := unpack(archive)
	if err != nil {
		return "", refuse(CodeMalformed, "", err)
	}
	return digest(files[pathManifest]), nil
}

// Engine loads the set as Load does, without cases and without a version.
func (s *Source) Engine() (*Engine, error) { return compile(s.files, s.Zone) }

// Build makes the signed bundle of a set that Check found nothing wrong with.
func (s *Source) Build(key crypto.Signer) ([]byte, error) {
	in := BundleInput{
		Name: s.Name, Serial: s.Serial, Zone: s.Zone, Key: key,
		Schema: string(s.files[pathSchema]), Entities: s.files[pathEntities],
		Policies: map[string]string{}, Tests: map[string][]byte{},
	}
	for p, text := range s.files {
		if name, ok := strings.CutPrefix(p, dirPolicies); ok {
			in.Policies[name] = string(text)
		} else if name, ok := strings.CutPrefix(p, dirTests); ok {
			in.Tests[name] = text
		}
	}
	return Build(in)
}

// opaque warns of arguments that policy cannot read: scope alone constrains
// them.
func (s *Source) opaque() (out []Finding) {
	for _, t := range s.tools {
		root, err := strictjson.Parse(t.InputSchema, strictjson.Limits{})
		if err != nil {
			continue // GenerateSchema said so
		}
		m := typeMapper{root: root}
		for _, at := range m.unread(root, "/args", 0) {
			out = append(out, Finding{
				File: pathTools, Line: lineOf(s.toolText, t.Name), Code: CodeOpaque, Warning: true,
				Message: fmt.Sprintf("tool %s/%s: no policy can read %s (a union, a free object, a tuple or a recursion)", t.Service, t.Name, at),
				Hint:    "constrain it in the delegated scope, or pin a schema that says more",
			})
		}
	}
	return out
}

// unread are the stated properties that have no Cedar type.
func (m *typeMapper) unread(s strictjson.Value, at string, depth int) (out []string) {
	props, _ := s.Get("properties")
	for _, p := range props.Members() {
		here := at + "/" + escapePointer(p.Name)
		if t, _ := m.typeOf(p.Value, depth+1); t == nil {
			out = append(out, here)
			continue
		}
		if depth < maxTypeDepth {
			out = append(out, m.unread(p.Value, here, depth+1)...)
		}
	}
	return out
}
