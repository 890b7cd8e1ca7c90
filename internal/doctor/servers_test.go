package doctor_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"

	"github.com/lineal-auth/lineal/internal/devca"
)

const (
	nxdomain = dnsmessage.RCodeNameError
	servfail = dnsmessage.RCodeServerFailure
)

// nameServer is a resolver whose one server gives every question this answer.
func nameServer(t *testing.T, code dnsmessage.RCode) *net.Resolver {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	check(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response, m.RCode, m.Additionals = true, code, nil
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// expired is a Workload API that goes on giving a certificate which has ended,
// as an agent of SPIFFE does that has lost its server.
func (w *world) expired(t *testing.T) (socket string) {
	t.Helper()
	credential, err := w.CA().Issue(workload("agent"), devca.Profile{TTL: time.Nanosecond})
	check(t, err)
	text, err := credential.KeyPEM()
	check(t, err)
	key, _ := pem.Decode(text)
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	check(t, err)
	s := grpc.NewServer()
	workloadpb.RegisterSpiffeWorkloadAPIServer(s, &oldAPI{answer: &workloadpb.X509SVIDResponse{Svids: []*workloadpb.X509SVID{{
		SpiffeId: workload("agent").String(), X509Svid: credential.Leaf().Raw, X509SvidKey: key.Bytes, Bundle: w.CA().Bundle().X509Authorities()[0].Raw,
	}}}})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return "unix://" + path
}

type oldAPI struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer
	answer *workloadpb.X509SVIDResponse
}

func (a *oldAPI) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream workloadpb.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	if err := stream.Send(a.answer); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}
