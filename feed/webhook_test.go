package feed_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/feed"
	"github.com/lineal-auth/lineal/internal/ssrf"
)

// The example of the Standard Webhooks specification's reference libraries.
const specSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func secret(t *testing.T, s string) feed.Secret {
	t.Helper()
	x, err := feed.ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// hook is a receiver; answer is what it says to the n-th request, 0 for one that
// it keeps.
type hook struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request, n int) int

	mu      sync.Mutex // guards what follows
	n       int
	indexes []int64
	ids     map[string]string // webhook-id → body
	header  http.Header
	wrong   []string
}

type hookBody struct {
	Type, Timestamp string
	Data            struct {
		Origin      string
		First, Next int64
		Records     []struct{ Index int64 }
	}
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	h.header = r.Header.Clone()
	if err != nil || r.URL.RawQuery != "" || !verified(r.Header, body, specSecret) {
		h.wrong = append(h.wrong, fmt.Sprintf("request %d: %v, signature %q", h.n, err, r.Header.Get("Webhook-Signature")))
	}
	id := r.Header.Get("Webhook-Id")
	if was, known := h.ids[id]; known && was != string(body) {
		h.wrong = append(h.wrong, "one id, two bodies: "+id)
	}
	h.ids[id] = string(body)
	if h.answer != nil {
		if code := h.answer(w, r, h.n); code != 0 {
			w.WriteHeader(code) // again, where it answered already
			return
		}
	}
	var got hookBody
	if err := json.Unmarshal(body, &got); err != nil || got.Type != "lineal.records" || got.Data.Origin != origin {
		h.wrong = append(h.wrong, fmt.Sprintf("body: %v %.100s", err, body))
		return
	}
	for i, x := range got.Data.Records {
		if i == 0 && x.Index != got.Data.First || i == len(got.Data.Records)-1 && x.Index != got.Data.Next-1 {
			h.wrong = append(h.wrong, "first and next are not of the records")
		}
		h.indexes = append(h.indexes, x.Index)
	}
}

// verified is the check of the specification, written again.
func verified(h http.Header, body []byte, secret string) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(h.Get("Webhook-Id") + "." + h.Get("Webhook-Timestamp") + "."))
	mac.Write(body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, s := range strings.Fields(h.Get("Webhook-Signature")) {
		if hmac.Equal([]byte(s), []byte(want)) {
			return true
		}
	}
	return false
}

// TestVerifierKnowsTheSpecification holds the check of these tests to the
// specification's own example.
func TestVerifierKnowsTheSpecification(t *testing.T) {
	h := http.Header{}
	h.Set("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	h.Set("Webhook-Timestamp", "1614265330")
	h.Set("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	if !verified(h, []byte(`{"test": 2432232314}`), specSecret) {
		t.Error("the example does not verify")
	}
	if verified(h, []byte(`{"test": 2432232315}`), specSecret) {
		t.Error("another body verifies")
	}
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{ids: make(map[string]string)}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	h.StartTLS()
	t.Cleanup(func() {
		h.Close()
		for _, w := range h.wrong {
			t.Error(w)
		}
	})
	return h
}

func (h *hook) sink(t *testing.T, cfg ssrf.Config) *feed.Webhook {
	t.Helper()
	if cfg.Roots == nil {
		cfg.Roots = h.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	return &feed.Webhook{
		URL: h.URL + "/hook", Secrets: []feed.Secret{secret(t, specSecret)}, Encode: export.Line, Now: time.Now,
		HTTP: &http.Client{
			Transport: ssrf.New(cfg).Transport(), Timeout: 20 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// TestWebhook: whatever the receiver answers, each index arrives, in order.
func TestWebhook(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, n int) int{
		"always sound": nil,
		"500":          func(_ http.ResponseWriter, _ *http.Request, n int) int { return []int{0, 500}[n%2] },
		"429 with a wait": func(w http.ResponseWriter, _ *http.Request, n int) int {
			w.Header().Set("Retry-After", "3600")
			return []int{0, 429}[n%2]
		},
		"redirects": func(w http.ResponseWriter, r *http.Request, n int) int {
			w.Header().Set("Location", "/elsewhere")
			if r.URL.Path != "/hook" {
				t.Error("the redirect was followed")
			}
			return []int{0, 307}[n%2]
		},
		"takes little at once": func(_ http.ResponseWriter, r *http.Request, _ int) int {
			if r.ContentLength > 9000 {
				return http.StatusRequestEntityTooLarge
			}
			return 0
		},
		"hangs up": func(_ http.ResponseWriter, _ *http.Request, n int) int {
			if n%2 == 1 {
				panic(http.ErrAbortHandler)
			}
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t)
			h.answer = answer
			cfg := config(newLog(t, 60), h.sink(t, ssrf.Config{Loopback: true}), &feed.Forgotten{})
			cfg.Batch = 16
			if err := drain(t, cfg); err != nil {
				t.Fatal(err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			var firsts []int64
			for _, i := range h.indexes {
				if len(firsts) == 0 || i > firsts[len(firsts)-1] {
					firsts = append(firsts, i)
				}
			}
			checkAll(t, firsts, 0, 60)
			if h.header.Get("Authorization") != "" {
				t.Error("a header that nobody asked for")
			}
		})
	}
}

// TestD1WebhookReachesNoInnerAddress: a name that leads to an address that the
// operator did not name gets nothing.
func TestD1WebhookReachesNoInnerAddress(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  ssrf.Config
		good bool
	}{
		{"public alone", ssrf.Config{}, false},
		{"another network", ssrf.Config{Also: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, false},
		{"its network", ssrf.Config{Also: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, true},
	} {
		h := newHook(t)
		if err := h.sink(t, tc.cfg).Deliver(t.Context(), batch(t, 1)); (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
		h.mu.Lock()
		if (h.n > 0) != tc.good {
			t.Errorf("%s: %d requests", tc.name, h.n)
		}
		h.mu.Unlock()
	}
}

// TestWebhookSecretsRotate: while two are given, each verifies.
func TestWebhookSecretsRotate(t *testing.T) {
	h := newHook(t)
	w := h.sink(t, ssrf.Config{Loopback: true})
	w.Secrets = append([]feed.Secret{secret(t, "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)))}, w.Secrets...)
	w.Authorization = func() (string, error) { return "Bearer of-this-test", nil }
	if err := w.Deliver(t.Context(), batch(t, 2)); err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(h.header.Get("Webhook-Signature"))) != 2 || h.header.Get("Authorization") != "Bearer of-this-test" {
		t.Errorf("header %v", h.header)
	}
}

// TestO4WebhookSecretIsNotTold: not in a URL, not in an error, not in a log, in
// no format.
func TestO4WebhookSecretIsNotTold(t *testing.T) {
	h := newHook(t)
	h.answer = func(w http.ResponseWriter, r *http.Request, _ int) int {
		w.WriteHeader(500)
		_, _ = io.WriteString(w, r.Header.Get("Authorization")) // a receiver that says it again
		return 500
	}
	var logged bytes.Buffer
	w := h.sink(t, ssrf.Config{Loopback: true})
	w.Authorization = func() (string, error) { return "Bearer very-secret", nil }
	cfg := config(newLog(t, 5), w, &feed.Forgotten{})
	cfg.Logger = slog.New(slog.NewJSONHandler(&logged, nil))
	f, err := feed.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	derr := w.Deliver(t.Context(), batch(t, 1))
	if derr == nil {
		t.Fatal("a 500 counts as acknowledged")
	}
	ctx, cancel := contextUntil(t, func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.n > 3 })
	defer cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	s := w.Secrets[0]
	asJSON, err := json.Marshal(w.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", slog.Any("secret", s))
	told := fmt.Sprintf("%v %+v %#v %s %s %v %s", s, s, s, asJSON, derr, w.Secrets, logged.String())
	if logged.Len() == 0 {
		t.Error("nothing was logged")
	}
	for _, bad := range []string{"MfKQ9r8", "very-secret", "49 242 144 246"} { // the key's first bytes, in decimal
		if strings.Contains(told, bad) {
			t.Errorf("%s is told: %.300s", bad, told)
		}
	}
}

func TestParseSecret(t *testing.T) {
	for _, bad := range []string{"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa==", "whsec_?", "whsec_" + strings.Repeat("AAAA", 22)} {
		if _, err := feed.ParseSecret(bad); err == nil {
			t.Errorf("%q is a secret", bad)
		}
	}
	secret(t, specSecret+"\n")
}

// TestWebhookSettings that cannot be.
func TestWebhookSettings(t *testing.T) {
	h := newHook(t)
	for name, change := range map[string]func(*feed.Webhook){
		"no secret":         func(w *feed.Webhook) { w.Secrets = nil },
		"an empty secret":   func(w *feed.Webhook) { w.Secrets = []feed.Secret{{}} },
		"http":              func(w *feed.Webhook) { w.URL = "http://127.0.0.1/hook" },
		"a secret in a URL": func(w *feed.Webhook) { w.URL += "?token=x" },
		"user information":  func(w *feed.Webhook) { w.URL = "https://u:p@example.com/hook" },
		"no client":         func(w *feed.Webhook) { w.HTTP = nil },
	} {
		w := h.sink(t, ssrf.Config{})
		if err := w.Check(); err != nil {
			t.Fatal(err)
		}
		change(w)
		if w.Check() == nil {
			t.Errorf("%s passes", name)
		}
	}
	for name, change := range map[string]func(*feed.Syslog){
		"no port":      func(s *feed.Syslog) { s.Address = "example.com" },
		"facility":     func(s *feed.Syslog) { s.Facility = 24 },
		"tiny message": func(s *feed.Syslog) { s.MaxBytes = 100 },
		"no encoding":  func(s *feed.Syslog) { s.Encode = nil },
	} {
		s := toSyslog(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6514}, nil)
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		change(s)
		if s.Check() == nil {
			t.Errorf("%s passes", name)
		}
	}
	if _, err := feed.New(feed.Config{}); err == nil || errors.Is(err, feed.ErrCursor) {
		t.Errorf("a feed of nothing: %v", err)
	}
}
