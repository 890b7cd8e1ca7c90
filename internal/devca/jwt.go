package devca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// maxJWTTTL keeps a JWT-SVID below what verifiers accept, whatever the TTL.
const maxJWTTTL = 5 * time.Minute

func (ca *CA) createJWTKey() (err error) {
	ca.jwtKID = rand.Text()
	ca.jwtKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return err
}

// FetchJWTSVID signs a JWT-SVID (SPIFFE JWT-SVID §3) for the audiences named.
func (a *api) FetchJWTSVID(_ context.Context, req *workloadpb.JWTSVIDRequest) (*workloadpb.JWTSVIDResponse, error) {
	if len(req.GetAudience()) == 0 || slices.Contains(req.GetAudience(), "") {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	if id := req.GetSpiffeId(); id != "" && id != a.workload.id.String() {
		return nil, status.Error(codes.PermissionDenied, "no identity issued: this socket serves another workload")
	}
	token, err := a.ca.signJWT(a.workload, req.GetAudience())
	if err != nil {
		return nil, status.Error(codes.Internal, "signing the JWT-SVID failed")
	}
	return &workloadpb.JWTSVIDResponse{Svids: []*workloadpb.JWTSVID{{
		SpiffeId: a.workload.id.String(), Svid: token,
	}}}, nil
}

// FetchJWTBundles streams the key that signs JWT-SVIDs.
func (a *api) FetchJWTBundles(_ *workloadpb.JWTBundlesRequest, stream workloadpb.SpiffeWorkloadAPI_FetchJWTBundlesServer) error {
	return a.stream(stream.Context(), func() (<-chan struct{}, error) {
		jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
			Key: a.ca.jwtKey.Public(), KeyID: a.ca.jwtKID, Use: "jwt-svid",
		}}})
		if err != nil {
			return nil, status.Error(codes.Internal, "encoding the JWT bundle failed")
		}
		_, changed := a.workload.current()
		return changed, stream.Send(&workloadpb.JWTBundlesResponse{
			Bundles: map[string][]byte{a.ca.td.IDString(): jwks},
		})
	})
}

// ValidateJWTSVID checks a JWT-SVID of the own trust domain.
func (a *api) ValidateJWTSVID(_ context.Context, req *workloadpb.ValidateJWTSVIDRequest) (*workloadpb.ValidateJWTSVIDResponse, error) {
	if req.GetAudience() == "" || req.GetSvid() == "" {
		return nil, status.Error(codes.InvalidArgument, "audience and svid must be specified")
	}
	subject, claims, err := a.ca.verifyJWT(req.GetSvid(), req.GetAudience())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	fields, err := structpb.NewStruct(claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the claims have no protobuf form")
	}
	return &workloadpb.ValidateJWTSVIDResponse{SpiffeId: subject, Claims: fields}, nil
}

func (ca *CA) signJWT(w *workload, audience []string) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: ca.jwtKey, KeyID: ca.jwtKID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	now := ca.now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  w.id.String(),
		Audience: audience,
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(min(w.ttl(ca), maxJWTTTL))),
	}).Serialize()
}

func (ca *CA) verifyJWT(token, audience string) (subject string, claims map[string]any, err error) {
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", nil, fmt.Errorf("parsing JWT-SVID: %w", err)
	}
	var std jwt.Claims
	if err := tok.Claims(ca.jwtKey.Public(), &std, &claims); err != nil {
		return "", nil, fmt.Errorf("verifying JWT-SVID: %w", err)
	}
	if std.Expiry == nil {
		return "", nil, fmt.Errorf("verifying JWT-SVID: it has no exp")
	}
	err = std.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{audience}, Time: ca.now()}, 0)
	if err != nil {
		return "", nil, fmt.Errorf("verifying JWT-SVID: %w", err)
	}
	return std.Subject, claims, nil
}
