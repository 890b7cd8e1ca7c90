package cedar

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a bundle's zone must not depend on the host having it

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

// Code says why a bundle was refused. The values are stable.
type Code string

// The refusals of Load and Build.
const (
	CodeMalformed     Code = "bundle_malformed"
	CodeSignature     Code = "bundle_signature"
	CodeFiles         Code = "bundle_files" // a file too many, too few, or changed
	CodeSerial        Code = "bundle_serial"
	CodeSchema        Code = "policy_schema"
	CodeEntities      Code = "policy_entities"
	CodeEmpty         Code = "policy_empty"
	CodeParse         Code = "policy_parse"
	CodeID            Code = "policy_id"
	CodeType          Code = "policy_type"
	CodeUnknownEntity Code = "policy_unknown_entity"
	CodeNever         Code = "policy_never"
	CodeUnconstrained Code = "policy_unconstrained"
	CodeUnverified    Code = "policy_unverified"
	CodeCrowded       Code = "policy_crowded"
)

// LoadError is a refused bundle.
type LoadError struct {
	Code   Code
	Policy string // id of the policy concerned, if there is one
	Err    error
}

func (e *LoadError) Error() string {
	if e.Policy != "" {
		return fmt.Sprintf("loading policy: %s: policy %s: %v", e.Code, e.Policy, e.Err)
	}
	return fmt.Sprintf("loading policy: %s: %v", e.Code, e.Err)
}

func (e *LoadError) Unwrap() error { return e.Err }

func refuse(code Code, id types.PolicyID, err error) error {
	return &LoadError{Code: code, Policy: string(id), Err: err}
}

// Paths within a bundle.
const (
	pathManifest  = "manifest.json"
	pathSignature = "manifest.dsse.json"
	pathSchema    = "schema.cedarschema"
	pathEntities  = "entities.json"
	dirPolicies   = "policies/"
	dirTests      = "tests/"
)

// compile makes an engine of a bundle's files, or says which of them is not
// sound. The engine has no version yet.
func compile(files map[string][]byte, zone string) (e *Engine, err error) {
	defer func() {
		if p := recover(); p != nil { // the validator is young; the last good set must survive it
			e, err = nil, refuse(CodeMalformed, "", fmt.Errorf("checking failed: %v", p))
		}
	}()
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, refuse(CodeMalformed, "", fmt.Errorf("zone %q is not known", zone))
	}
	schema, err := compileSchema(files[pathSchema])
	if err != nil {
		return nil, refuse(CodeSchema, "", err)
	}
	validator := validate.New(schema)
	entities, err := parseEntities(files[pathEntities], validator)
	if err != nil {
		return nil, refuse(CodeEntities, "", err)
	}
	rules, err := parseRules(files)
	if err != nil {
		return nil, err
	}
	check := newChecker(schema, entities)
	for _, r := range rules {
		if err := check.check(r); err != nil {
			return nil, err
		}
	}
	return assemble(rules, check, loc, validator)
}

func compileSchema(text []byte) (*resolved.Schema, error) {
	fixed, err := parseSchema([]byte(fixedSchema))
	if err != nil {
		return nil, err
	}
	s, err := parseSchema(text)
	if err != nil {
		return nil, err
	}
	return s, checkSchema(s, fixed)
}

// assemble builds what Decide and Listed read.
func assemble(rules []*rule, check *checker, zone *time.Location, v *validate.Validator) (*Engine, error) {
	e := &Engine{rules: map[types.PolicyID]*rule{}}
	base := actionEntities(check.schema)
	maps.Copy(base, check.entities)
	e.asker = asker{actions: map[string]*plan{}, tools: map[string]*plan{}, base: base, validator: v, zone: zone}
	chain := slices.Clone(chainFacts)
	if !slices.ContainsFunc(rules, func(r *rule) bool { return reads(r.ast(), isNarrowed) }) {
		chain[slices.IndexFunc(chain, func(f fact) bool { return f.name == narrowedFact.name })] = unreadNarrowed
	}
	for uid, a := range check.schema.Actions {
		if a.AppliesTo == nil {
			continue
		}
		p, err := newPlan(uid, a, chain)
		if err != nil {
			return nil, refuse(CodeSchema, "", fmt.Errorf("action %s: %w", uid, err))
		}
		if tool, ok := strings.CutPrefix(string(uid.ID), actionToolCall+"#"); ok {
			e.asker.tools[tool] = p
		} else {
			e.asker.actions[string(uid.ID)] = p
		}
	}
	entries := make([]entry, len(rules))
	for i, r := range rules {
		entries[i] = entry{r.id, r.policy}
		e.rules[r.id] = r
	}
	e.full = newIndex(entries, check.schema)
	warning, err := e.full.checkAny()
	if err != nil {
		return nil, refuse(CodeCrowded, "", err)
	}
	if warning != "" {
		e.warnings = append(e.warnings, warning)
	}
	set, derived := listSet(rules, check)
	e.list, e.derived = newIndex(set, check.schema), derived
	return e, nil
}

// parseRules reads all policies in the order of their files.
func parseRules(files map[string][]byte) ([]*rule, error) {
	var rules []*rule
	seen := map[types.PolicyID]string{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(path, dirPolicies) {
			continue
		}
		inFile, err := parseFile(path, files[path])
		if err != nil {
			return nil, err
		}
		for _, r := range inFile {
			if other, dup := seen[r.id]; dup {
				return nil, refuse(CodeID, r.id, fmt.Errorf("in %s, and in %s", path, other))
			}
			seen[r.id] = path
		}
		rules = append(rules, inFile...)
	}
	if len(rules) == 0 { // threat A1
		return nil, refuse(CodeEmpty, "", errors.New("no policy: nothing would ever be permitted"))
	}
	return rules, nil
}

func parseFile(path string, text []byte) ([]*rule, error) {
	list, err := cedar.NewPolicyListFromBytes(path, text)
	if err != nil {
		return nil, refuse(CodeParse, "", fmt.Errorf("%s: %w", path, err))
	}
	rules := make([]*rule, len(list))
	for i, p := range list {
		id := types.PolicyID(p.Annotations()["id"])
		if !validID.MatchString(string(id)) {
			return nil, refuse(CodeID, id, fmt.Errorf("%s:%d: a policy needs an @id of letters, digits and ._/-", path, p.Position().Line))
		}
		end := len(text)
		if i+1 < len(list) {
			end = list[i+1].Position().Offset
		}
		rules[i] = &rule{id: id, policy: p, file: path, text: trimAfter(string(text[p.Position().Offset:end]))}
	}
	return rules, nil
}

// trimAfter drops the blank lines and comments behind a policy, which belong to
// the next one.
func trimAfter(text string) string {
	lines := strings.Split(text, "\n")
	for len(lines) > 0 {
		last := strings.TrimSpace(lines[len(lines)-1])
		if last != "" && !strings.HasPrefix(last, "//") {
			break
		}
		lines = lines[:len(lines)-1]
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// parseEntities reads the operator's services and groups.
func parseEntities(text []byte, v *validate.Validator) (types.EntityMap, error) {
	doc, err := strictjson.Parse(text, strictjson.Limits{MaxBytes: maxBundle, MaxNames: 1 << 20, MaxValues: 1 << 22})
	if err != nil {
		return nil, err
	}
	if doc.Kind() != strictjson.KindArray {
		return nil, errors.New("not an array of entities")
	}
	for _, e := range doc.Items() {
		if err := strictjson.Known(e, "uid", "parents", "attrs"); err != nil {
			return nil, err
		}
	}
	var m types.EntityMap
	if err := m.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	for uid, e := range m {
		if err := checkEntity(e, m, v); err != nil {
			return nil, fmt.Errorf("%s: %w", uid, err)
		}
	}
	return m, nil
}

// checkEntity refuses an entity that contradicts what the engine itself would
// say about it.
func checkEntity(e types.Entity, all types.EntityMap, v *validate.Validator) error {
	if e.UID.Type == typeAction {
		return errors.New("actions come from the schema")
	}
	if err := v.Entity(e); err != nil {
		return err
	}
	if e.UID.Type == typeAgent {
		a, err := identity.ParseAgent(string(e.UID.ID))
		if err != nil {
			return err
		}
		if td, _ := e.Attributes.Get("trust_domain"); td != types.String(a.TrustDomain()) {
			return fmt.Errorf("trust_domain is not %q, that of its URI", a.TrustDomain())
		}
	}
	service, ok := e.Attributes.Get("service")
	if !ok {
		return nil
	}
	uid, _ := service.(types.EntityUID)
	if _, declared := all[uid]; !declared {
		return fmt.Errorf("%s is not declared", uid)
	}
	if !e.Parents.Equal(types.NewEntityUIDSet(uid)) {
		return fmt.Errorf("its one parent must be its service, %s", uid)
	}
	return nil
}
