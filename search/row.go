package search

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lineal-auth/lineal/internal/strictjson"
	"github.com/lineal-auth/lineal/record"
)

// readRow is what the index keeps of the payload at index. Everything that a
// [Filter] or [keysOf] looks at is in it. Of the payload it reads only that:
// the log took in no record that cannot be parsed, and no record is in an
// answer before it was parsed again.
func readRow(index int64, payload []byte) (Row, error) {
	doc, err := strictjson.Parse(payload, strictjson.Limits{MaxBytes: record.MaxPayload})
	if err != nil {
		return Row{}, fmt.Errorf("indexing entry %d: %w", index, err)
	}
	at, err := record.Timestamp(text(doc, "time")).Time()
	if err != nil {
		return Row{}, fmt.Errorf("indexing entry %d: %w", index, err)
	}
	row := Row{Index: index, At: at.UnixMilli(), Kind: text(doc, "kind"), Writer: text(doc, "gw", "id"), RecordID: text(doc, "record_id")}
	if row.Kind == "" || row.Writer == "" || row.RecordID == "" {
		return Row{}, fmt.Errorf("indexing entry %d: %w", index, errors.New("it is no record"))
	}
	switch record.Kind(row.Kind) {
	case record.KindDecision:
		row.decision(doc)
	case record.KindIssuance:
		row.issuance(doc)
	case record.KindOutcome:
		row.CallID = text(doc, "call_id")
		row.Outcome = &OutcomeRow{Decision: text(doc, "of"), Status: text(doc, "status"), Forwarded: get(doc, "forwarded").Bool()}
	case record.KindRegistry:
		row.Reason = text(doc, "reason")
		row.name(text(doc, "target"), text(doc, "by"))
	case record.KindRevocation:
		row.name(text(doc, "value"), text(doc, "by"))
	default: // asked by kind, writer and time alone
	}
	return row, nil
}

// text is the string at a path of members, "" if there is none.
func text(v strictjson.Value, path ...string) string {
	for _, name := range path {
		v = get(v, name)
	}
	s, _ := v.Text()
	return s
}

func (row *Row) decision(doc strictjson.Value) {
	row.CallID, row.Txn, row.ParentCall = text(doc, "call_id"), text(doc, "txn"), text(doc, "parent_call")
	row.Person = text(doc, "person", "ref")
	row.CalleeKind, row.Resource, row.Op = text(doc, "callee", "kind"), text(doc, "callee", "id"), text(doc, "callee", "op")
	row.Tool = text(doc, "callee", "tool")
	if row.Tool == "" && row.CalleeKind == string(record.CalleeModel) {
		for _, needed := range get(get(doc, "request"), "needed").Items() {
			atom, _ := needed.Text()
			if name, ok := strings.CutPrefix(atom, row.Op+" "); ok {
				row.Tool = name
				break
			}
		}
	}
	row.Effect, row.Reason = text(doc, "decision", "effect"), text(doc, "decision", "reason")
	rules := get(doc, "policy")
	row.Bundle = text(rules, "bundle_digest")
	row.policy(row.Bundle)
	for _, rule := range get(rules, "rules").Items() {
		s, _ := rule.Text()
		row.policy(s)
	}
	for k, h := range get(doc, "chain").Items() {
		hash := text(h, "receipt_hash")
		if hash == "" {
			hash = text(h, "token_hash")
		}
		row.Parties = append(row.Parties, Party{Hop: int64(k), Actor: text(h, "actor"), Audience: text(h, "aud"), Hash: hash})
	}
	row.name(text(doc, "caller", "claimed"), text(doc, "caller", "proven"))
	for _, h := range get(doc, "chain").Items() {
		row.foreign(get(h, "via"))
	}
}

// foreign adds agents of another organisation.
func (row *Row) foreign(actors strictjson.Value) {
	for _, a := range actors.Items() {
		row.name(text(a, "sub"))
	}
}

func (row *Row) issuance(doc strictjson.Value) {
	row.Txn, row.Person, row.Resource, row.Reason = text(doc, "txn"), text(doc, "person", "ref"), text(doc, "aud"), text(doc, "reason")
	row.Bundle = text(doc, "bundle_digest")
	row.policy(row.Bundle)
	row.Issuance = &IssuanceRow{
		Result: text(doc, "result"), JTI: text(doc, "jti"),
		Receipt: text(doc, "receipt_hash"), Token: text(doc, "token_hash"), Parent: text(doc, "parent_hash"),
	}
	actor := text(doc, "actor")
	row.Parties = []Party{
		{Hop: -1, Actor: actor, Audience: row.Resource, Hash: row.Issuance.Receipt},
		{Hop: -2, Actor: actor, Audience: row.Resource, Hash: row.Issuance.Token},
	}
	row.foreign(get(get(doc, "partner"), "actors"))
}

func (row *Row) policy(p string) {
	if p != "" && !slices.Contains(row.Policies, p) {
		row.Policies = append(row.Policies, p)
	}
}

// name adds agents that no hop names.
func (row *Row) name(agents ...string) {
	next := int64(-1) // below all that are there
	for _, p := range row.Parties {
		next = min(next, p.Hop-1)
	}
	for _, a := range agents {
		if a == "" || slices.ContainsFunc(row.Parties, func(p Party) bool { return p.Actor == a }) {
			continue
		}
		row.Parties = append(row.Parties, Party{Hop: next, Actor: a})
		next--
	}
}
