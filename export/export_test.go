package export_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/lineal-auth/lineal/export"
	"github.com/lineal-auth/lineal/record"
)

func payload(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../record/testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}

// TestLineHoldsTheRecordsBytes: what a receiver keeps of a line is compared with
// a verified bundle by the hash of exactly these bytes.
func TestLineHoldsTheRecordsBytes(t *testing.T) {
	p := payload(t, "decision")
	e, err := export.NewEntry(`ledger.example/std/2027-03`, 1<<53-1, p)
	if err != nil {
		t.Fatal(err)
	}
	line, err := export.Line(e)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Index  int64           `json:"index"`
		Hash   string          `json:"record_hash"`
		Record json.RawMessage `json:"record"`
		Origin string          `json:"origin"`
	}
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if got.Index != 1<<53-1 || got.Origin != e.Origin || got.Hash != record.Hash(got.Record) || !bytes.Equal(got.Record, p) {
		t.Errorf("line %s", line)
	}
	if bytes.ContainsRune(line, '\n') {
		t.Error("the line is broken")
	}
}

func TestEntryRefusesWhatIsNoRecord(t *testing.T) {
	for _, bad := range []string{"", "{}", `{"kind":"decision"}`, string(payload(t, "decision")) + " "} {
		if _, err := export.NewEntry("ledger.example/std/2027-03", 0, []byte(bad)); err == nil {
			t.Errorf("%.20q is taken for a record", bad)
		}
	}
}

func ExampleLine() {
	b, err := os.ReadFile("../record/testdata/heartbeat.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	e, err := export.NewEntry("ledger.example/std/2027-03", 12, bytes.TrimSpace(b))
	if err != nil {
		fmt.Println(err)
		return
	}
	line, err := export.Line(e)
	fmt.Println(string(line[:11]), err)
	// Output: {"index":12 <nil>
}
