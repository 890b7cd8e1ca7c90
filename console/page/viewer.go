package page

import (
	"context"
	"net/http"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/search"
)

// viewer is who looks: a workload by its certificate, or a person by a session.
type viewer struct {
	by, role string
	// ref is of a person, whose records alone are shown unless the role says more.
	ref string
	// name is for the page alone; no record has it.
	name string
	// session is the name of a person's session, "" of a workload.
	session string
}

// viewerOf takes the certificate where it has a role, else the session.
func (s *Service) viewerOf(r *http.Request) viewer {
	who := s.cfg.Who(r)
	if who.Role == "" {
		if v, ok := s.sessionOf(r.Context(), r); ok {
			return v
		}
	}
	return viewer{by: who.By, role: who.Role, name: who.By}
}

// everything says that the viewer may see every record.
func (v viewer) everything() bool { return v.role == RoleAuditor || v.role == RoleOperator }

// Person says for the page that only the viewer's own records are shown.
func (v viewer) Person() bool { return !v.everything() }

// narrow gives the desk at which this viewer asks.
func (v viewer) narrow(d Desk) Desk {
	if v.everything() {
		return d
	}
	return ownDesk{d, v.ref}
}

// ownDesk answers of the calls and tokens of one person, as if there were no
// others. It is the one place that holds a viewer to what is theirs (threat L9).
type ownDesk struct {
	Desk

	ref string // "" is nobody, who owns nothing
}

// own narrows a filter; false if nothing can match.
func (d ownDesk) own(f *search.Filter) bool {
	if d.ref == "" || f.Person != "" && f.Person != d.ref {
		return false
	}
	f.Person = d.ref
	return true
}

func (d ownDesk) Records(ctx context.Context, f search.Filter) (search.Page, error) {
	if d.own(&f) {
		return d.Desk.Records(ctx, f)
	}
	p := search.Page{Entries: []search.Entry{}, Next: -1}
	p.AsOf, p.Complete = d.AsOf()
	return p, nil
}

func (d ownDesk) Histogram(ctx context.Context, f search.Filter, bins int) (search.Histogram, error) {
	if d.own(&f) {
		return d.Desk.Histogram(ctx, f, bins)
	}
	return search.Histogram{Whole: true}, nil
}

// Find leaves out what is of others: also an outcome is of the person of its
// decision, which stands beside it or is looked up.
func (d ownDesk) Find(ctx context.Context, id string) ([]search.Entry, error) {
	if d.ref == "" {
		return nil, search.ErrNotFound
	}
	all, err := d.Desk.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	mine := all[:0]
	for _, e := range all {
		switch r := e.Record; {
		case r.Decision != nil && r.Decision.Person.Ref == d.ref, r.Issuance != nil && r.Issuance.Person.Ref == d.ref:
			mine = append(mine, e)
		case r.Outcome != nil:
			if l, err := d.Desk.Trace(ctx, r.Outcome.Of); err == nil && l.Person.Ref == d.ref {
				mine = append(mine, e)
			}
		}
	}
	if len(mine) == 0 {
		return nil, search.ErrNotFound
	}
	return mine, nil
}

func (d ownDesk) Trace(ctx context.Context, id string) (search.Lineage, error) {
	l, err := d.Desk.Trace(ctx, id)
	if _, several := search.IsAmbiguous(err); several || err == nil && (d.ref == "" || l.Person.Ref != d.ref) {
		err = search.ErrNotFound
	}
	if err != nil {
		return search.Lineage{}, err
	}
	l.Calls, err = d.mine(ctx, l.Txn, l.Calls)
	return l, err
}

// Tell tells the person's transactions. A foreign token service may give one
// name to transactions of two persons: the calls of the other are not told.
func (d ownDesk) Tell(ctx context.Context, f search.Filter, limit int) (search.Stories, error) {
	if !d.own(&f) {
		out := search.Stories{Stories: []search.Story{}, Next: -1}
		out.AsOf, out.Complete = d.AsOf()
		return out, nil
	}
	told, err := d.Desk.Tell(ctx, f, limit)
	if err != nil {
		return told, err
	}
	for i := range told.Stories {
		s := &told.Stories[i]
		of := map[string]bool{}
		kept := s.Lineages[:0]
		for _, l := range s.Lineages {
			if l.Person.Ref == d.ref {
				kept, of[l.RecordID] = append(kept, l), true
			}
		}
		s.Lineages, s.Calls = kept, only(s.Calls, of)
	}
	return told, nil
}

// Report is over the whole log, and so not for a person.
func (ownDesk) Report(context.Context, string, search.ReportConfig) (search.Report, error) {
	return search.Report{}, refuse(codeRole, "a report is over every record")
}

// mine keeps the calls of a transaction that are the person's.
func (d ownDesk) mine(ctx context.Context, txn string, cs []search.Call) ([]search.Call, error) {
	if txn == "" {
		return cs, nil // the one call that was asked for
	}
	of := map[string]bool{}
	for f := (search.Filter{Txn: txn, Person: d.ref, Limit: 1000}); ; {
		p, err := d.Desk.Records(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, e := range p.Entries {
			of[e.Record.ID] = true
		}
		if p.Next < 0 {
			return only(cs, of), nil
		}
		f.From = p.Next
	}
}

// only keeps the calls of some records; what stood below another moves up.
func only(cs []search.Call, of map[string]bool) []search.Call {
	out := []search.Call{}
	for _, c := range cs {
		below := only(c.Children, of)
		if c.Children = below; of[c.RecordID] {
			out = append(out, c)
		} else {
			out = append(out, below...)
		}
	}
	return out
}

var _ console.Desk = ownDesk{}
