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

// checkPolicies asks for each set of rules that a decision names: is it in the
// bundle, and is it the one?
func (v *verifier) checkPolicies() {
	named := map[string]bool{}
	for _, e := range v.records {
		if e.signed && e.record.Kind == record.KindDecision {
			named[e.record.Decision.Policy.BundleDigest] = true
		}
	}
	for _, d := range slices.Sorted(maps.Keys(named)) {
		if _, ok := v.rules[d]; !ok {
			v.unproven(Policies, "the rules %s are not in the bundle", d)
		}
	}
	for _, d := range slices.Sorted(maps.Keys(v.rules)) {
		if err := checkRules(d, v.rules[d]); err != nil {
			v.fail(Policies, "the rules %s: %v", d, err)
		}
	}
	if len(named) == 0 && len(v.rules) == 0 {
		v.absent(Policies, "no decision names any")
		return
	}
	v.pass(Policies, "%d named, %d in the bundle", len(named), len(v.rules))
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

// checkOutcomes pairs outcomes with their decisions.
func (v *verifier) checkOutcomes() {
	decisions, outcomes := map[string]*entry{}, map[string]bool{}
	permits, paired := 0, 0
	earlier := map[string]*entry{}
	if v.before != nil {
		earlier = v.before.decisions
	}
	for _, e := range v.records {
		if !e.signed {
			continue
		}
		switch e.record.Kind {
		case record.KindDecision:
			decisions[e.record.ID] = e
			if e.record.Decision.Verdict.Effect == record.Permit {
				permits++
			}
		case record.KindOutcome:
			v.pairOutcome(decisions, earlier, e)
			if o := e.record.Outcome; o.Status != record.StatusUnknown {
				outcomes[o.Of] = true
			}
		default:
		}
	}
	for id, e := range decisions {
		if e.record.Decision.Verdict.Effect == record.Permit && outcomes[id] {
			paired++
		}
	}
	v.decisions = maps.Clone(earlier)
	maps.Copy(v.decisions, decisions)
	if permits == 0 {
		v.absent(Outcomes, "no permitted call")
		return
	}
	if n := permits - paired; n > 0 {
		v.unproven(Outcomes, "what followed %d permitted calls is not known", n)
	}
	v.pass(Outcomes, "%d of %d permitted calls", paired, permits)
}

func (v *verifier) pairOutcome(decisions, earlier map[string]*entry, e *entry) {
	o := e.record.Outcome
	d, ok := decisions[o.Of]
	if !ok {
		d, ok = earlier[o.Of]
	}
	switch {
	case !ok && (v.manifest.Mode == ModeRange && v.whole()):
		v.fail(Outcomes, "record %d is the outcome of a decision that does not stand before it", e.index)
	case !ok:
		v.unproven(Outcomes, "the decision of outcome %d is not in the bundle", e.index)
	case d.record.Decision.CallID != o.CallID:
		v.fail(Outcomes, "record %d is the outcome of another call than decision %d", e.index, d.index)
	case o.Forwarded && d.record.Decision.Verdict.Effect != record.Permit:
		v.fail(Outcomes, "record %d: a call was forwarded that decision %d refused", e.index, d.index)
	}
}

// checkDisclosures binds every disclosure to a digest that some record holds.
func (v *verifier) checkDisclosures() {
	named := map[string]bool{}
	for _, e := range v.records {
		if e.signed && e.record.Kind == record.KindDecision {
			for _, d := range e.record.Decision.SD {
				named[d] = true
			}
		}
	}
	shown := 0
	for _, d := range slices.Sorted(maps.Keys(v.values)) {
		parsed, err := record.ParseDisclosure(string(v.values[d]))
		switch {
		case err != nil:
			v.fail(Disclosures, "%s: %v", d, err)
		case parsed.Digest() != d:
			v.fail(Disclosures, "%s holds another value than the one of that digest", d)
		case !named[d]:
			v.fail(Disclosures, "%s belongs to no record", d)
		default:
			shown++
		}
	}
	if len(named) == 0 && len(v.values) == 0 {
		v.absent(Disclosures, "no values")
		return
	}
	if n := len(named) - shown; n > 0 {
		v.unproven(Disclosures, "%d values erased or not disclosed", n)
	}
	v.pass(Disclosures, "%d of %d values", shown, len(named))
}

// checkExchange asks for what other organisations signed of calls between them.
// Under whose keys that is, [Reconcile] asks, which has the other side's.
func (v *verifier) checkExchange() {
	n, missing := 0, 0
	caller := map[string]bool{} // decisions whose callee has not answered
	want := func(hash string) {
		if hash == "" || v.exchanges[hash] == nil {
			missing++
		}
	}
	for _, e := range v.records {
		if !e.signed {
			continue
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
	}
	missing += len(caller)
	switch {
	case n == 0:
		v.absent(Exchange, "no call crossed organisations")
	case missing > 0:
		v.unproven(Exchange, "%d exchange receipts missing", missing)
	default:
		v.pass(Exchange, "%d calls", n)
	}
}
