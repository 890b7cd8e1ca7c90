package evidence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// maxPolicy bounds a policy file, in bytes.
const maxPolicy = 1 << 20

// linealLine is the line after which the policy file is ours, and no longer the
// C2SP tlog-policy text.
const linealLine = "=== lineal"

// Issuer pins one signing key of a token issuer: the issuer's URL and the
// RFC 7638 thumbprint of the key. An issuer with several keys has several.
type Issuer struct {
	URL        string
	Thumbprint string
}

// Trust is what an auditor trusts, as plain values for [WritePolicy].
type Trust struct {
	Logs      []Key // the name of each is the log's origin
	Witnesses []Key // made by NewWitnessKey
	Quorum    int   // how many of them must have cosigned; 0 means all
	Manifests []Key
	Issuers   []Issuer
	Require   []Dimension
}

// WritePolicy writes the policy file that says so. What it writes,
// [ParsePolicy] reads; it fails on values that do not make a policy.
func WritePolicy(w io.Writer, t Trust) error {
	var b strings.Builder
	for _, k := range t.Logs {
		b.WriteString("log " + k.String() + "\n")
	}
	quorum := "none"
	if len(t.Witnesses) > 0 {
		quorum = "witnesses"
		var names []string
		for i, k := range t.Witnesses {
			name := "witness-" + strconv.Itoa(i+1)
			names = append(names, name)
			b.WriteString("witness " + name + " " + k.String() + "\n")
		}
		need := "all"
		if t.Quorum > 0 {
			need = strconv.Itoa(t.Quorum)
		}
		b.WriteString("group witnesses " + need + " " + strings.Join(names, " ") + "\n")
	}
	b.WriteString("quorum " + quorum + "\n" + linealLine + "\n")
	for _, k := range t.Manifests {
		b.WriteString("manifest " + k.String() + "\n")
	}
	for _, i := range t.Issuers {
		b.WriteString("issuer " + i.URL + " " + i.Thumbprint + "\n")
	}
	for _, d := range t.Require {
		b.WriteString("require " + string(d) + "\n")
	}
	if _, err := ParsePolicy([]byte(b.String())); err != nil {
		return fmt.Errorf("writing policy file: %w", err)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Policy is a parsed policy file: everything that a verification trusts. It is
// immutable; the zero value trusts nothing and fails every bundle.
type Policy struct {
	logs      []Key
	witnesses map[string]Key
	groups    map[string]group
	quorum    string
	manifests []Key
	issuers   []Issuer
	require   []Dimension
}

type group struct {
	need    int
	members []string
}

// PolicyError is a line of a policy file that cannot be read.
type PolicyError struct {
	Line int // from 1; 0 for the file as a whole
	Err  error
}

func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return "policy file: " + e.Err.Error()
	}
	return fmt.Sprintf("policy file, line %d: %v", e.Line, e.Err)
}

func (e *PolicyError) Unwrap() error { return e.Err }

// ParsePolicy reads a policy file: C2SP tlog-policy text (draft), the line
// `=== lineal`, then lines `manifest <vkey>`, `issuer <iss> <thumbprint>` and
// `require <dimension>` (ledger.md §10). An error is a [*PolicyError].
func ParsePolicy(text []byte) (Policy, error) {
	if len(text) > maxPolicy {
		return Policy{}, &PolicyError{Err: errors.New("too long")}
	}
	p := Policy{witnesses: map[string]Key{}, groups: map[string]group{}}
	ours := false
	for i, line := range strings.Split(string(text), "\n") {
		if err := checkPolicyBytes(line); err != nil {
			return Policy{}, &PolicyError{i + 1, err}
		}
		words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		var err error
		switch {
		case strings.Join(words, " ") == linealLine && !ours:
			ours = true
		case ours:
			err = p.ourLine(words)
		default:
			err = p.tlogLine(words)
		}
		if err != nil {
			return Policy{}, &PolicyError{i + 1, err}
		}
	}
	if err := p.complete(ours); err != nil {
		return Policy{}, &PolicyError{0, err}
	}
	return p, nil
}

func checkPolicyBytes(line string) error {
	for _, c := range []byte(line) {
		if (c < ' ' && c != '\t') || c == 0x7f {
			return errors.New("control character")
		}
	}
	return nil
}

func (p *Policy) complete(ours bool) error {
	switch {
	case len(p.logs) == 0:
		return errors.New("no log line: no log would be trusted")
	case p.quorum == "":
		return errors.New("no quorum line (`quorum none` asks for no witness)")
	case !ours:
		return fmt.Errorf("no line %q", linealLine)
	case len(p.manifests) == 0:
		return errors.New("no manifest line: no manifest and no writer key could be trusted")
	}
	return nil
}

func (p *Policy) tlogLine(words []string) error {
	args := words[1:]
	switch words[0] {
	case "log":
		return p.logLine(args)
	case "witness":
		return p.witnessLine(args)
	case "group":
		return p.groupLine(args)
	case "quorum":
		switch {
		case len(args) != 1:
			return errors.New("want: quorum <name>")
		case p.quorum != "":
			return errors.New("a second quorum line")
		case args[0] != "none" && !p.named(args[0]):
			return fmt.Errorf("%q is not defined above", args[0])
		}
		p.quorum = args[0]
		return nil
	}
	return fmt.Errorf("unknown word %q", words[0])
}

func (p *Policy) logLine(args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("want: log <vkey> [<url>]")
	}
	k, err := ParseKey(args[0])
	if err != nil {
		return err
	}
	if k.alg != algEd25519 {
		return errors.New("a log signs with plain Ed25519 here")
	}
	for _, other := range p.logs {
		if other.pub == k.pub {
			return errors.New("two log lines with one key")
		}
	}
	p.logs = append(p.logs, k)
	return nil
}

func (p *Policy) witnessLine(args []string) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("want: witness <name> <vkey> [<url>]")
	}
	if err := p.freeName(args[0]); err != nil {
		return err
	}
	k, err := ParseKey(args[1])
	if err != nil {
		return err
	}
	if k.alg != algCosignature {
		return errors.New("a witness signs with Ed25519 cosignatures")
	}
	for _, other := range p.witnesses {
		if other.pub == k.pub {
			return errors.New("two witness lines with one key")
		}
	}
	for _, log := range p.logs {
		if log.pub == k.pub {
			return errors.New("a log cannot be its own witness")
		}
	}
	p.witnesses[args[0]] = k
	return nil
}

func (p *Policy) groupLine(args []string) error {
	if len(args) < 3 {
		return errors.New("want: group <name> all|any|<k> and the members")
	}
	if err := p.freeName(args[0]); err != nil {
		return err
	}
	g := group{members: args[2:]}
	switch args[1] {
	case "all":
		g.need = len(g.members)
	case "any":
		g.need = 1
	default:
		k, err := parseDecimal(args[1])
		if err != nil || k < 1 || k > int64(len(g.members)) {
			return fmt.Errorf("threshold %q is not between 1 and %d", args[1], len(g.members))
		}
		g.need = int(k)
	}
	for _, m := range g.members {
		if !p.named(m) {
			return fmt.Errorf("%q is not defined above", m)
		}
		// Each name once over all groups, so that no witness counts twice.
		for _, other := range p.groups {
			if slices.Contains(other.members, m) {
				return fmt.Errorf("%q is a member already", m)
			}
		}
	}
	if hasDuplicate(g.members) {
		return errors.New("a member is named twice")
	}
	p.groups[args[0]] = g
	return nil
}

func hasDuplicate(names []string) bool {
	s := slices.Sorted(slices.Values(names))
	return len(slices.Compact(s)) != len(names)
}

func (p *Policy) named(name string) bool {
	_, w := p.witnesses[name]
	_, g := p.groups[name]
	return w || g
}

func (p *Policy) freeName(name string) error {
	if name == "none" || p.named(name) {
		return fmt.Errorf("name %q is taken", name)
	}
	return nil
}

func (p *Policy) ourLine(words []string) error {
	args := words[1:]
	switch words[0] {
	case "manifest":
		if len(args) != 1 {
			return errors.New("want: manifest <vkey>")
		}
		k, err := ParseKey(args[0])
		if err != nil {
			return err
		}
		if k.alg != algEd25519 {
			return errors.New("a manifest key signs with plain Ed25519")
		}
		p.manifests = append(p.manifests, k)
		return nil
	case "issuer":
		if len(args) != 2 {
			return errors.New("want: issuer <iss> <jwk thumbprint>")
		}
		if !isDigest(args[1]) {
			return errors.New("thumbprint is not an unpadded base64url SHA-256")
		}
		p.issuers = append(p.issuers, Issuer{args[0], args[1]})
		return nil
	case "require":
		if len(args) != 1 || !slices.Contains(Dimensions(), Dimension(args[0])) {
			return fmt.Errorf("want: require <dimension>, one of %v", Dimensions())
		}
		p.require = append(p.require, Dimension(args[0]))
		return nil
	}
	return fmt.Errorf("unknown word %q", words[0])
}

// log finds the key of an origin.
func (p Policy) log(origin string) []Key {
	var keys []Key
	for _, k := range p.logs {
		if k.name == origin {
			keys = append(keys, k)
		}
	}
	return keys
}

// satisfied reports whether the cosigners, by policy name, meet the quorum.
func (p Policy) satisfied(name string, cosigned map[string]bool) bool {
	g, ok := p.groups[name]
	if !ok {
		return cosigned[name]
	}
	n := 0
	for _, m := range g.members {
		if p.satisfied(m, cosigned) {
			n++
		}
	}
	return n >= g.need
}

// isDigest reports whether s is an unpadded base64url SHA-256, spelled the one
// canonical way.
func isDigest(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == len(Hash{}) && base64.RawURLEncoding.EncodeToString(b) == s
}
