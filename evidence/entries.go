package evidence

import (
	"github.com/lineal-auth/lineal/internal/parallel"
	"github.com/lineal-auth/lineal/record"
)

// openAtOnce is how many records are opened beside each other: some megabytes.
const openAtOnce = 64

// read opens the envelope and the record in it.
func (e *entry) read() error {
	if e.err != nil {
		return e.err
	}
	if e.envelope, e.err = record.Open(e.bytes); e.err != nil {
		return e.err
	}
	if e.record, e.err = e.envelope.Record(); e.err != nil {
		return e.err
	}
	e.hash, e.readable = record.Hash(e.envelope.Payload), true
	return nil
}

// load reads a record.
func (v *verifier) load(s *slot) *entry {
	e := v.fetch(s)
	_ = e.read() // readable says so
	return e
}

// fetch gets the bytes of a record.
func (v *verifier) fetch(s *slot) *entry {
	e := &entry{index: s.index, leaf: s.leaf, signed: s.signed}
	m := v.files[s.file]
	if e.err = tooLarge(m); e.err == nil {
		e.bytes = v.src.data(m)
	}
	return e
}

// eachRecord shows the records that are wanted, in the order of the log. What depends on
// nothing but the record itself, and on the keys, which are known by now, is most of
// the work: it is done for many records ahead of their turn, on every processor. more
// is part of that, of a record that is readable; it changes nothing but the entry.
func (v *verifier) eachRecord(wanted func(*slot) bool, more func(*entry), see func(*slot, *entry)) {
	slots, entries := make([]*slot, 0, openAtOnce), make([]*entry, 0, openAtOnce)
	flush := func() {
		parallel.Each(len(entries), func(i int) {
			if entries[i].read() == nil && more != nil {
				more(entries[i])
			}
		})
		for i, s := range slots {
			see(s, entries[i])
		}
		slots, entries = slots[:0], entries[:0]
	}
	for i := range v.records {
		s := &v.records[i]
		if !wanted(s) {
			continue
		}
		slots, entries = append(slots, s), append(entries, v.fetch(s))
		if len(slots) == openAtOnce {
			flush()
		}
	}
	flush()
}

// judgeSignature verifies an envelope under the key that it names. Whether that key
// was its writer's is a question of its own.
func (v *verifier) judgeSignature(e *entry) {
	pub, ok := v.keys.public(e.envelope.KeyID)
	if !ok {
		e.unknown = true
		return
	}
	e.unsigned = e.envelope.Verify(pub)
}
