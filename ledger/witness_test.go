package ledger_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/storage/disk"
	"github.com/lineal-auth/lineal/storage/sqlite"
	"github.com/lineal-auth/lineal/storage/storagetest"
)

// stub is a witness that follows C2SP tlog-witness, unless it is told to do
// something else.
type stub struct {
	t    *testing.T
	log  note.Verifier
	name string
	key  ed25519.PrivateKey
	srv  *httptest.Server

	mu    sync.Mutex
	size  int64
	root  tlog.Hash
	asked int
	odd   http.HandlerFunc // answers instead
}

func newStub(t *testing.T, name string) *stub {
	t.Helper()
	_, verifier := storagetest.Key(t)
	seed := sha256.Sum256([]byte(name))
	s := &stub{t: t, log: verifier, name: name, key: ed25519.NewKeyFromSeed(seed[:])}
	s.srv = httptest.NewServer(s)
	t.Cleanup(s.srv.Close)
	return s
}

func (s *stub) vkey() string {
	pub, _ := s.key.Public().(ed25519.PublicKey)
	raw := append([]byte{4}, pub...)
	sum := sha256.Sum256(append([]byte(s.name+"\n"), raw...))
	return fmt.Sprintf("%s+%x+%s", s.name, sum[:4], base64.StdEncoding.EncodeToString(raw))
}

func (s *stub) witness() ledger.Witness {
	v, err := ledger.NewWitnessVerifier(s.vkey())
	if err != nil {
		s.t.Fatal(err)
	}
	return ledger.Witness{Name: s.name, URL: s.srv.URL + "/", Verifier: v}
}

// behave replaces the answers; nil is the protocol again.
func (s *stub) behave(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.odd = h
}

func (s *stub) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	odd := s.odd
	s.asked++
	s.mu.Unlock()
	if odd != nil {
		odd(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	head, msg, ok := bytes.Cut(body, []byte("\n\n"))
	if err != nil || !ok || r.URL.Path != "/add-checkpoint" || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	n, err := note.Open(msg, note.VerifierList(s.log))
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(n.Text, "\n", 2)[1]))
	lines := strings.Split(string(head), "\n")
	old, err2 := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	var proof tlog.TreeProof
	for _, l := range lines[1:] {
		h, err := tlog.ParseHash(l)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		proof = append(proof, h)
	}
	switch {
	case err != nil || err2 != nil || old > tree.N:
		w.WriteHeader(http.StatusBadRequest)
	case old != s.size:
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(w, "%d\n", s.size)
	case old > 0 && tlog.CheckTree(proof, tree.N, tree.Hash, old, s.root) != nil:
		w.WriteHeader(http.StatusUnprocessableEntity)
	default:
		s.size, s.root = tree.N, tree.Hash
		_, _ = io.WriteString(w, s.line(n.Text, 1803979000))
	}
}

// line is a cosignature.
func (s *stub) line(text string, at uint64) string {
	v, err := ledger.NewWitnessVerifier(s.vkey())
	if err != nil {
		s.t.Error(err)
		return ""
	}
	raw := binary.BigEndian.AppendUint32(nil, v.KeyHash())
	raw = binary.BigEndian.AppendUint64(raw, at)
	raw = append(raw, ed25519.Sign(s.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))...)
	return "— " + s.name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// witnessed is a log with witnesses.
type witnessed struct {
	t         *testing.T
	dir       string
	store     ledger.Store
	tiles     ledger.TileStore
	writer    *ledger.Writer
	witnesses []*stub
	quorum    int
	now       time.Time
	seq       *ledger.Sequencer
}

func newWitnessed(t *testing.T, quorum int, witnesses ...*stub) *witnessed {
	t.Helper()
	w := &witnessed{t: t, dir: t.TempDir(), witnesses: witnesses, quorum: quorum, now: time.Unix(1803979000, 0)}
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(w.dir, "ledger.db"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if err := store.CreateLog(t.Context(), storagetest.Log, storagetest.Origin); err != nil {
		t.Fatal(err)
	}
	w.store = store
	if w.tiles, err = disk.Open(disk.Config{Dir: filepath.Join(w.dir, "tiles"), Create: true}); err != nil {
		t.Fatal(err)
	}
	if w.writer, err = ledger.NewWriter(t.Context(), ledger.WriterConfig{
		Store: store, Log: storagetest.Log, GWID: storagetest.GWID, Sealer: storagetest.NewSealer(), Deadline: 30 * time.Second,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = w.writer.Close(ctx)
	})
	return w
}

func (w *witnessed) open() error {
	w.t.Helper()
	signer, verifier := storagetest.Key(w.t)
	cfg := ledger.SequencerConfig{
		Store: w.store, Tiles: w.tiles, Log: storagetest.Log, Signer: signer, Verifier: verifier,
		Check:     func(context.Context, int64, []ledger.Candidate) ([]error, error) { return nil, nil },
		Witnesses: ledger.WitnessConfig{Quorum: w.quorum, Now: func() time.Time { return w.now }},
	}
	for _, s := range w.witnesses {
		cfg.Witnesses.Witnesses = append(cfg.Witnesses.Witnesses, s.witness())
	}
	seq, err := ledger.OpenSequencer(w.t.Context(), cfg)
	w.seq = seq
	if err == nil {
		w.t.Cleanup(func() { _ = seq.Close(context.Background()) })
	}
	return err
}

func (w *witnessed) reopen() error {
	w.t.Helper()
	if err := w.seq.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return w.open()
}

// grow appends n records and flushes.
func (w *witnessed) grow(prefix string, n int) (ledger.Checkpoint, error) {
	w.t.Helper()
	for i := range n {
		p, err := w.writer.Begin(w.t.Context(), ledger.Draft{Body: storagetest.Draft{ID: fmt.Sprintf("%s-%d", prefix, i), Text: "text"}, Size: 512})
		if err == nil {
			_, err = p.Wait(w.t.Context())
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return w.seq.Flush(w.t.Context())
}

// cosigners are the witnesses whose signatures on a note verify.
func (w *witnessed) cosigners(msg []byte) (names []string) {
	w.t.Helper()
	_, log := storagetest.Key(w.t)
	list := []note.Verifier{log}
	for _, s := range w.witnesses {
		list = append(list, s.witness().Verifier)
	}
	n, err := note.Open(msg, note.VerifierList(list...))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range n.Sigs {
		if s.Name != log.Name() {
			names = append(names, s.Name)
		}
	}
	return names
}

// TestL3WitnessesCosign publishes what all witnesses signed, over several sizes
// and a restart, and readers and files get the cosigned note.
func TestL3WitnessesCosign(t *testing.T) {
	w := newWitnessed(t, 0, newStub(t, "w1.example"), newStub(t, "w2.example"))
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{1, 2, 300} {
		c, err := w.grow(fmt.Sprintf("g%d", i), n)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.cosigners(c.Note); len(got) != 2 || c.Published.IsZero() {
			t.Fatalf("size %d: cosigned by %v", c.Size, got)
		}
		file, err := w.tiles.GetCheckpoint(t.Context())
		if err != nil || !bytes.Equal(file, c.Note) {
			t.Fatalf("the file has another note: %s, %v", file, err)
		}
		if err := w.reopen(); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.seq.Witnessing(); got.Unwitnessed != 0 || got.Stopped != nil {
		t.Errorf("%+v", got)
	}
}

// TestL3WitnessDown: without its quorum a checkpoint is not published, the age
// of that shows, entries get their indexes, and the next quorum covers them.
func TestL3WitnessDown(t *testing.T) {
	up, down := newStub(t, "w1.example"), newStub(t, "w2.example")
	w := newWitnessed(t, 0, up, down)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.grow("a", 2); err != nil {
		t.Fatal(err)
	}
	down.behave(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	for i := range 2 {
		if _, err := w.grow(fmt.Sprintf("b%d", i), 1); !errors.Is(err, ledger.ErrNotPublished) || ledger.Fatal(err) {
			t.Fatalf("without a quorum: %v", err)
		}
		w.now = w.now.Add(45 * time.Second)
	}
	if got := w.seq.Witnessing(); got.Unwitnessed != 90*time.Second || got.Stopped != nil {
		t.Errorf("%+v", got)
	}
	if c, err := w.store.LastCheckpoint(t.Context(), storagetest.Origin, true); err != nil || c.Size != 2 {
		t.Errorf("published: %d, %v", c.Size, err)
	}
	if h, err := w.store.Head(t.Context(), storagetest.Log); err != nil || h.Size != 4 {
		t.Errorf("sequenced: %d, %v", h.Size, err)
	}
	down.behave(nil)
	c, err := w.grow("c", 1)
	if err != nil || c.Size != 5 || len(w.cosigners(c.Note)) != 2 || w.seq.Witnessing().Unwitnessed != 0 {
		t.Errorf("again with all: %d, %v, %+v", c.Size, err, w.seq.Witnessing())
	}
	// One of two is enough where the operator says so.
	w.quorum = 1
	if err := w.reopen(); err != nil {
		t.Fatal(err)
	}
	down.behave(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusForbidden) })
	if c, err = w.grow("d", 1); err != nil || len(w.cosigners(c.Note)) != 1 {
		t.Errorf("with a quorum of one: %v", err)
	}
}

// TestL3WitnessLies: an answer that is no cosignature of this witness on this
// checkpoint counts for nothing.
func TestL3WitnessLies(t *testing.T) {
	s, other := newStub(t, "w1.example"), newStub(t, "w1.example")
	other.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	w := newWitnessed(t, 0, s)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	good := func(r *http.Request) string {
		body, _ := io.ReadAll(r.Body)
		_, msg, _ := strings.Cut(string(body), "\n\n")
		text, _, _ := strings.Cut(msg, "\n\n")
		return text + "\n"
	}
	for name, answer := range map[string]func(*http.Request) (int, string){
		"nothing":             func(*http.Request) (int, string) { return 200, "" },
		"another key":         func(r *http.Request) (int, string) { return 200, other.line(good(r), 1) },
		"another text":        func(r *http.Request) (int, string) { return 200, s.line(strings.Replace(good(r), "\n", "\n1", 1), 1) },
		"a time without one":  func(r *http.Request) (int, string) { return 200, s.line(good(r), 1<<63) },
		"no line":             func(r *http.Request) (int, string) { return 200, strings.TrimSuffix(s.line(good(r), 1), "\n") },
		"too much":            func(r *http.Request) (int, string) { return 200, strings.Repeat(s.line(good(r), 1), 1000) },
		"a conflict of words": func(*http.Request) (int, string) { return 409, "soon" },
		"an endless conflict": func(r *http.Request) (int, string) {
			body, _ := io.ReadAll(r.Body)
			if bytes.HasPrefix(body, []byte("old 1\n")) {
				return 409, "0\n"
			}
			return 409, "1\n"
		},
		"an error":    func(*http.Request) (int, string) { return 500, "out" },
		"a redirect":  func(*http.Request) (int, string) { return 307, "" },
		"unknown log": func(*http.Request) (int, string) { return 404, "" },
	} {
		s.behave(func(rw http.ResponseWriter, r *http.Request) {
			code, text := answer(r)
			if code == http.StatusTemporaryRedirect {
				rw.Header().Set("Location", other.srv.URL)
			}
			rw.WriteHeader(code)
			_, _ = io.WriteString(rw, text)
		})
		if _, err := w.grow(strings.ReplaceAll(name, " ", "-"), 2); !errors.Is(err, ledger.ErrNotPublished) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := w.seq.Witnessing().Stopped; got != nil {
		t.Errorf("stopped: %v", got)
	}
	if other.requests() > 0 {
		t.Error("a redirect was followed")
	}
	s.behave(nil)
	if _, err := w.grow("twin", 1); err != nil {
		t.Errorf("twin: %v", err)
	}
}

// TestL3WitnessSawMore: a witness that has seen a larger tree, or another one,
// stops publication for good, and calls go on.
func TestL3WitnessSawMore(t *testing.T) {
	for name, answer := range map[string]func(rw http.ResponseWriter){
		"larger":    func(rw http.ResponseWriter) { rw.WriteHeader(409); _, _ = io.WriteString(rw, "1000\n") },
		"no growth": func(rw http.ResponseWriter) { rw.WriteHeader(422) },
	} {
		s := newStub(t, "w1.example")
		w := newWitnessed(t, 0, s)
		if err := w.open(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.grow("a", 1); err != nil {
			t.Fatal(err)
		}
		s.behave(func(rw http.ResponseWriter, _ *http.Request) { answer(rw) })
		if _, err := w.grow("b", 1); !errors.Is(err, ledger.ErrWitnessDisagrees) || ledger.Fatal(err) {
			t.Fatalf("%s: %v", name, err)
		}
		s.behave(nil)
		if _, err := w.grow("c", 1); !errors.Is(err, ledger.ErrWitnessDisagrees) || !errors.Is(w.seq.Witnessing().Stopped, ledger.ErrWitnessDisagrees) {
			t.Errorf("%s: goes on: %v", name, err)
		}
		if c, err := w.store.LastCheckpoint(t.Context(), storagetest.Origin, true); err != nil || c.Size != 1 {
			t.Errorf("%s: published %d, %v", name, c.Size, err)
		}
		if h, err := w.store.Head(t.Context(), storagetest.Log); err != nil || h.Size != 3 {
			t.Errorf("%s: sequenced %d, %v", name, h.Size, err)
		}
	}
}

// TestL5RollbackBeforeWitness restores the log from before a checkpoint that
// only a witness remembers: the start is refused.
func TestL5RollbackBeforeWitness(t *testing.T) {
	s := newStub(t, "w1.example")
	w := newWitnessed(t, 0, s)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.grow("a", 3); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.size = 4
	s.mu.Unlock()
	if err := w.reopen(); !errors.Is(err, ledger.ErrRollbackDetected) {
		t.Fatalf("after a restore: %v", err)
	}
	s.mu.Lock()
	s.size = 3
	s.mu.Unlock()
	if err := w.open(); err != nil {
		t.Fatalf("twin: %v", err)
	}
	if err := w.seq.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.srv.Close()
	if err := w.open(); err != nil {
		t.Fatalf("with the witness down: %v", err)
	}
}

// TestWitnessDoesNotHoldUpEntries runs the sequencer with a witness that never
// answers: entries get their indexes all the same, and the lease is kept.
func TestWitnessDoesNotHoldUpEntries(t *testing.T) {
	s := newStub(t, "w1.example")
	w := newWitnessed(t, 0, s)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	s.behave(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.seq.Run(ctx) }()
	for i := 0; s.requests() == 0 || i < 3; i++ { // some while a witness is asked
		p, err := w.writer.Begin(ctx, ledger.Draft{Body: storagetest.Draft{ID: fmt.Sprintf("a-%d", i), Text: "text"}, Size: 512})
		if err == nil {
			_, err = p.Wait(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(20 * time.Second)
		for {
			h, err := w.store.Head(ctx, storagetest.Log)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%d records have no index: %v", i, err)
			}
			if h.Size > int64(i) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	close(hang)
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}

func TestNewWitnessVerifierRefuses(t *testing.T) {
	good := newStub(t, "w1.example").vkey()
	if _, err := ledger.NewWitnessVerifier(good); err != nil {
		t.Fatalf("twin: %v", err)
	}
	parts := strings.SplitN(good, "+", 3)
	for _, vkey := range []string{
		"", "w1.example", parts[0] + "+" + parts[1], "w2.example+" + parts[1] + "+" + parts[2], parts[0] + "+00000000+" + parts[2],
		parts[0] + "+" + parts[1] + "+" + parts[2][:40], "w 1+" + parts[1] + "+" + parts[2], "+" + parts[1] + "+" + parts[2],
		"sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
	} {
		if _, err := ledger.NewWitnessVerifier(vkey); err == nil {
			t.Errorf("%q is read", vkey)
		}
	}
}

// TestWitnessed: the time is that of a cosignature of a known witness on exactly
// this checkpoint.
func TestWitnessed(t *testing.T) {
	s, other := newStub(t, "w1.example"), newStub(t, "w2.example")
	w := newWitnessed(t, 0, s)
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	c, err := w.grow("a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if at := ledger.Witnessed(c.Note, []ledger.Witness{s.witness(), other.witness()}); at.Unix() != 1803979000 {
		t.Errorf("cosigned at %s", at)
	}
	for name, at := range map[string]time.Time{
		"no witness":      ledger.Witnessed(c.Note, nil),
		"another witness": ledger.Witnessed(c.Note, []ledger.Witness{other.witness()}),
		"another tree":    ledger.Witnessed(bytes.Replace(c.Note, []byte("\n1\n"), []byte("\n2\n"), 1), []ledger.Witness{s.witness()}),
		"no note":         ledger.Witnessed(nil, []ledger.Witness{s.witness()}),
	} {
		if !at.IsZero() {
			t.Errorf("%s: cosigned at %s", name, at)
		}
	}
}
