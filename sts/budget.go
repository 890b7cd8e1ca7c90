package sts

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// The budget of refusals: what a peer that proves nothing may cost (threat N5).
// A request that is refused before anybody is authenticated is charged to its
// address and to all together; while either has nothing left, requests without
// a client certificate are turned away unread, with 429 and Retry-After. They
// have no record each; the writer's next gap record counts them, and the count of
// an address is logged when it is let in again.
const (
	refusalsPerAddress = 120 // at once; one more every half second
	refusalsOfAll      = 4096
	refillAddress      = 500 * time.Millisecond
	refillAll          = 10 * time.Millisecond
	maxAddresses       = 8192
)

// bucket holds what is left as the time at which it would be full: it needs no
// timer, and a bucket that is full again says nothing that a new one does not.
type bucket struct {
	full   time.Time
	turned int // away, since it was last let in
}

// wait is how long until a bucket of this size has something left, 0 if it has.
func (b *bucket) wait(now time.Time, size int, refill time.Duration) time.Duration {
	if !b.full.After(now) { // also the zero value, from which no difference can be taken
		return 0
	}
	return max(0, b.full.Sub(now)-time.Duration(size-1)*refill)
}

func (b *bucket) charge(now time.Time, refill time.Duration) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(refill)
}

// budget is safe for concurrent use.
type budget struct {
	mu   sync.Mutex // guards what follows
	all  bucket
	each map[netip.Prefix]*bucket
}

// peerOf is the network that an address is charged to: an IPv6 host has a /64.
func peerOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{} // all such are one
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// admit reports how long a peer must wait, 0 if it is let in, and how many of
// its requests were turned away before.
func (b *budget) admit(peer netip.Prefix, now time.Time) (wait time.Duration, turned int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own, known := b.each[peer]
	wait = b.all.wait(now, refusalsOfAll, refillAll)
	if known {
		wait = max(wait, own.wait(now, refusalsPerAddress, refillAddress))
	}
	switch {
	case !known:
	case wait > 0:
		own.turned++
	default:
		turned, own.turned = own.turned, 0
	}
	return wait, turned
}

func (b *budget) charge(peer netip.Prefix, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.charge(now, refillAll)
	own, known := b.each[peer]
	if !known {
		b.makeRoom(now)
		own = &bucket{}
		b.each[peer] = own
	}
	own.charge(now, refillAddress)
}

// makeRoom drops what is full again; if nothing is, the peer that is nearest to
// it, so that a flood of addresses forgets no one who has nothing left before
// others.
func (b *budget) makeRoom(now time.Time) {
	if len(b.each) < maxAddresses {
		return
	}
	var nearest netip.Prefix
	var at time.Time
	for p, own := range b.each {
		if !own.full.After(now) {
			delete(b.each, p)
		} else if at.IsZero() || own.full.Before(at) {
			nearest, at = p, own.full
		}
	}
	if len(b.each) >= maxAddresses {
		delete(b.each, nearest)
	}
}

// turnAway answers a request of a peer that has nothing left, and reports
// whether it did. Nothing of the request is read.
func (s *Service) turnAway(w http.ResponseWriter, r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return false
	}
	peer := peerOf(r.RemoteAddr)
	wait, turned := s.refusals.admit(peer, s.cfg.Now())
	if turned > 0 {
		s.cfg.Logger.WarnContext(r.Context(), "requests were turned away", slog.String("peer", peer.String()), slog.Int("requests", turned))
	}
	if wait <= 0 {
		return false
	}
	s.cfg.Recorder.Dropped(CodeTooManyRefusals)
	w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
	writeRefusal(w, r, table[CodeTooManyRefusals])
	return true
}

// charge is for a request that was refused before anybody was authenticated.
func (x *exchange) charge() {
	if x.workload.Agent.IsZero() {
		x.s.refusals.charge(peerOf(x.r.RemoteAddr), x.now)
	}
}
