package record

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/policy"
	"github.com/lineal-auth/lineal/scope"
)

// The names of disclosures that are no argument. All others are JSON Pointers
// into the call document, "/args/table".
const (
	// NameCall is of the disclosure [salt, "call_commit", call digest].
	NameCall = "call_commit"
	// NameAddress is of the address that the call came from, where one is known.
	NameAddress = "/env/unverified/address"
)

// maxValues is how many values of a call are disclosed each by itself; beyond,
// each root of the call document is one.
const maxValues = 64

// CommitInput makes the disclosures of what a policy engine was given of a
// call, and the input digest that they belong to. reads are the JSON Pointers
// of the values that the engine was given, nil for the whole call document
// ([policy.Decision.Reads]); salt gives a fresh salt, see [SaltText].
//
// The digest is of the question's documented form with the clock in UTC, in
// which each disclosed value is its commitment, and what was not given is not
// there: it can be made again from the record and its disclosures, and it can be
// guessed from nothing. The error is that of an input that is no question.
func CommitInput(in policy.Input, reads []string, salt func() string) (digest string, ds []Disclosure, err error) {
	values := valuesOf(in.Call.Doc.Value(), reads)
	if a := in.Address.Unmap().WithZone(""); a.IsValid() {
		values = append(values, strictjson.Member{Name: NameAddress, Value: strictjson.String(a.String())})
	}
	for _, v := range values {
		d, err := NewDisclosure(salt(), v.Name, v.Value)
		if err != nil {
			return "", nil, fmt.Errorf("committing to %.200s: %w", v.Name, err)
		}
		ds = append(ds, d)
	}
	if digest, err = InputDigestOf(in, ds); err != nil {
		return "", nil, err
	}
	return digest, ds, nil
}

// InputDigestOf is the input digest of a question whose call is told by
// disclosures alone: of in, the content of the call and the address are not
// read. [CommitInput] made it of the call itself; equal digests mean that this
// is the question that was asked, as far as the engine was given it.
func InputDigestOf(in policy.Input, ds []Disclosure) (string, error) {
	in.Call.Doc = scope.NewDocument()
	var address *Disclosure
	for i, d := range ds {
		switch d.Name() {
		case NameCall:
		case NameAddress:
			address = &ds[i]
		default:
			in.Call.Doc.Set(d.Name(), d.Commitment())
		}
	}
	doc, err := in.Document(nil)
	if err != nil {
		return "", fmt.Errorf("digesting policy input: %w", err)
	}
	env, _ := doc.Context.Get("env")
	unverified := strictjson.Object()
	if address != nil {
		unverified = unverified.With("address", address.Commitment())
	}
	doc.Context = doc.Context.With("env", env.With("unverified", unverified))
	return InputDigest(doc.Value())
}

// DocumentOf is the call document as far as disclosures tell it.
func DocumentOf(ds []Disclosure) (scope.Document, error) {
	doc := scope.NewDocument()
	for _, d := range ds {
		if d.Name() == NameCall || d.Name() == NameAddress {
			continue
		}
		doc.Set(d.Name(), d.Value())
	}
	if err := doc.Err(); err != nil {
		return scope.Document{}, fmt.Errorf("reading disclosures: %w", err)
	}
	return doc, nil
}

// CommitCall makes the commitment to a call digest, and the disclosure that
// holds its salt. The digest is the text that the upstream got; salt is 32
// random bytes.
func CommitCall(digest string, salt [32]byte) (commit string, d Disclosure, err error) {
	d, err = NewDisclosure(SaltText(salt), NameCall, strictjson.String(digest))
	return Commit(salt, []byte(digest)), d, err
}

// CheckCall reports whether d discloses what commit commits to, and the call
// digest that it is.
func CheckCall(commit string, d Disclosure) (digest string, err error) {
	salt, err := decode64(d.Salt(), 32)
	digest, ok := d.Value().Text()
	if err != nil || !ok || d.Name() != NameCall || Commit([32]byte(salt), []byte(digest)) != commit {
		return "", errors.New("checking call digest: the disclosure is of another call")
	}
	return digest, nil
}

// valuesOf are the values that an engine was given, each with its pointer, in
// the order of the document. An object that is there and of which nothing was
// given stands as an empty one: that it is there can be read too.
func valuesOf(doc strictjson.Value, reads []string) []strictjson.Member {
	w := walker{all: reads == nil, read: make(map[string]bool, len(reads)), above: map[string]bool{}}
	for _, p := range reads {
		w.read[p] = true
		for i := strings.LastIndexByte(p, '/'); i >= 0; i = strings.LastIndexByte(p[:i], '/') {
			w.above[p[:i]] = true
		}
	}
	for _, root := range doc.Members() {
		w.walk("/"+root.Name, root.Value, 1)
	}
	if len(w.out) <= maxValues {
		return w.out
	}
	whole := scope.NewDocument()
	for _, v := range w.out {
		whole.Set(v.Name, v.Value)
	}
	out := whole.Value().Members()
	for i := range out {
		out[i].Name = "/" + out[i].Name
	}
	return out
}

// walker collects the values that were read.
type walker struct {
	all         bool // each member of a root
	read, above map[string]bool
	out         []strictjson.Member
}

func (w *walker) walk(at string, v strictjson.Value, depth int) {
	switch {
	case w.read[at], w.all && (depth == 2 || v.Kind() != strictjson.KindObject || v.Len() == 0):
		w.out = append(w.out, strictjson.Member{Name: at, Value: v})
		return
	case !w.all && !w.above[at]:
		return
	case v.Kind() != strictjson.KindObject: // not what the engine takes; the question was refused
		w.out = append(w.out, strictjson.Member{Name: at, Value: v})
		return
	}
	before := len(w.out)
	for _, m := range v.Members() {
		w.walk(at+"/"+escapePointer(m.Name), m.Value, depth+1)
	}
	if len(w.out) == before {
		w.out = append(w.out, strictjson.Member{Name: at, Value: strictjson.Object()})
	}
}

func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
