// Package spiffe authenticates workloads by their X.509-SVIDs on mutually
// authenticated TLS connections, and gives the own workload its identity for
// them. It is a driver of package identity.
//
//	SPIFFE Workload API ──watch──▶ Source ──▶ ServerTLS, ClientTLS, HTTPClient
//	(unix socket)                    │          (always the current SVID)
//	                                 └──────▶ Identify(request, now) ─▶ identity.Workload
//
// It promises that a peer is accepted only if its certificate chains to the
// bundle of the trust domain that its SPIFFE ID names, which is this workload's
// own or one that is configured as federated: no bundle vouches for another
// domain, whichever the Workload API delivers (threat I4). The leaf must follow the X.509-SVID standard:
// exactly one URI SAN, a SPIFFE ID with a path; not a CA; key usage
// digitalSignature, neither keyCertSign nor cRLSign (I3). Lives are checked in
// the handshake and again at each request of a kept connection (I8).
//
// It never reads an identity from a header, and does not say what a workload
// may do.
package spiffe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lineal-auth/lineal/identity"
)

// Leeway is the difference of clocks that certificate lives allow, at both ends.
const Leeway = 30 * time.Second

// openTimeout bounds Open where its context has no earlier end. SPIRE needs
// about five seconds from the registration of a workload to its first SVID.
const openTimeout = 30 * time.Second

// ErrClosed is the error of a Source after Close.
var ErrClosed = errors.New("the SPIFFE source is closed")

// Config configures a Source. Socket and TrustDomain are required.
type Config struct {
	// Socket is the address of the Workload API: `unix:///path`,
	// `tcp://127.0.0.1:port`, or an absolute path.
	Socket string
	// TrustDomain is the own trust domain, such as "acme.example". SVIDs of
	// another are refused, the own one as well as those of peers.
	TrustDomain string
	// Federated are other trust domains whose workloads are accepted as peers, by
	// the bundles of them that the Workload API delivers. While it delivers none
	// of a domain, nobody of it is accepted; one that is not listed never is.
	Federated []string
	// Name is the name of this source in records; empty: "spiffe".
	Name string
	// Now is the clock of handshakes; nil: time.Now. Identify takes its own.
	Now func() time.Time
	// Logger gets updates and failures of the Workload API; nil: none.
	Logger *slog.Logger
}

// Source holds the workload's identity and the bundle of its trust domain, as
// the Workload API delivers them. It implements identity.Source. All methods
// are safe for concurrent use.
type Source struct {
	td     spiffeid.TrustDomain
	others map[spiffeid.TrustDomain]bool // federated
	socket string
	name   string
	now    func() time.Time
	logger *slog.Logger

	client *workloadapi.Client
	cancel context.CancelFunc
	done   sync.WaitGroup // the watch

	state  atomic.Pointer[state] // nil before the first update, swapped whole
	closed atomic.Bool

	mu      sync.Mutex    // guards what follows
	updated chan struct{} // closed and replaced at every update
	lastErr error         // of the watch, since the last update
	errored chan struct{} // holds one item after a failure of the watch
}

var _ identity.Source = (*Source)(nil)

// state is one update of the Workload API.
type state struct {
	credential Credential
	svid       tls.Certificate
	verifier   *verifier
	federated  map[spiffeid.TrustDomain]*verifier // by the domain each is for
}

// Credential says which certificate a Source presents.
type Credential struct {
	// Agent is the own SPIFFE ID.
	Agent identity.Agent
	// Thumbprint is identity.Thumbprint of the certificate, `x5t#S256`.
	Thumbprint string
	// NotBefore and NotAfter bound its life.
	NotBefore, NotAfter time.Time
}

// Open connects to the Workload API and blocks until it has delivered an SVID
// of the trust domain, ctx ends, or 30 seconds have passed. The error names
// the socket and the last answer. After Open the Source follows all updates
// until Close, and keeps its last good state while the API is away.
func Open(ctx context.Context, cfg Config) (*Source, error) {
	s, err := newSource(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening SPIFFE source: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s.client, err = workloadapi.New(ctx, workloadapi.WithAddr(s.socket), workloadapi.WithBackoffStrategy(backoffStrategy{}))
	if err != nil {
		return nil, fmt.Errorf("opening SPIFFE source: socket %s: %w", s.socket, err)
	}
	var watchCtx context.Context
	watchCtx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	first := s.Updated()
	s.done.Go(func() { s.watch(watchCtx) })
	if err := s.waitForFirst(ctx, first); err != nil {
		return nil, errors.Join(fmt.Errorf("opening SPIFFE source: %w", err), s.Close())
	}
	return s, nil
}

func newSource(cfg Config) (*Source, error) {
	td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	others := make(map[spiffeid.TrustDomain]bool)
	for _, name := range cfg.Federated {
		other, err := spiffeid.TrustDomainFromString(name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("federated trust domain: %w", err)
		case other.Name() != name: // an id of a workload would be cut to its domain
			return nil, fmt.Errorf("federated trust domain: %q is no name of one", name)
		case other == td || others[other]:
			return nil, fmt.Errorf("federated trust domain %s is the own one, or stands twice", other)
		}
		others[other] = true
	}
	s := &Source{
		td: td, others: others, socket: cfg.Socket, name: cfg.Name, now: cfg.Now, logger: cfg.Logger,
		updated: make(chan struct{}), errored: make(chan struct{}, 1),
	}
	if s.socket == "" {
		return nil, errors.New("no Workload API socket is configured") // never the environment's
	}
	if filepath.IsAbs(s.socket) {
		s.socket = "unix://" + s.socket
	}
	if err := workloadapi.ValidateAddress(s.socket); err != nil {
		return nil, fmt.Errorf("socket %s: %w", s.socket, err)
	}
	if s.name == "" {
		s.name = "spiffe"
	}
	if s.now == nil {
		s.now = time.Now //nolint:forbidigo // the one default clock
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Close ends the watch and waits for it. Later handshakes and Identify fail.
func (s *Source) Close() error {
	s.closed.Store(true)
	s.cancel()
	s.done.Wait()
	if err := s.client.Close(); err != nil && status.Code(err) != codes.Canceled {
		return fmt.Errorf("closing SPIFFE source: %w", err)
	}
	return nil
}

// Agent returns the own identity. It stays the same for the life of the Source.
func (s *Source) Agent() identity.Agent { return s.Current().Agent }

// Current returns the certificate that new connections present.
func (s *Source) Current() Credential { return s.state.Load().credential }

// Updated returns a channel that is closed at the next update of SVID or
// bundle. Each caller may wait; take the channel, then read Current, then
// wait, so that no update is missed.
func (s *Source) Updated() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updated
}

// load returns the current state, or ErrClosed.
func (s *Source) load() (*state, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	return s.state.Load(), nil
}

// watch follows the Workload API until ctx ends. go-spiffe retries by itself,
// but gives up for good after some answers; this does not.
func (s *Source) watch(ctx context.Context) {
	retry := backoffStrategy{}.NewBackoff()
	for {
		_ = s.client.WatchX509Context(ctx, watcher{s}) // reported to the watcher
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry.Next()):
		}
	}
}

// waitForFirst waits for the first update. It fails early only on an answer
// that waiting cannot better.
func (s *Source) waitForFirst(ctx context.Context, first <-chan struct{}) error {
	for {
		select {
		case <-first:
			return nil
		case <-s.errored:
			if err := s.watchError(); isFinal(err) {
				return err
			}
		case <-ctx.Done():
			if err := s.watchError(); err != nil {
				return fmt.Errorf("%w (%w)", err, ctx.Err())
			}
			return fmt.Errorf("the SPIFFE Workload API at %s has not answered: %w", s.socket, ctx.Err())
		}
	}
}

// errUnusable marks an update that was delivered but cannot be used.
var errUnusable = errors.New("unusable SVID")

func isFinal(err error) bool {
	return errors.Is(err, errUnusable) || status.Code(err) == codes.InvalidArgument
}

func (s *Source) watchError() error {
	s.mu.Lock()
	err := s.lastErr
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case status.Code(err) == codes.Unavailable:
		return fmt.Errorf("no SPIFFE Workload API answers at %s: %w", s.socket, err)
	case status.Code(err) == codes.PermissionDenied:
		return fmt.Errorf("the SPIFFE Workload API at %s issues no identity to this workload: %w", s.socket, err)
	default:
		return fmt.Errorf("the SPIFFE Workload API at %s: %w", s.socket, err)
	}
}

// watcher takes what the watch receives, one call at a time.
type watcher struct{ s *Source }

// OnX509ContextUpdate takes an update. One that cannot be used leaves the last
// good state in place.
func (w watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	s := w.s
	next, err := s.accept(update)
	if err != nil {
		w.OnX509ContextWatchError(err)
		return
	}
	s.state.Store(next)
	s.mu.Lock()
	s.lastErr = nil
	close(s.updated)
	s.updated = make(chan struct{})
	s.mu.Unlock()
	s.logger.DebugContext(context.Background(), "SVID received",
		slog.String("agent", next.credential.Agent.String()), slog.Time("not_after", next.credential.NotAfter))
}

// OnX509ContextWatchError takes a failure.
func (w watcher) OnX509ContextWatchError(err error) {
	s := w.s
	if s.closed.Load() {
		return
	}
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
	select {
	case s.errored <- struct{}{}:
	default:
	}
	s.logger.WarnContext(context.Background(), "SPIFFE Workload API failed; the last identity stays in use",
		slog.String("socket", s.socket), slog.String("error", err.Error()))
}

// accept builds the next state, or says why the update is unusable.
func (s *Source) accept(update *workloadapi.X509Context) (*state, error) {
	last := s.state.Load()
	svid, err := s.pick(update.SVIDs, last)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	bundle, err := update.Bundles.GetX509BundleForTrustDomain(s.td)
	if err != nil || bundle.Empty() {
		return nil, fmt.Errorf("%w: no bundle of the own trust domain %s", errUnusable, s.td)
	}
	agent, err := identity.ParseAgent(svid.ID.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	leaf := svid.Certificates[0]
	next := &state{
		credential: Credential{
			Agent: agent, Thumbprint: identity.Thumbprint(leaf),
			NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		},
		svid:      tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: leaf},
		verifier:  verifierOf(bundle, last.own()),
		federated: s.federate(update.Bundles, last),
	}
	for _, c := range svid.Certificates {
		next.svid.Certificate = append(next.svid.Certificate, c.Raw)
	}
	return next, nil
}

// federate builds the verifiers of the federated domains that have a bundle now.
func (s *Source) federate(bundles *x509bundle.Set, last *state) map[spiffeid.TrustDomain]*verifier {
	all := make(map[spiffeid.TrustDomain]*verifier, len(s.others))
	for td := range s.others {
		bundle, err := bundles.GetX509BundleForTrustDomain(td)
		if err != nil || bundle.Empty() {
			s.logger.WarnContext(context.Background(), "no bundle of a federated trust domain: nobody of it is accepted",
				slog.String("trust_domain", td.Name()))
			continue
		}
		var before *verifier
		if last != nil {
			before = last.federated[td]
		}
		all[td] = verifierOf(bundle, before)
	}
	return all
}

// verifierOf is before, with what it has verified, if the bundle is the same.
func verifierOf(bundle *x509bundle.Bundle, before *verifier) *verifier {
	if before != nil && before.bundle.Equal(bundle) {
		return before
	}
	return newVerifier(bundle)
}

func (st *state) own() *verifier {
	if st == nil {
		return nil
	}
	return st.verifier
}

// verify accepts a chain by the bundle of the one trust domain that its leaf
// names, and by no other.
func (st *state) verify(chain []*x509.Certificate, now time.Time) (verified, error) {
	v := st.verifier
	if uris := chain[0].URIs; len(uris) == 1 {
		if id, err := spiffeid.FromURI(uris[0]); err == nil && st.federated[id.TrustDomain()] != nil {
			v = st.federated[id.TrustDomain()]
		}
	}
	return v.verify(chain, now) // the own one refuses what is of no domain known
}

// pick chooses the SVID: the first one at first, then that of the same agent.
func (s *Source) pick(all []*x509svid.SVID, last *state) (*x509svid.SVID, error) {
	if len(all) == 0 {
		return nil, errors.New("no SVID delivered")
	}
	for _, svid := range all {
		if last != nil && svid.ID.String() != last.credential.Agent.String() {
			continue
		}
		if !svid.ID.MemberOf(s.td) {
			return nil, fmt.Errorf("%s is not in the configured trust domain %s", svid.ID, s.td)
		}
		return svid, nil
	}
	var ids []string
	for _, svid := range all {
		ids = append(ids, svid.ID.String())
	}
	return nil, fmt.Errorf("the identity changed from %s to %s; restart to take it",
		last.credential.Agent, strings.Join(ids, ", "))
}

// backoffStrategy retries the Workload API quickly: it is local, and a
// workload without identity serves nobody.
type backoffStrategy struct{}

// NewBackoff implements workloadapi.BackoffStrategy.
func (backoffStrategy) NewBackoff() workloadapi.Backoff { return &backoff{} }

type backoff struct{ next time.Duration }

// Next returns 100 ms, doubled at each call up to 5 s.
func (b *backoff) Next() time.Duration {
	b.next = min(max(2*b.next, 100*time.Millisecond), 5*time.Second)
	return b.next
}

// Reset starts over.
func (b *backoff) Reset() { b.next = 0 }
