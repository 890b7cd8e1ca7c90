package devca

import (
	"context"
	"crypto/x509"
	"slices"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// api answers the SPIFFE Workload API for one workload. The WIT-SVID profile
// is not offered: the embedded type answers Unimplemented, as the standard
// asks of a server without it.
type api struct {
	workloadpb.UnimplementedSpiffeWorkloadAPIServer
	ca       *CA
	workload *workload
}

// FetchX509SVID streams the SVID with key and bundles, again at each change.
func (a *api) FetchX509SVID(_ *workloadpb.X509SVIDRequest, stream workloadpb.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return a.stream(stream.Context(), func() (<-chan struct{}, error) {
		svid, changed := a.workload.current()
		key, err := x509.MarshalPKCS8PrivateKey(svid.key)
		if err != nil {
			return nil, status.Error(codes.Internal, "encoding the private key failed")
		}
		resp := &workloadpb.X509SVIDResponse{
			Svids: []*workloadpb.X509SVID{{
				SpiffeId:    a.workload.id.String(),
				X509Svid:    svid.leaf.Raw,
				X509SvidKey: key,
				Bundle:      a.ca.cert.Raw,
			}},
			FederatedBundles: a.bundles(false),
		}
		return changed, stream.Send(resp)
	})
}

// FetchX509Bundles streams the bundles of the own and of federated domains.
func (a *api) FetchX509Bundles(_ *workloadpb.X509BundlesRequest, stream workloadpb.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return a.stream(stream.Context(), func() (<-chan struct{}, error) {
		_, changed := a.workload.current()
		return changed, stream.Send(&workloadpb.X509BundlesResponse{Bundles: a.bundles(true)})
	})
}

// stream calls send now and after each change, until the caller leaves or the
// CA closes.
func (a *api) stream(ctx context.Context, send func() (<-chan struct{}, error)) error {
	for {
		changed, err := send()
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-a.ca.ctx.Done():
			return status.Error(codes.Unavailable, "the development CA is closing")
		}
	}
}

// bundles returns DER bundles by the SPIFFE ID of their trust domain.
func (a *api) bundles(own bool) map[string][]byte {
	out := map[string][]byte{}
	for _, b := range a.ca.bundles() {
		if b.TrustDomain() == a.ca.td && !own {
			continue
		}
		var der []byte
		for _, c := range b.X509Authorities() {
			der = slices.Concat(der, c.Raw)
		}
		out[b.TrustDomain().IDString()] = der
	}
	return out
}

// requireHeader refuses calls without the Workload API's security header
// (SPIFFE Workload Endpoint §6): a request forged through a browser or a proxy
// cannot carry it.
func requireHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("workload.spiffe.io"); len(v) != 1 || v[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func requireHeaderUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := requireHeader(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func requireHeaderStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := requireHeader(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}
