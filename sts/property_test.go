package sts_test

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/lineal-auth/lineal/record"
	"github.com/lineal-auth/lineal/scope"
	"github.com/lineal-auth/lineal/sts"
	"github.com/lineal-auth/lineal/token"
)

// node is a token of a random tree, with what it must keep of its parent.
type node struct {
	raw      string
	receiver int // n of the agent that may go on; 0: nobody
	depth    int
	details  string
	verified token.Verified
}

// Random exchange trees keep person, transaction, depth and times, and only
// narrow; what the service issues, a verifier that knows it by its URL alone
// accepts, however the receipts travel.
func TestRandomTreesKeepPersonDepthAndTimes(t *testing.T) {
	w := newWorld(t)
	verifier := w.verifier()
	inspect := func(raw string) token.Verified {
		v, err := verifier.Verify(t.Context(), raw, token.Want{Audience: token.AnyAudience, Binding: token.BindingUnchecked})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	rapid.Check(t, func(rt *rapid.T) {
		person := rapid.SampledFrom([]string{"alice", "bob"}).Draw(rt, "person")
		first := rapid.IntRange(1, 8).Draw(rt, "first")
		form := w.rootForm()
		form.Set("subject_token", w.provider.login(w.now(), func(c map[string]any) { c["sub"] = person }))
		form.Set("resource", audience(first))
		got := w.post(w.as(app), form, nil)
		ref, err := w.persons.Reference(t.Context(), w.provider.url, person)
		if err != nil {
			rt.Fatal(err)
		}
		w.recorder.take()
		tree := []node{{raw: got.Token, receiver: first, details: everything(), verified: inspect(got.Token)}}

		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			parent := tree[rapid.IntRange(0, len(tree)-1).Draw(rt, "parent")]
			client := rapid.IntRange(1, 8).Draw(rt, "client")
			if parent.receiver > 0 && rapid.IntRange(0, 3).Draw(rt, "right") > 0 {
				client = parent.receiver
			}
			target := rapid.IntRange(0, 8).Draw(rt, "target")
			uri := toolURI
			if target > 0 {
				uri = audience(target)
			}
			tools := rapid.SampledFrom([]string{`"find"`, `"find","sum"`, `"sum"`, `"drop"`}).Draw(rt, "tools")
			form := hopForm(parent.raw, uri)
			form.Set("authorization_details", detailsFor("x", tools))
			got := w.post(w.as(agent(client)), form, nil)
			recs := w.recorder.take()
			if len(recs) != 1 {
				rt.Fatalf("%d records", len(recs))
			}

			wider := scope.Subsumes(parse(t, parent.details, parent.depth == 0), parse(t, detailsFor("x", tools), false)) != nil
			allowed := client == parent.receiver && parent.depth < 7 && !wider
			if (got.Token != "") != allowed || (recs[0].Issuance.Result == record.Issued) != allowed {
				rt.Fatalf("client a%d, receiver a%d, depth %d, tools %s of %s: %+v", client, parent.receiver, parent.depth, tools, parent.details, got)
			}
			if !allowed {
				continue
			}
			v := inspect(got.Token)
			hop, above := v.Leaf.Hop, parent.verified.Leaf.Hop
			switch {
			case v.Chain.Person().Ref() != ref || v.Chain.Txn() != parent.verified.Chain.Txn():
				rt.Fatalf("person or transaction changed: %+v", v.Leaf)
			case hop.Depth != parent.depth+1 || hop.MaxDepth != above.MaxDepth:
				rt.Fatalf("depth %d of %d after %d of %d", hop.Depth, hop.MaxDepth, parent.depth, above.MaxDepth)
			case hop.IssuedAt.Before(above.IssuedAt) || hop.Expires.After(above.Expires):
				rt.Fatalf("from %s to %s within %s to %s", hop.IssuedAt, hop.Expires, above.IssuedAt, above.Expires)
			case hop.Actor().Subject != agent(client).String() || hop.Audience != uri:
				rt.Fatalf("by %s for %s", hop.Actor().Subject, hop.Audience)
			}
			tree = append(tree, node{raw: got.Token, receiver: target, depth: hop.Depth, details: detailsFor("x", tools), verified: v})
		}
	})
}

// Many at once: each answer belongs to its own request, each has one record.
func TestConcurrentExchanges(t *testing.T) {
	w := newWorld(t)
	const people, each = 8, 6
	var all sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]bool{}
	refs := map[string]string{}
	for p := range people {
		all.Go(func() {
			subject := fmt.Sprintf("person-%d", p)
			form := w.rootForm()
			form.Set("subject_token", w.provider.login(w.now(), func(c map[string]any) { c["sub"] = subject }))
			root := w.post(w.as(app), form, nil)
			if root.Token == "" {
				t.Errorf("%s: %+v", subject, root)
				return
			}
			sub := claims(t, root.Token)["sub"].(string)
			mu.Lock()
			refs[sub] = subject
			mu.Unlock()
			for i := range each {
				target := audience(2 + i)
				var got answer
				refused := i%3 == 2
				if refused {
					got = w.post(w.as(agent(5)), hopForm(root.Token, target), nil)
				} else {
					got = w.post(w.as(agent(1)), hopForm(root.Token, target), nil)
				}
				if (got.Token == "") != refused {
					t.Errorf("%s to %s: %+v", subject, target, got)
					continue
				}
				if refused {
					continue
				}
				c := claims(t, got.Token)
				if c["sub"] != sub || c["aud"] != target {
					t.Errorf("asked by %s for %s, got %v for %v", sub, target, c["sub"], c["aud"])
				}
				mu.Lock()
				ids[c["jti"].(string)] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(refs) != people || len(ids) != people*each*2/3 {
		t.Errorf("%d references, %d tokens", len(refs), len(ids))
	}
	seen := map[string]bool{}
	for _, r := range w.recorder.take() {
		if seen[r.ID] {
			t.Errorf("record %s twice", r.ID)
		}
		seen[r.ID] = true
		if jti := r.Issuance.JTI; r.Issuance.Result == record.Issued && r.Issuance.ParentHash != "" && !ids[jti] {
			t.Errorf("a record of %s, which nobody got", jti)
		}
	}
	if want := people * (1 + each); len(seen) != want {
		t.Errorf("%d records, want %d", len(seen), want)
	}
}

var _ sts.Recorder = (*recorder)(nil)
