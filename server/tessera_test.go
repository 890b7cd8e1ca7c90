package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/record"
)

// smallLog makes a deployment whose log has full tiles and two levels, and gives
// its data directory.
func smallLog(t *testing.T, records int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	cfg := config.Ledger{Family: "ledger.example/std", Period: "2027-03", Region: "eu", DataClass: "internal"}
	if err := Init(t.Context(), dir, cfg, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	l := openedLedger(t, dir)
	for range records {
		rec := l.gateway.own(record.KindHeartbeat)
		rec.Heartbeat = &record.Heartbeat{State: record.Beat, Build: buildDigest(), Interval: 10}
		if err := l.gateway.RecordLater(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tessera runs the fsck of Tessera over a log.
type tessera struct{ binary, key string }

func newTessera(t *testing.T, dir string) tessera {
	t.Helper()
	x := tessera{binary: os.Getenv("LINEAL_TESSERA_FSCK"), key: filepath.Join(t.TempDir(), "vkey")}
	if x.binary == "" {
		if os.Getenv("LINEAL_REQUIRE_TESSERA") != "" {
			t.Fatal("LINEAL_TESSERA_FSCK names no binary; .ci/tessera builds it")
		}
		t.Skip("LINEAL_TESSERA_FSCK names no binary; .ci/tessera builds it")
	}
	key, err := LogKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.key, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return x
}

// accepts reports the verdict and what was said with it. The verdict is in what
// it says: v1.0.4 exits with 0 also when a comparison failed.
func (x tessera) accepts(t *testing.T, url string) (bool, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, x.binary, "-ui=false", "-N=4", "-storage_url", url, "-public_key", x.key).CombinedOutput()
	said := string(out[:min(len(out), 500)])
	if ctx.Err() != nil {
		t.Fatalf("fsck did not end: %s", said)
	}
	sound, wrong := bytes.Contains(out, []byte("Successfully fsck'd log")), err != nil || bytes.Contains(out, []byte("failed"))
	if sound == wrong {
		t.Fatalf("fsck gave no verdict: %v, %s", err, said)
	}
	return sound, said
}

// flipping serves h with one bit of one answer changed, and notes what is asked for.
type flipping struct {
	h    http.Handler
	mu   sync.Mutex // guards what follows
	path string
	bit  int
	seen map[string]int // path → bytes
}

func (f *flipping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	f.h.ServeHTTP(answer, r)
	body := answer.Body.Bytes()
	f.mu.Lock()
	if answer.Code == http.StatusOK {
		f.seen[r.URL.Path] = len(body)
	}
	if r.URL.Path == f.path {
		body[f.bit/8%len(body)] ^= 1 << (f.bit % 8)
	}
	f.mu.Unlock()
	w.WriteHeader(answer.Code)
	_, _ = w.Write(body)
}

func (f *flipping) flip(path string, bit int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.path, f.bit = path, bit
}

// TestTesseraFsck holds the log to the judgement of another implementation of
// tlog-tiles: it accepts what the product made, over HTTP and from disk, and
// refuses it after one bit of any file has changed.
func TestTesseraFsck(t *testing.T) {
	dir := smallLog(t, 600)
	x := newTessera(t, dir)
	a, err := OpenArchive(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	h, err := a.LogHandler(true, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := &flipping{h: h, seen: make(map[string]int)}
	srv := httptest.NewServer(served)
	t.Cleanup(srv.Close)
	tiles := tilesPath(dir, a.cfg)
	for _, url := range []string{srv.URL + "/", "file://" + tiles + "/"} {
		if ok, said := x.accepts(t, url); !ok {
			t.Fatalf("%s is refused: %s", url, said)
		}
	}
	served.mu.Lock()
	sizes := make(map[string]int)
	for path, n := range served.seen {
		sizes[path] = n
	}
	served.mu.Unlock()
	if len(sizes) < 8 { // the checkpoint; three tiles and three bundles; one tile above
		t.Fatalf("only %d files were read", len(sizes))
	}
	refused := 0
	for path, n := range sizes {
		bits := []int{3, 4 * n, 8*n - 1}
		if path == "/checkpoint" {
			bits = bits[:0]
			for i := range n {
				bits = append(bits, 8*i+i%7)
			}
		}
		file := filepath.Join(tiles, filepath.FromSlash(path))
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, bit := range bits {
			if path == "/checkpoint" && sameSignature(good, bit) {
				continue
			}
			refused++
			served.flip(path, bit)
			if ok, _ := x.accepts(t, srv.URL+"/"); ok {
				t.Errorf("accepted over HTTP with bit %d of %s changed", bit, path)
			}
		}
		served.flip("", 0)
		bad := slices.Clone(good)
		bad[len(bad)/2] ^= 1
		write(t, file, bad)
		if ok, _ := x.accepts(t, "file://"+tiles+"/"); ok {
			t.Errorf("accepted from disk with one bit of %s changed", path)
		}
		rep, err := a.Fsck(t.Context())
		if err != nil || rep.Err() == nil || !strings.HasSuffix(path, rep.Problems[0].File) {
			t.Errorf("our own fsck with one bit of %s changed: %v, %v", path, rep.Problems, err)
		}
		write(t, file, good)
	}
	if ok, said := x.accepts(t, srv.URL+"/"); !ok {
		t.Errorf("refused after all was put back: %s", said)
	}
	t.Logf("tessera: %d files accepted over HTTP and from disk, %d changes of one bit refused", len(sizes), refused+len(sizes))
}

// sameSignature reports a change that leaves the bytes of the signature what
// they were: bits of base64 beyond the last byte, which not every decoder
// refuses.
func sameSignature(note []byte, bit int) bool {
	bad := slices.Clone(note)
	bad[bit/8] ^= 1 << (bit % 8)
	decode := func(b []byte) []byte {
		f := bytes.Fields(b)
		sig, err := base64.StdEncoding.DecodeString(string(f[len(f)-1]))
		if err != nil {
			return nil
		}
		return sig
	}
	at := bytes.LastIndexByte(bytes.TrimSpace(note), ' ')
	return bit/8 > at && bytes.Equal(decode(bad), decode(note))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
