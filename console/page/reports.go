package page

import (
	"context"
	"slices"
	"strconv"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/search"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// reports lists the reports there are.
func (s *Service) reports(_ context.Context, x *request) (answer, error) {
	if !x.viewer.everything() {
		return answer{}, refuse(codeRole, "reports are over every record")
	}
	return answer{template: "reports", title: "Reports", data: search.Reports()}, nil
}

// reportPage is one report.
type reportPage struct {
	Asked    asked
	Name     string
	Question string
	Groups   []group
	// Found is how many findings there are, Shown how many stand on the page.
	Found, Shown int
}

// group are the findings of one rule.
type group struct {
	Rule     string
	Findings []finding
}

// finding shows the first records that it cites.
type finding struct {
	search.Finding

	First []int64
	More  int
}

const (
	mostFindings = 500
	mostCited    = 12
)

// report makes a report, one at a time: it reads the whole log.
func (s *Service) report(ctx context.Context, x *request) (answer, error) {
	f, a, err := x.filter("since", "until")
	if err != nil {
		return answer{}, err
	}
	name := x.PathValue("name")
	if !x.viewer.everything() {
		return answer{}, refuse(codeRole, "report %.40q is over every record", name)
	}
	if !slices.Contains(search.Reports(), name) {
		return answer{}, refuse(console.CodeNotFound, "no such report")
	}
	select {
	case s.reporting <- struct{}{}:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	defer func() { <-s.reporting }()
	r, err := x.desk.Report(ctx, name, search.ReportConfig{Since: f.Since, Until: f.Until})
	if err != nil {
		return answer{}, asCode(err)
	}
	p := reportPage{Asked: a, Name: r.Name, Question: r.Question, Found: len(r.Findings)}
	cites := 0
	for _, found := range r.Findings {
		cites += len(found.Records)
		if p.Shown == mostFindings {
			continue
		}
		p.Shown++
		i := slices.IndexFunc(p.Groups, func(g group) bool { return g.Rule == found.Rule })
		if i < 0 {
			i = len(p.Groups)
			p.Groups = append(p.Groups, group{Rule: found.Rule})
		}
		n := min(len(found.Records), mostCited)
		p.Groups[i].Findings = append(p.Groups[i].Findings, finding{found, found.Records[:n], len(found.Records) - n})
	}
	return answer{template: "report", title: words(name), data: p, cites: cites}, nil
}
