package server

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v4"

	"github.com/lineal-auth/lineal/config"
)

// expressions are what the files for operators ask of Prometheus.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	read := func(name string) []byte {
		b, err := os.ReadFile("../deploy/monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(read("dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			out[p.Title+" "+q.LegendFormat] = q.Expr
			for _, l := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !strings.Contains(q.Expr, "by (") { // else it is one of those, or empty
					out[p.Title+" legend "+l[1]] = regexp.MustCompile(`lineal_\w+|process_\w+|go_\w+`).FindString(q.Expr) + "{" + l[1] + `=""}`
				}
			}
		}
	}
	panels := len(out)
	var rules struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read("rules.yml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			out["rule "+r.Record+r.Alert] = r.Expr
		}
	}
	if panels < 20 || len(out)-panels < 10 {
		t.Fatalf("%d expressions of panels, %d in all", panels, len(out))
	}
	return out
}

var (
	metricName = regexp.MustCompile(`\b(lineal|go|process)_[a-z0-9_]+\b`)
	matchers   = regexp.MustCompile(`\b((?:lineal|go|process)_[a-z0-9_]+)\{([^}]*)\}`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	labelName  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	// scraped are what Prometheus adds.
	scrapedLabels = []string{"job", "instance"}
)

// TestDashboardAsksForWhatIsServed: each metric that the dashboard and the rules
// name is served by the product, with each label that they use.
func TestDashboardAsksForWhatIsServed(t *testing.T) {
	o := newOperated(t)
	o.d.cfg.Feeds = []config.Feed{{Name: "siem", File: filepath.Join(t.TempDir(), "sent.jsonl")}}
	s := o.start()
	raw, _ := o.token(o.now())
	o.answers(raw, 200, "")
	o.want(http.StatusOK, http.DefaultClient, "GET", o.probes+"/metrics", "")
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	served := make(map[string][]string) // metric → labels
	for _, f := range families {
		for _, m := range f.GetMetric() {
			names := slices.Clone(scrapedLabels)
			for _, l := range m.GetLabel() {
				names = append(names, l.GetName())
			}
			served[f.GetName()] = names
			if f.GetType() == dto.MetricType_HISTOGRAM {
				served[f.GetName()+"_bucket"] = append(names, "le")
				served[f.GetName()+"_sum"], served[f.GetName()+"_count"] = names, names
			}
		}
	}
	// Witnesses this deployment has none of: they are named in one place, their numbers in TestWitnessed.
	served["lineal_ledger_last_witnessed_timestamp_seconds"] = scrapedLabels
	for where, expr := range expressions(t) {
		for _, w := range unserved(served, expr) {
			t.Errorf("%s: %s", where, w)
		}
	}
	for _, wrong := range []string{
		"sum(lineal_request_total)", `lineal_requests_total{verdict="deny"}`, "sum by (agent) (rate(lineal_requests_total[5m]))", "up",
		`lineal_feed_stopped{name="siem"}`,
	} {
		if len(unserved(served, wrong)) == 0 {
			t.Errorf("nothing is found wrong with %s", wrong)
		}
	}
	o.stop(s)
}

// unserved says which names in an expression nobody serves.
func unserved(served map[string][]string, expr string) (wrong []string) {
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		return []string{"no metric in " + expr}
	}
	for _, n := range names {
		if served[n] == nil {
			wrong = append(wrong, n+" is not served")
		}
	}
	for _, m := range matchers.FindAllStringSubmatch(expr, -1) {
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(served[m[1]], l[1]) {
				wrong = append(wrong, m[1]+" has no label "+l[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.Split(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(served[n], l) }) {
				wrong = append(wrong, "nothing in it has a label "+l)
			}
		}
	}
	return wrong
}
