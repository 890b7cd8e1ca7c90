package scope

import "testing"

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse([]byte(grantOrchestrator), true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubsumes(b *testing.B) {
	p, c := mustParse(b, grantOrchestrator, true), mustParse(b, grantRead, false)
	b.ReportAllocs()
	for b.Loop() {
		if err := Subsumes(p, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPermits(b *testing.B) {
	g := mustParse(b, grantRead, false)
	c := sqlCall(b, `["id","status"]`, "/sql/pred/crm.orders/customer_id", `"C-4711"`)
	b.ReportAllocs()
	for b.Loop() {
		if !g.Permits(c).Permitted() {
			b.Fatal("refused")
		}
	}
}
