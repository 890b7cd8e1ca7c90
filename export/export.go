// Package export writes records in the forms that other tools read.
//
//	ledger ──▶ Entry: place in the log, record ──▶ Line, JSON lines
//	                                          ├──▶ export/ocsf, security events
//	                                          └──▶ export/parquet, columns
//
// Each form names the origin and the index of the record, by which a receiver
// knows it again, and its record_hash, by which what it received is compared
// with a verified bundle. A form is a copy: it has no signature and proves
// nothing; package evidence does.
package export

import (
	"fmt"
	"strconv"

	"github.com/lineal-auth/lineal/record"
)

// Entry is one record at its place in the log.
type Entry struct {
	// Origin is of the log, "ledger.example/std/2027-03". Origin and Index
	// together name an entry for ever.
	Origin string
	Index  int64
	// Hash is the record_hash: the unpadded base64url SHA-256 of Payload.
	Hash   string
	Record record.Record
	// Payload is the record's canonical bytes (RFC 8785).
	Payload []byte
}

// NewEntry reads the payload of the entry at index.
func NewEntry(origin string, index int64, payload []byte) (Entry, error) {
	r, err := record.Parse(payload)
	if err != nil {
		return Entry{}, fmt.Errorf("reading entry %d: %w", index, err)
	}
	return Entry{Origin: origin, Index: index, Hash: record.Hash(payload), Record: r, Payload: payload}, nil
}

// Line is the entry as one JSON object without a line break:
//
//	{"index":7,"record_hash":"…","record":{…},"origin":"ledger.example/std/2027-03"}
//
// "record" are the canonical bytes themselves, so that their SHA-256 is the
// record_hash.
func Line(e Entry) ([]byte, error) {
	b := make([]byte, 0, len(e.Payload)+len(e.Origin)+120)
	b = append(b, `{"index":`...)
	b = strconv.AppendInt(b, e.Index, 10)
	b = append(b, `,"record_hash":"`...)
	b = append(b, e.Hash...)
	b = append(b, `","record":`...)
	b = append(b, e.Payload...)
	b = append(b, `,"origin":`...)
	b = strconv.AppendQuoteToASCII(b, e.Origin) // an origin is printable ASCII, so this is JSON
	return append(b, '}'), nil
}
