package cedar

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/lineal-auth/lineal/identity"
	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// Case is one test of a policy set: a call, and what is to come of it. It
// stands in a txtar file as two files, `x.call.json` and `x.want`:
//
//	-- small.call.json --
//	{"person": "https://id.example#ada", "groups": ["finance"],
//	 "chain":  ["spiffe://acme/orchestrator", "spiffe://acme/research"],
//	 "call":   {"action": "mcp:tools/call", "service": "pay", "name": "transfer",
//	            "document": {"args": {"amount": 499, "currency": "EUR"}}},
//	 "time":   "2026-11-23T10:30:00+01:00"}
//	-- small.want --
//	allow small-payments
//	listed
//
// `chain` are the agents, entry first; the last is the caller. `groups`, if it
// is there, is all that the person is in for this case, instead of what
// entities.json says. `grants`, if it is there, is what each hop was granted:
// one authorization_details array per hop; without it every hop holds exactly
// this call. `document` is the call document (scope-and-policy.md §2.7).
// `location`, `auth_age` (seconds), `address`, `args_open` and `time` may be
// left out.
//
// The wanted lines are `allow` or `deny` with the determining policies, all of
// them; `deny` alone where no policy permits; `deny error` where something could
// not be evaluated; and `listed` or `hidden`.
type Case struct {
	// Name is what stands before .call.json; File and Line say where.
	Name string
	File string
	Line int

	person   identity.Person
	groups   []string // nil: those of the entities
	hasGroup bool
	agents   []identity.Agent
	grants   []scope.Grant
	granted  bool // the grants are the author's
	call     policy.Input
	authAge  time.Duration
	atoms    map[string]string // of a record, see Recorded
	wants    []string
}

// caseJSON is x.call.json.
type caseJSON struct {
	Person string             `json:"person"`
	Groups *[]string          `json:"groups"`
	Chain  []string           `json:"chain"`
	Grants []strictjson.Value `json:"grants"`
	Call   callJSON           `json:"call"`
	Time   string             `json:"time"`
	Age    *int64             `json:"auth_age"`
	From   string             `json:"address"`
	Open   bool               `json:"args_open"`
}

type callJSON struct {
	Location string           `json:"location"`
	Action   string           `json:"action"`
	Service  string           `json:"service"`
	Name     string           `json:"name"`
	Document strictjson.Value `json:"document"`
}

// The defaults of a case: a Monday noon, a login ten minutes before.
var caseTime = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

const (
	caseAge = 10 * time.Minute

	suffixCall = ".call.json"
	suffixWant = ".want"
)

// ParseCases reads the cases of one txtar file. The findings say what is wrong
// with the file; with one of them, the cases are not all there.
func ParseCases(file string, text []byte) ([]Case, []Finding) {
	var findings []Finding
	fail := func(line int, hint, format string, args ...any) {
		findings = append(findings, Finding{
			File: file, Line: line, Code: CodeCase, Message: fmt.Sprintf(format, args...), Hint: hint,
		})
	}
	sections := splitArchive(string(text))
	wants := map[string]section{}
	seen := map[string]bool{}
	for _, s := range sections {
		name, isWant := strings.CutSuffix(s.name, suffixWant)
		switch {
		case seen[s.name]:
			fail(s.line, "give each case a name of its own", "%s is there twice", s.name)
		case isWant:
			wants[name] = s
		case !strings.HasSuffix(s.name, suffixCall):
			fail(s.line, "a case is NAME.call.json and NAME.want", "%s is no part of a case", s.name)
		}
		seen[s.name] = true
	}
	var cases []Case
	for _, s := range sections {
		name, isCall := strings.CutSuffix(s.name, suffixCall)
		if !isCall {
			continue
		}
		want, ok := wants[name]
		if !ok {
			fail(s.line, "add -- "+name+suffixWant+" -- with a line such as: allow POLICY-ID", "%s has no %s%s", s.name, name, suffixWant)
			continue
		}
		delete(wants, name)
		c := Case{Name: name, File: file, Line: s.line}
		if err := c.readCall(s.text); err != nil {
			fail(s.line+errorLine(s.text, err), "", "%s: %v", s.name, err)
			continue
		}
		if err := c.readWant(want.text); err != nil {
			fail(want.line, "write: allow ID…, deny ID…, deny, deny error, listed or hidden", "%s%s: %v", name, suffixWant, err)
			continue
		}
		cases = append(cases, c)
	}
	for _, name := range slices.Sorted(maps.Keys(wants)) {
		fail(wants[name].line, "add -- "+name+suffixCall+" --", "%s%s has no call", name, suffixWant)
	}
	if len(sections) == 0 {
		fail(1, "a case is NAME.call.json and NAME.want", "no case")
	}
	return cases, findings
}

// section is one file of a txtar archive; line is that of its marker.
type section struct {
	name, text string
	line       int
}

// splitArchive splits txtar: "-- name --" lines begin a file, what stands
// before the first is a comment.
func splitArchive(text string) []section {
	var out []section
	var body strings.Builder
	flush := func() {
		if len(out) > 0 {
			out[len(out)-1].text = body.String()
		}
		body.Reset()
	}
	for i, line := range strings.SplitAfter(text, "\n") {
		trimmed := strings.TrimRight(line, "\r\n")
		name, ok := strings.CutPrefix(trimmed, "-- ")
		if name, ok2 := strings.CutSuffix(name, " --"); ok && ok2 && strings.TrimSpace(name) != "" {
			flush()
			out = append(out, section{name: strings.TrimSpace(name), line: i + 1})
			continue
		}
		body.WriteString(line)
	}
	flush()
	return out
}

// errorLine is the line within text that a JSON error points at, 0 if none.
func errorLine(text string, err error) int {
	var bad *strictjson.Error
	if !errors.As(err, &bad) || bad.Offset < 0 || bad.Offset > len(text) {
		return 0
	}
	return strings.Count(text[:bad.Offset], "\n") + 1
}

func (c *Case) readCall(text string) error {
	var in caseJSON
	if err := strictjson.Unmarshal([]byte(text), &in, strictjson.Limits{}); err != nil {
		return err
	}
	issuer, ref, ok := cutLast(in.Person, '#')
	if !ok {
		return errors.New(`person is "<issuer>#<reference>", as in entities.json`)
	}
	var err error
	if c.person, err = identity.ParsePerson(issuer, ref); err != nil {
		return err
	}
	if in.Groups != nil {
		c.groups, c.hasGroup = *in.Groups, true
	}
	for _, text := range in.Chain {
		a, err := identity.ParseAgent(text)
		if err != nil {
			return fmt.Errorf("chain: %w", err)
		}
		c.agents = append(c.agents, a)
	}
	if len(c.agents) == 0 {
		return errors.New("chain names no agent")
	}
	if err := c.readQuestion(in); err != nil {
		return err
	}
	return c.readGrants(in)
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// readQuestion reads everything but chain and grants.
func (c *Case) readQuestion(in caseJSON) (err error) {
	doc := scope.NewDocument()
	if v := in.Call.Document; !v.IsZero() {
		if v.Kind() != strictjson.KindObject {
			return errors.New("document is not an object")
		}
		for _, root := range v.Members() {
			doc.Set("/"+escapePointer(root.Name), root.Value)
		}
		if err := doc.Err(); err != nil {
			return fmt.Errorf("document: %w", err)
		}
	}
	c.call = policy.Input{
		Caller:   c.agents[len(c.agents)-1],
		Resource: policy.Resource{Kind: policy.KindOf(in.Call.Action), Service: in.Call.Service, Name: in.Call.Name},
		Call:     scope.Call{Location: in.Call.Location, Action: in.Call.Action, Name: in.Call.Name, Doc: doc},
		Now:      caseTime, ArgsOpen: in.Open,
	}
	switch {
	case in.Call.Action == "" || in.Call.Service == "":
		return errors.New("call needs action and service")
	case in.Call.Location == "":
		c.call.Call.Location = defaultLocation(in.Call.Service)
	}
	if in.Time != "" {
		if c.call.Now, err = time.Parse(time.RFC3339, in.Time); err != nil {
			return errors.New("time is not RFC 3339, such as 2026-11-23T10:30:00+01:00")
		}
	}
	c.authAge = caseAge
	if in.Age != nil {
		if *in.Age < 0 || *in.Age > 1<<31 {
			return errors.New("auth_age is not a number of seconds")
		}
		c.authAge = time.Duration(*in.Age) * time.Second
	}
	if in.From != "" {
		if c.call.Address, err = netip.ParseAddr(in.From); err != nil {
			return errors.New("address is not an IP address")
		}
	}
	return nil
}

var hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// defaultLocation is the resource identifier of a service in cases that name
// none. No policy reads it.
func defaultLocation(service string) string {
	if hostLabel.MatchString(service) {
		return "https://" + service + ".example"
	}
	return "https://service.example/" + hex.EncodeToString([]byte(service))
}

func escapePointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

// readGrants builds the verified chain.
func (c *Case) readGrants(in caseJSON) (err error) {
	switch {
	case in.Grants == nil:
		if c.grants, err = grantsOf(c.call.Call, len(c.agents)); err != nil {
			return err
		}
	case len(in.Grants) != len(c.agents):
		return fmt.Errorf("%d grants for a chain of %d agents", len(in.Grants), len(c.agents))
	default:
		c.granted = true
		for k, v := range in.Grants {
			g, err := scope.ParseValue(v, k == 0)
			if err != nil {
				return fmt.Errorf("grant %d: %w", k, err)
			}
			c.grants = append(c.grants, g)
		}
		leaf := c.grants[len(c.grants)-1]
		if v := leaf.Permits(c.call.Call); v.Permitted() && leaf.Details()[v.Detail].Args() == scope.ArgsOpen {
			c.call.ArgsOpen = true
		}
	}
	c.call.Chain, err = c.chain()
	if err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	return nil
}

func (c *Case) readWant(text string) error {
	decided, shown := 0, 0
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		ids := slices.Clone(words[1:])
		slices.Sort(ids)
		switch {
		case words[0] == wantAllow && len(ids) > 0, words[0] == wantDeny:
			decided++
		case (words[0] == wantListed || words[0] == wantHidden) && len(ids) == 0:
			shown++
		default:
			return fmt.Errorf("%q is no outcome", strings.TrimSpace(line))
		}
		c.wants = append(c.wants, strings.Join(append(words[:1], ids...), " "))
	}
	if decided > 1 || shown > 1 || decided+shown == 0 {
		return errors.New("one decision, or one of listed and hidden, or both")
	}
	return nil
}

// The words of a wanted line.
const (
	wantAllow  = "allow"
	wantDeny   = "deny"
	wantListed = "listed"
	wantHidden = "hidden"
	wantError  = "error"
)

// Input is the question of the case, as a Decider gets it. Groups that the case
// gives the person are not in it: a Decider knows groups by itself.
func (c Case) Input() policy.Input { return c.call }

// Wants are the lines that are to hold.
func (c Case) Wants() []string { return slices.Clone(c.wants) }

// Outcome is what came of a case.
type Outcome struct {
	Case     Case
	Decision policy.Decision
	Listed   bool
	// Failures are the wanted lines that do not hold, each with what does.
	Failures []Failure
}

// Failure is a wanted line and what holds instead.
type Failure struct{ Want, Got string }

// OK reports whether every wanted line holds.
func (o Outcome) OK() bool { return len(o.Failures) == 0 }

// Run asks the engine about a case.
func (e *Engine) Run(ctx context.Context, c Case) Outcome {
	o := Outcome{Case: c}
	asked, err := e.with(c)
	if err != nil {
		o.Decision = policy.Decision{Version: e.version, Errors: []string{"request: " + err.Error()}}
	} else {
		o.Decision, o.Listed = asked.Decide(ctx, c.call), asked.Listed(ctx, c.call)
	}
	for _, want := range c.wants {
		got := DecisionLine(o.Decision)
		word, _, _ := strings.Cut(want, " ")
		switch {
		case word == wantListed || word == wantHidden:
			if got = wantHidden; o.Listed {
				got = wantListed
			}
		case want == wantDeny+" "+wantError && len(o.Decision.Errors) > 0:
			got = want
		}
		if got != want {
			o.Failures = append(o.Failures, Failure{Want: want, Got: got})
		}
	}
	return o
}

// DecisionLine is a decision in the words of a wanted line; an error is told.
func DecisionLine(d policy.Decision) string {
	if len(d.Errors) > 0 {
		return wantDeny + " " + wantError + ": " + strings.Join(d.Errors, "; ")
	}
	word := wantDeny
	if d.Effect == policy.Permit {
		word = wantAllow
	}
	return strings.Join(append([]string{word}, d.Rules...), " ")
}

// with is the engine as it stands for a case: the person in the case's groups.
func (e *Engine) with(c Case) (*Engine, error) {
	if !c.hasGroup {
		return e, nil
	}
	var parents []types.EntityUID
	for _, name := range c.groups {
		uid := types.NewEntityUID(typeGroup, types.String(name))
		if !e.asker.knowsGroup(uid) {
			return nil, fmt.Errorf("%s is not declared", uid)
		}
		parents = append(parents, uid)
	}
	other := *e
	other.asker.base = maps.Clone(e.asker.base)
	person := types.NewEntityUID(typePerson, types.String(c.person.String()))
	other.asker.base[person] = types.Entity{UID: person, Parents: types.NewEntityUIDSet(parents...)}
	return &other, nil
}

func (k *asker) knowsGroup(group types.EntityUID) bool {
	if _, ok := k.base[group]; ok {
		return true
	}
	for _, e := range k.base {
		if e.Parents.Contains(group) {
			return true
		}
	}
	return false
}
