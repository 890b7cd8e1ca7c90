// Package entry makes records the entries of a ledger: the ledger knows nothing
// of records, and records know nothing of a ledger.
//
//	record.Draft ──Link──▶ payload at its place ──Sign──▶ envelope ──Place──▶ where it stands
//
// It decides nothing: who writes a record, and what it says, is in the draft. A
// writer whose key changes while it runs links and signs by itself (package
// server).
package entry

import (
	"fmt"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// Read reads the record in an envelope, and gives its payload too. It checks the
// record's form, and not its signature.
func Read(envelope []byte) (r record.Record, payload []byte, err error) {
	e, err := record.Open(envelope)
	if err != nil {
		return record.Record{}, nil, err
	}
	r, err = record.Parse(e.Payload)
	return r, e.Payload, err
}

// Place reads where the record in an envelope stands, and its hash, as [Read] does.
func Place(envelope []byte) (ledger.Position, string, error) {
	r, payload, err := Read(envelope)
	if err != nil {
		return ledger.Position{}, "", err
	}
	return ledger.Position{Log: r.Log, GWID: r.Writer.ID, Run: r.Writer.Run, Seq: r.Writer.Seq, Prev: r.Writer.Prev}, record.Hash(payload), nil
}

// Sealer implements [ledger.Sealer] for a writer of one key, whose bodies are a
// [record.Draft].
type Sealer struct{ Signer record.Signer }

// Link puts a [record.Draft] at its place.
func (Sealer) Link(draft any, at ledger.Position) (ledger.Linked, error) {
	d, ok := draft.(record.Draft)
	if !ok {
		return ledger.Linked{}, fmt.Errorf("sealing a %T", draft)
	}
	payload, hash, err := d.Link(at.Seq, at.Prev)
	if err != nil {
		return ledger.Linked{}, err
	}
	return ledger.Linked{RecordID: d.RecordID(), RecordHash: hash, Payload: payload}, nil
}

// Sign makes the envelope of what was linked.
func (s Sealer) Sign(l ledger.Linked) ([]byte, error) { return record.Sign(l.Payload, s.Signer) }

// Place implements [ledger.Sealer] by [Place].
func (Sealer) Place(envelope []byte) (ledger.Position, string, error) { return Place(envelope) }
