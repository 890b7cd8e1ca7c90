package server

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/config"
	"github.com/lineal-auth/lineal/ledger"
	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/storage/disk"
)

// TestDiskLow fills a small file system. Under the watermark new calls are
// refused, while outcomes and the gap are still recorded; cleared, calls go on.
func TestDiskLow(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mounting needs privileges: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(mount, "data")
	cfg := config.Ledger{Family: "ledger.example/std", Period: "2027-03", Region: "eu", DataClass: "internal"}
	if err := Init(t.Context(), dir, cfg, time.Now, nil); err != nil {
		t.Fatal(err)
	}
	l := openedLedgerWith(t, dir, func(c *ledgerConfig) {
		c.guard = disk.GuardConfig{Watermark: 6 << 20, Ballast: 3 << 20}
	}, func(e engine) engine { return e })
	before := permitted(t, l)
	if err := l.gateway.Record(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(mount, "filler")
	fill(t, filler, mount, 5<<20)
	var err error
	waitUntil(t, "no refusal", func() bool {
		err = l.gateway.Record(t.Context(), permitted(t, l))
		return err != nil
	})
	if ledger.CauseOf(err) != ledger.CauseRoom || !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("with a full disk: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ballast")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ballast is still there: %v", err)
	}
	if err := l.gateway.RecordLater(t.Context(), outcomeOf(l, before)); err != nil {
		t.Fatal(err)
	}
	l.gateway.reportLosses(t.Context())
	if gaps := records(t, l, record.KindGap); len(gaps) != 1 || gaps[0].Gap.Cause != string(ledger.CauseRoom) || gaps[0].Gap.RefusedUnavailable == 0 {
		t.Errorf("gaps while the disk is low: %+v", gaps)
	}
	if got := outcomesOf(t, l, before.ID); len(got) != 1 {
		t.Errorf("%d outcomes while the disk is low", len(got))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "no admission", func() bool { return l.gateway.Record(t.Context(), permitted(t, l)) == nil })
	for _, r := range l.recorders { // each looks for itself, once in a second
		waitUntil(t, "no admission of "+r.id, func() bool { return r.beat(t.Context(), record.Beat, buildDigest(), "") == nil })
	}
	if st, err := os.Stat(filepath.Join(dir, "ballast")); err != nil || st.Size() != 3<<20 {
		t.Errorf("ballast: %v", err)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// fill writes a file until only so many bytes are free.
func fill(t *testing.T, path, dir string, leave int64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	write(t, path, make([]byte, int64(st.Bavail)*st.Bsize-leave))
}
