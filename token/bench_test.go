package token

import (
	"fmt"
	"testing"
)

func benchmarkDepths(b *testing.B, run func(b *testing.B, f *forge, c forged)) {
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			f := newForge(b)
			run(b, f, f.byReference(b, f.chain(b, n)))
		})
	}
}

// BenchmarkVerifyWarm is the cost per call, with 10,000 revocations known: it
// must not grow with the chain. The token of eight hops is twice as long as that
// of one, so that anything that reads all of it shows.
func BenchmarkVerifyWarm(b *testing.B) {
	benchmarkDepths(b, func(b *testing.B, f *forge, c forged) {
		w := newWorld(b, f, func(cfg *Config) { cfg.Chains, cfg.Revocations = serving(c), crowdedFeed(b, f, cfg.Now, 10_000) })
		want := want(len(c.leaves) - 1)
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := w.Verify(ctx, c.last(), want); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerifyCold verifies every signature of the chain.
func BenchmarkVerifyCold(b *testing.B) {
	benchmarkDepths(b, func(b *testing.B, f *forge, c forged) {
		want := want(len(c.leaves) - 1)
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			w := newWorld(b, f, func(cfg *Config) { cfg.Chains = serving(c); cfg.CacheSize = 16 })
			if _, err := w.Verify(ctx, c.last(), want); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerifySibling verifies a new token over receipts seen before.
func BenchmarkVerifySibling(b *testing.B) {
	benchmarkDepths(b, func(b *testing.B, f *forge, c forged) {
		w := newWorld(b, f, func(cfg *Config) { cfg.Chains = serving(c) })
		want := want(len(c.leaves) - 1)
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			w.tokens = newLRU[verdictKey, *verdict](16)
			if _, err := w.Verify(ctx, c.last(), want); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSignToken(b *testing.B) {
	f := newForge(b)
	c := f.chain(b, 4)
	issuer := must(NewIssuer(testIssuer, f.signer))(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuer.SignToken(c.leaves[3], c.inline()); err != nil {
			b.Fatal(err)
		}
	}
}
