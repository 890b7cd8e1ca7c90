package search_test

import (
	"fmt"
	"os"

	"github.com/lineal-auth/lineal/search"
)

// An auditor asks for the way of one call: the index is fed from the ledger,
// entry by entry, and answers from that alone.
func Example() {
	var entries [][]byte // the payloads of the log, in index order

	x := search.New(search.Config{})
	for i, payload := range entries {
		if err := x.Add(int64(i), payload); err != nil {
			fmt.Println(err)
			return
		}
	}
	lineage, err := x.Trace("01a40584-b456-7aec-82b8-58489825c952")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = lineage.WriteText(os.Stdout)
	// Output: tracing "01a40584-b456-7aec-82b8-58489825c952": no such record
}
