package record_test

import (
	"testing"

	"github.com/lineal-auth/lineal/record"
)

func BenchmarkNewDraft(b *testing.B) {
	r := parseGolden(b, "decision-permit.json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.NewDraft(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLink(b *testing.B) {
	r := parseGolden(b, "decision-permit.json")
	d, err := record.NewDraft(r)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.Link(r.Writer.Seq, r.Writer.Prev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	payload, signer := golden(b, "decision-permit.json"), exampleSigner(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.Sign(payload, signer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	payload := golden(b, "decision-permit.json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.Parse(payload); err != nil {
			b.Fatal(err)
		}
	}
}
