package page

import (
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestL9PersonSeesOwn: a person is shown what was done in the person's own name
// and nothing else, whichever page, id or filter is asked for: what is another's
// is not there.
func TestL9PersonSeesOwn(t *testing.T) {
	p := &provider{}
	r := newRig(t, withLogin(p))
	// A transaction of one person and one of another.
	mine, theirs := int64(0), int64(0)
	for i := int64(1); r.Person(theirs) == r.Person(mine); i++ {
		theirs = i
	}
	ref, other := r.Person(mine), r.Person(theirs)
	session := r.signIn(p, ref)
	at := func(txn, of int64) string { return r.RecordID(txn*10 + of) }
	entry := func(txn, of int64) string { return itoa(txn*10 + of) }

	for _, target := range []string{
		"/ui/actions/" + at(theirs, 3), "/ui/actions/" + at(theirs, 4), "/ui/actions/" + r.CallOf(theirs*10+3), "/ui/actions/" + r.Txn(theirs),
		"/ui/actions/" + at(theirs, 3) + "/evidence", "/ui/transactions/" + r.Txn(theirs), "/ui/transactions/" + r.Txn(theirs) + "/evidence",
		"/ui/entries/" + entry(theirs, 3), "/ui/entries/" + entry(theirs, 2), "/ui/entries/" + entry(theirs, 4), "/ui/persons/" + other,
	} {
		r.told, r.exported = nil, nil
		status, body := r.get("", target, session)
		if status != http.StatusNotFound || len(r.exported) > 0 || strings.Contains(body, other) {
			t.Errorf("%s: %d, exported %v\n%s", target, status, r.exported, body)
		}
		if len(r.told) != 1 || r.told[0].Registry == nil || r.told[0].Registry.By != ref || r.told[0].Registry.Role != RolePerson {
			t.Errorf("%s told %+v", target, r.told)
		}
	}
	token := r.formToken(session)
	for _, ids := range []string{at(theirs, 3), at(mine, 3) + "&id=" + at(theirs, 3)} {
		if resp := r.send("", http.MethodPost, "/ui/export", "token="+token+"&id="+ids, session); resp.StatusCode != http.StatusNotFound || len(r.exported) > 0 {
			t.Errorf("export of another's: %d %v", resp.StatusCode, r.exported)
		}
	}
	for _, target := range []string{"/ui/reports", "/ui/reports/disclosure", "/ui/health"} {
		if status, body := r.get("", target, session); status != http.StatusForbidden || strings.Contains(body, other) {
			t.Errorf("%s: %d", target, status)
		}
	}

	// The twins.
	for _, target := range []string{
		"/ui/actions/" + at(mine, 3), "/ui/actions/" + at(mine, 4), "/ui/transactions/" + r.Txn(mine), "/ui/entries/" + entry(mine, 3), "/ui/persons/" + ref, "/ui/me",
		"/ui/agents?id=" + url.QueryEscape(r.Agent(mine)),
	} {
		status, body := r.get("", target, session)
		if status != http.StatusOK || strings.Contains(body, other) {
			t.Errorf("%s: %d, names another: %v", target, status, strings.Contains(body, other))
		}
	}
	if status, _ := r.get("", "/ui/actions/"+at(mine, 3)+"/evidence", session); status != http.StatusOK || len(r.exported) != 1 || r.exported[0].Policies {
		t.Errorf("own evidence: %d %+v", status, r.exported)
	}
	if _, body := r.get("", "/ui/actions/"+at(mine, 3), session); strings.Contains(body, "permit (principal") {
		t.Error("a person reads the rules")
	}
}

// TestL9PersonCountsOwn: lists and histograms hold a person's own records,
// whatever the filter says.
func TestL9PersonCountsOwn(t *testing.T) {
	p := &provider{}
	r := newRig(t, withLogin(p))
	ref, other := r.Person(0), ""
	want, all := 0, 0
	for txn := int64(0); txn < 60; txn++ {
		all++
		if r.Person(txn) == ref {
			want++
		} else {
			other = r.Person(txn)
		}
	}
	session, audit := r.signIn(p, ref), r.signIn(p, auditorSubject)
	count := func(target, header string) (rows, counted int) {
		status, body := r.get("", target, header)
		if status != http.StatusOK {
			t.Fatalf("%s: %d", target, status)
		}
		if header != audit && strings.Contains(body, other) && !strings.Contains(target, other) {
			t.Errorf("%s names another", target)
		}
		for _, m := range regexp.MustCompile(`<b>(\d+)</b>`).FindAllStringSubmatch(body, -1) {
			n := 0
			for _, c := range m[1] {
				n = n*10 + int(c-'0')
			}
			counted += n
		}
		return strings.Count(body, `<td class="time">`), counted
	}
	allRows, allCounted := count("/ui/?limit=1000", audit)
	rows, counted := count("/ui/?limit=1000", session)
	perCall := allRows / all
	if rows != want*perCall || counted != want*perCall || allCounted != allRows {
		t.Errorf("%d rows, %d counted, want %d of %d", rows, counted, want*perCall, allRows)
	}
	if rows, counted := count("/ui/?limit=1000&person="+ref, session); rows != want*perCall || counted != rows {
		t.Errorf("of the person: %d rows, %d counted", rows, counted)
	}
	for _, f := range []string{"person=" + other, "person=" + other + "&kind=all", "kind=query", "kind=heartbeat", "kind=outcome", "kind=key"} {
		if rows, counted := count("/ui/?limit=1000&"+f, session); rows != 0 || counted != 0 {
			t.Errorf("%s: %d rows, %d counted", f, rows, counted)
		}
	}
	nobody := r.signIn(p, "u-without-records")
	if rows, counted := count("/ui/", nobody); rows != 0 || counted != 0 {
		t.Errorf("who did nothing sees %d, %d", rows, counted)
	}
	if status, _ := r.get("", "/ui/me", nobody); status != http.StatusOK {
		t.Errorf("an empty page of one's own: %d", status)
	}
}

// TestL9SharedTransaction: a foreign token service may give one name to
// transactions of two persons; each sees the own calls alone.
func TestL9SharedTransaction(t *testing.T) {
	p := &provider{}
	r := newRig(t, withLogin(p))
	theirs := int64(1)
	for r.Person(theirs) == r.Person(0) {
		theirs++
	}
	shared, was := r.Txn(0), r.Txn(theirs)
	r.Change = func(_ int64, payload []byte) []byte {
		return bytes.ReplaceAll(payload, []byte(was), []byte(shared))
	}
	audit, session := r.signIn(p, auditorSubject), r.signIn(p, r.Person(0))
	mine, other := r.RecordID(3), r.RecordID(theirs*10+3)
	for _, target := range []string{"/ui/transactions/" + shared, "/ui/persons/" + r.Person(0) + "?before=10"} {
		if _, body := r.get("", target, audit); !strings.Contains(body, mine) || !strings.Contains(body, other) {
			t.Fatalf("%s does not show an auditor both: nothing is tested", target)
		}
		if status, body := r.get("", target, session); status != http.StatusOK || !strings.Contains(body, mine) || strings.Contains(body, other) || strings.Contains(body, r.Person(theirs)) {
			t.Errorf("%s: %d, shows another's call: %t", target, status, strings.Contains(body, other))
		}
	}
	if status, body := r.get("", "/ui/actions/"+mine, session); status != http.StatusOK || strings.Contains(body, other) {
		t.Errorf("an action shows another's: %d", status)
	}
	r.exported = nil
	if status, _ := r.get("", "/ui/transactions/"+shared+"/evidence", session); status != http.StatusOK || len(r.exported) != 1 || slices.Contains(r.exported[0].IDs, other) || !slices.Contains(r.exported[0].IDs, mine) {
		t.Errorf("evidence of a shared transaction: %d %v", status, r.exported)
	}
}
