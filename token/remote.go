package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/lineal-auth/lineal/delegation"
	"github.com/lineal-auth/lineal/internal/strictjson"
)

const (
	fetchTimeout    = 2 * time.Second
	refetchInterval = 5 * time.Second  // from a fetch of a key set to the next, at least
	retryInterval   = time.Second      // the same after a fetch that failed
	staleAfter      = time.Hour        // when a key set that cannot be refreshed is used no more
	unknownFor      = 30 * time.Second // how long a kid stays unknown without a fetch
	maxUnknown      = 256              // such kids
	maxChain        = delegation.MaxHops*(MaxBytes+8) + 1024
)

// KeySetAge is when a key set is fetched anew: what an issuer publishes is known
// everywhere after it, and not before.
const KeySetAge = 5 * time.Minute

// RemoteConfig configures the sources that ask an issuer over HTTP.
type RemoteConfig struct {
	// HTTP carries the identity of this process, where the issuer asks for one.
	// If nil, a plain client of its own. Redirects are never followed.
	HTTP *http.Client
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger gets failed fetches; default none.
	Logger *slog.Logger
}

func (cfg RemoteConfig) withDefaults() RemoteConfig {
	client := &http.Client{}
	if cfg.HTTP != nil {
		*client = *cfg.HTTP
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.HTTP = client
	if cfg.Now == nil {
		cfg.Now = time.Now //nolint:forbidigo // the one default clock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// RemoteKeys is a KeySource over a JWKS URL. It fetches when it is asked, not
// in the background: for a kid it does not know, at most once in five seconds;
// for a key whose time has not come, as often; and for any kid when the set is
// five minutes old. A set that cannot be refreshed for an hour is used no more.
type RemoteKeys struct {
	url    string
	cfg    RemoteConfig
	flight flight[struct{}]

	mu         sync.Mutex // guards all below
	keys       map[string]PublicKey
	fetched    time.Time // last success
	next       time.Time // when the next attempt is allowed
	fetching   bool      // an attempt runs
	unknown    map[string]time.Time
	generation uint64
}

// NewRemoteKeys builds a RemoteKeys. The URL is https, or http to a loopback
// address. Nothing is fetched before the first Key.
func NewRemoteKeys(jwksURL string, cfg RemoteConfig) (*RemoteKeys, error) {
	if err := checkFetchURL(jwksURL); err != nil {
		return nil, fmt.Errorf("making remote keys: %w", err)
	}
	return &RemoteKeys{url: jwksURL, cfg: cfg.withDefaults(), unknown: map[string]time.Time{}}, nil
}

// Generation changes when a key changed, went away or became too old to use.
func (r *RemoteKeys) Generation() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire(r.cfg.Now())
	return r.generation
}

// Key returns the key with this id, fetching the set if that could help.
func (r *RemoteKeys) Key(ctx context.Context, kid string) (PublicKey, error) {
	k, known, fetch := r.look(kid)
	if fetch {
		_, err := r.flight.do(ctx, "", r.refresh)
		if err != nil && !known {
			return PublicKey{}, err
		}
		if k, known, _ = r.look(kid); !known {
			r.remember(kid)
		}
	}
	if !known {
		return PublicKey{}, fmt.Errorf("%w %q", ErrKeyUnknown, kid)
	}
	return k, nil
}

// look finds a key, and says whether a fetch is due and allowed.
func (r *RemoteKeys) look(kid string) (k PublicKey, known, fetch bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	r.expire(now)
	k, known = r.keys[kid]
	if known {
		early := k.NotBefore.After(now) // somebody signs with it: the issuer may have moved its turn
		return k, true, (early || now.Sub(r.fetched) >= KeySetAge) && !now.Before(r.next)
	}
	if until, refused := r.unknown[kid]; refused && now.Before(until) {
		return k, false, false
	}
	return k, false, r.fetching || !now.Before(r.next) // wait for a fetch that runs
}

// expire forgets a set that could not be refreshed for too long.
func (r *RemoteKeys) expire(now time.Time) {
	if r.keys != nil && now.Sub(r.fetched) >= staleAfter {
		r.keys = nil
		r.generation++
	}
}

// remember keeps an unknown kid from being fetched for again. The set of such
// kids is small: a flood empties it, and then the refetch interval bounds.
func (r *RemoteKeys) remember(kid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unknown) >= maxUnknown {
		clear(r.unknown)
	}
	r.unknown[kid] = r.cfg.Now().Add(unknownFor)
}

// refresh fetches the set and swaps it whole; a bad answer changes nothing. Who
// looked just before another's fetch ended does not fetch again.
func (r *RemoteKeys) refresh(ctx context.Context) (struct{}, error) {
	if !r.begin() {
		return struct{}{}, nil
	}
	keys, err := r.fetch(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetching = false
	now := r.cfg.Now()
	if err != nil {
		r.next = now.Add(retryInterval)
		r.cfg.Logger.WarnContext(ctx, "key set not fetched", slog.String("url", r.url), slog.Any("error", err))
		return struct{}{}, err
	}
	for kid, old := range r.keys {
		if k, ok := keys[kid]; !ok || !k.equal(old) {
			r.generation++
			break
		}
	}
	r.keys, r.fetched = keys, now
	maps.DeleteFunc(r.unknown, func(kid string, _ time.Time) bool { _, ok := keys[kid]; return ok })
	return struct{}{}, nil
}

// begin says whether a fetch is allowed now, and takes the turn.
func (r *RemoteKeys) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	if now.Before(r.next) {
		return false
	}
	r.next, r.fetching = now.Add(refetchInterval), true
	return true
}

func (r *RemoteKeys) fetch(ctx context.Context) (map[string]PublicKey, error) {
	body, err := get(ctx, r.cfg.HTTP, r.url, maxJWKS)
	if err != nil {
		return nil, fmt.Errorf("fetching key set: %w", err)
	}
	keys, err := ParseJWKS(body)
	if err != nil {
		return nil, fmt.Errorf("fetching key set: %w", err)
	}
	return indexKeys(keys)
}

// RemoteChains is a ChainSource over `GET {issuer}/chains/{jti}` (tokens.md §5).
// It keeps nothing: the verifier caches receipts.
type RemoteChains struct {
	cfg    RemoteConfig
	flight flight[[]string]
}

// NewRemoteChains builds a RemoteChains.
func NewRemoteChains(cfg RemoteConfig) *RemoteChains {
	return &RemoteChains{cfg: cfg.withDefaults()}
}

// Chain fetches the closed chain of a token. Callers that want the same one at
// the same time share one fetch, which takes at most two seconds.
func (r *RemoteChains) Chain(ctx context.Context, issuer, jti string) ([]string, error) {
	if err := checkFetchURL(issuer); err != nil {
		return nil, fmt.Errorf("fetching chain: %w", err)
	}
	u, err := url.JoinPath(issuer, "chains", url.PathEscape(jti))
	if err != nil {
		return nil, fmt.Errorf("fetching chain: %w", err)
	}
	return r.flight.do(ctx, u, func(ctx context.Context) ([]string, error) {
		body, err := get(ctx, r.cfg.HTTP, u, maxChain)
		if err != nil {
			return nil, fmt.Errorf("fetching chain: %w", err)
		}
		return parseChain(body)
	})
}

func parseChain(body []byte) ([]string, error) {
	v, err := strictjson.Parse(body, strictjson.Limits{MaxBytes: maxChain, MaxDepth: 2})
	if err != nil {
		return nil, fmt.Errorf("reading chain: %w", err)
	}
	r := reader{where: "chain"}
	r.object(v, "document", "receipts")
	receipts := r.optionalTexts(v, "receipts", delegation.MaxHops, func(string) error { return nil })
	if r.err == nil && receipts == nil {
		return nil, errors.New("reading chain: no receipts")
	}
	return receipts, r.err
}

// get fetches a small JSON document: 200 only, no redirect, bounded in time and
// size.
func get(ctx context.Context, client *http.Client, u string, limit int64) (_ []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("answer of more than %d bytes", limit)
	}
	return body, nil
}

// checkFetchURL lets keys and chains come over TLS only, or from this machine.
func checkFetchURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q is no URL to fetch from", s)
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return fmt.Errorf("%q is neither https nor on this machine", s)
	}
	return nil
}

// flight runs one call per key at a time; who comes while it runs shares its
// answer. The call runs on the goroutine of the first, who sees it to its end
// even if its own context ends, so that nobody else pays for that.
type flight[T any] struct {
	mu    sync.Mutex // guards calls
	calls map[string]*flightCall[T]
}

type flightCall[T any] struct {
	done  chan struct{} // closed when the two below are set
	value T
	err   error
}

func (f *flight[T]) do(ctx context.Context, key string, fn func(context.Context) (T, error)) (T, error) {
	f.mu.Lock()
	if c, ok := f.calls[key]; ok {
		f.mu.Unlock()
		select {
		case <-c.done:
			return c.value, c.err
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
	c := &flightCall[T]{done: make(chan struct{}), err: errors.New("the shared call did not end")}
	if f.calls == nil {
		f.calls = map[string]*flightCall[T]{}
	}
	f.calls[key] = c
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.calls, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = fn(context.WithoutCancel(ctx))
	return c.value, c.err
}
