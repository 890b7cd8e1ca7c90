package cedar

import (
	"fmt"
	"strings"
	"testing"

	cedar "github.com/cedar-policy/cedar-go"

	"github.com/lineal-auth/lineal/policy"
)

// benchEngine has n policies: a few for everything, the others for tools of
// services of their own, as an operator with many tools has them.
func benchEngine(b testing.TB, n int) *Engine {
	b.Helper()
	in := testInput(b)
	tools := append([]Tool(nil), testTools...)
	var text strings.Builder
	entities := strings.TrimSuffix(strings.TrimSpace(testEntities), "]")
	text.WriteString(sixPolicies)
	for i := range n - 8 {
		service := fmt.Sprintf("svc-%d", i/5)
		name := fmt.Sprintf("tool-%d", i%5)
		if i%5 == 0 {
			entities += fmt.Sprintf(`,{"uid":{"type":"Service","id":%q},"parents":[],"attrs":{"environment":"staging"}}`, service)
		}
		tools = append(tools, Tool{Service: service, Name: name, InputSchema: testTools[0].InputSchema})
		fmt.Fprintf(&text, "@id(\"p%d\") permit(principal in Group::\"agents\", action == Action::\"mcp:tools/call#%s/%s\", resource in Service::%q) when { context.chain.depth < 3 };\n", i, service, name, service)
	}
	in.Schema, in.Entities = mustSchema(b, tools), []byte(entities+"]")
	in.Policies = map[string]string{"p.cedar": text.String()}
	return mustLoad(b, in)
}

var sizes = []int{10, 100, 1000}

// BenchmarkDecide is one decision on arguments: build, validate, evaluate.
func BenchmarkDecide(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e, in := benchEngine(b, n), payCall(b, `{"amount":499,"currency":"EUR","note":null}`)
			b.ReportAllocs()
			for b.Loop() {
				if e.Decide(b.Context(), in).Effect != policy.Permit {
					b.Fatal("denied")
				}
			}
		})
	}
}

// TestDecideIsFlat: a decision looks at as many policies, and allocates as much,
// with a thousand as with ten. What it costs in time .ci/flat compares.
func TestDecideIsFlat(t *testing.T) {
	var evaluated []int
	var allocated []float64
	for _, n := range sizes {
		e, in := benchEngine(t, n), payCall(t, `{"amount":499,"currency":"EUR","note":null}`)
		q, err := e.asker.ask(in, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(e.rules) < n-4 || len(e.rules) > n {
			t.Fatalf("%d policies, want about %d", len(e.rules), n)
		}
		count := 0
		for range q.candidates(e.full).All() {
			count++
		}
		evaluated = append(evaluated, count)
		allocated = append(allocated, testing.AllocsPerRun(50, func() {
			if e.Decide(t.Context(), in).Effect != policy.Permit {
				t.Fatal("denied")
			}
		}))
	}
	t.Logf("policies evaluated %v, allocations %v", evaluated, allocated)
	for i := range sizes {
		if evaluated[i] != evaluated[0] || evaluated[i] == 0 || allocated[i] > allocated[0]+2 {
			t.Errorf("%d policies: %d evaluated, %v allocations; with %d, %d and %v", sizes[i], evaluated[i], allocated[i], sizes[0], evaluated[0], allocated[0])
		}
	}
}

// BenchmarkDecideScan is the same without the index.
func BenchmarkDecideScan(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e, in := benchEngine(b, n), payCall(b, `{"amount":499,"currency":"EUR","note":null}`)
			all := cedar.PolicyMap{}
			for id, r := range e.rules {
				all[id] = r.policy
			}
			b.ReportAllocs()
			for b.Loop() {
				q, err := e.asker.ask(in, true)
				if err != nil {
					b.Fatal(err)
				}
				if e.answer(cedar.Authorize(all, q.entities, q.request)).Effect != policy.Permit {
					b.Fatal("denied")
				}
			}
		})
	}
}

// BenchmarkListed is one entry of a list.
func BenchmarkListed(b *testing.B) {
	e, in := benchEngine(b, 1000), payCall(b, `{}`)
	b.ReportAllocs()
	for b.Loop() {
		if !e.Listed(b.Context(), in) {
			b.Fatal("hidden")
		}
	}
}

// BenchmarkLoad is what a start or a swap costs.
func BenchmarkLoad(b *testing.B) {
	archive := benchEngine(b, 1000).Bundle()
	for b.Loop() {
		if _, err := Load(archive, publicKey(), 0); err != nil {
			b.Fatal(err)
		}
	}
}
