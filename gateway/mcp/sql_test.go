package mcp

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/scope/sqlscope"
)

const (
	sqlSchema = `{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}`
	dbRoute   = "https://db.example/mcp"
	// delegated is grant (2) of scope-and-policy.md §2.6, as a root.
	delegated = `[{"type":"urn:lineal:call:v1","locations":["https://db.example/mcp"],"actions":["mcp:tools/call"],"names":["run_sql"],
  "args":"closed","where":{"/args":{"op":"fields","keys":["query"]},
   "/sql/tables":{"op":"each","max_items":1,"of":{"op":"one_of","values":["crm.orders"]}},
   "/sql/columns/crm.orders":{"op":"each","max_items":8,"of":{"op":"one_of","values":["id","customer_id","status"]}},
   "/sql/pred/crm.orders/customer_id":{"op":"one_of","values":["C-4711"]}}}]`
)

func sqlCall(t *testing.T, r *Reader, query string) (gateway.Request, error) {
	t.Helper()
	text, err := json.Marshal(query)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_sql","arguments":{"query":` + string(text) + `}}}`
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, dbRoute, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	req.Header.Set("Mcp-Protocol-Version", "2025-11-25")
	return r.Read(req, "", []byte(body), gateway.Caller{})
}

// TestP11DelegatedPredicate: a tool that takes SQL is held to the table, the
// columns and the predicate that were delegated, and what was judged is what
// goes on.
func TestP11DelegatedPredicate(t *testing.T) {
	sql, err := sqlscope.New(sqlscope.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{Tools: []Tool{{Name: "run_sql", InputSchema: []byte(sqlSchema), SQL: "/query"}}, SQL: sql})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := scope.Parse([]byte(delegated), true)
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"SELECT id, status FROM crm.orders WHERE customer_id = 'C-4711'":                                 "permitted",
		"select ID from crm.ORDERS where CUSTOMER_ID = 'C-4711' and status = 'open' order by id limit 5": "permitted",
		"SELECT id, total FROM crm.orders WHERE customer_id = 'C-4711'":                                  "denied",
		"SELECT id FROM crm.orders WHERE customer_id = 'C-4712'":                                         "denied",
		"SELECT id FROM crm.orders":                                                              "denied",
		"SELECT id FROM crm.customers WHERE customer_id = 'C-4711'":                              "denied",
		"SELECT id FROM crm.orders WHERE customer_id = 'C-4711' OR id > 0":                       "denied",
		"SELECT id FROM crm.orders WHERE customer_id = 'C-4711' UNION SELECT id FROM crm.orders": "unread",
		"SELECT id FROM crm.orders WHERE customer_id = 'C-4711'; DELETE FROM crm.orders":         "unread",
		"DELETE FROM crm.orders WHERE customer_id = 'C-4711'":                                    "unread",
		"SELECT * FROM crm.orders WHERE customer_id = 'C-4711'":                                  "unread",
		"not SQL at all": "unread",
	} {
		out, err := sqlCall(t, r, query)
		if err != nil {
			var refusal *gateway.Refusal
			if !errors.As(err, &refusal) || refusal.Code != gateway.CodePolicyDenied || !strings.HasPrefix(refusal.RecordReason(), "sql_") {
				t.Errorf("%s: refused as %v", query, err)
			}
			if want == "permitted" || (want == "denied" && !strings.Contains(query, " OR ")) {
				t.Errorf("%s: not read: %v", query, err)
			}
			continue
		}
		permitted := grant.Permits(scope.Call{Location: dbRoute, Action: out.Action, Name: out.Name, Doc: out.Doc}).Permitted()
		if permitted != (want == "permitted") || want == "unread" {
			t.Errorf("%s: permitted %v, want %s", query, permitted, want)
		}
		checkForwarded(t, sql, out, query)
	}
}

// checkForwarded: the upstream gets the canonical text, and reading that again
// gives the facts that were judged.
func checkForwarded(t *testing.T, sql SQL, out gateway.Request, query string) {
	t.Helper()
	var sent struct {
		ID     int
		Params struct {
			Name      string
			Arguments map[string]string
		}
	}
	if err := json.Unmarshal(out.Body, &sent); err != nil {
		t.Fatal(err)
	}
	text := sent.Params.Arguments["query"]
	if sent.ID != 1 || sent.Params.Name != "run_sql" || text == "" || text == query {
		t.Errorf("%s: sent on as %s", query, out.Body)
	}
	again, err := sql.Read(t.Context(), text)
	if err != nil {
		t.Fatalf("%s: the text sent on does not read: %v", query, err)
	}
	judged, _ := out.Doc.Lookup("/sql")
	if !again.Facts().Equal(judged) || again.Canonical() != text {
		t.Errorf("%s: the text sent on reads as something else", query)
	}
}

// A tool that takes SQL without a reader of it is a mistake of the set-up.
func TestSQLNeedsAReader(t *testing.T) {
	if _, err := New(Config{Tools: []Tool{{Name: "run_sql", InputSchema: []byte(sqlSchema), SQL: "/query"}}}); err == nil {
		t.Error("made without a reader")
	}
	if _, err := New(Config{Tools: []Tool{{Name: "run_sql", InputSchema: []byte(sqlSchema)}}}); err != nil {
		t.Error(err)
	}
}
