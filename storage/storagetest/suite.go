package storagetest

import "testing"

// Run holds an engine to the contract of [ledger.Store].
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Opener)
	}{
		{"UnknownLog", testUnknownLog},
		{"StaleWriter", testStaleWriter},
		{"WriterConflict", testWriterConflict},
		{"DamagedTail", testDamagedTail},
		{"RejectedStopsWriter", testRejectedStopsWriter},
		{"ResetWriters", testResetWriters},
		{"RetireWriter", testRetireWriter},
		{"ResendIsIdempotent", testResendIsIdempotent},
		{"DuplicateRecord", testDuplicateRecord},
		{"EntrySize", testEntrySize},
		{"Blobs", testBlobs},
		{"LostEpoch", testLostEpoch},
		{"CheckpointFork", testCheckpointFork},
		{"ConcurrentAppends", testConcurrentAppends},
		{"Shred", testShred},
		{"Roll", testRoll},
		{"RollUnpublished", testRollUnpublished},
		{"RollAtEnd", testRollAtEnd},
		{"Restore", testRestore},
		{"Prune", testPrune},
		{"ReopenKeepsEverything", testReopenKeepsEverything},
		{"Closed", testClosed},
		{"Cancelled", testCancelled},
		{"WriterRuns", testWriterRuns},
		{"OneBadDraft", testOneBadDraft},
		{"Deadline", testDeadline},
		{"AmbiguousIsResent", testAmbiguousIsResent},
		{"Unavailable", testUnavailable},
		{"FullQueue", testFullQueue},
		{"CloseGivesUp", testCloseGivesUp},
		{"Backlog", testBacklog},
		{"Proofs", testProofs},
		{"Rejected", testRejected},
		{"CheckUnable", testCheckUnable},
		{"DiskFullForAWhile", testDiskFullForAWhile},
		{"LeafHashIsChecked", testLeafHashIsChecked},
		{"TwoSequencers", testTwoSequencers},
		{"Rollback", testRollback},
		{"AfterRollback", testAfterRollback},
		{"TilesRebuilt", testTilesRebuilt},
		{"Mirror", testMirror},
		{"MirrorRefuses", testMirrorRefuses},
		{"Rebuild", testRebuild},
		{"FsckFindsEveryFile", testFsckFindsEveryFile},
		{"Faults", testFaults},
		{"FaultsAtTileEnd", testFaultsAtTileEnd},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}
