package ledger

import "errors"

// codeError is an error with a stable code. Sentinels are compared with
// errors.Is and wrapped with "doing X: %w".
type codeError struct{ code, text string }

func (e *codeError) Error() string { return e.text }

// The errors on which a caller branches. What each one says about the data is
// part of the contract of [Store].
var (
	// ErrUnavailable: a definite failure. Nothing was written, no seq was
	// consumed; the call may be tried again.
	ErrUnavailable error = &codeError{"ledger_unavailable", "ledger is unavailable"}
	// ErrAmbiguous: the answer was lost, so the write may or may not be
	// durable. Peers see it as ledger_unavailable: nothing may be forwarded.
	ErrAmbiguous error = &codeError{"ledger_unavailable", "ledger did not confirm the write"}
	// ErrTooLarge: an entry or draft is over a limit of the log's format.
	ErrTooLarge error = &codeError{"limit_exceeded", "entry is too large for the log"}
	// ErrClosed: the writer, sequencer or store was closed.
	ErrClosed error = &codeError{"ledger_unavailable", "ledger is closed"}

	// ErrStaleWriter: a newer run of this writer id took over. Fatal.
	ErrStaleWriter error = &codeError{"stale_writer", "a newer run of this writer has started"}
	// ErrWriterConflict: the stored tail is neither the one before the batch
	// nor the one after it; so a restored database shows. Fatal.
	ErrWriterConflict error = &codeError{"writer_conflict", "stored tail of this writer disagrees"}
	// ErrRejected: the sequencer refused a record of this writer, so that nothing
	// it appends can follow what the log has of it. Fatal; the writer stays
	// stopped until its row is set anew (ResetWriters).
	ErrRejected error = &codeError{"record_rejected", "the sequencer refused a record of this writer"}
	// ErrRetired: the keys of this writer were ended, so that the sequencer would
	// refuse what it appends. Fatal; a new key readmits it (ReadmitWriter).
	ErrRetired error = &codeError{"writer_retired", "the keys of this writer were ended"}
	// ErrEpochLost: another sequencer holds the log. Fatal for this one.
	ErrEpochLost error = &codeError{"epoch_lost", "another sequencer has taken over the log"}
	// ErrLeaseHeld: another sequencer's lease has not run out.
	ErrLeaseHeld error = &codeError{"lease_held", "another sequencer holds the lease"}
	// ErrClockBehind: the database clock is before the last sequencing.
	// Nothing was written.
	ErrClockBehind error = &codeError{"clock_behind", "database clock is before the last entry"}
	// ErrRollbackDetected: something outside the database has seen a larger
	// tree than the database holds. The log must not be extended.
	ErrRollbackDetected error = &codeError{"rollback_detected", "a larger tree than the stored one was seen"}
	// ErrNotRolledBack: nothing outside the database has seen more of the log than
	// the database holds, so that there is nothing to recover from.
	ErrNotRolledBack error = &codeError{"not_rolled_back", "nothing has seen more of the log than the store holds"}
	// ErrFork: two roots for one size, or tile bytes that disagree. Fatal.
	ErrFork error = &codeError{"fork_detected", "the log contradicts what was written before"}
	// ErrWitnessDisagrees: a witness has seen a larger tree or another one. It may
	// lie, so that calls go on; nothing is published until an operator has looked.
	ErrWitnessDisagrees error = &codeError{"witness_disagrees", "a witness contradicts the log"}
	// ErrCorrupt: stored bytes do not match their hash. Fatal.
	ErrCorrupt error = &codeError{"ledger_corrupt", "stored data is corrupt"}
	// ErrEngine: the engine reported an input/output error or corruption. The
	// store refuses everything from then on; the process must end and recover.
	ErrEngine error = &codeError{"ledger_engine_failed", "storage engine failed"}

	// ErrDuplicate: a record id is stored already. Nothing was written.
	ErrDuplicate error = &codeError{"record_exists", "record id exists already"}
	// ErrNotFound: there is no such log, record, blob or checkpoint.
	ErrNotFound error = &codeError{"not_found", "not found in the ledger"}
	// ErrNotPublished: the record is stored, but no published checkpoint
	// covers it yet.
	ErrNotPublished error = &codeError{"not_published", "no published checkpoint covers the record yet"}
	// ErrReadOnly: the store was opened for reading, or without the right to
	// create a log.
	ErrReadOnly error = &codeError{"ledger_read_only", "store does not allow this write"}
)

// Code gives the stable code of err, or "" if it holds none of this package's
// errors.
func Code(err error) string {
	var c *codeError
	if errors.As(err, &c) {
		return c.code
	}
	return ""
}

// Fatal reports whether the process that saw err must end and start again
// through recovery, because going on could lose or contradict an entry.
func Fatal(err error) bool {
	for _, f := range []error{ErrStaleWriter, ErrWriterConflict, ErrRejected, ErrRetired, ErrEpochLost, ErrRollbackDetected, ErrFork, ErrCorrupt, ErrEngine} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// Cause says why a draft was refused with ErrUnavailable or ErrAmbiguous. The
// list is closed.
type Cause string

// The causes.
const (
	CauseQueue   Cause = "queue_full"         // too many drafts wait already
	CauseIntake  Cause = "intake_backlog"     // the sequencer is too far behind
	CauseRoom    Cause = "disk_low"           // there is too little room
	CauseLate    Cause = "late"               // the deadline passed, or the caller left
	CauseStore   Cause = "ledger_unavailable" // the store failed
	CauseStopped Cause = "writer_stopped"     // closed, or ended by a fatal error
)

// Causes lists them all.
func Causes() []Cause {
	return []Cause{CauseQueue, CauseIntake, CauseRoom, CauseLate, CauseStore, CauseStopped}
}

// refusal is an error with its cause.
type refusal struct {
	cause Cause
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// CauseOf gives the cause of a refusal by [Writer], "" if err is none for want
// of the ledger.
func CauseOf(err error) Cause {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.cause
	case errors.Is(err, ErrClosed):
		return CauseStopped
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrAmbiguous):
		return CauseStore
	default:
		return ""
	}
}
