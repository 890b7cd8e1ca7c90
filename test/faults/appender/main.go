// Command appender appends records to a ledger and prints what it may rely on, for tests that end it.
//
//	appender -dir DIR [-url URL] [-writer ID] [-sequence] [-records N] [-rate N] …
//
// Its lines are those of [faults.Run]. It ends in order when its standard input
// does, and with code 1 and the error on standard error when a part failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/lineal-auth/lineal/test/faults"
)

func main() {
	var w faults.Work
	flag.StringVar(&w.Place.Dir, "dir", "", "directory of tiles and database")
	flag.StringVar(&w.Place.URL, "url", "", "PostgreSQL database, instead of one in the directory")
	flag.DurationVar(&w.Place.Clock, "clock", 0, "added to the store's clock")
	flag.StringVar(&w.Writer, "writer", "", "writer id; none appends nothing")
	flag.BoolVar(&w.Sequence, "sequence", false, "take part in the sequencing")
	flag.DurationVar(&w.Lease, "lease", 0, "life of the sequencer's lease")
	flag.IntVar(&w.Records, "records", 0, "records to append; 0: until standard input ends")
	flag.IntVar(&w.Callers, "callers", 0, "that append at once")
	flag.IntVar(&w.Rate, "rate", 0, "records offered in a second")
	flag.DurationVar(&w.Deadline, "deadline", 0, "of a record")
	flag.Int64Var(&w.Intake, "intake", 0, "rows in intake that refuse more")
	flag.IntVar(&w.Queued, "queued", 0, "drafts that may wait")
	flag.Parse()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := faults.Run(ctx, w, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "appender:", err)
		os.Exit(1)
	}
}
