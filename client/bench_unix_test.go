//go:build unix

package client_test

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/lineal-auth/lineal/client"
)

// nowhere answers at once, without a network.
type nowhere struct{ calls int }

func (n *nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	n.calls++
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
}

// warm is a request for a URL whose token is in the pool, and both ways to
// send it.
func warm(t testing.TB) (w *world, r *http.Request, through http.RoundTripper, bare *nowhere) {
	t.Helper()
	w = newWorld(t)
	w.life = 3600
	d, err := w.client.Accept(t.Context(), w.root("alice", time.Hour), "01a20320-a5e8-7000-8000-000000000001")
	must(t, err)
	ctx := client.WithDelegation(context.Background(), d)
	r, err = http.NewRequestWithContext(ctx, http.MethodPost, w.gateway.URL+"/mcp/orders", http.NoBody)
	must(t, err)
	for _, name := range []string{"Content-Type", "Accept", "User-Agent", "Mcp-Session-Id", "Mcp-Protocol-Version"} {
		r.Header.Set(name, "a value")
	}
	bare = &nowhere{}
	through = w.client.Transport(bare)
	send(t, through, r)
	return w, r, through, bare
}

func send(t testing.TB, to http.RoundTripper, r *http.Request) {
	resp, err := to.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
}

// TestWarmUsesNoNetwork: with the token in the pool, no call asks the token
// service, and each goes out once.
func TestWarmUsesNoNetwork(t *testing.T) {
	w, r, through, bare := warm(t)
	w.sts.Close()
	const calls = 1000
	for range calls {
		send(t, through, r)
	}
	if s := w.client.Stats(); s.Exchanges != 1 || s.Hits != calls || bare.calls != calls+1 {
		t.Errorf("%+v, %d calls went out", s, bare.calls)
	}
}

// BenchmarkTransportWarm is what Transport adds to a call whose token is in the
// pool: processor time of the whole process, that of the bare call taken off.
func BenchmarkTransportWarm(b *testing.B) {
	w, r, through, bare := warm(b)
	w.sts.Close()
	w.gateway.Close()
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime()
	for b.Loop() {
		send(b, through, r)
	}
	with := processorTime() - before
	b.StopTimer()
	before = processorTime()
	for range b.N {
		send(b, bare, r)
	}
	added := with - (processorTime() - before)
	b.ReportMetric(float64(added.Nanoseconds())/float64(b.N)/1e3, "added-cpu-µs/op")
	b.ReportMetric(float64(w.client.Stats().Exchanges), "exchanges")
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
