package scenario

import (
	"testing"

	"github.com/lineal-auth/lineal/record"
)

// TestBulkIsOfRecords: whatever is filled in, the result is canonical, and says
// what the log promises of it.
func TestBulkIsOfRecords(t *testing.T) {
	b, err := NewBulk(1e6, 100_000, 200, 500)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int64{}
	for _, txn := range []int64{0, 1, 7, 27, 5000, 999_999} {
		for k := range int64(PerTransaction) {
			i := txn*PerTransaction + k
			r, err := record.Parse(b.Payload(i))
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			if other, twice := seen[r.ID]; twice || r.ID != b.RecordID(i) {
				t.Errorf("record %d: id %s, also of %d", i, r.ID, other)
			}
			seen[r.ID] = i
			switch d := r.Decision; {
			case r.Outcome != nil:
				if of := seen[r.Outcome.Of]; of/PerTransaction != txn || b.CallOf(of) != r.Outcome.CallID {
					t.Errorf("record %d is the outcome of %d", i, of)
				}
			case d != nil:
				if d.Txn != b.Txn(txn) || d.Person.Ref != b.Person(txn) || d.CallID != b.CallOf(i) ||
					len(d.Chain) == 2 && (d.Caller.Proven != b.Agent(txn) || d.Callee.ID != b.Resource(txn)) ||
					(d.Verdict.Effect == record.Deny) != (k == 7 && b.Refused(txn)) {
					t.Errorf("record %d: %+v", i, d)
				}
			}
		}
	}
}
