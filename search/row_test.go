package search

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/record"
)

// TestRow: what is read of the bytes is what is read of the record.
func TestRow(t *testing.T) {
	b, _, _ := story(t, Config{})
	payloads := b.payload
	files, err := filepath.Glob("../record/testdata/*.json")
	if err != nil || len(files) < 12 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		payload, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, payload)
	}
	kinds := map[record.Kind]bool{}
	for i, payload := range payloads {
		r, err := record.Parse(payload)
		if err != nil {
			continue // a golden file that is no record
		}
		kinds[r.Kind] = true
		want, err := rowOf(int64(i), r)
		got, gerr := readRow(int64(i), payload)
		if err != nil || gerr != nil {
			t.Fatal(err, gerr)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", r.Kind, d)
		}
	}
	if len(kinds) < 12 {
		t.Errorf("only records of %v", kinds)
	}
	for _, bad := range []string{"", "[]", `{"kind":"decision"}`, `{"kind":"decision","kind":"outcome"}`} {
		if _, err := readRow(0, []byte(bad)); err == nil {
			t.Errorf("%q has a row", bad)
		}
	}
}

// rowOf is readRow by way of the record.
func rowOf(index int64, r record.Record) (Row, error) {
	at, err := r.Time.Time()
	if err != nil {
		return Row{}, fmt.Errorf("indexing entry %d: %w", index, err)
	}
	row := Row{Index: index, At: at.UnixMilli(), Kind: string(r.Kind), Writer: r.Writer.ID, RecordID: r.ID}
	switch {
	case r.Decision != nil:
		row.decisionOf(r.Decision)
	case r.Issuance != nil:
		row.issuanceOf(r.Issuance)
	case r.Outcome != nil:
		row.CallID = r.Outcome.CallID
		row.Outcome = &OutcomeRow{Decision: r.Outcome.Of, Status: string(r.Outcome.Status), Forwarded: r.Outcome.Forwarded}
	case r.Registry != nil:
		row.Reason = r.Registry.Reason
		row.nameOf(r.Registry.Target, r.Registry.By)
	case r.Revocation != nil:
		row.nameOf(r.Revocation.Value, r.Revocation.By)
	}
	return row, nil
}

func (row *Row) decisionOf(d *record.Decision) {
	row.CallID, row.Txn, row.ParentCall, row.Person = d.CallID, d.Txn, d.ParentCall, d.Person.Ref
	if d.Callee != nil {
		row.CalleeKind, row.Resource, row.Op = string(d.Callee.Kind), d.Callee.ID, d.Callee.Op
		row.Tool, _ = nameCalled(d)
	}
	row.Effect, row.Reason = string(d.Verdict.Effect), d.Verdict.Reason
	row.policiesOf(d.Policy.BundleDigest, d.Policy.Rules...)
	for k, h := range d.Chain {
		hash := h.ReceiptHash
		if hash == "" {
			hash = h.TokenHash
		}
		row.Parties = append(row.Parties, Party{Hop: int64(k), Actor: h.Actor, Audience: h.Audience, Hash: hash})
	}
	names := []string{d.Caller.Claimed, d.Caller.Proven}
	for _, h := range d.Chain {
		for _, p := range h.Via {
			names = append(names, p.Subject)
		}
	}
	row.nameOf(names...)
}

func (row *Row) issuanceOf(i *record.Issuance) {
	row.Txn, row.Person, row.Resource, row.Reason = i.Txn, i.Person.Ref, i.Audience, i.Reason
	row.policiesOf(i.BundleDigest)
	row.Issuance = &IssuanceRow{Result: string(i.Result), JTI: i.JTI, Receipt: i.ReceiptHash, Token: i.TokenHash, Parent: i.ParentHash}
	row.Parties = []Party{
		{Hop: -1, Actor: i.Actor, Audience: i.Audience, Hash: i.ReceiptHash},
		{Hop: -2, Actor: i.Actor, Audience: i.Audience, Hash: i.TokenHash},
	}
	if i.Partner != nil {
		for _, p := range i.Partner.Actors {
			row.Parties = append(row.Parties, Party{Hop: -int64(len(row.Parties)) - 1, Actor: p.Subject})
		}
	}
}

func (row *Row) policiesOf(bundle string, rules ...string) {
	row.Bundle = bundle
	for _, p := range append([]string{bundle}, rules...) {
		if p != "" && !slices.Contains(row.Policies, p) {
			row.Policies = append(row.Policies, p)
		}
	}
}

// name adds agents that no hop names.
func (row *Row) nameOf(agents ...string) {
	next := int64(-1)
	for _, a := range agents {
		if a == "" || slices.ContainsFunc(row.Parties, func(p Party) bool { return p.Actor == a }) {
			continue
		}
		row.Parties = append(row.Parties, Party{Hop: next, Actor: a})
		next--
	}
}
