package sqlscope

import "testing"

// BenchmarkSQL is one Read: parse, walk, print, and all of it again.
func BenchmarkSQL(b *testing.B) {
	r := reader(b)
	for name, sql := range map[string]string{
		"small": `SELECT id, status FROM crm.orders WHERE customer_id = 'C-4711'`,
		"large": sample,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Read(b.Context(), sql); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
