package record_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log"
	"time"

	"github.com/lineal-auth/lineal/record"
)

// A writer drafts a record, gives it its place and signs it; an auditor opens
// the envelope, checks the signature and reads what happened.
func Example() {
	seed := sha256.Sum256([]byte("example only"))
	key := ed25519.NewKeyFromSeed(seed[:])
	signer, err := record.NewSigner(key)
	if err != nil {
		log.Fatal(err)
	}
	draft, err := record.NewDraft(record.Record{
		Header: record.Header{
			Version: record.Version, Kind: record.KindRevocation, ID: "01a40584-b456-7aec-82b8-58489825c952", Log: "ledger.example/std",
			Writer: record.Writer{ID: "admin-1", Role: record.RoleAdmin, Run: "w6OmQytQZpj0U70whtFbuA", KeyID: signer.KeyID()},
			Time:   record.At(time.Date(2027, 3, 2, 9, 14, 7, 0, time.UTC)), DataClass: record.DataInternal, Region: record.RegionEU,
		},
		Revocation: &record.Revocation{
			Target: record.RevokeTxn, Value: "01a40584-8ff0-729d-af26-bce9f53b3325", Cause: "wrong\nrecipient", By: "carol",
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	payload, hash, err := draft.Link(0, "") // hash is the prev of the next record
	if err != nil {
		log.Fatal(err)
	}
	envelope, err := record.Sign(payload, signer)
	if err != nil {
		log.Fatal(err)
	}

	e, err := record.Open(envelope)
	if err != nil {
		log.Fatal(err)
	}
	if err := e.Verify(key.Public().(ed25519.PublicKey)); err != nil {
		log.Fatal(err)
	}
	r, err := e.Record()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Kind, r.Revocation.Target, record.Escape(r.Revocation.Cause), hash == record.Hash(e.Payload))
	// Output: revocation txn wrong\nrecipient true
}
