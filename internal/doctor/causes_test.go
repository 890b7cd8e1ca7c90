package doctor

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lineal-auth/lineal/client"
	"github.com/lineal-auth/lineal/gateway"
)

var update = flag.Bool("update", false, "rewrite docs/DOCTOR.md")

// TestReference holds docs/DOCTOR.md to the table of causes.
func TestReference(t *testing.T) {
	const path = "../../docs/DOCTOR.md"
	var want bytes.Buffer
	want.WriteString("# What `lineal doctor` finds\n\n" +
		"Made from the causes in `internal/doctor`. The first step that fails names its cause by one of these codes, which stay as they are;\n" +
		"`-o json` has it as `code`. Exit code 0: every step passed; 3: the configuration is wrong; 1: another step failed.\n\n" +
		"| code | why | what to do |\n|---|---|---|\n")
	for _, code := range slices.Sorted(maps.Keys(causes)) {
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", code, causes[code].why, causes[code].do)
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil { //nolint:gosec // a document
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/DOCTOR.md is not what the table says (%v); run: go test ./internal/doctor -run TestReference -update", err)
	}
}

// TestCauses: every cause says why and what to do, in whole sentences.
func TestCauses(t *testing.T) {
	if len(causes) < 30 {
		t.Errorf("%d causes", len(causes))
	}
	for code, c := range causes {
		if code == "" || !strings.HasSuffix(c.why, ".") || c.do == "" || strings.Contains(c.why+c.do, "|") {
			t.Errorf("%s: %+v", code, c)
		}
	}
}

// TestIssuerNames: names are compared byte for byte, and a slash is told apart
// from another issuer (E9).
func TestIssuerNames(t *testing.T) {
	const name = "https://tokens.test/sts"
	for received, want := range map[string]Code{name: "", name + "/": CodeIssuerSlash, "https://other.test": CodeIssuerMismatch, "": CodeIssuerMismatch} {
		wants(t, sameIssuer(name, received), want)
	}
}

// TestRefusals: what token service and gateway refuse has a cause each.
func TestRefusals(t *testing.T) {
	for code, want := range map[string]Code{
		"invalid_client": CodeAgentUnknown, "unauthorized_client": CodeAgentDisabled, "invalid_target": CodeTarget,
		"invalid_authorization_details": CodeAuthority, "invalid_scope": CodeAuthority, "invalid_request": CodeSubject, "new": CodeExchange,
	} {
		wants(t, exchangeFinding(&client.OAuthError{Status: 400, Code: code}), want)
	}
	wants(t, exchangeFinding(&client.OAuthError{Status: 503, Code: "temporarily_unavailable"}), CodeUnavailable)
	wants(t, exchangeFinding(client.ErrNotHeld), CodeAuthority)
	wants(t, exchangeFinding(errors.New("no answer")), CodeExchange)
	for code, want := range map[gateway.Code]Code{
		gateway.CodePolicyDenied: CodePolicy, gateway.CodeInsufficientScope: CodeScope, gateway.CodeProofInvalid: CodeProof,
		gateway.CodeTokenInvalid: CodeRevoked, gateway.CodeUpstreamTimeout: CodeUpstream, gateway.CodeLedgerUnavailable: CodeRefused,
	} {
		wants(t, callFinding(code, answer{}), want)
	}
}

func wants(t *testing.T, err error, want Code) {
	t.Helper()
	var f *finding
	if errors.As(err, &f); want == "" && err != nil || want != "" && (f == nil || f.code != want || causes[f.code].why == "") {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestProbes: the call that is made is one without effect, or none.
func TestProbes(t *testing.T) {
	for name, c := range map[string]struct{ path, action, want string }{
		"a tool":         {"/mcp/db", "mcp:tools/call", "POST /mcp/db"},
		"OpenAI's API":   {"/openai/v1", "llm:chat", "GET /openai/v1/models"},
		"Anthropic's":    {"/anthropic", "llm:chat", "GET /anthropic/v1/models"},
		"an agent":       {"/a2a/research", "a2a:send", ""},
		"a service":      {"/http/orders", "http:call", ""},
		"nothing at all": {"/mcp/db", "", ""},
	} {
		p, got := probeOf(c.path, `[{"actions":["`+c.action+`"]}]`, nil), ""
		if p != nil {
			got = p.method + " " + c.path + p.path
		}
		if got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if p := probeOf("/a2a/research", `[{"actions":["a2a:send"]}]`, []byte("{}")); p == nil || string(p.body) != "{}" {
		t.Errorf("a call that is given: %+v", p)
	}
}
