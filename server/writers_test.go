package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/admin"
	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/evidence"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
)

// changed does one thing to the keys of a writer.
func changed(t *testing.T, l *ledgerService, c WriterChange) []KeyChanged {
	t.Helper()
	done, err := l.Change(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// standing lists the keys of a writer as "state state …", in the order in which
// they were added.
func standing(t *testing.T, l *ledgerService, writer string) string {
	t.Helper()
	keys, err := l.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range keys {
		if k.Writer == writer {
			out = append(out, string(k.State))
		}
	}
	return strings.Join(out, " ")
}

// judgedLog is the log of a data directory, checked here and verified offline.
func judgedLog(t *testing.T, dir string) evidence.Report {
	t.Helper()
	a, err := OpenArchive(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	mustBeSound(t, a)
	trust := trustOf(t, dir, "https://sts.example")
	trust.Require = nil
	return evidence.Verify(bundleOf(t, dir, ""), policyOf(t, trust))
}

func wantFinding(t *testing.T, r evidence.Report, d evidence.Dimension, want evidence.Status) {
	t.Helper()
	if f := r.Finding(d); f.Status != want {
		t.Errorf("%s is %s, want %s: %s\n%s", d, f.Status, want, f.Summary, strings.Join(f.Problems, "\n"))
	}
}

// signers are the keys of a writer's records, each once for as long as it signs.
func signers(all []record.Record, writer string) (ids []string) {
	for _, r := range all {
		if r.Writer.ID == writer && (len(ids) == 0 || ids[len(ids)-1] != r.Writer.KeyID) {
			ids = append(ids, r.Writer.KeyID)
		}
	}
	return ids
}

func closed(t *testing.T, l *ledgerService) {
	t.Helper()
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestL6RotationUnderLoad rotates the keys of writers that record all the time:
// nothing is refused, each key signs from one record to another, and the log has no
// hole and verifies.
func TestL6RotationUnderLoad(t *testing.T) {
	const rotations, callers = 3, 2
	dir := smallLog(t, 1)
	l := openedLedger(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	for range callers {
		for _, r := range []*recorder{l.gateway, l.tokens} {
			load.Go(func() {
				for pause(ctx, 2*time.Millisecond) {
					rec := r.own(record.KindGap)
					rec.Gap = &record.Gap{From: rec.Time, To: rec.Time, Cause: "overload", DenialsDropped: map[string]int64{}}
					if err := r.RecordLater(t.Context(), rec); err != nil {
						t.Errorf("while keys rotate: %v", err)
						return
					}
					if err := r.drain(t.Context()); err != nil {
						t.Errorf("while keys rotate: %v", err)
						return
					}
				}
			})
		}
	}
	for range rotations {
		for _, id := range []string{writerGateway, writerTokens} {
			done := changed(t, l, WriterChange{Op: admin.WriterRotate, Writer: id})
			if len(done) != 2 || done[0].Op != "add" || done[1].Op != "retire" {
				t.Errorf("rotating %s: %+v", id, done)
			}
		}
	}
	stop()
	load.Wait()
	if err := l.usable(); err != nil {
		t.Error(err)
	}
	all := logged(t, l)
	for _, id := range []string{writerGateway, writerTokens} {
		if got := signers(all, id); len(got) != rotations+1 {
			t.Errorf("%s signed under %q", id, got)
		}
		if got := standing(t, l, id); got != "retired retired retired current" {
			t.Errorf("keys of %s: %s", id, got)
		}
	}
	closed(t, l)
	r := judgedLog(t, dir)
	wantFinding(t, r, evidence.WriterKeys, evidence.Pass)
	wantFinding(t, r, evidence.Sequence, evidence.Pass)
	again := openedLedger(t, dir) // under the new keys
	closed(t, again)
}

// thief opens a writer with a key that it has, as whoever took it would with access
// to the store, and records something, which is acknowledged.
func thief(t *testing.T, l *ledgerService, key ed25519.PrivateKey) *recorder {
	t.Helper()
	r, err := l.openRecorder(t.Context(), writerGateway, record.RoleGateway, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.writer.Close(context.Background()) })
	rec := r.own(record.KindGap)
	rec.Gap = &record.Gap{From: rec.Time, To: rec.Time, Cause: "overload", DenialsDropped: map[string]int64{}}
	if err := r.Record(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestL6EndedKeySigns: whoever has a key that was revoked, or retired, gets no
// record into the log. It is an alarm; the writer is stopped, and goes on under its
// own key after the repair. What a revoked key signed since it was stolen is in
// doubt, and what a retired one signed is not.
func TestL6EndedKeySigns(t *testing.T) {
	for _, c := range []struct {
		name   string
		change WriterChange
		exit   evidence.Status
	}{
		{"revoked", WriterChange{Op: admin.WriterRevoke, Since: time.Now().Add(-time.Hour), Cause: "stolen"}, evidence.NotProven},
		{"retired", WriterChange{Op: admin.WriterRotate}, evidence.Pass},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := smallLog(t, 2)
			stolen, err := readSigningKey(filepath.Join(dir, keysDir), writerGateway)
			if err != nil {
				t.Fatal(err)
			}
			l := openedLedger(t, dir)
			c.change.Writer = writerGateway
			changed(t, l, c.change)
			if err := l.gateway.Record(t.Context(), permitted(t, l)); err != nil { // the twin: it goes on
				t.Fatal(err)
			}
			if err := l.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.usable(); err != nil {
				t.Errorf("before the theft is used: %v", err)
			}
			if got := standing(t, l, writerGateway); got != c.name+" current" {
				t.Errorf("keys: %s", got)
			}
			thief(t, l, stolen)
			if err := l.order.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.usable(); err == nil || !strings.Contains(err.Error(), "was ended ("+string(map[string]record.KeyOp{"revoked": record.KeyRevoke, "retired": record.KeyRetire}[c.name])+")") {
				t.Errorf("readiness: %v", err)
			}
			_ = l.close(t.Context()) // its writer is stale, and stopped
			if l := reopened(t, dir); true {
				if err := l.mayOpen(t); !errors.Is(err, ledger.ErrRejected) {
					t.Errorf("a start before the repair: %v", err)
				}
				_ = l.close(t.Context())
			}
			if _, err := Rebuild(t.Context(), dir, time.Now, nil); err != nil {
				t.Fatal(err)
			}
			mended := openedLedger(t, dir)
			closed(t, mended)
			r := judgedLog(t, dir)
			wantFinding(t, r, evidence.WriterKeys, c.exit)
			wantFinding(t, r, evidence.Sequence, evidence.Pass)
		})
	}
}

// mayOpen opens the gateway's writer.
func (l *ledgerService) mayOpen(t *testing.T) error {
	t.Helper()
	r, err := l.openRecorder(t.Context(), writerGateway, record.RoleGateway, l.cfg.keys.gateway)
	if err == nil {
		_ = r.writer.Close(t.Context())
	}
	return err
}

// TestL6KeysComeBackFromABackup: a start with a key that was rotated away is
// refused before anything is signed.
func TestL6KeysComeBackFromABackup(t *testing.T) {
	dir := smallLog(t, 1)
	path := filepath.Join(dir, keysDir, "gateway.key")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ChangeWriter(t.Context(), dir, WriterChange{Op: admin.WriterRotate, Writer: writerGateway}, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	next, err := os.ReadFile(path)
	if err != nil || bytes.Equal(next, old) {
		t.Fatalf("the key was not changed: %v", err)
	}
	write(t, path, old)
	l := reopened(t, dir)
	if err := l.mayWrite(t.Context(), writerGateway, l.cfg.keys.gateway); !errors.Is(err, ledger.ErrRetired) {
		t.Errorf("the key of before: %v", err)
	}
	_ = l.close(t.Context())
	write(t, path, next)
	closed(t, openedLedger(t, dir)) // the twin

	// Or the log came back, and does not know the key. Another one helps.
	for name, put := range map[string]func(){
		"one that has ended": func() { write(t, path, old) },
		"one that the log does not know": func() {
			_, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(path), WriteKey(path, key)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		put()
		l := reopened(t, dir)
		if err := l.mayWrite(t.Context(), writerGateway, mustKey(t, path)); !errors.Is(err, ledger.ErrRetired) {
			t.Errorf("%s: %v", name, err)
		}
		_ = l.close(t.Context())
		if _, err := ChangeWriter(t.Context(), dir, WriterChange{Op: admin.WriterRotate, Writer: writerGateway}, time.Now, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l = openedLedger(t, dir)
		if got := standing(t, l, writerGateway); !strings.HasSuffix(got, "retired current") {
			t.Errorf("%s: keys: %s", name, got)
		}
		closed(t, l)
	}
	wantFinding(t, judgedLog(t, dir), evidence.WriterKeys, evidence.Pass)
}

func mustKey(t *testing.T, path string) ed25519.PrivateKey {
	t.Helper()
	key, err := readSigningKey(filepath.Dir(path), strings.TrimSuffix(filepath.Base(path), ".key"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestL6KeyChangeRefused: what an operator asks for by mistake changes nothing.
func TestL6KeyChangeRefused(t *testing.T) {
	l := openedLedger(t, smallLog(t, 1))
	before := len(keyChanges(t, l))
	hour := time.Now().Add(-time.Hour)
	other := l.tokens.keys.now().KeyID()
	for name, c := range map[string]struct {
		change WriterChange
		want   error
		says   string
	}{
		"unknown writer":            {WriterChange{Op: admin.WriterRotate, Writer: "gateway-9"}, admin.ErrNoWriter, ""},
		"no writer":                 {WriterChange{Op: admin.WriterRevoke}, admin.ErrNoWriter, ""},
		"unknown operation":         {WriterChange{Op: "lend", Writer: writerGateway}, admin.ErrWriterRefused, "is no operation"},
		"the manifest key":          {WriterChange{Op: admin.WriterRotate, Writer: writerAdmin}, admin.ErrWriterRefused, "manifest key"},
		"revoking without since":    {WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, Cause: "stolen"}, admin.ErrWriterRefused, "since when"},
		"revoking from the future":  {WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, Cause: "stolen", Since: time.Now().Add(time.Hour)}, admin.ErrWriterRefused, "in the future"},
		"revoking without a cause":  {WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, Since: hour}, admin.ErrWriterRefused, "cause"},
		"revoking with a story":     {WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, Since: hour, Cause: "Bob's laptop"}, admin.ErrWriterRefused, "one word"},
		"a key of another":          {WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, Since: hour, Cause: "stolen", KeyID: other}, admin.ErrWriterRefused, "no key"},
		"an unknown key":            {WriterChange{Op: admin.WriterRetire, Writer: writerGateway, KeyID: "x"}, admin.ErrWriterRefused, "no key"},
		"retiring one that runs":    {WriterChange{Op: admin.WriterRetire, Writer: writerGateway, Gone: true}, admin.ErrWriterRefused, "writes as it"},
		"adding to one of its own":  {WriterChange{Op: admin.WriterAdd, Writer: writerGateway, PublicKey: "x"}, admin.ErrWriterRefused, "rotate it"},
		"a rotation by no writer's": {WriterChange{Op: admin.WriterRotate, Writer: ""}, admin.ErrNoWriter, ""},
	} {
		if done, err := l.Change(t.Context(), c.change); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || len(done) > 0 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
	if after := len(keyChanges(t, l)); after != before {
		t.Errorf("%d key records, then %d", before, after)
	}
	if got := standing(t, l, writerGateway); got != "current" {
		t.Errorf("keys: %s", got)
	}
	closed(t, l)
}

// TestL6RevokedLater: a key that was rotated away is found to have been stolen.
func TestL6RevokedLater(t *testing.T) {
	dir := smallLog(t, 2)
	l := openedLedger(t, dir)
	old := l.gateway.keys.now().KeyID()
	changed(t, l, WriterChange{Op: admin.WriterRotate, Writer: writerGateway})
	late := WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, KeyID: old, Since: time.Now().Add(-time.Hour), Cause: "lost"}
	changed(t, l, late)
	if _, err := l.Change(t.Context(), late); !errors.Is(err, admin.ErrWriterRefused) {
		t.Errorf("again: %v", err)
	}
	late.Since = late.Since.Add(-time.Hour) // it is older than was thought
	if done := changed(t, l, late); len(done) != 1 {
		t.Errorf("%+v", done)
	}
	if got := standing(t, l, writerGateway); got != "revoked current" {
		t.Errorf("keys: %s", got)
	}
	closed(t, l)
	wantFinding(t, judgedLog(t, dir), evidence.WriterKeys, evidence.NotProven)
}

// TestL6RotationInterrupted: a rotation that ended after any of its steps is
// finished by the next start, or by the command again, and leaves what one that did
// not end leaves.
func TestL6RotationInterrupted(t *testing.T) {
	note := func(t *testing.T, x *keyChange) error {
		t.Helper()
		return plan{From: x.own.keyID(), ending: ending{Op: record.KeyRetire}}.note(x.l.keysDir(), x.own.name)
	}
	make1 := func(t *testing.T, x *keyChange) error {
		t.Helper()
		_, err := nextKey(x.l.keysDir(), x.own.name)
		return errors.Join(note(t, x), err)
	}
	known := func(t *testing.T, x *keyChange) error {
		t.Helper()
		if err := make1(t, x); err != nil {
			return err
		}
		next, err := nextKey(x.l.keysDir(), x.own.name)
		return errors.Join(err, x.introduce(t.Context(), publicOf(next)))
	}
	placed := func(t *testing.T, x *keyChange) error {
		t.Helper()
		err := known(t, x)
		dir := x.l.keysDir()
		return errors.Join(err, os.Rename(filepath.Join(dir, "gateway.next.key"), filepath.Join(dir, "gateway.key")))
	}
	signing := func(t *testing.T, x *keyChange) (err error) {
		t.Helper()
		if err := placed(t, x); err != nil {
			return err
		}
		if x.own.key, err = readSigningKey(x.l.keysDir(), x.own.name); err != nil {
			return err
		}
		return x.own.change(t.Context())
	}
	for _, step := range []struct {
		name string
		do   func(*testing.T, *keyChange) error
	}{
		{"noted", note},
		{"the next key made", make1},
		{"the next key known", known},
		{"the next key in its place", placed},
		{"the next key signs", signing},
		{"the old key ended", func(t *testing.T, x *keyChange) error {
			t.Helper()
			from := x.own.keyID()
			return errors.Join(signing(t, x), x.end(t.Context(), from, ending{Op: record.KeyRetire}))
		}},
	} {
		for _, by := range []string{"the next start", "the command again", "the command beside no server"} {
			if by == "the command beside no server" && !strings.Contains(step.name, "in its place") {
				continue // it is the code of the one before
			}
			t.Run(step.name+", "+by, func(t *testing.T) {
				t.Parallel()
				dir := smallLog(t, 1)
				l := openedLedger(t, dir)
				x, err := l.begin(t.Context(), writerGateway, "")
				if err != nil {
					t.Fatal(err)
				}
				if err := step.do(t, x); err != nil {
					t.Fatal(err)
				}
				if by != "the command again" {
					l.abandonAll(t)
				}
				switch by {
				case "the next start":
					l = openedLedger(t, dir)
					if err := l.finishChanges(t.Context()); err != nil {
						t.Fatal(err)
					}
				case "the command again":
					changed(t, l, WriterChange{Op: admin.WriterRotate, Writer: writerGateway})
				default:
					if _, err := ChangeWriter(t.Context(), dir, WriterChange{Op: admin.WriterRotate, Writer: writerGateway}, time.Now, nil); err != nil {
						t.Fatal(err)
					}
					l = openedLedger(t, dir)
				}
				if err := l.gateway.Record(t.Context(), permitted(t, l)); err != nil {
					t.Error(err)
				}
				if got := standing(t, l, writerGateway); got != "retired current" {
					t.Errorf("keys: %s", got)
				}
				if got := signers(logged(t, l), writerGateway); len(got) != 2 {
					t.Errorf("signed under %q", got)
				}
				if err := l.usable(); err != nil {
					t.Error(err)
				}
				closed(t, l)
				files, err := os.ReadDir(filepath.Join(dir, keysDir))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					if strings.Contains(f.Name(), "next") || strings.Contains(f.Name(), "plan") {
						t.Errorf("%s is left", f.Name())
					}
				}
				r := judgedLog(t, dir)
				wantFinding(t, r, evidence.WriterKeys, evidence.Pass)
				wantFinding(t, r, evidence.Sequence, evidence.Pass)
			})
		}
	}
}

// abandonAll ends a ledger as a crash does: no writer says that it stopped.
func (l *ledgerService) abandonAll(t *testing.T) {
	t.Helper()
	for _, r := range l.recorders {
		_ = r.writer.Close(t.Context())
	}
	if err := l.abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestL6RevokedInMidRotation: a rotation has begun, and now the old key is known to
// be stolen: that is how it ends.
func TestL6RevokedInMidRotation(t *testing.T) {
	dir := smallLog(t, 1)
	l := openedLedger(t, dir)
	old := l.gateway.keys.now().KeyID()
	p := plan{From: old, ending: ending{Op: record.KeyRetire}}
	if err := p.note(l.keysDir(), writerGateway); err != nil {
		t.Fatal(err)
	}
	changed(t, l, WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, KeyID: old, Since: time.Now(), Cause: "stolen"})
	if got := standing(t, l, writerGateway); got != "revoked current" {
		t.Errorf("keys: %s", got)
	}
	closed(t, l)
}

// TestL6PreparedKey: the key that was shown before is the one that signs after.
func TestL6PreparedKey(t *testing.T) {
	dir := smallLog(t, 1)
	shown, err := NextWriterKey(dir, writerGateway)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := NextWriterKey(dir, writerGateway); err != nil || !again.Equal(shown) {
		t.Errorf("shown again: %v, %v", again, err)
	}
	if _, err := NextWriterKey(dir, "gateway-b"); err == nil {
		t.Error("a key of another's writer was made")
	}
	closed(t, openedLedger(t, dir)) // a start uses it for nothing
	l := openedLedger(t, dir)
	changed(t, l, WriterChange{Op: admin.WriterRotate, Writer: writerGateway, By: "spiffe://example/ops"})
	if got := l.gateway.keys.now().KeyID(); got != record.KeyID(shown) {
		t.Errorf("%s signs, shown was %s", got, record.KeyID(shown))
	}
	for _, r := range keyChanges(t, l)[2:] {
		if r.KeyChange.By != "spiffe://example/ops" {
			t.Errorf("by %q", r.KeyChange.By)
		}
	}
	closed(t, l)
}

// TestRollKeepsEndedKeys: the next period knows which keys ended in the one before.
func TestRollKeepsEndedKeys(t *testing.T) {
	cfg := rollable(t)
	old := cfg
	old.Ledger.Period = "2026-11"
	if _, err := ChangeWriter(t.Context(), cfg.DataDir, WriterChange{Op: admin.WriterRotate, Writer: writerGateway}, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	before, err := Writers(t.Context(), cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Roll(t.Context(), cfg, "", time.Now, nil); err != nil {
		t.Fatal(err)
	}
	after, err := Writers(t.Context(), cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if before[i].Writer == writerAdmin { // it has written in the new period
			before[i].Period = after[i].Period
		}
	}
	if !slices.Equal(before, after) {
		t.Errorf("%+v\nwas\n%+v", after, before)
	}
	i := slices.IndexFunc(after, func(k WriterKey) bool { return k.State == admin.KeyRetired })
	if i < 0 {
		t.Fatal("no key is retired")
	}
	late := WriterChange{Op: admin.WriterRevoke, Writer: writerGateway, KeyID: after[i].KeyID, Since: time.Now(), Cause: "stolen"}
	if _, err := ChangeWriter(t.Context(), cfg.DataDir, late, time.Now, nil); err != nil {
		t.Errorf("a key of the period before: %v", err)
	}
	wantFinding(t, judgedLog(t, cfg.DataDir), evidence.WriterKeys, evidence.Pass)
}

// keyText is a public key as commands take it.
func keyText(key ed25519.PrivateKey) string {
	return base64.RawURLEncoding.EncodeToString(publicOf(key))
}

// TestNodeLeaves: a gateway leaves. Its keys end, what it recorded stays, and its
// directory starts no more. One that joins under its name goes on after its last
// record.
func TestNodeLeaves(t *testing.T) {
	c := newCluster(t)
	cfg := c.node("edge", config.RoleGateway)
	center := c.start(c.node("center", config.RoleTokens, config.RoleLedger))
	edge := c.start(cfg)
	root := center.login(center.toTokens())
	if code := edge.call(edge.toGateway(), root); code != "" {
		t.Fatalf("refused: %s", code)
	}
	leave := WriterChange{Op: admin.WriterRetire, Writer: "gateway-edge"}
	if _, err := center.server.ledger.Change(t.Context(), leave); !errors.Is(err, admin.ErrWriterRefused) || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("retired while it runs: %v", err)
	}
	edge.stop()
	if done := changed(t, center.server.ledger, leave); len(done) != 1 || done[0].Op != "retire" {
		t.Errorf("%+v", done)
	}
	if got := standing(t, center.server.ledger, "gateway-edge"); got != "retired" {
		t.Errorf("keys: %s", got)
	}
	if _, err := center.server.ledger.Change(t.Context(), leave); !errors.Is(err, admin.ErrWriterRefused) {
		t.Errorf("retired again: %v", err)
	}
	if s, err := Start(t.Context(), cfg, Options{}); !errors.Is(err, ledger.ErrRetired) {
		t.Errorf("started after it left: %v", err)
		_ = s.Close(t.Context())
	}
	center.verify()

	cfg = c.node("edge", config.RoleGateway) // in a new directory
	again := c.start(cfg)
	if code := again.call(again.toGateway(), root); code != "" {
		t.Errorf("refused: %s", code)
	}
	center.hasRecordsOf("admin", "admin-center", "admin-edge", "gateway-edge", "tokens-center")
	if got := standing(t, center.server.ledger, "gateway-edge"); got != "retired current" {
		t.Errorf("keys: %s", got)
	}
	center.verify()
}

// TestL6GatewayApart: a gateway without the manifest key gets another key by its
// file, and its stolen one ends: it stops, and goes on under the next.
func TestL6GatewayApart(t *testing.T) {
	c := newCluster(t)
	cfg := c.node("edge", config.RoleGateway)
	center := c.start(c.node("center", config.RoleTokens, config.RoleLedger))
	edge := c.start(cfg)
	root := center.login(center.toTokens())
	call := func(p *process) {
		t.Helper()
		if code := p.call(p.toGateway(), root); code != "" {
			t.Fatalf("refused: %s", code)
		}
	}
	path := filepath.Join(cfg.DataDir, keysDir, "gateway.key")
	next := func() {
		t.Helper()
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		changed(t, center.server.ledger, WriterChange{Op: admin.WriterAdd, Writer: "gateway-edge", PublicKey: keyText(key)})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := WriteKey(path, key); err != nil {
			t.Fatal(err)
		}
	}
	call(edge)
	first, err := readSigningKey(filepath.Join(cfg.DataDir, keysDir), writerGateway)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := center.server.ledger.Change(t.Context(), WriterChange{Op: admin.WriterRotate, Writer: "gateway-edge"}); !errors.Is(err, admin.ErrWriterRefused) {
		t.Errorf("rotated a key that is elsewhere: %v", err)
	}
	next()
	old := WriterChange{Op: admin.WriterRetire, Writer: "gateway-edge", KeyID: keyIDOf(first)}
	if _, err := center.server.ledger.Change(t.Context(), old); !errors.Is(err, admin.ErrWriterRefused) {
		t.Errorf("retired the key that signs: %v", err)
	}
	call(edge) // under the first, until it starts again
	edge.stop()
	edge = c.begin(cfg)
	call(edge)
	changed(t, center.server.ledger, old)
	call(edge)
	center.verify()

	stolen := WriterChange{Op: admin.WriterRevoke, Writer: "gateway-edge", Since: time.Now(), Cause: "stolen"}
	changed(t, center.server.ledger, stolen)
	if got := standing(t, center.server.ledger, "gateway-edge"); got != "retired revoked" {
		t.Errorf("keys: %s", got)
	}
	if code := edge.call(edge.toGateway(), root); code != "ledger_unavailable" {
		t.Errorf("a call under the revoked key: %q", code)
	}
	select {
	case err := <-edge.server.Failed():
		if !errors.Is(err, ledger.ErrRetired) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
	_ = edge.server.Close(t.Context())
	next()
	edge = c.start(cfg)
	call(edge)
	if got := standing(t, center.server.ledger, "gateway-edge"); got != "retired revoked current" {
		t.Errorf("keys: %s", got)
	}
	if err := center.server.ledger.usable(); err != nil { // no record was acknowledged and refused
		t.Error(err)
	}
}

func keyChanges(t *testing.T, l *ledgerService) []record.Record {
	t.Helper()
	return slices.DeleteFunc(logged(t, l), func(r record.Record) bool { return r.Kind != record.KindKey })
}
