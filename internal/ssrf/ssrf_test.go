package ssrf_test

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/internal/ssrf"
)

// host is an https server that counts connections.
type host struct {
	*httptest.Server
	connections atomic.Int64
	port        string
	roots       *x509.CertPool
}

func newHost(t *testing.T, h http.HandlerFunc) *host {
	t.Helper()
	out := &host{}
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			out.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	out.Server = s
	_, out.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	out.roots = x509.NewCertPool()
	out.roots.AddCert(s.Certificate())
	return out
}

// names is a resolver whose answers change from one question to the next.
type names struct {
	answers [][]string
	asked   atomic.Int64
}

func (n *names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	at := min(int(n.asked.Add(1)), len(n.answers)) - 1
	var out []netip.Addr
	for _, s := range n.answers[at] {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

// What is not public is not connected to, however it is spelled or resolved.
func TestD1NothingInternalIsReached(t *testing.T) {
	h := newHost(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) })
	for name, tt := range map[string]struct {
		url     string
		resolve []string
	}{
		"loopback":            {url: "https://127.0.0.1:PORT/x"},
		"IPv6 loopback":       {url: "https://[::1]:PORT/x"},
		"mapped":              {url: "https://[::ffff:127.0.0.1]:PORT/x"},
		"mapped, hexadecimal": {url: "https://[::ffff:7f00:1]:PORT/x"},
		"NAT64":               {url: "https://[64:ff9b::7f00:1]:PORT/x"},
		"6to4":                {url: "https://[2002:7f00:1::]:PORT/x"},
		"zone":                {url: "https://[fe80::1%25lo]:PORT/x"},
		"decimal":             {url: "https://2130706433:PORT/x"},
		"hexadecimal":         {url: "https://0x7f000001:PORT/x"},
		"octal":               {url: "https://0177.0.0.1:PORT/x"},
		"short":               {url: "https://127.1:PORT/x"},
		"private":             {url: "https://10.0.0.1:PORT/x"},
		"metadata":            {url: "https://169.254.169.254/x"},
		"shared":              {url: "https://100.64.0.1/x"},
		"this network":        {url: "https://0.0.0.0:PORT/x"},
		"plain http":          {url: "http://example.com/x"},
		"user information":    {url: "https://example.com@127.0.0.1:PORT/x"},
		"backslash":           {url: `https://example.com\@127.0.0.1:PORT/x`},
		"no path":             {url: "https://example.com"},
		"root":                {url: "https://example.com/"},
		"fragment":            {url: "https://example.com/x#y"},
		"query":               {url: "https://example.com/x?y"},
		"dot segments":        {url: "https://example.com/a/../x"},
		"encoded dots":        {url: "https://example.com/a/%2e%2e/x"},
		"upper case":          {url: "https://EXAMPLE.com/x"},
		"final dot":           {url: "https://example.com./x"},
		"line break":          {url: "https://example.com/x\r\n"},
		"name of loopback":    {url: "https://example.com:PORT/x", resolve: []string{"127.0.0.1"}},
		"name of mapped":      {url: "https://example.com:PORT/x", resolve: []string{"::ffff:127.0.0.1"}},
		"one of two private":  {url: "https://example.com:PORT/x", resolve: []string{"93.184.215.14", "127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := &names{answers: [][]string{tt.resolve}}
			if tt.resolve == nil {
				n.answers = [][]string{{"127.0.0.1"}} // a name that should not be asked for
			}
			c := ssrf.New(ssrf.Config{Resolver: n, Roots: h.roots, Timeout: time.Second})
			if d, err := c.Get(t.Context(), strings.ReplaceAll(tt.url, "PORT", h.port)); err == nil {
				t.Errorf("fetched %q", d.Body)
			}
		})
	}
	if n := h.connections.Load(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
	twin := ssrf.New(ssrf.Config{Roots: h.roots, Loopback: true})
	if d, err := twin.Get(t.Context(), "https://127.0.0.1:"+h.port+"/x"); err != nil || string(d.Body) != "{}" {
		t.Errorf("with loopback allowed: %q, %v", d.Body, err)
	}
}

// A name that is public when it is checked and private when it is dialled is
// asked for once: what was checked is dialled.
func TestD2RebindingName(t *testing.T) {
	h := newHost(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) })
	n := &names{answers: [][]string{{"192.0.2.1"}, {"127.0.0.1"}}}
	c := ssrf.New(ssrf.Config{Resolver: n, Roots: h.roots, Timeout: time.Second})
	url := "https://example.com:" + h.port + "/x"
	for range 3 {
		if _, err := c.Get(t.Context(), url); err == nil {
			t.Error("fetched")
		}
	}
	if h.connections.Load() != 0 || n.asked.Load() != 3 {
		t.Errorf("%d connections, %d questions; want 0, 3: one for each fetch", h.connections.Load(), n.asked.Load())
	}
	// The other way round: loopback where it is allowed, and the next answer is
	// not asked for in between.
	n = &names{answers: [][]string{{"127.0.0.1"}, {"10.0.0.1"}}}
	c = ssrf.New(ssrf.Config{Resolver: n, Roots: h.roots, Loopback: true})
	if _, err := c.Get(t.Context(), url); err != nil {
		t.Error(err)
	}
	if h.connections.Load() != 1 || n.asked.Load() != 1 {
		t.Errorf("%d connections, %d questions; want one of each", h.connections.Load(), n.asked.Load())
	}
}

// Redirects, other answers, and endless or packed bodies are refused.
func TestD1AnswersAreBounded(t *testing.T) {
	var redirected atomic.Int64
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write([]byte(`{}`))
		case "/redirect":
			http.Redirect(w, r, "/target", http.StatusFound)
		case "/target":
			redirected.Add(1)
		case "/long":
			_, _ = w.Write(make([]byte, ssrf.DefaultMaxBytes+1))
		case "/exact":
			_, _ = w.Write(make([]byte, ssrf.DefaultMaxBytes))
		case "/packed":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
		case "/slow":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			http.NotFound(w, r)
		}
	})
	c := ssrf.New(ssrf.Config{Roots: h.roots, Loopback: true, Timeout: 500 * time.Millisecond})
	for path, ok := range map[string]bool{
		"/good": true, "/exact": true, "/redirect": false, "/long": false, "/packed": false, "/missing": false, "/slow": false,
	} {
		if _, err := c.Get(t.Context(), h.URL+path); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	if redirected.Load() != 0 {
		t.Error("the redirect was followed")
	}
	if _, err := ssrf.New(ssrf.Config{Loopback: true}).Get(t.Context(), h.URL+"/good"); err == nil {
		t.Error("a certificate of nobody was accepted")
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if _, err := c.Get(t.Context(), h.URL+"/good"); err != nil {
		t.Errorf("the environment's proxy was asked: %v", err)
	}
}

func TestPublic(t *testing.T) {
	for s, want := range map[string]bool{
		"93.184.215.14": true, "1.1.1.1": true, "2606:4700:4700::1111": true, "2a00:1450:4001:81b::200e": true,
		"127.0.0.1": false, "::1": false, "::": false, "0.0.0.0": false, "10.1.2.3": false, "172.31.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "fe80::1": false, "fc00::1": false, "fd00:ec2::254": false, "224.0.0.1": false, "ff02::1": false,
		"255.255.255.255": false, "100.100.100.200": false, "198.18.0.1": false, "::ffff:1.1.1.1": false, "64:ff9b::101:101": false,
		"2002:101:101::1": false, "2001::1": false, "2001:db8::1": false, "::1.1.1.1": false,
	} {
		if got := ssrf.Public(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %t", s, got)
		}
	}
}

func ExampleCheckURL() {
	fmt.Println(ssrf.CheckURL("https://client.example/metadata.json"))
	fmt.Println(ssrf.CheckURL("https://2130706433/metadata.json"))
	// Output:
	// <nil>
	// host ends in a number
}

func FuzzD2CheckURL(f *testing.F) {
	for _, s := range []string{"https://client.example/x", "https://[::1]/x", "https://127.1/x", `https://a\@b/x`, "https://a:0/x", "https://a/@b", "https://a@b/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if ssrf.CheckURL(raw) != nil {
			return
		}
		rest, https := strings.CutPrefix(raw, "https://")
		authority, _, _ := strings.Cut(rest, "/") // a path may hold an @, the host may not
		if !https || strings.ContainsAny(raw, "?#\\ \r\n") || strings.Contains(authority, "@") {
			t.Errorf("accepted %q", raw)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodGet, raw, http.NoBody); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	})
}

// What is sent goes where documents come from, and nowhere else; a network of the
// operator's own is named, and no more than that is allowed.
func TestD1SendingReachesNoMore(t *testing.T) {
	h := newHost(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, tt := range map[string]struct {
		url     string
		resolve string
		also    []netip.Prefix
		sent    bool
	}{
		"loopback":             {url: "https://127.0.0.1:PORT/x"},
		"allowed network":      {url: "https://127.0.0.1:PORT/x", also: local, sent: true},
		"another network":      {url: "https://127.0.0.1:PORT/x", also: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		"name of an allowed":   {url: "https://example.com:PORT/x", resolve: "127.0.0.1", also: local, sent: true},
		"name of a mapped one": {url: "https://example.com:PORT/x", resolve: "::ffff:127.0.0.1", also: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		"query":                {url: "https://127.0.0.1:PORT/x?y", also: local},
		"plain http":           {url: "http://127.0.0.1:PORT/x", also: local},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.resolve == "" {
				tt.resolve = "127.0.0.1"
			}
			c := ssrf.New(ssrf.Config{Resolver: &names{answers: [][]string{{tt.resolve}}}, Roots: h.roots, Also: tt.also})
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.ReplaceAll(tt.url, "PORT", h.port), strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			before := h.connections.Load()
			resp, err := c.Transport().RoundTrip(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			if (err == nil) != tt.sent || !tt.sent && h.connections.Load() != before {
				t.Errorf("sent: %v, %v", err == nil, err)
			}
		})
	}
}
