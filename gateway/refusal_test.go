package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/gateway"
	"github.com/lineal-auth/lineal/gateway/a2a"
	"github.com/lineal-auth/lineal/gateway/llm"
	"github.com/lineal-auth/lineal/gateway/mcp"
	"github.com/lineal-auth/lineal/token"
)

// row is one line of the table of codes in the gateway's design, §2. protocol
// marks rule c: a JSON-RPC protocol answers with an error in a 200.
type row struct {
	code      gateway.Code
	status    int
	protocol  bool
	jsonrpc   int
	retryable bool
	upstream  bool
	challenge string
	sentence  string
}

var rows = []row{
	{"token_missing", 401, false, -31401, false, false, "-", "A delegation token is required."},
	{"token_expired", 401, false, -31401, false, false, "invalid_token", "The delegation token has expired."},
	{"token_invalid", 401, false, -31401, false, false, "invalid_token", "The delegation token is not valid here."},
	{"proof_invalid", 401, false, -31401, false, false, "invalid_token", "The delegation token is bound to a key that this connection does not prove."},
	{"login_insufficient", 401, false, -31401, false, false, "insufficient_user_authentication", "The person must sign in again."},
	{"insufficient_scope", 403, false, -31403, false, false, "insufficient_scope", "The delegation token has too little scope."},
	{"policy_denied", 403, true, -31403, false, false, "", "Refused by policy."},
	{"provider_tool_denied", 403, true, -31403, false, false, "", "Provider-side tools are not allowed."},
	{"limit_exceeded", 403, true, -31413, false, false, "", "The call exceeds a limit."},
	{"request_unreadable", 400, false, -32600, false, false, "", "The request cannot be read without doubt."},
	{"header_mismatch", 400, false, -32020, false, false, "", "A header contradicts the body."},
	{"version_unsupported", 400, false, -32022, false, false, "", "This protocol version is not served."},
	{"operation_unknown", 404, false, -32601, false, false, "", "This operation is not known."},
	{"route_unknown", 404, false, -31404, false, false, "", "There is no such route."},
	{"request_too_large", 413, false, -31413, false, false, "", "The request is too large."},
	{"session_unknown", 404, false, -31404, false, false, "", "There is no such session."},
	{"handle_unknown", 404, true, -32602, false, false, "", "There is no such id."},
	{"host_denied", 421, false, -31400, false, false, "", "This host is not served here."},
	{"origin_denied", 403, false, -31400, false, false, "", "This origin is not allowed."},
	{"method_not_allowed", 405, false, -31400, false, false, "", "This method is not allowed."},
	{"upgrade_unsupported", 400, false, -31400, false, false, "", "Upgrades are not supported; use HTTP streaming."},
	{"ledger_unavailable", 503, false, -31503, true, false, "", "The call cannot be recorded at the moment."},
	{"revocation_stale", 503, false, -31503, true, false, "", "Revocations cannot be checked at the moment."},
	{"chain_unavailable", 503, false, -31503, true, false, "", "The delegation chain cannot be fetched at the moment."},
	{"proof_unavailable", 503, false, -31503, true, false, "", "Proofs of key possession cannot be checked at the moment."},
	{"handle_unavailable", 503, false, -31503, true, false, "", "Whose the id is cannot be asked at the moment."},
	{"policy_unavailable", 503, false, -31503, true, false, "", "Policy cannot be asked at the moment."},
	{"credential_unavailable", 503, false, -31503, true, true, "", "The credential for the upstream is not available at the moment."},
	{"upstream_credential", 502, false, -31502, false, true, "", "The upstream refused the gateway's own credential."},
	{"upstream_invalid", 502, false, -31502, false, true, "", "The upstream's answer cannot be read."},
	{"upstream_unreachable", 502, false, -31502, true, true, "", "The upstream cannot be reached."},
	{"upstream_timeout", 504, false, -31504, false, true, "", "The upstream did not answer in time; the call may have run."},
	{"upstream_refused", 403, true, -31502, false, true, "", "The upstream refused the call."},
	{"internal", 500, false, -31500, false, false, "", "Internal error."},
}

// TestRefusalTable compares the one table of refusals row by row.
func TestRefusalTable(t *testing.T) {
	var want []gateway.Answer
	for _, r := range rows {
		want = append(want, gateway.Answer{
			Code: r.code, Status: r.status, Protocol: r.protocol, JSONRPC: r.jsonrpc, Retryable: r.retryable,
			Upstream: r.upstream, Challenge: r.challenge, Sentence: r.sentence,
		})
	}
	if diff := cmp.Diff(want, gateway.Answers()); diff != "" {
		t.Error(diff)
	}
	for _, a := range gateway.Answers() {
		reserved := a.JSONRPC <= -32000 && a.JSONRPC >= -32768
		standard := map[int]bool{-32600: true, -32601: true, -32602: true, -32020: true, -32022: true}
		if reserved && !standard[a.JSONRPC] {
			t.Errorf("%s: %d is in the range that JSON-RPC reserves", a.Code, a.JSONRPC)
		}
	}
}

// TestRefusalShapes writes every row in every protocol's shape.
func TestRefusalShapes(t *testing.T) {
	reader, err := mcp.New(mcp.Config{})
	must(t, err)
	llmTypes := map[int]string{
		400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
		413: "invalid_request_error", 503: "overloaded_error", 504: "timeout_error",
	}
	const id, doc = "01a20320-a5e8-7000-8000-000000000001", "https://gw.test/errors#x"
	peer, err := a2a.New(a2a.Config{Agent: "peer", URL: "https://gw.test/a2a/peer"})
	must(t, err)
	asked := httptest.NewRequest(http.MethodPost, "/", nil)
	write := func(p gateway.Protocol, body string, a gateway.Answer, data map[string]any) (int, http.Header, map[string]any) {
		rec := httptest.NewRecorder()
		p.WriteRefusal(rec, asked, []byte(body), gateway.Refused{Answer: a, RequestID: id, DocURL: doc, Data: data})
		var got map[string]any
		if rec.Body.Len() > 0 {
			must(t, json.Unmarshal(rec.Body.Bytes(), &got))
		}
		return rec.Code, rec.Header(), got
	}
	for _, a := range gateway.Answers() {
		t.Run(string(a.Code), func(t *testing.T) {
			hop := "caller"
			if a.Upstream {
				hop = "upstream"
			}
			message := a.Sentence + " Request " + id + "."
			rpcStatus := a.Status
			if a.Protocol {
				rpcStatus = 200
			}
			members := map[string]any{"code": string(a.Code), "request_id": id, "retryable": a.Retryable, "hop": hop, "doc_url": doc}
			rpc := func(data any) map[string]any {
				return map[string]any{"code": float64(a.JSONRPC), "message": message, "data": data}
			}

			// MCP: the request's id; none for a notification or what is unreadable.
			for body, wantID := range map[string]any{
				`{"jsonrpc":"2.0","id":7,"method":"x"}`:    float64(7),
				`{"jsonrpc":"2.0","id":"7","method":"x"}`:  "7",
				`{"jsonrpc":"2.0","method":"x"}`:           nil,
				`{"jsonrpc":"2.0","id":7,"id":8}`:          nil,
				`[{"jsonrpc":"2.0","id":7,"method":"x"}]`:  nil,
				`{"jsonrpc":"2.0","id":1.5,"method":"x"}`:  nil,
				`{"jsonrpc":"2.0","id":null,"method":"x"}`: nil,
				"": nil,
			} {
				want := map[string]any{"jsonrpc": "2.0", "error": rpc(members)}
				wantStatus := a.Status
				if a.Code == gateway.CodeSessionUnknown { // MCP clients begin another session if there is no body
					if status, _, got := write(reader, body, a, nil); status != 404 || got != nil {
						t.Errorf("%d %v", status, got)
					}
					continue
				}
				if wantID != nil {
					want["id"], wantStatus = wantID, rpcStatus
				}
				status, h, got := write(reader, body, a, nil)
				if diff := cmp.Diff(want, got); diff != "" || status != wantStatus || h.Get("Content-Type") != "application/json" {
					t.Errorf("MCP, %s: status %d, want %d\n%s", body, status, wantStatus, diff)
				}
			}

			// A2A: one google.rpc.ErrorInfo; id null where none can be read.
			info := map[string]any{
				"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": strings.ToUpper(string(a.Code)), "domain": "lineal",
				"metadata": map[string]any{"code": string(a.Code), "request_id": id, "retryable": map[bool]string{true: "true", false: "false"}[a.Retryable], "hop": hop, "doc_url": doc},
			}
			for _, version := range []string{"1.0", "0.3", ""} {
				for body, wantID := range map[string]any{`{"jsonrpc":"2.0","id":7,"method":"x"}`: float64(7), `{`: nil} {
					wantStatus, wantError := a.Status, rpc([]any{info})
					if version != "1.0" {
						wantError = rpc(members)
					}
					if a.Code == gateway.CodeHandleUnknown {
						wantError["code"] = float64(-32001)
					}
					if wantID != nil {
						wantStatus = rpcStatus
					}
					asked = httptest.NewRequest(http.MethodPost, "/a2a/peer", nil)
					asked.Header.Set("A2A-Version", version)
					status, _, got := write(peer, body, a, nil)
					want := map[string]any{"jsonrpc": "2.0", "id": wantID, "error": wantError}
					if diff := cmp.Diff(want, got); diff != "" || status != wantStatus {
						t.Errorf("A2A %s, %s: status %d, want %d\n%s", version, body, status, wantStatus, diff)
					}
				}
			}

			// A2A over HTTP: a google.rpc.Status, never a 200, in the client's media type.
			for _, media := range []string{"application/json", "application/a2a+json"} {
				asked = httptest.NewRequest(http.MethodPost, "/a2a/peer/message:send", nil)
				asked.Header.Set("Accept", media)
				status, h, got := write(peer, `{}`, a, nil)
				failure, _ := got["error"].(map[string]any)
				details, _ := failure["details"].([]any)
				wantDetails := []any{info, map[string]any{"@type": "type.googleapis.com/google.protobuf.Struct", "value": info["metadata"]}}
				if a.Code == gateway.CodeHandleUnknown {
					info["reason"], info["domain"] = "TASK_NOT_FOUND", "a2a-protocol.org"
					wantDetails = wantDetails[:1]
				}
				if diff := cmp.Diff(wantDetails, details); diff != "" || status != a.Status || failure["code"] != float64(a.Status) || failure["message"] != message || h.Get("Content-Type") != media {
					t.Errorf("A2A over HTTP: status %d, %v, %s\n%s", status, failure, h.Get("Content-Type"), diff)
				}
				if name, _ := failure["status"].(string); name == "" || name == "UNKNOWN" {
					t.Errorf("no name for status %d", a.Status)
				}
			}
			asked = httptest.NewRequest(http.MethodPost, "/", nil)

			// OpenAI: its error object, never a 200.
			kind, ok := llmTypes[a.Status]
			if !ok {
				kind = "api_error"
			}
			status, h, got := write(llm.NewOpenAI(llm.Config{}), `{"model":"x"}`, a, nil)
			want := map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": string(a.Code)}}
			retry := map[bool]string{true: "true", false: "false"}[a.Retryable]
			if diff := cmp.Diff(want, got); diff != "" || status != a.Status || h.Get("X-Request-Id") != id || h.Get("X-Should-Retry") != retry {
				t.Errorf("OpenAI: status %d, headers %v\n%s", status, h, diff)
			}
		})
	}
	_, _, got := write(reader, `{"jsonrpc":"2.0","id":7}`, gateway.Answer{Code: "version_unsupported", Status: 400, JSONRPC: -32022}, map[string]any{"supported": []string{"1"}})
	problem, _ := got["error"].(map[string]any)
	data, _ := problem["data"].(map[string]any)
	if diff := cmp.Diff([]any{"1"}, data["supported"]); diff != "" {
		t.Error(diff)
	}
}

type verifierFunc func() (token.Verified, error)

func (f verifierFunc) Verify(context.Context, string, token.Want) (token.Verified, error) { return f() }

func (verifierFunc) Recheck(context.Context, token.Verified, time.Duration) error { return nil }

// TestTokenCodes maps every code a verifier gives: the caller sees the coarse
// one, the record has the fine one (threat A9).
func TestTokenCodes(t *testing.T) {
	coarse := map[token.Code]gateway.Code{
		token.CodeTokenMissing: gateway.CodeTokenMissing, token.CodeTokenExpired: gateway.CodeTokenExpired,
		token.CodeBindingMissing: gateway.CodeProofInvalid, token.CodeBindingMismatch: gateway.CodeProofInvalid,
		token.CodeProofMissing: gateway.CodeProofInvalid, token.CodeProofInvalid: gateway.CodeProofInvalid,
		token.CodeProofNonce: gateway.CodeProofInvalid, token.CodeProofReplayed: gateway.CodeProofInvalid,
		token.CodeProofUnavailable: gateway.CodeProofUnavailable,
		token.CodeChainUnavailable: gateway.CodeChainUnavailable, token.CodeRevocationStale: gateway.CodeRevocationStale,
	}
	for _, code := range append(token.Codes(), token.ProofCodes()...) {
		t.Run(string(code), func(t *testing.T) {
			want, special := coarse[code]
			if !special {
				want = gateway.CodeTokenInvalid
			}
			status := 401
			if want == gateway.CodeChainUnavailable || want == gateway.CodeRevocationStale || want == gateway.CodeProofUnavailable {
				status = 503
			}
			w := newWorld(t, func(cfg *gateway.Config) {
				cfg.Verifier = verifierFunc(func() (token.Verified, error) {
					return token.Verified{}, &token.Error{Code: code, Claimed: research.String()}
				})
			})
			got := w.send(mcpCall("x.y.z", "find", someone))
			d := w.wantRefusal(got, status, want, string(code))
			if d.Caller.Claimed != research.String() {
				t.Errorf("claimed %q", d.Caller.Claimed)
			}
			if string(want) != string(code) && strings.Contains(string(got.body), string(code)) {
				t.Errorf("the caller is told the fine code: %s", got.body)
			}
			if c := got.header.Get("WWW-Authenticate"); (status == 401) != strings.Contains(c, `resource_metadata="`+w.url+`/.well-known/oauth-protected-resource/mcp/orders"`) ||
				(status == 401) != strings.HasSuffix(c, `, scope="mcp:call mcp:prompt mcp:read"`) { // what to ask for, though the call is not read yet
				t.Errorf("challenge %q with status %d", c, status)
			}
		})
	}
}

// TestA9RefusalIsNoOracle: a refusal names no rule, no
// person, no detail.
func TestA9RefusalIsNoOracle(t *testing.T) {
	w := newWorld(t)
	// Scope and policy refuse in the same words, whatever the reason was.
	var said []string
	for reason, a := range map[string]ask{
		"policy_denied":  mcpCall(w.token(mint{}), "find", `{"customer":"C-1","region":"secret"}`),
		"scope_exceeded": mcpCall(w.token(mint{grants: [][]detail{{w.mcpDetail("copy")}}}), "find", someone),
	} {
		w.recorder.reset()
		got := w.send(a)
		d := w.wantRefusal(got, 200, gateway.CodePolicyDenied, reason)
		said = append(said, strings.ReplaceAll(string(got.body), d.CallID, "ID"))
		if len(d.Policy.Rules) == 0 && reason == "policy_denied" && d.Policy.BundleDigest == "" {
			t.Errorf("the record does not say which rules: %+v", d.Policy)
		}
	}
	if said[0] != said[1] {
		t.Errorf("the two refusals differ:\n%s\n%s", said[0], said[1])
	}
}
