package feed_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/feed"
)

const childVariable = "LINEAL_FEED_CHILD"

// TestKilledFeedGoesOn kills a process in mid-feed, as often as it has written
// something: each index is in the file, whole and in order.
func TestKilledFeedGoesOn(t *testing.T) {
	const size, kills = 120, 4
	if dir := os.Getenv(childVariable); dir != "" { // the process that is killed
		c := cursor(t, filepath.Join(dir, "cursor"))
		cfg := config(newLog(t, size), &feed.File{Path: filepath.Join(dir, "sent"), Encode: export.Line}, c)
		cfg.Batch = 4
		if err := drain(t, cfg); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "sent")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for n := 0; ; n++ {
		before := sizeOf(path)
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledFeedGoesOn$") //nolint:gosec // this test itself
		child.Env = append(os.Environ(), childVariable+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1) // how it ended
		go func() { ended <- child.Wait() }()
		for n < kills && ctx.Err() == nil && len(ended) == 0 && sizeOf(path) < before+10_000 {
			time.Sleep(200 * time.Microsecond)
		}
		if n < kills && len(ended) == 0 {
			_ = child.Process.Kill()
			if err := <-ended; err == nil {
				break // before it could be killed
			}
			continue
		}
		if err := <-ended; err != nil { // it was not killed
			t.Fatal(err)
		}
		break
	}
	seen := make(map[int64]bool)
	var firsts []int64
	for _, i := range fileLines(t, path) {
		if !seen[i] {
			seen[i] = true
			firsts = append(firsts, i)
		}
	}
	checkAll(t, firsts, 0, size)
}

func sizeOf(path string) int64 {
	i, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return i.Size()
}
