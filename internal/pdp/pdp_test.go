package pdp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lineal-auth/lineal/internal/strictjson"
)

var question = strictjson.Object(strictjson.Member{Name: "q", Value: strictjson.Int(1)})

func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestA7WaysToHaveNoAnswer: each is refused within the deadline with its code,
// and what the peer sent is not in the text.
func TestA7WaysToHaveNoAnswer(t *testing.T) {
	const asJSON = "application/json"
	good := `{"result":true}`
	stall := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		want    string // "" is an answer
	}{
		{"twin", answering(200, asJSON, good), ""},
		{"twin: with charset", answering(200, "application/json; charset=utf-8", good), ""},
		{"twin: as large as allowed", answering(200, asJSON, `{"p":"`+strings.Repeat("x", 1016)+`"}`), ""},
		{"too large", answering(200, asJSON, `{"p":"`+strings.Repeat("x", 1017)+`"}`), "decision_point_too_large"},
		{"never ends", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", asJSON)
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
					return
				}
			}
		}, "decision_point_too_large"},
		{"says nothing", stall, "decision_point_timeout"},
		{"stops halfway", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", asJSON)
			_, _ = io.WriteString(w, `{"result":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "decision_point_timeout"},
		{"breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", asJSON)
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, good)
		}, "decision_point_unreachable"},
		{"no HTTP", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "s3cret\r\n\r\n")
				_ = conn.Close()
			}
		}, "decision_point_unreachable"},
		{"500", answering(500, asJSON, good), "decision_point_status: status 500"},
		{"503", answering(503, asJSON, good), "decision_point_status: status 503"},
		{"401", answering(401, asJSON, good), "decision_point_status: status 401"},
		{"404", answering(404, asJSON, good), "decision_point_status: status 404"},
		{"201", answering(201, asJSON, good), "decision_point_status: status 201"},
		{"204", answering(204, asJSON, ""), "decision_point_status: status 204"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			answering(200, asJSON, good)(w, r)
		}, "decision_point_status: status 307"},
		{"HTML", answering(200, "text/html", good), "decision_point_malformed: the content type is not application/json"},
		{"no type", answering(200, "", good), "decision_point_malformed: the content type is not application/json"},
		{"empty", answering(200, asJSON, ""), "decision_point_malformed: syntax"},
		{"half", answering(200, asJSON, `{"result":tr`), "decision_point_malformed: syntax"},
		{"twice", answering(200, asJSON, good+good), "decision_point_malformed: trailing_data"},
		{"duplicate name", answering(200, asJSON, `{"result":false,"result":true}`), "decision_point_malformed: duplicate_name"},
		{"duplicate name, escaped", answering(200, asJSON, `{"result":false,"res\u0075lt":true}`), "decision_point_malformed: duplicate_name"},
		{"bad UTF-8", answering(200, asJSON, "{\"s3cret\xff\":1}"), "decision_point_malformed: invalid_utf8"},
		{"BOM", answering(200, asJSON, "\ufeff"+good), "decision_point_malformed: bom"},
		{"too deep", answering(200, asJSON, strings.Repeat(`{"a":`, 40)+"1"+strings.Repeat("}", 40)), "decision_point_malformed: too_deep"},
		{"array", answering(200, asJSON, `[true]`), "decision_point_malformed: not an object"},
		{"bare", answering(200, asJSON, `true`), "decision_point_malformed: not an object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(tc.handler)
			defer s.Close()
			timeout := 20 * time.Second
			if strings.HasPrefix(tc.want, "decision_point_timeout") {
				timeout = 100 * time.Millisecond
			}
			c, err := New(Config{URL: s.URL, Timeout: timeout, MaxResponse: 1024})
			if err != nil {
				t.Fatal(err)
			}
			defer c.http.CloseIdleConnections()
			v, _, err := c.Ask(t.Context(), question, nil)
			got := ""
			if err != nil {
				got = err.Error()
				var e *Error
				if !errors.As(err, &e) {
					t.Errorf("%T is no *Error", err)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if v.IsZero() != (err != nil) {
				t.Errorf("answer %s beside error %v", v.AppendJSON(nil), err)
			}
		})
	}
}

// TestA7NobodyListens: refused, not waited for.
func TestA7NobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{URL: "http://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, _, err := c.Ask(t.Context(), question, nil); !errors.As(err, &e) || e.Code != CodeUnreachable || e.Error() != string(CodeUnreachable) {
		t.Errorf("got %v", err)
	}
}

// TestA7TheCallersDeadlineHolds: an earlier deadline of the call wins over the
// configured one, and a call that is gone is not asked about.
func TestA7TheCallersDeadlineHolds(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer s.Close()
	c, err := New(Config{URL: s.URL, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var e *Error
	if _, _, err := c.Ask(ctx, question, nil); !errors.As(err, &e) || e.Code != CodeTimeout {
		t.Errorf("got %v", err)
	}
}

// TestWhatIsSent: one POST of the question as JSON, with our credential; without
// the credential nothing.
func TestWhatIsSent(t *testing.T) {
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), r.Header.Get("X-Request-Id"), body))
		answering(200, "application/json", `{"ok":1}`)(w, r)
	}))
	defer s.Close()
	token, tokenErr := "t0ken", error(nil)
	c, err := New(Config{URL: s.URL + "/p?q=1", Bearer: func(context.Context) (string, error) { return token, tokenErr }})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Ask(t.Context(), question, http.Header{"X-Request-Id": {"id-1"}}); err != nil {
		t.Fatal(err)
	}
	var e *Error
	tokenErr = errors.New("s3cret vault is sealed")
	if _, _, err := c.Ask(t.Context(), question, nil); !errors.As(err, &e) || e.Code != CodeCredential || strings.Contains(e.Error(), "s3cret") {
		t.Errorf("without a credential: %v", err)
	}
	token, tokenErr = "", nil
	if _, _, err := c.Ask(t.Context(), question, nil); !errors.As(err, &e) || e.Code != CodeCredential {
		t.Errorf("with an empty credential: %v", err)
	}
	if diff := cmp.Diff([]string{`POST /p?q=1 application/json Bearer t0ken id-1 {"q":1}`}, seen); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestNewRefuses: questions hold arguments and answers hold authority, so they
// do not travel in clear.
func TestNewRefuses(t *testing.T) {
	for _, u := range []string{"", "opa", "http://opa.internal:8181", "ftp://127.0.0.1", "https://user:pass@opa", "https://opa/#x", "http://127.0.0.1.evil.example", "://"} {
		if _, err := New(Config{URL: u}); err == nil {
			t.Errorf("%q is accepted", u)
		}
	}
	for _, u := range []string{"https://opa.internal:8181/x", "http://127.0.0.1:8181", "http://[::1]:8181", "http://localhost:1"} {
		if _, err := New(Config{URL: u}); err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
	if _, err := New(Config{URL: "https://opa", Timeout: -1}); err == nil {
		t.Error("a negative timeout is accepted")
	}
}

// TestRules: ids come sorted, each once, and nothing else is an id.
func TestRules(t *testing.T) {
	got, err := Rules(strictjson.Strings("z", "a/b-1", "z"))
	if diff := cmp.Diff([]string{"a/b-1", "z"}, got); diff != "" || err != nil {
		t.Errorf("%v; rules (-want +got):\n%s", err, diff)
	}
	many := make([]strictjson.Value, maxRules+1)
	for i := range many {
		many[i] = strictjson.String("r")
	}
	for name, v := range map[string]strictjson.Value{
		"no value": {}, "text": strictjson.String("a"), "number": strictjson.Array(strictjson.Int(1)), "empty id": strictjson.Strings(""),
		"white space": strictjson.Strings("a b"), "long": strictjson.Strings(strings.Repeat("a", 129)), "many": strictjson.Array(many...),
	} {
		if ids, err := Rules(v); err == nil {
			t.Errorf("%s: %v", name, ids)
		}
	}
}
