package page

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/lineal-auth/lineal/console"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/search/searchtest"
)

const auditor = "spiffe://example/ops/audit"

// rig is a page over a generated log.
type rig struct {
	*searchtest.Log

	t        *testing.T
	service  *Service
	told     []record.Record // what was recorded, in order
	exported []Selection
	broken   error // of the recorder
	lost     error // of the index
	now      time.Time
}

func newRig(t *testing.T, configure ...func(*Config)) *rig {
	t.Helper()
	r := &rig{Log: searchtest.New(t), t: t, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	cfg := Config{
		Who: func(r *http.Request) console.Who {
			by, role, _ := strings.Cut(r.Header.Get("Test-Who"), " ")
			return console.Who{By: by, Role: role}
		},
		Desk: func(ctx context.Context) (Desk, error) {
			return r.Desk, errors.Join(r.lost, r.Follow(ctx))
		},
		Record: func(_ context.Context, rec record.Record) error {
			r.told = append(r.told, rec)
			return r.broken
		},
		Explain: func(context.Context, string) (Explanation, error) {
			return Explanation{Rules: []Rule{{ID: "orders", File: "policies/a.cedar", Line: 3, Text: "permit (principal, action, resource);\n// \u202eas it is not"}}, Again: "same"}, nil
		},
		Export: func(_ context.Context, w io.Writer, sel Selection) error {
			r.exported = append(r.exported, sel)
			_, err := io.WriteString(w, "PK")
			return err
		},
		Trust: func() (string, error) { return "log x\n", nil },
		Health: func(context.Context) (Health, error) {
			return Health{Ready: true, Checks: map[string]string{"ledger": "ok"}}, nil
		},
		Now: func() time.Time { return r.now },
	}
	for _, c := range configure {
		c(&cfg)
	}
	var err error
	if r.service, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// send answers one request as a browser would make it.
func (r *rig) send(who, method, target, body string, headers ...string) *http.Response {
	r.t.Helper()
	q := httptest.NewRequestWithContext(r.t.Context(), method, target, strings.NewReader(body))
	q.Host = "page.example"
	if body != "" {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != "" {
		q.Header.Set("Test-Who", who)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		q.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	r.service.ServeHTTP(w, q)
	return w.Result()
}

func (r *rig) get(who, target string, headers ...string) (int, string) {
	r.t.Helper()
	resp := r.send(who, http.MethodGet, target, "", headers...)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (r *rig) want(status int, who, target string) string {
	r.t.Helper()
	got, body := r.get(who, target)
	if got != status {
		r.t.Fatalf("%s: %d, want %d\n%s", target, got, status, body)
	}
	return body
}

// pages are all pages that an auditor can look at, and how many records each
// cites.
func (r *rig) pages() map[string]int64 {
	return map[string]int64{
		"/ui/":                                         50,
		"/ui/?limit=3":                                 3,
		"/ui/?kind=all&limit=7":                        7,
		"/ui/?decision=deny":                           3,
		"/ui/?limit=2&person=" + r.Person(3):           2,
		"/ui/actions/" + r.RecordID(3):                 2,
		"/ui/entries/4":                                1,
		"/ui/actions/" + r.RecordID(3) + "/evidence":   2,
		"/ui/trust":                                    0,
		"/ui/persons/" + r.Person(3):                   r.storiesOf(r.Person(3)),
		"/ui/agents?id=" + url.QueryEscape(r.Agent(3)): 33,
		"/ui/transactions/" + r.Txn(3):                 8,
		"/ui/transactions/" + r.Txn(3) + "/evidence":   8,
		"/ui/reports":                                  0,
		"/ui/reports/no-outcome":                       0,
		"/ui/reports/disclosure":                       237,
		"/ui/health":                                   1,
	}
}

// storiesOf is how many records the newest transactions of a person are of, as a
// page tells them.
func (r *rig) storiesOf(ref string) (cites int64) {
	told := 0
	for txn := int64(59); txn >= 0 && told < storiesAtOnce; txn-- {
		if r.Person(txn) != ref {
			continue
		}
		told++
		cites += 8
		if r.Refused(txn) {
			cites--
		}
	}
	return cites
}

// TestEveryLookIsRecorded: before anybody is shown anything there is a record of
// who asked what, and where there cannot be one nobody is shown anything.
func TestEveryLookIsRecorded(t *testing.T) {
	r := newRig(t)
	for target, cites := range r.pages() {
		for _, role := range []string{RoleAuditor, RoleOperator} {
			r.told = nil
			r.want(http.StatusOK, auditor+" "+role, target)
			if len(r.told) != 1 || r.told[0].Query == nil {
				t.Fatalf("%s told %+v", target, r.told)
			}
			if q := *r.told[0].Query; q != (record.Query{By: auditor, Role: role, Question: "GET " + target, Count: cites}) {
				t.Errorf("%s recorded as %+v, want %d", target, q, cites)
			}
		}
	}
	r.broken = errors.New("disk full")
	for target := range r.pages() {
		if body := r.want(http.StatusServiceUnavailable, auditor+" auditor", target); strings.Contains(body, r.RecordID(3)) || strings.Contains(body, "disk full") {
			t.Errorf("%s shown without a record: %s", target, body)
		}
	}
}

// TestL8RefusedLooksAreRecorded: who may not look is shown nothing of what there
// is, and that is a record; the same for what cannot be asked.
func TestL8RefusedLooksAreRecorded(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		who, target string
		status      int
		code        console.Code
	}{
		"nobody":            {"", "/ui/", 401, console.CodeIdentityMissing},
		"an agent":          {"spiffe://example/a", "/ui/actions/" + r.RecordID(3), 403, console.CodeNotOperator},
		"no such page":      {auditor + " auditor", "/ui/admin", 404, console.CodeNotFound},
		"no such record":    {auditor + " auditor", "/ui/actions/01a40584-b456-7aec-82b8-58489825c952", 404, console.CodeNotFound},
		"no such entry":     {auditor + " auditor", "/ui/entries/99999999", 404, console.CodeNotFound},
		"an unknown filter": {auditor + " auditor", "/ui/?name=x", 400, console.CodeParameterInvalid},
		"a doubled filter":  {auditor + " auditor", "/ui/?agent=x&agent=y", 400, console.CodeParameterInvalid},
		"a bad time":        {auditor + " auditor", "/ui/?since=yesterday", 400, console.CodeParameterInvalid},
		"a bad kind":        {auditor + " auditor", "/ui/?kind=%3Cscript%3E", 400, console.CodeParameterInvalid},
		"a dotted path":     {auditor + " auditor", "/ui/../ui/", 404, console.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			r.told = nil
			body := r.want(c.status, c.who, c.target)
			if len(r.told) != 1 || r.told[0].Registry == nil || r.told[0].Registry.Reason != string(c.code) || r.told[0].Registry.By != strings.Split(c.who, " ")[0] {
				t.Errorf("told %+v", r.told)
			}
			if !strings.Contains(body, string(c.code)) || strings.Contains(body, r.RecordID(3)) || strings.Contains(body, "Actions</a>") != strings.HasSuffix(c.who, " auditor") {
				t.Errorf("shown %s", body)
			}
		})
	}
	r.lost = errors.New("/secret/path is gone")
	if body := r.want(503, auditor+" auditor", "/ui/"); strings.Contains(body, "secret") {
		t.Error(body)
	}
}

// TestO8HostileNames: what a record quotes is text wherever it is shown, also in
// attributes and links.
func TestO8HostileNames(t *testing.T) {
	hostile := "\u202e" + `\"><script>alert(1)</script><img src=x onerror=alert(1)>'javascript:alert(1)//{{.}}`
	r := newRig(t)
	r.Change = func(_ int64, payload []byte) []byte {
		s := strings.ReplaceAll(string(payload), `"tool":"query"`, `"tool":"`+hostile+`"`)
		return []byte(s)
	}
	seen := 0
	for target := range r.pages() {
		if strings.HasSuffix(target, "/evidence") || target == "/ui/trust" {
			continue
		}
		body := r.want(http.StatusOK, auditor+" auditor", target)
		seen += strings.Count(body, "alert(1)")
		harmless(t, target, body)
		if strings.ContainsRune(body, '\u202e') {
			t.Errorf("%s turns the direction of what follows (threat L7)", target)
		}
	}
	harmless(t, "a refusal", r.want(400, auditor+" auditor", "/ui/?"+url.QueryEscape(hostile)+"=x"))
	harmless(t, "a filter", r.want(200, auditor+" auditor", "/ui/?agent="+url.QueryEscape(hostile)))
	if seen == 0 {
		t.Error("no page shows the hostile name: nothing was tested")
	}
}

// harmless holds a page to what the content security policy allows anyway: our
// one script, no handler, no style, no link but within the page.
func harmless(t *testing.T, name, body string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	scripts := 0
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if slices.Contains([]string{"img", "iframe", "object", "embed", "style", "base"}, n.Data) {
			t.Errorf("%s has <%s>", name, n.Data)
		}
		if n.Data == "script" {
			scripts++
			if n.FirstChild != nil {
				t.Errorf("%s has a script of its own", name)
			}
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("%s has %s=%q", name, a.Key, a.Val)
			}
			if slices.Contains([]string{"href", "src", "action", "data-bundle", "data-trust"}, a.Key) && !inside.MatchString(a.Val) {
				t.Errorf("%s leads to %q", name, a.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%s has %d scripts", name, scripts)
	}
}

var inside = regexp.MustCompile(`^(/ui/[^\s"'<>]*|#[a-z]+)$`)

// TestO8Headers: each answer forbids what the page does not do, and our files can
// be kept.
func TestO8Headers(t *testing.T) {
	r := newRig(t)
	for _, target := range []string{"/ui/", "/ui/none", "/ui/static/x/page.mjs"} {
		h := r.send(auditor+" auditor", http.MethodGet, target, "").Header
		csp := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", target, h)
		}
		if h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be kept: %v", target, h)
		}
	}
	body := r.want(200, auditor+" auditor", "/ui/")
	for _, m := range regexp.MustCompile(`/ui/static/[0-9a-f]{16}/[a-z.]+`).FindAllString(body, -1) {
		resp := r.send("", http.MethodGet, m, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") || resp.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %v", m, resp.StatusCode, resp.Header)
		}
	}
}

// TestPermalinks: a filter is in the address alone, and each link on the page
// keeps it.
func TestPermalinks(t *testing.T) {
	r := newRig(t)
	target := "/ui/?agent=" + url.QueryEscape(r.Agent(3)) + "&decision=permit&limit=5"
	body := r.want(200, auditor+" auditor", target)
	next := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(body)
	if next == nil {
		t.Fatal("no older page")
	}
	older := strings.ReplaceAll(next[1], "&amp;", "&")
	u, err := url.Parse(older)
	if err != nil || u.Query().Get("agent") != r.Agent(3) || u.Query().Get("decision") != "permit" || u.Query().Get("before") == "" {
		t.Fatalf("older is %s, %v", older, err)
	}
	rows := regexp.MustCompile(`/ui/actions/([0-9a-f-]{36})"><time`)
	first, second := rows.FindAllString(body, -1), rows.FindAllString(r.want(200, auditor+" auditor", older), -1)
	if len(first) != 5 || len(second) != 5 || slices.ContainsFunc(second, func(s string) bool { return slices.Contains(first, s) }) {
		t.Errorf("pages %q and %q", first, second)
	}
	bar := regexp.MustCompile(`<a href="(/ui/\?[^"]*since=[^"]*)"`).FindStringSubmatch(body)
	if bar == nil {
		t.Fatal("no bar of the histogram leads anywhere")
	}
	if narrowed := r.want(200, auditor+" auditor", strings.ReplaceAll(bar[1], "&amp;", "&")); !strings.Contains(narrowed, "Remove since") || len(rows.FindAllString(narrowed, -1)) == 0 {
		t.Error("a bar does not lead to its records")
	}
}
