package evidence

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// policyCheck asks for each set of rules that a decision names: is it in the
// bundle, and is it the one?
func (v *verifier) policyCheck() check {
	named := map[string]bool{}
	return check{see: func(e *entry) {
		if e.signed && e.record.Kind == record.KindDecision {
			named[e.record.Decision.Policy.BundleDigest] = true
		}
	}, end: func() {
		there := map[string]bool{}
		for d := range v.folder(policiesDir) {
			there[d] = true
		}
		for _, d := range slices.Sorted(maps.Keys(named)) {
			if !there[d] {
				v.unproven(Policies, "the rules %s are not in the bundle", d)
			}
		}
		for d, m := range v.folder(policiesDir) {
			if err := checkRules(d, v.src.data(m)); err != nil {
				v.fail(Policies, "the rules %s: %v", d, err)
			}
		}
		if len(named) == 0 && len(there) == 0 {
			v.absent(Policies, "no decision names any")
			return
		}
		v.pass(Policies, "%d named, %d in the bundle", len(named), len(there))
	}}
}

// checkRules binds a policy bundle to its digest, the SHA-256 of its manifest:
// the bytes are that manifest, or a tar archive that holds it.
func checkRules(want string, b []byte) error {
	if digest(b) == want {
		return nil
	}
	files, err := untar(b)
	if err != nil {
		return errors.New("its hash is another one")
	}
	manifest, ok := files[rulesManifest]
	if !ok || digest(manifest) != want {
		return errors.New("the hash of its manifest is another one")
	}
	var m struct {
		Files []struct {
			Path   string `json:"path"`
			SHA256 string `json:"sha256"`
		} `json:"files"`
	}
	if err := strictjson.UnmarshalOpen(manifest, &m, strictjson.Limits{}); err != nil {
		return fmt.Errorf("its manifest: %w", err)
	}
	delete(files, rulesManifest)
	delete(files, rulesSignature)
	for _, f := range m.Files {
		data, ok := files[f.Path]
		if !ok || digest(data) != f.SHA256 {
			return fmt.Errorf("%s is not the file that its manifest names", f.Path)
		}
		delete(files, f.Path)
	}
	if len(files) > 0 {
		return errors.New("it holds files that its manifest does not name")
	}
	return nil
}

// The manifest of a policy bundle and its signature (scope-and-policy.md §4.3).
// The signature is for who loads the rules; here the digest decides.
const (
	rulesManifest  = "manifest.json"
	rulesSignature = "manifest.dsse.json"
)

// maxTar bounds what is read of an archive, in bytes and files.
const (
	maxTarBytes = 64 << 20
	maxTarFiles = 10_000
)

func untar(b []byte) (map[string][]byte, error) {
	if len(b) > maxTarBytes {
		return nil, errors.New("archive is too large")
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(r, maxTarBytes))
		if err != nil {
			return nil, err
		}
		if _, twice := files[h.Name]; twice || len(files) == maxTarFiles {
			return nil, errors.New("archive holds a file twice, or too many")
		}
		files[h.Name] = data
	}
}

// decided is what is kept of a decision.
type decided struct {
	index    int64
	call     recordID
	permit   bool
	answered bool // an outcome says what followed
}

// outcomeCheck pairs outcomes with their decisions.
func (v *verifier) outcomeCheck() check {
	decisions := map[recordID]decided{}
	early := map[recordID]bool{} // decisions whose outcome came, and they did not
	var earlier map[recordID]decided
	if v.before != nil {
		earlier = v.before.decisions
	}
	permits := 0
	return check{see: func(e *entry) {
		if !e.signed {
			return
		}
		switch e.record.Kind {
		case record.KindDecision:
			id := idOf(e.record.ID)
			d := decided{index: e.index, call: idOf(e.record.Decision.CallID), permit: e.record.Decision.Verdict.Effect == record.Permit}
			d.answered = decisions[id].answered || early[id]
			decisions[id] = d
			if d.permit {
				permits++
			}
		case record.KindOutcome:
			o := e.record.Outcome
			id := idOf(o.Of)
			d, here := decisions[id]
			known := here
			if !here {
				d, known = earlier[id]
			}
			v.pairOutcome(d, known, e)
			switch {
			case o.Status == record.StatusUnknown:
			case here:
				d.answered = true
				decisions[id] = d
			default:
				early[id] = true
			}
		default:
		}
	}, end: func() {
		paired := 0
		for _, d := range decisions {
			if d.permit && d.answered {
				paired++
			}
		}
		for id, d := range earlier {
			if _, here := decisions[id]; !here {
				decisions[id] = d
			}
		}
		v.decisions = decisions
		if permits == 0 {
			v.absent(Outcomes, "no permitted call")
			return
		}
		if n := permits - paired; n > 0 {
			v.unproven(Outcomes, "what followed %d permitted calls is not known", n)
		}
		v.pass(Outcomes, "%d of %d permitted calls", paired, permits)
	}}
}

func (v *verifier) pairOutcome(d decided, known bool, e *entry) {
	o := e.record.Outcome
	switch {
	case !known && (v.manifest.Mode == ModeRange && v.whole()):
		v.fail(Outcomes, "record %d is the outcome of a decision that does not stand before it", e.index)
	case !known:
		v.unproven(Outcomes, "the decision of outcome %d is not in the bundle", e.index)
	case d.call != idOf(o.CallID):
		v.fail(Outcomes, "record %d is the outcome of another call than decision %d", e.index, d.index)
	case o.Forwarded && !d.permit:
		v.fail(Outcomes, "record %d: a call was forwarded that decision %d refused", e.index, d.index)
	}
}

// disclosureCheck binds every disclosure to a digest that some record holds.
func (v *verifier) disclosureCheck() check {
	named := map[Hash]struct{}{}
	return check{see: func(e *entry) {
		if e.signed && e.record.Kind == record.KindDecision {
			for _, d := range e.record.Decision.SD {
				named[hashOf(d)] = struct{}{}
			}
		}
	}, end: func() {
		shown, there := 0, 0
		for d, m := range v.folder(disclosuresDir) {
			there++
			parsed, err := record.ParseDisclosure(string(v.src.data(m)))
			_, belongs := named[hashOf(d)]
			switch {
			case err != nil:
				v.fail(Disclosures, "%s: %v", d, err)
			case parsed.Digest() != d:
				v.fail(Disclosures, "%s holds another value than the one of that digest", d)
			case !belongs:
				v.fail(Disclosures, "%s belongs to no record", d)
			default:
				shown++
			}
		}
		if len(named) == 0 && there == 0 {
			v.absent(Disclosures, "no values")
			return
		}
		if n := len(named) - shown; n > 0 {
			v.unproven(Disclosures, "%d values erased or not disclosed", n)
		}
		v.pass(Disclosures, "%d of %d values", shown, len(named))
	}}
}

// exchangeCheck asks for what other organisations signed of calls between them.
// Under whose keys that is, [Reconcile] asks, which has the other side's.
func (v *verifier) exchangeCheck() check {
	n, missing := 0, 0
	caller := map[string]bool{} // decisions whose callee has not answered
	want := func(hash string) {
		if _, ok := v.find(exchangeDir + hash); !ok {
			missing++
		}
	}
	return check{see: func(e *entry) {
		if !e.signed {
			return
		}
		switch d, o := e.record.Decision, e.record.Outcome; {
		case d != nil && d.Exchange != nil && d.Exchange.Role == record.RoleCallee:
			n++
			want(d.Exchange.StatementHash)
		case d != nil && d.Exchange != nil && d.Verdict.Effect == record.Permit:
			n++
			caller[e.record.ID] = true
		case o != nil && caller[o.Of] && (o.Peer != nil || !o.Forwarded):
			delete(caller, o.Of)
			if o.Peer != nil {
				want(o.Peer.ExchangeReceiptHash)
			}
		}
	}, end: func() {
		missing += len(caller)
		switch {
		case n == 0:
			v.absent(Exchange, "no call crossed organisations")
		case missing > 0:
			v.unproven(Exchange, "%d exchange receipts missing", missing)
		default:
			v.pass(Exchange, "%d calls", n)
		}
	}}
}
