package search

import "strings"

// Summary is a record in one line, for a table. Its texts are escaped, and none
// is taken for a formula by a spreadsheet (threat L7).
type Summary struct {
	Time, Kind, RecordID, Writer string
	Txn, CallID, Person, Agent   string
	Resource, Tool, Op           string
	Effect, Reason               string
}

// Summary gives the line of an entry: of a decision, the caller is the agent, of
// an issuance, who gets the token, of an outcome the status is the reason.
func (e Entry) Summary() Summary {
	r := e.Record
	s := Summary{Time: string(r.Time), Kind: string(r.Kind), RecordID: r.ID, Writer: r.Writer.ID}
	switch {
	case r.Decision != nil:
		d := r.Decision
		s.Txn, s.CallID, s.Person, s.Agent = d.Txn, d.CallID, d.Person.Ref, d.Caller.Claimed
		if s.Agent == "" {
			s.Agent = d.Caller.Proven
		}
		if d.Callee != nil {
			s.Resource, s.Op = d.Callee.ID, d.Callee.Op
			s.Tool, _ = nameCalled(d)
		}
		s.Effect, s.Reason = string(d.Verdict.Effect), d.Verdict.Reason
	case r.Issuance != nil:
		i := r.Issuance
		s.Txn, s.Person, s.Agent, s.Resource, s.Effect, s.Reason = i.Txn, i.Person.Ref, i.Actor, i.Audience, string(i.Result), i.Reason
	case r.Outcome != nil:
		s.CallID, s.Reason = r.Outcome.CallID, string(r.Outcome.Status)
	case r.Registry != nil:
		s.Agent, s.Effect, s.Reason = r.Registry.By, string(r.Registry.Result), r.Registry.Reason
	case r.Revocation != nil:
		s.Agent, s.Reason = r.Revocation.By, r.Revocation.Cause
	default: // what it says is not of one call
	}
	for _, text := range []*string{
		&s.Time, &s.Kind, &s.RecordID, &s.Writer, &s.Txn, &s.CallID, &s.Person, &s.Agent, &s.Resource, &s.Tool, &s.Op, &s.Effect, &s.Reason,
	} {
		*text = cell(*text)
	}
	return s
}

// cell is a text in which a spreadsheet sees no formula.
func cell(s string) string {
	s = visible(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}
