package evidence

import (
	"errors"
	"fmt"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// Bundle is what a bundle holds, for who looks at it. That it is in order and
// whose it is, [Verify] says, and nothing here.
type Bundle struct {
	records   []record.Record // by index
	rules     map[string][]byte
	disclosed map[string]record.Disclosure // by digest

	entries   []SideRecord
	exchanges map[string][]byte
	family    string
	origin    string
	leaves    []Hash    // of all entries; nil if not all are there
	whole     bool      // every record of the log up to its checkpoint
	created   time.Time // as the manifest says
}

// Open takes a bundle apart. The error says that it is none, or that a file is
// not the one of its manifest. Records that cannot be read are left out.
func Open(bundle []byte) (Bundle, error) {
	v := newVerifier(sourceOf(bundle), Policy{})
	if !v.open() || v.finding(Container).Failures > 0 {
		return Bundle{}, errors.New("opening evidence: no bundle, or a broken one: see lineal verify")
	}
	if v.wrong != "" {
		return Bundle{}, fmt.Errorf("opening evidence: %s is not the file that the manifest names", v.wrong)
	}
	b := Bundle{
		rules: v.contents(policiesDir), disclosed: map[string]record.Disclosure{}, exchanges: v.contents(exchangeDir),
		whole: v.manifest.Mode == ModeRange && v.manifest.From == 0,
	}
	if note, ok := v.file(lastFile); ok {
		if c, err := parseCheckpoint(note); err == nil {
			v.last = c
		}
	}
	b.origin, b.leaves = v.manifest.Origin, v.leaves()
	b.created, _ = time.Parse(time.RFC3339, v.manifest.Created) // parsed before
	for i := range v.records {
		if e := v.load(&v.records[i]); e.readable {
			b.records, b.family = append(b.records, e.record), e.record.Log
			b.entries = append(b.entries, SideRecord{e.index, e.hash, e.record})
		}
	}
	for _, m := range v.folder(disclosuresDir) {
		if d, err := record.ParseDisclosure(string(v.src.data(m))); err == nil {
			b.disclosed[d.Digest()] = d // by what it is, whatever the file is called
		}
	}
	return b, nil
}

// contents are the files of a folder, by what follows its name.
func (v *verifier) contents(dir string) map[string][]byte {
	out := map[string][]byte{}
	for name, m := range v.folder(dir) {
		out[name] = v.src.data(m)
	}
	return out
}

// Decision finds the decision of a record or, its latest, of a call.
func (b Bundle) Decision(id string) (rec record.Record, ok bool) {
	for _, r := range b.records {
		if r.Decision != nil && (r.ID == id || r.Decision.CallID == id) {
			rec, ok = r, true
		}
	}
	return rec, ok
}

// Rules gives the policy bundle of a digest, as far as the file says so.
func (b Bundle) Rules(digest string) ([]byte, bool) {
	raw, ok := b.rules[digest]
	return raw, ok
}

// Disclosures gives the values that a decision names and the bundle discloses,
// and how many it does not.
func (b Bundle) Disclosures(d *record.Decision) (ds []record.Disclosure, missing int) {
	for _, digest := range d.SD {
		if v, ok := b.disclosed[digest]; ok {
			ds = append(ds, v)
		} else {
			missing++
		}
	}
	return ds, missing
}
