package search

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// JSON is the lineage for programs.
func (l Lineage) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding lineage: %w", err)
	}
	return append(b, '\n'), nil
}

// WriteText tells the lineage to a person who is no engineer. Everything that
// comes from a record was escaped (threat L7).
func (l Lineage) WriteText(w io.Writer) error {
	p := &printer{}
	p.lineage(l)
	if len(flatten(l.Calls)) > 1 {
		p.section("All calls of this transaction")
		p.tree(l.Calls, 1)
	}
	p.line("")
	p.line("%s", l.standing())
	_, err := io.WriteString(w, p.b.String())
	return err
}

type printer struct{ b strings.Builder }

// lineage tells the way of one call.
func (p *printer) lineage(l Lineage) {
	p.line("%s %s", l.headline(), moment(l.Time))
	p.line("recorded by %s as entry %d, record %s", l.Writer, l.Index, l.RecordID)
	p.section("On whose behalf")
	p.line("  %s", l.Person.words())
	p.section("How the authority came here")
	for _, h := range l.Hops {
		p.hop(h, l)
	}
	if l.Verdict.Scope != "not_evaluated" && len(l.Hops) > 0 {
		p.line("  (may* is the part that permits the call.)")
	}
	if len(l.Hops) == 0 {
		p.line("  No chain of delegations was verified, so there is none to show.")
	}
	p.section("What was asked")
	p.asked(l)
	p.section("What was decided")
	p.decided(l)
	p.section("What followed")
	p.followed(l)
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *printer) section(title string) { p.line("\n%s", title) }

func (l Lineage) headline() string {
	if l.Verdict.Effect == "permit" {
		return "PERMITTED"
	}
	return "REFUSED"
}

func (h Person) words() string {
	who := h.Name
	switch {
	case who != "" && h.Ref != "":
		who += " (person " + h.Ref + ")"
	case h.Ref != "":
		who = "person " + h.Ref
	default:
		return "nobody: the call carried no person"
	}
	switch h.Presence {
	case "interactive":
		who += ", who logged in"
	case "approved":
		who += ", who approved this"
	case "standing_grant":
		who += ", by a standing grant"
	}
	if h.Issuer != "" {
		who += " at " + h.Issuer
	}
	if h.LoggedIn != "" {
		who += " " + moment(h.LoggedIn)
	}
	if len(h.Methods) > 0 {
		who += " (" + strings.Join(h.Methods, ", ") + ")"
	}
	return who
}

func (p *printer) hop(h Hop, l Lineage) {
	from := "the person"
	if h.Number > 0 {
		from = l.Hops[h.Number-1].Actor
	} else if len(h.Via) > 0 {
		from = "the person, by a grant to " + strings.Join(h.Via, ", from ")
	}
	p.line("  hop %d  %s, from %s", h.Number, h.Actor, from)
	p.line("         for calls to %s, from %s to %s", h.Audience, clock(h.Issued), clock(h.Expires))
	for i, a := range h.Authority {
		mark := "may"
		if int64(i) == h.By {
			mark = "may*"
		}
		p.line("         %-4s %s", mark, a)
	}
	for _, g := range h.GaveUp {
		p.line("         %s", g)
	}
	if h.Permits == "deny" {
		p.line("         This does not permit the call.")
	}
	issued := "its issue is not in the ledger index"
	if h.IssuanceIndex >= 0 {
		issued = fmt.Sprintf("issued in entry %d", h.IssuanceIndex)
	}
	if h.ReceiptHash != "" {
		issued += ", receipt " + h.ReceiptHash
	}
	p.line("         %s", issued)
}

func (p *printer) asked(l Lineage) {
	caller := l.Caller.Claimed
	switch {
	case l.Caller.Proof == "match":
		caller += ", proven by " + l.Caller.Auth
	case l.Caller.Proof == "mismatch":
		caller += fmt.Sprintf(", but the connection proved %s", l.Caller.Proven)
	case caller == "" && l.Caller.Proven != "":
		caller = l.Caller.Proven
	case caller == "":
		caller = "an unknown caller"
	default:
		caller += ", which nothing proved"
	}
	p.line("  by    %s", caller)
	if l.Callee == nil {
		p.line("  of    nobody: no route matched")
	} else {
		what := l.Callee.ID
		if l.Callee.Tool != "" {
			what = l.Callee.Tool + " at " + what
		}
		p.line("  of    %s (%s)", what, l.Callee.Op)
	}
	for _, n := range l.Needed {
		p.line("  needs %s", n)
	}
}

func (p *printer) decided(l Lineage) {
	p.line("  %s", l.Verdict.Explanation)
	p.line("  delegated scope: %s   operator's policy: %s   code: %s", answer(l.Verdict.Scope), answer(l.Verdict.Policy), l.Verdict.Reason)
	if x := l.Verdict.Exceeded; x != nil {
		p.line("  %s", x.Words())
	}
	rules := "no rule"
	if len(l.Verdict.Rules) > 0 {
		rules = "rules " + strings.Join(l.Verdict.Rules, ", ")
	}
	p.line("  %s of policy no. %d, %s (%s)", rules, l.Verdict.Serial, l.Verdict.BundleDigest, l.Verdict.Engine)
	for _, e := range l.Verdict.Errors {
		p.line("  policy error: %s", e)
	}
}

// Words says what the call had otherwise than the authority of the hop.
func (x Exceeded) Words() string {
	what := subject(x.Path) + " (" + x.Path + ", " + x.Op + ")"
	if !strings.HasPrefix(x.Path, "/") {
		what = "its " + x.Path
	}
	switch {
	case x.Got == "absent":
		what += ", which the call lacks"
	case x.Got == "unreachable":
		what += ", which the call has in another form"
	case x.Detail == nil:
		what += ", which no part of this authority speaks of"
	default:
		what += ", where the call asks for another value"
	}
	at := fmt.Sprintf("hop %d", x.Hop)
	if x.Detail != nil {
		at += fmt.Sprintf(", part %d", *x.Detail+1)
	}
	return "refused at " + at + ": " + what
}

func answer(s string) string {
	switch s {
	case "permit":
		return "yes"
	case "deny":
		return "no"
	}
	return "not asked"
}

func (p *printer) followed(l Lineage) {
	if len(l.Outcomes) == 0 {
		if l.Verdict.Effect == "permit" {
			p.line("  Not known: no outcome is recorded yet.")
		} else {
			p.line("  Nothing: the call was not forwarded.")
		}
	}
	for _, o := range l.Outcomes {
		sent := "forwarded"
		if !o.Forwarded {
			sent = "not forwarded"
		}
		p.line("  %s, %s, %d bytes returned, ended %s (entry %d)", sent, strings.ReplaceAll(o.Status, "_", " "), o.Bytes, moment(o.Ended), o.Index)
	}
}

func (p *printer) tree(cs []Call, depth int) {
	for _, c := range cs {
		mark := "-"
		if c.This {
			mark = ">"
		}
		verdict := "permitted"
		if c.Effect != "permit" {
			verdict = "refused: " + c.Reason
		}
		callee := c.Callee
		if callee == "" {
			callee = "no route"
		}
		p.line("%s%s %s calls %s   %s   (entry %d)", strings.Repeat("  ", depth), mark, c.Caller, callee, verdict, c.Index)
		if c.ClaimedParent != "" {
			p.line("%s  says it served call %s, which the records do not bear out", strings.Repeat("  ", depth), c.ClaimedParent)
		}
		p.tree(c.Children, depth+1)
	}
}

func (l Lineage) standing() string {
	if l.AsOf.Size == 0 {
		return "From records that no checkpoint covers yet."
	}
	s := fmt.Sprintf("As of checkpoint %d of %s, root %s", l.AsOf.Size, visible(l.AsOf.Origin), visible(l.AsOf.Root))
	if !l.Complete {
		return s + "; the index does not hold every entry yet."
	}
	return s + "."
}

// explain says the reason in a sentence.
func explain(l Lineage) string {
	v := l.Verdict
	if v.Effect == "permit" {
		return "Every hop's authority allows this call, and so do the operator's rules."
	}
	switch v.Reason {
	case "scope_exceeded":
		return explainScope(l)
	case "policy_denied":
		return "The delegated authority would allow it, but the operator's rules do not."
	case "limit_exceeded":
		return "The call was larger than a record can hold, so it was not let through."
	case "ledger_unavailable":
		return "It could not be recorded, and nothing goes through without a record."
	case "revocation_stale":
		return "It was not known recently enough whether the authority had been revoked."
	case "route_unknown":
		return "There is no such service behind this gateway."
	}
	switch prefix, _, _ := strings.Cut(v.Reason, "_"); prefix {
	case "chain":
		return "The chain of delegations does not hold together (" + v.Reason + ")."
	case "revoked":
		return "The authority had been revoked (" + v.Reason + ")."
	case "binding", "proof":
		return "The caller did not prove that the token is its own (" + v.Reason + ")."
	case "token", "signature", "issuer", "key", "audience":
		return "The call carried no token that is valid here (" + v.Reason + ")."
	}
	return "It was refused with the code " + v.Reason + "."
}

// explainScope names the hop at which the authority ends.
func explainScope(l Lineage) string {
	if l.Verdict.RefusedAt == nil || *l.Verdict.RefusedAt >= len(l.Hops) {
		return "The delegated authority does not include this."
	}
	h := l.Hops[*l.Verdict.RefusedAt]
	if h.Number == 0 {
		return fmt.Sprintf("The person never gave this to %s (hop 0), so nobody after it has it.", h.Actor)
	}
	return fmt.Sprintf("Hop %d refuses: %s was not given this. Hop %d, %s, still had it.",
		h.Number, h.Actor, h.Number-1, l.Hops[h.Number-1].Actor)
}

// moment shows a time as `on 2027-03-02 at 09:14:07.318 UTC`.
func moment(ts string) string {
	t, err := time.Parse(time.RFC3339, ts)
	if err != nil {
		return "at an unknown time"
	}
	return "on " + t.UTC().Format("2006-01-02 at 15:04:05.999 UTC")
}

func clock(ts string) string {
	t, err := time.Parse(time.RFC3339, ts)
	if err != nil {
		return "?"
	}
	return t.UTC().Format("15:04:05")
}
